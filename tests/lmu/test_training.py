"""Training: it learns, it survives being killed, and it refuses to lose a run."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from lmu.experiments.training import (
    BEST,
    Metric,
    Outcome,
    Recipe,
    RunFolder,
    flush_subnormals,
    predictions,
    train,
)
from lmu.experiments.training.loop import move_inputs
from lmu.experiments.training.run_folder import LAST
from lmu.files import read_checkpoint


def squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.stack([(outputs - targets).square().sum(), torch.tensor(float(targets.numel()))])


def mean(sums: Tensor) -> float:
    return (sums[0] / sums[1]).item()


RECIPE = Recipe(
    loss=nn.functional.mse_loss,
    metric=Metric("mean square error", squared_errors, mean, higher_is_better=False, digits=4),
    optimizer=partial(torch.optim.Adam, lr=1e-2),
    batch_size=7,
    epochs=6,
)
# All that a recipe can ask for, with a network that remembers more than its weights.
EVERYTHING = replace(
    RECIPE,
    examples=30,
    schedule=lambda done: 1.0 - 0.9 * done,
    max_gradient_norm=1.0,
    curriculum=lambda inputs, targets, done: (inputs + done * torch.randn_like(inputs), targets),
    adversarial_distance=0.3,
)
CONFIGURATION = {"seed": 3, "epochs": 6}


def examples(seed: int, count: int = 40) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return inputs, inputs.square().sum(-1, keepdim=True)


def run(
    path: Path,
    *,
    resume: bool = False,
    recipe: Recipe = RECIPE,
    seed: int = 3,
    progress: bool = False,
    tensorboard: bool = False,
) -> tuple[nn.Module, Outcome]:
    """Train a small network with dropout on 40 examples: six steps an epoch."""
    torch.manual_seed(0)
    running = nn.BatchNorm1d(16) if recipe.adversarial_distance else nn.Identity()
    network = nn.Sequential(nn.Linear(5, 16), running, nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
    folder = RunFolder(path, CONFIGURATION, resume=resume)
    return network, train(
        network,
        examples(1),
        examples(2),
        recipe,
        folder,
        seed=seed,
        progress=progress,
        tensorboard=tensorboard,
    )


def without_time(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: entry[key] for key in entry.keys() - {"seconds", "cpu_seconds"}} for entry in history
    ]


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_training_learns_and_leaves_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # what conftest.py leaves out: the curve
    _, outcome = run(tmp_path)
    losses = [entry["training_loss"] for entry in outcome.history]
    assert losses[-1] < 0.9 * losses[0]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "metrics.jsonl", BEST, LAST, "curve.png", "run.lock"}
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert logged(tmp_path) == outcome.history


def test_progress_is_shown_if_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "quiet")
    assert capsys.readouterr().err == ""
    run(tmp_path / "loud", progress=True)
    shown = capsys.readouterr().err
    assert "Epoch [2/6]" in shown
    assert "validation mean square error" in shown


def test_an_adversary_moves_inputs_to_where_the_loss_grows(tmp_path: Path) -> None:
    direction = torch.tensor([3.0, 0.0, 4.0])  # (squares of the third are zero in float32)
    gradient = torch.outer(torch.tensor([1.0, 0.0, 1e-25, 1e30]), direction)
    moved = move_inputs(torch.zeros(4, 3), gradient, 2.0)
    expected = torch.outer(torch.tensor([1.0, 0.0, 1.0, 1.0]), direction / 2.5)
    torch.testing.assert_close(moved, expected)
    seen: list[Tensor] = []

    def watched(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(nn.functional.mse_loss(outputs, targets))
        return seen[-1]

    torch.manual_seed(0)
    network, folder = nn.Linear(5, 1), RunFolder(tmp_path, CONFIGURATION)
    recipe = replace(RECIPE, loss=watched, adversarial_distance=0.3, batch_size=40, epochs=1)
    outcome = train(network, examples(1), examples(2), recipe, folder, seed=0)
    clean, worse = seen
    assert worse > clean
    halves = (clean + worse).item() / 2
    assert outcome.history[0]["training_loss"] == pytest.approx(halves)


def test_tensorboard_is_told_each_epoch_once(tmp_path: Path) -> None:
    _, outcome = run(tmp_path, recipe=replace(RECIPE, epochs=2), tensorboard=True)
    read = EventAccumulator(str(tmp_path)).Reload()
    scalars = {name: read.Scalars(name) for name in read.Tags()["scalars"]}
    scores = scalars["epoch/validation mean square error"]
    assert [event.step for event in scores] == [1, 2]
    expected = [entry["validation_score"] for entry in outcome.history]
    assert [event.value for event in scores] == pytest.approx(expected)
    assert len(scalars["epoch/training loss"]) == 2
    assert any("lr" in name for name in scalars)


def test_a_seed_decides_the_result(tmp_path: Path) -> None:
    one, first = run(tmp_path / "one")
    other, second = run(tmp_path / "other")
    different, _ = run(tmp_path / "different", seed=4)
    assert without_time(first.history) == without_time(second.history)
    assert same_weights(one, other)
    assert not same_weights(one, different)


def test_the_network_is_left_with_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    def from_ten(sums: Tensor) -> float:
        return abs(mean(sums) - 10.0)

    # The error falls from above 20 to below 10: this score is best on the way.
    metric = Metric("distance", squared_errors, from_ten, higher_is_better=False, digits=4)
    network, outcome = run(tmp_path, recipe=replace(RECIPE, metric=metric, epochs=12))
    scores = [entry["validation_score"] for entry in outcome.history]
    assert 1 < outcome.best_epoch == 1 + scores.index(min(scores)) < 12
    assert outcome.best_score == min(scores)
    assert metric.score(predictions(network, network, examples(2), 7)) == min(scores)
    assert read_checkpoint(tmp_path / BEST)["epoch"] == outcome.best_epoch


def test_without_validation_examples_the_last_epoch_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()  # what conftest.py leaves out: the curve
    torch.manual_seed(0)
    network, folder = nn.Linear(5, 1), RunFolder(tmp_path, CONFIGURATION)
    # (The last of these epochs makes the loss larger.)
    recipe = replace(RECIPE, schedule=lambda done: -9.0 if done > 0.8 else 1.0)
    outcome = train(network, examples(1), None, recipe, folder, seed=3, progress=True)
    losses = [entry["training_loss"] for entry in outcome.history]
    assert losses[-1] > losses[-2]
    assert (outcome.best_epoch, outcome.best_score) == (6, None)
    assert logged(tmp_path) == outcome.history
    checkpoint = read_checkpoint(tmp_path / BEST)
    assert checkpoint["epoch"] == 6
    assert torch.equal(checkpoint["network"]["weight"], network.weight)
    assert torch.equal(read_checkpoint(tmp_path / LAST)["network"]["weight"], network.weight)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "validation" not in capsys.readouterr().err


def test_of_a_metric_where_higher_is_better_the_highest_is_best(tmp_path: Path) -> None:
    upside_down = Metric("score", squared_errors, lambda sums: -mean(sums), True, 4)
    _, outcome = run(tmp_path, recipe=replace(RECIPE, metric=upside_down))
    assert outcome.best_score == max(entry["validation_score"] for entry in outcome.history)


EVERY_HOOK = "in the middle of an epoch of a recipe that asks for everything"
KILLS = {
    "before its configuration is in place": ("fsync", 1),
    "before its first epoch has ended": ("step", 3),
    "in the middle of an epoch": ("step", 15),
    "in the middle of a line of metrics": ("log", 3),
    "with a new best and an old last checkpoint": ("fsync", 8),
    "after the last step": ("log", 6),
    EVERY_HOOK: ("step", 33),  # of ten calls of the loss an epoch
}


def run_until_killed(path: Path, kind: str, count: int) -> None:
    """Train, and kill this process at the count-th step, flush to disk or logged line."""
    calls = 0

    def killing(function: Any, watched: str) -> Any:
        def wrapped(*arguments: Any) -> Any:
            nonlocal calls
            calls += kind == watched
            if kind == watched and calls == count:
                if kind == "log":
                    with (path / "metrics.jsonl").open("a") as file:
                        file.write('{"epoch": ')
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return wrapped

    os.fsync = killing(os.fsync, "fsync")
    RunFolder.log = killing(RunFolder.log, "log")
    recipe = recipe_of(path.name)
    run(path, recipe=replace(recipe, loss=killing(nn.functional.mse_loss, "step")))


def recipe_of(way: str) -> Recipe:
    return EVERYTHING if way == EVERY_HOOK else RECIPE


def kill_in_each_way(folder: Path) -> None:
    """Train in a process of its own for each way, until it is killed."""
    torch.set_num_threads(1)  # a process with worker threads cannot be forked
    run(folder / "whole", recipe=replace(EVERYTHING, epochs=1))  # imports what each would import
    for way, (kind, count) in KILLS.items():
        child = os.fork()
        if child == 0:
            signal.alarm(120)  # whatever a fork does to the locks of libraries, it ends
            run_until_killed(folder / way, kind, count)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, way


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of processes that were killed, one for each way."""
    folder = tmp_path_factory.mktemp("killed")
    code = f"import pathlib, test_training as t; t.kill_in_each_way(pathlib.Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, timeout=400)
    folders = {way: folder / way for way in KILLS}
    # A kill that came too early or too late would make the test below an easy one.
    mixed = folders["with a new best and an old last checkpoint"]
    best, last = (read_checkpoint(mixed / name) for name in (BEST, LAST))
    assert (best["epoch"], len(last["history"])) == (3, 2)
    assert not list(folders["before its configuration is in place"].glob("*.json"))
    assert not list(folders["before its first epoch has ended"].glob("*.safetensors"))
    return folders


