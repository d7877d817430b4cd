"""Experiments with texts, on a few lines: from the files to what is printed."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lmu.commands import app
from lmu.experiments import EXPERIMENTS, Budget, Record, Run, evaluate
from lmu.experiments.data import Dataset, Split, Vocabulary
from lmu.experiments.models import LanguageModel
from lmu.experiments.running import count_parameters
from tests.lmu.text_files import text_files

BOUND = 1e-4  # float32, a few hundred additions of numbers of size 1


def lmu(*words: str, fails: bool = False) -> str:
    result = CliRunner().invoke(app, words)
    assert (result.exit_code != 0) == fails, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_files(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        *((name, model) for name in ("imdb", "qqp", "snli") for model in EXPERIMENTS[name].models),
        ("text8", "lmu"),
        ("text8", "lstm"),
        ("text8", "gated-blocks"),
        ("scaling", "min-gru-25k"),
        ("characters", "ngrams"),
        ("characters", "gru"),
        ("iwslt15", "lmu"),
        ("iwslt15", "lstm"),
    ],
)
@pytest.mark.sampled(2)
def test_what_was_trained_streams(name: str, model: str, folder: Path, tmp_path: Path) -> None:
    run = Run(
        EXPERIMENTS[name],
        tmp_path,
        model=model,
        budget=Budget.QUICK,
        epochs=1,
        data_folder=folder,
    )
    record, _ = run.train()
    assert record.model == model and record.reduced
    result = evaluate(
        EXPERIMENTS[name], tmp_path / "best.safetensors", data_folder=folder, streaming=True
    )
    assert result.largest_difference is not None and result.largest_difference < BOUND
    assert result.score == pytest.approx(record.figures[run.recipe.metric.name], rel=1e-5)


@pytest.mark.parametrize("name", ["qqp", "snli", "imdb"])
def test_the_papers_networks_have_the_papers_size(name: str) -> None:
    words = Vocabulary(["a"], torch.zeros(1, 300))
    nothing = Split(torch.empty(0), torch.empty(0))
    data = Dataset(nothing, nothing, nothing, words)
    count = count_parameters(EXPERIMENTS[name].setting("lmu-mean").network(data))
    target = EXPERIMENTS[name].target
    assert target is not None and count == target.parameters


@pytest.mark.parametrize("budget", list(Budget))
def test_the_lstm_that_is_compared_with_is_as_large(budget: Budget) -> None:
    nothing = Split(torch.empty(0), torch.empty(0))
    models = EXPERIMENTS["text8"].models
    data = Dataset(nothing, nothing, nothing)
    *ours, theirs = (
        count_parameters(models[name][budget].network(data)) for name in ("lmu", "min-gru", "lstm")
    )
    assert all(abs(each - theirs) < 0.05 * theirs for each in ours)


@pytest.mark.parametrize("budget", list(Budget))
def test_the_translator_that_is_compared_with_is_as_large(budget: Budget) -> None:
    nothing = Split(torch.empty(0), torch.empty(0))
    pieces = range(4_000 if budget is Budget.QUICK else 8_000)  # what is asked for is their number
    data = Dataset(nothing, nothing, nothing, (pieces, pieces))
    models = EXPERIMENTS["iwslt15"].models
    ours, theirs = (
        count_parameters(models[name][budget].network(data)) for name in ("lmu", "lstm")
    )
    assert abs(ours - theirs) < 0.05 * theirs


def test_translations_are_scored(folder: Path, tmp_path: Path) -> None:
    run = Run(EXPERIMENTS["iwslt15"], tmp_path, budget=Budget.QUICK, epochs=1, data_folder=folder)
    record, _ = run.train()
    assert list(record.figures) == [
        "BLEU, beam of 5",
        "BLEU, greedy",
        "nats per piece",
        "pieces right",
    ]
    assert all(0.0 <= value <= 100.0 for value in record.figures.values())
    assert record.versions["BLEU"].startswith("nrefs:1|case:mixed|eff:no|tok:none|")
    assert record.recipe["schedule"] == "warmup_then_cosine"
    assert record.recipe["loss"] == "padded_loss(smoothing=0.1)"
    assert Record.from_json(record.to_json()) == record


def test_a_trained_model_writes(folder: Path, tmp_path: Path) -> None:
    options = ("--data-dir", str(folder), "--budget", "quick", "--epochs", "1")
    lmu("train", "text8", *options, "--output", str(tmp_path))
    words = ("write", "text8", "--checkpoint", str(tmp_path / "best.safetensors"))
    words += ("--data-dir", str(folder), "--length", "30", "--prompt", " the cat")
    written = lmu(*words)
    assert written.startswith(" the cat") and len(written.rstrip("\n")) == 8 + 30
    assert lmu(*words) == written
    assert lmu(*words, "--seed", "1") != written
    assert "letter 'T'" in lmu(*words[:-1], "The cat", fails=True)


def test_a_trained_translator_translates(folder: Path, tmp_path: Path) -> None:
    options = ("--data-dir", str(folder), "--budget", "quick", "--epochs", "1")
    lmu("train", "iwslt15", *options, "--output", str(tmp_path))
    words = ("--checkpoint", str(tmp_path / "best.safetensors"), "--data-dir", str(folder))
    translated = lmu("translate", "iwslt15", "a cat", "the cat sat .", "--beams", "2", *words)
    assert len(translated.splitlines()) == 2
    refusal = lmu("write", "iwslt15", *words, "--prompt", "a", fails=True)
    assert "expected an experiment with a language model" in refusal


def test_a_language_model_of_words_writes(folder: Path, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["imdb-language"]
    run = Run(experiment, tmp_path, budget=Budget.QUICK, epochs=1, data_folder=folder)
    assert isinstance(run.network, LanguageModel)
    run.train()
    words = ("--checkpoint", str(tmp_path / "best.safetensors"), "--data-dir", str(folder))
    written = lmu("write", "imdb-language", *words, "--prompt", "A cat", "--length", "3")
    assert written.startswith("a cat")
