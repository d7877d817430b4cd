"""The command: what can be typed, what it prints, and what it says when it cannot."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lmu import cli
from lmu.commands import app
from lmu.experiments import EXPERIMENTS, Budget, Experiment
from lmu.experiments.data import Dataset
from tests import forked


@pytest.fixture(autouse=True)
def tiny_is_known(tiny: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Experiment:
    """Add the tiny experiment, in an empty folder and a terminal that is wide enough."""
    monkeypatch.setitem(EXPERIMENTS, "tiny", tiny)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tiny


def lmu(*words: str, fails: bool = False) -> str:
    """Run the command and return all that it printed."""
    result = CliRunner().invoke(app, words)
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def test_list_names_every_experiment_and_its_figure() -> None:
    output = lmu("list")
    for experiment in EXPERIMENTS.values():
        assert experiment.name in output
        assert all(f"{figure.value:g}" in output for figure in experiment.published)


def test_train_prints_the_score_beside_the_published_ones() -> None:
    output = lmu("train", "tiny", "--epochs", "2")
    for words in (
        "this run (lmu), epoch",
        "of 2",
        "guessing",
        "50",
        "hoping",
        "unconfirmed",
        "an epoch",
    ):
        assert words in output
    assert Path("runs/tiny-lmu-full-seed0/best.safetensors").is_file()


def test_train_shows_no_progress_bar_where_there_is_no_terminal() -> None:
    assert "%|" not in lmu("train", "tiny", "--epochs", "2")


def test_train_writes_for_tensorboard_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lmu("train", "tiny", "--epochs", "1", "--tensorboard", "--output", "here")
    assert list(Path("here").glob("events.out.tfevents.*"))
    monkeypatch.setattr(sys.modules["lmu.commands.train"], "find_spec", lambda name: None)
    refusal = lmu("train", "tiny", "--tensorboard", "--output", "there", fails=True)
    assert "linrec[tensorboard]" in refusal and not Path("there").exists()


def test_train_refuses_a_second_run_and_resumes_the_first() -> None:
    first = lmu("train", "tiny", "--epochs", "2", "--output", "here")
    refusal = lmu("train", "tiny", "--epochs", "2", "--output", "here", fails=True)
    assert refusal.startswith("error: `here` holds a run already")
    assert "Traceback" not in refusal
    assert lmu("train", "tiny", "--epochs", "2", "--output", "here", "--resume") == first


def test_train_refuses_to_resume_another_run() -> None:
    lmu("train", "tiny", "--epochs", "2", "--output", "here")
    refusal = lmu("train", "tiny", "--epochs", "3", "--output", "here", "--resume", fails=True)
    assert "`epochs` is 2 there and 3 here" in refusal


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def something_else(path: Path) -> None:
    path.write_text("[]", encoding="utf-8") if path.suffix == ".json" else torch.save([], path)


@pytest.mark.parametrize("name", ["config.json", "last.safetensors", "best.safetensors"])
@pytest.mark.parametrize("damage", [cut, something_else])
def test_train_names_the_file_for_which_it_cannot_go_on(
    name: str, damage: Callable[[Path], None]
) -> None:
    words = ("train", "tiny", "--epochs", "1", "--output", "here")
    lmu(*words)
    damage(Path("here", name))
    refusal = lmu(*words, "--resume", fails=True)
    assert refusal.startswith(f"error: `here/{name}` ") and "--output FOLDER" in refusal


def test_train_takes_a_model_and_a_budget_and_keeps_a_record() -> None:
    words = ("train", "tiny", "--model", "lstm", "--budget", "quick", "--record", "records")
    output = lmu(*words)
    assert "this run (lstm), epoch" in output and "of 2" in output
    kept = Path("records/tiny/lstm-quick-seed0.json").read_text(encoding="utf-8")
    assert kept == Path("runs/tiny-lstm-quick-seed0/result.json").read_text(encoding="utf-8")


def test_train_takes_a_learning_rate() -> None:
    lmu("train", "tiny", "--epochs", "1", "--learning-rate", "0.25", "--output", "here")
    config = json.loads(Path("here", "config.json").read_text(encoding="utf-8"))
    assert config["learning_rate"] == 0.25
    refusal = lmu("train", "tiny", "--learning-rate", "0", "--output", "there", fails=True)
    assert "expected a positive number" in refusal


def test_train_says_what_the_data_lack(tiny: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    def reduced(seed: int, folder: object, budget: Budget) -> Dataset:
        return tiny.data(seed, None, budget)._replace(reduced="half of it is missing.")

    monkeypatch.setitem(EXPERIMENTS, "tiny", replace(tiny, data=reduced))
    assert "not the published ones: half of it is missing." in lmu("train", "tiny", "--epochs", "1")


def test_train_takes_a_seed_a_device_and_threads() -> None:
    threads = torch.get_num_threads()
    lmu("train", "tiny", "--epochs", "1", "--seed", "4", "--device", "cpu", "--threads", "1")
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    assert Path("runs/tiny-lmu-full-seed4").is_dir()


def test_an_interrupted_training_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lmu.experiments.training.loop.Training.finish_epoch", interrupt)
        assert "--resume" in lmu("train", "tiny", "--epochs", "1", fails=True)
    assert "this run" in lmu("train", "tiny", "--epochs", "1", "--resume")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "nothing"), "expected one of psmnist"),
        (("train", "tiny", "--epochs", "0"), "--epochs"),
        (("train", "tiny", "--budget", "large"), "quick"),
        (("train", "tiny", "--model", "gru"), "expected one of lmu, lstm"),
        (("train", "tiny", "--device", "abacus"), "expected `cpu`"),
        (("train", "tiny", "--seed", str(2**70)), "--seed"),
        (("train", "mackey-glass", "--seed", "-1"), "--seed"),
        (("train", "psmnist", "--data-dir", "nowhere"), "data folder `nowhere` does not exist"),
        (("evaluate", "tiny", "--checkpoint", "nowhere.pt"), "is no file"),
    ],
)
def test_a_mistake_is_answered_by_what_to_type(words: tuple[str, ...], said: str) -> None:
    output = lmu(*words, fails=True)
    assert said in output
    assert "Traceback" not in output


PLACES = [
    "file",
    "file/below",
    pytest.param("/proc", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux's")),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "words", [("train", "tiny", "--record"), ("speedup", "psmnist", "--output")]
)
def test_a_place_that_cannot_be_written_is_refused_before_time_is_spent(
    words: tuple[str, ...], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend(*arguments: object) -> None:
        pytest.fail("time was spent")

    monkeypatch.setattr("lmu.experiments.training.loop.Training.step", spend)
    monkeypatch.setattr(sys.modules["lmu.commands.speedup"], "measure", spend)
    Path("file").touch()
    refusal = lmu(*words, place, fails=True)
    assert words[-1] in refusal and f"nothing can be written into `{place}" in refusal
    assert not Path("runs").exists()


def test_the_score_is_printed_if_its_record_cannot_be_kept() -> None:
    Path("records/tiny/lmu-full-seed0.json").mkdir(parents=True)
    output = lmu("train", "tiny", "--epochs", "1", "--record", "records", fails=True)
    assert "this run (lmu)" in output and "error: " in output


def test_a_loss_that_is_no_number_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*arguments: object) -> None:
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr("lmu.experiments.training.loop.Training.step", diverge)
    assert "error: the loss is nan" in lmu("train", "tiny", fails=True)


def test_evaluate_scores_and_compares_the_two_forms() -> None:
    lmu("train", "tiny", "--output", "here")
    words = ("evaluate", "tiny", "--checkpoint", "here/best.safetensors", "--limit", "25")
    plain = lmu(*words)
    assert "25 test examples" in plain
    assert "recurrent form" not in plain
    compared = lmu(*words, "--streaming")
    for said in ("parallel form", "recurrent form", "predictions that differ: 0 of 25", "largest"):
        assert said in compared


def test_evaluate_finds_the_data_of_the_checkpoints_seed() -> None:
    trained = lmu("train", "tiny", "--seed", "2", "--output", "here")
    evaluated = lmu("evaluate", "tiny", "--checkpoint", "here/best.safetensors")

    def score(output: str) -> str:
        row = next(line for line in output.splitlines() if "this " in line)
        return row.split("│")[2].strip()

    assert score(trained) == score(evaluated)


def test_version_is_that_of_the_distribution() -> None:
    try:
        expected = version("linrec")
    except PackageNotFoundError:
        pytest.skip("linrec is not installed: it has no version to say")
    assert lmu("--version").strip() == expected


def test_without_the_extra_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "pooch" else object())
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert "lmu needs pooch" in str(stopped.value)
    assert "pip install 'linrec[experiments]'" in str(stopped.value)


def test_importing_lmu_imports_nothing_of_the_extra() -> None:
    code = (
        "import sys, torch; before = set(sys.modules);"  # torch takes tqdm where there is one
        f"import lmu, lmu.cli; print(sorted(set({cli.NEEDED!r}) & (set(sys.modules) - before)))"
    )
    output = forked.run(code)
    assert output.stdout.strip() == "[]"


def run_module(*words: str, encoding: str) -> str:
    """Run the command in a process of its own, its output in a pipe."""
    program = "from lmu.cli import main; main()"
    environment = {**os.environ, "LC_ALL": "C", "COLUMNS": ""}
    done = forked.run(program, *words, environment=environment, encoding=encoding)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_are_whole_in_a_pipe_and_letters_are_replaced_in_ascii() -> None:
    listed = run_module("list", encoding="utf-8")
    for experiment in EXPERIMENTS.values():
        if experiment.name != "tiny":
            row = next(line for line in listed.splitlines() if f" {experiment.name} " in line)
            assert ", ".join(experiment.models) in row and experiment.title in row
    assert " ? " in run_module("table", encoding="ascii")  # plus or minus