@pytest.mark.parametrize("way", KILLS)
@pytest.mark.sampled(2)
def test_a_killed_run_goes_on_to_the_same_result(
    way: str, killed: dict[str, Path], tmp_path: Path
) -> None:
    expected_network, expected = run(tmp_path, recipe=recipe_of(way))
    network, outcome = run(killed[way], resume=True, recipe=recipe_of(way))
    assert without_time(outcome.history) == without_time(expected.history)
    assert without_time(logged(killed[way])) == without_time(expected.history)
    assert (outcome.best_epoch, outcome.best_score) == (expected.best_epoch, expected.best_score)
    assert same_weights(network, expected_network)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    network, outcome = run(tmp_path)
    written = (tmp_path / LAST).stat().st_mtime_ns
    again, same = run(tmp_path, resume=True)
    assert (tmp_path / LAST).stat().st_mtime_ns == written
    assert same == outcome
    assert same_weights(network, again)


def test_a_folder_with_a_run_is_not_written_over(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="--resume"):
        run(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="no run"):
            RunFolder(tmp_path, CONFIGURATION, resume=resume)


def test_a_run_does_not_go_on_with_another_configuration(tmp_path: Path) -> None:
    RunFolder(tmp_path, CONFIGURATION)
    with pytest.raises(ValueError, match="`epochs` is 6 there and 7 here"):
        RunFolder(tmp_path, {**CONFIGURATION, "epochs": 7}, resume=True)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, CONFIGURATION)
    torch.save({"network": print}, tmp_path / LAST)
    with pytest.raises(ValueError, match=r"last\.safetensors` cannot be read \(it holds more"):
        folder.load(LAST, lambda checkpoint: pytest.fail("it was read"))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PK")])
