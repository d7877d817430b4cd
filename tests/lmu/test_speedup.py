"""The speed-up: what is compared does the same work, and what is measured is kept and shown."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from linrec.stream.cuda_graph import WARM_UP, record
from lmu.commands import app
from lmu.experiments.speedup import CASES, Case, Speedups, Timing, Way, measure, over_length
from lmu.experiments.speedup import timing as timing_module
from lmu.experiments.speedup.cases import PSMNIST
from lmu.experiments.speedup.chart import chart
from lmu.experiments.tables import read_measured, speedup_tables

SIZES = {
    "psmnist": {Way.ORIGINAL: 102_027, Way.PARALLEL: 166_092, Way.FROZEN: 166_090},
    "mackey-glass": {Way.ORIGINAL: 18_050, Way.PARALLEL: 17_243, Way.LSTM: 18_026},
}

GRAPHS_OF_LENGTHS = {Way.ORIGINAL: Way.ORIGINAL_GRAPH, Way.PARALLEL: Way.PARALLEL_GRAPH}


def tiny(case: Case) -> Case:
    return replace(case, batch=2, length=12)


def timing(way: Way, *seconds: float, case: str = "psmnist", length: int = 784) -> Timing:
    return Timing(case, f"{case}, {length}", way, 100, length, 500, 7, seconds)


FOUND = Speedups(
    (
        timing(Way.ORIGINAL, 1.0, 2.0, 9.0),
        timing(Way.PARALLEL, 0.004, 0.008),
        timing(Way.ORIGINAL, 8.0, case="length-64", length=64),
        timing(Way.PARALLEL, 0.5, case="length-64", length=64),
        timing(Way.PARALLEL, 0.6, case="length-256", length=256),
    ),
    {"torch": "2"},
    "a machine",
)


@pytest.mark.parametrize("case", [*CASES, over_length(12)], ids=lambda case: case.name)
def test_every_way_learns(case: Case) -> None:
    for way, build in case.tasks.items():
        torch.manual_seed(0)
        task = build(tiny(case))
        before = [p.detach().clone() for p in task.network.parameters() if p.requires_grad]
        step = task.training_step()
        step()
        after = [p for p in task.network.parameters() if p.requires_grad]
        changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert all(changed), f"{way}: {changed}"
        assert len(task.targets) == 2


@pytest.mark.parametrize("name", SIZES)
def test_the_networks_have_the_published_sizes(name: str) -> None:
    case = tiny(next(case for case in CASES if case.name == name))
    for way, count in SIZES[name].items():
        network = case.tasks[way](case).network
        assert sum(p.numel() for p in network.parameters() if p.requires_grad) == count


def test_the_forms_of_the_simplified_unit_are_one_function() -> None:
    case, losses = tiny(over_length(12)), {}
    for way in (Way.STEPPED, Way.PARALLEL):
        torch.manual_seed(0)
        task = case.tasks[way](case)
        losses[way] = task.loss(task.forward(task.inputs), task.targets).item()
    assert losses[Way.STEPPED] == pytest.approx(losses[Way.PARALLEL], rel=1e-5)


def test_ways_are_timed_by_turns() -> None:
    timings = measure(replace(tiny(over_length(12)), steps=5), turns=2, seconds=0.0)
    assert [t.way for t in timings] == [Way.ORIGINAL, Way.STEPPED, Way.PARALLEL]
    assert all(len(t.seconds) == 2 and min(t.seconds) > 0 for t in timings)
    assert all(t.epoch == 5 * t.step for t in timings)


def test_medians_are_compared() -> None:
    original, parallel = FOUND.timings[:2]
    assert (original.step, parallel.step) == (2.0, 0.006)
    assert FOUND.ratio(parallel) == pytest.approx(2.0 / 0.006)
    assert FOUND.ratio(FOUND.timings[-1]) is None


def test_timings_are_kept() -> None:
    assert Speedups.from_json(FOUND.to_json()) == FOUND
    anew = FOUND.with_case([timing(Way.PARALLEL, 7.0)])
    assert [t.step for t in anew.timings if t.case == "psmnist"] == [7.0]
    assert len(anew.timings) == 4


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"timings": [{"way": "slow"}]}'])
def test_what_is_no_record_of_timings_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no record of timings"):
        Speedups.from_json(text)


def test_tables_and_chart_show_the_ratios() -> None:
    tasks, lengths = speedup_tables(FOUND)
    assert tasks.rows[1][-1] == "333×" and "a machine" in tasks.notes[0]
    assert lengths.rows == (("64", "8 s", "500 ms", "16×"), ("256", "", "600 ms", ""))
    assert chart(FOUND).startswith(b"\x89PNG")


def test_the_command_adds_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = sys.modules["lmu.commands.speedup"]  # the name is its function's, too
    monkeypatch.setattr(command, "CASES", ())
    monkeypatch.setattr(command, "LENGTHS", (8, 16, 32))
    words = ["speedup", "lengths", "--turns", "1", "--seconds", "0", "--output", str(tmp_path)]
    for longest in ("8", "16"):
        result = CliRunner().invoke(app, [*words, "--longest", longest])
        assert result.exit_code == 0, result.output
    kept = Speedups.from_json((tmp_path / "speedup.json").read_text())
    assert {timing.length for timing in kept.timings} == {8, 16}
    assert (tmp_path / "speedup.png").is_file()
    (tmp_path / "speedup.json").write_text(replace(kept, hardware="another").to_json())
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and "timings of another machine (another)" in result.output
    result = CliRunner().invoke(app, ["speedup", "imdb"])
    assert result.exit_code == 1 and "expected one of psmnist" in result.output


def test_the_speed_ups_that_came_with_the_library() -> None:
    ratios = {(t.case, t.way): read_measured().ratio(t) for t in read_measured().timings}
    assert (ratios["psmnist", Way.PARALLEL] or 0) > 220
    assert {case for case, _ in ratios} >= {case.name for case in CASES}
    assert set(PSMNIST) == {way for case, way in ratios if case == "psmnist"}


def test_steps_are_recorded_as_graphs_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []
    monkeypatch.setattr(timing_module, "graphs_of", lambda case, device: GRAPHS_OF_LENGTHS)

    def record(device: str, step: object, threads: bool) -> tuple[None, object]:
        recorded.append(step)
        return None, step

    monkeypatch.setattr(timing_module, "record", record)
    timings = measure(tiny(over_length(12)), turns=2, seconds=0.0)
    ways = [Way.ORIGINAL, Way.STEPPED, Way.PARALLEL, *GRAPHS_OF_LENGTHS.values()]
    assert [t.way for t in timings] == ways and len(recorded) == 2
    assert chart(Speedups.here(timings)).startswith(b"\x89PNG")


def test_a_graph_that_cannot_be_recorded_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: str, step: object, threads: bool) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(timing_module, "graphs_of", lambda case, device: GRAPHS_OF_LENGTHS)
    monkeypatch.setattr(timing_module, "record", refuse)
    with pytest.warns(UserWarning, match="as a CUDA graph: operation not permitted"):
        timings = measure(tiny(over_length(12)), turns=1, seconds=0.0)
    assert [t.way for t in timings] == [Way.ORIGINAL, Way.STEPPED, Way.PARALLEL]


def test_long_stepped_networks_are_not_recorded() -> None:
    assert timing_module.graphs_of(over_length(1_024), "cuda") == GRAPHS_OF_LENGTHS
    assert list(timing_module.graphs_of(over_length(4_096), "cuda")) == [Way.PARALLEL]
    assert timing_module.graphs_of(over_length(64), "cpu") == {}


@pytest.mark.gpu
@pytest.mark.parametrize("way", (Way.ORIGINAL, Way.PARALLEL, Way.FROZEN, Way.LSTM))
def test_a_graph_takes_the_same_steps(way: Way) -> None:
    """Without dropout, ten replays leave the parameters where ten steps after the warm-up do."""
    case = replace(next(case for case in CASES if case.name == "psmnist"), batch=4, length=12)
    found = []
    for recorded in (False, True):
        torch.manual_seed(0)
        task = case.tasks[way](case).to("cuda")
        step = task.training_step(recorded=recorded)
        for module in task.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if recorded:
            _, step = record("cuda", step, threads=True)
        for _ in range(10 if recorded else 10 + WARM_UP):
            step()
        found.append([p.detach().clone() for p in task.network.parameters()])
    for eager, graphed in zip(*found, strict=True):
        torch.testing.assert_close(graphed, eager, rtol=1e-3, atol=1e-4)
