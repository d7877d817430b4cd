"""What is trained first, and handed over."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lmu.experiments import (
    EXPERIMENTS,
    Budget,
    Experiment,
    Pretraining,
    Record,
    Run,
    TrainingSetup,
)
from lmu.experiments.data import Vocabulary
from lmu.experiments.data.vocabulary import BEGIN, END, UNKNOWN
from lmu.experiments.imdb_pretrained import PIECE, cut_into_pieces, hand_over
from lmu.experiments.models import Network, TextClassifier
from lmu.experiments.training.loop import Training
from lmu.experiments.training.run_folder import LAST


def weights(network: nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(network.parameters())


def everything(pretrained: Network, network: Network) -> None:
    network.load_state_dict(pretrained.state_dict())


@pytest.fixture
def twice(tiny: Experiment) -> Experiment:
    """The tiny experiment, trained first by two epochs of itself."""
    first = replace(tiny, name="first", models={"lmu": tiny.models["lmu"]})
    setting = tiny.setting("lmu", Budget.QUICK)
    after = replace(setting, pretraining=Pretraining(first, everything))
    return replace(tiny, models={"lmu": {Budget.FULL: after, Budget.QUICK: after}})


def test_what_was_learned_before_is_where_training_begins(
    twice: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[torch.Tensor] = []
    start_epoch = Training.start_epoch

    def started(training: Training) -> None:
        begun.append(weights(training.network).detach().clone())
        start_epoch(training)

    monkeypatch.setattr(Training, "start_epoch", started)
    run = Run(twice, tmp_path / "run", budget=Budget.QUICK)
    record, outcome = run.train()
    assert run.before is not None
    assert len(begun) == 4  # epochs: two before, two after
    assert torch.equal(begun[2], weights(run.before.network))
    assert not torch.equal(begun[2], begun[0])
    text = (tmp_path / "run" / "pretraining" / "result.json").read_text()
    spent = Record.from_json(text).seconds
    own = sum(entry["seconds"] for entry in outcome.history)
    assert record.seconds == pytest.approx(own + spent, abs=0.11)
    assert record.epochs == 2


def test_a_run_goes_on_where_it_was_whichever_part_that_was(
    twice: Experiment, tmp_path: Path
) -> None:
    whole = Run(twice, tmp_path / "whole", budget=Budget.QUICK)
    whole.train()
    for place in ("pretraining/" + LAST, LAST):
        again = tmp_path / place.replace("/", "-")
        interrupted = Run(twice, again, budget=Budget.QUICK)
        interrupted.train()
        (again / place).unlink()  # as if it had been killed in the first epoch of this part
        if place != LAST:
            (again / LAST).unlink()
        resumed = Run(twice, again, budget=Budget.QUICK, resume=True)
        resumed.train()
        assert torch.equal(weights(resumed.network), weights(whole.network))


def test_texts_are_cut_into_pieces_that_lose_no_word() -> None:
    words = Vocabulary([f"w{number}" for number in range(300)])
    text = [f"w{number}" for number in range(300)]
    inputs, targets = cut_into_pieces([text, text[:3]], words)
    assert inputs.shape == targets.shape == (3, PIECE)
    said = targets.flatten()
    assert said[said != 0].tolist() == [*range(4, 304), END, BEGIN, 4, 5, 6, END]
    assert inputs[0, 0] == BEGIN and inputs[1, 0] == targets[0, -1]
    read, few = cut_into_pieces([text, text[:3]], words, said=10)
    assert torch.equal(read, inputs)
    assert few.flatten()[:8].tolist() == [4, 5, 6, 7, 8, 9, UNKNOWN, UNKNOWN]


def test_reviews_without_a_label_help_to_judge_the_others(tmp_path: Path) -> None:
    (tmp_path / "imdb").mkdir()
    with tarfile.open(tmp_path / "imdb/aclImdb_v1.tar.gz", "w:gz") as archive:
        for part in ("train/neg", "train/pos", "train/unsup", "test/neg", "test/pos"):
            for number in range(8):
                text = f"it was {'bad' if 'neg' in part else 'good'} {number}".encode()
                member = tarfile.TarInfo(f"aclImdb/{part}/{number}_5.txt")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
    experiment = EXPERIMENTS["imdb-pretrained"]
    run = Run(experiment, tmp_path / "run", budget=Budget.QUICK, epochs=1, data_folder=tmp_path)
    before = run.before
    assert before is not None and isinstance(run.network, TextClassifier)
    before.recipe = before.recipe.with_epochs(1)
    record, _ = run.train()
    assert list(record.figures) == ["accuracy"]
    hand_over(before.network, run.network)
    language, judge = before.network.state_dict(), run.network.state_dict()
    for name, learned in language.items():
        if name.startswith("layer."):
            there = name.replace("layer.", "reader.layer.layers.0.stack.", 1)
            assert torch.equal(judge[there], learned)
    assert torch.equal(judge["reader.words.embedding.weight"], language["words.embedding.weight"])


def test_a_setting_without_pretraining_trains_nothing_before(
    tiny: Experiment, tmp_path: Path
) -> None:
    assert isinstance(tiny.setting(), TrainingSetup)
    run = Run(tiny, tmp_path / "run", epochs=1)
    run.train()
    assert run.before is None and not (tmp_path / "run" / "pretraining").exists()