def test_a_run_without_its_best_weights_is_not_trained_on(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    run(tmp_path, recipe=replace(RECIPE, epochs=2))
    damage(tmp_path / BEST)
    recipe = replace(RECIPE, loss=lambda *_: pytest.fail("it was trained on"))
    with pytest.raises(ValueError, match=r"best\.safetensors` .*--output FOLDER"):
        run(tmp_path, resume=True, recipe=recipe)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    recipe = replace(RECIPE, loss=lambda p, t: nn.functional.mse_loss(p, t) * math.nan)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        run(tmp_path, recipe=recipe)


@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_predictions_do_not_depend_on_batches_and_drop_nothing_out(size: int) -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5))
    inputs, targets = examples(1)
    outputs, expected = zip(*predictions(network, network, (inputs, targets), size), strict=True)
    assert network.training
    assert len(outputs) == -(-40 // size)
    assert torch.equal(torch.cat(expected), targets)
    assert torch.allclose(torch.cat(outputs), network[0](inputs), atol=1e-6)
    assert not any(output.requires_grad for output in outputs)


def test_the_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    asked: list[float] = []

    def falling(done: float) -> float:
        asked.append(done)
        return 1.0 - done

    run(tmp_path, recipe=replace(RECIPE, schedule=falling))
    assert asked == [step / 36 for step in range(36)]  # six epochs of six steps
    rates = read_checkpoint(tmp_path / LAST)["optimizer"]["param_groups"]
    assert rates[0]["lr"] == pytest.approx(1e-2 * (1.0 - 35 / 36))


def test_long_gradients_are_shortened(tmp_path: Path) -> None:
    # Plain gradient descent moves by the gradient: no step is longer than rate times norm.
    recipe = replace(
        RECIPE, optimizer=partial(torch.optim.SGD, lr=0.5), max_gradient_norm=1e-3, epochs=1
    )
    torch.manual_seed(0)
    before = torch.nn.utils.parameters_to_vector(
        nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1)).parameters()
    )
    network, _ = run(tmp_path, recipe=recipe)
    moved = (torch.nn.utils.parameters_to_vector(network.parameters()) - before).norm()
    assert 0 < moved <= 6 * 0.5 * 1.001e-3


def test_no_epochs_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        RECIPE.with_epochs(0)


def test_subnormal_numbers_are_zeros_in_training_alone() -> None:
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    assert (tiny * 0.5).item() > 0
    with pytest.raises(KeyError), flush_subnormals():
        assert (tiny * 0.5).item() == 0
        raise KeyError
    assert (tiny * 0.5).item() > 0
