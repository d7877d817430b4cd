"""The benchmark: its measurements, files, charts and tables, but never the times themselves."""

import dataclasses
import importlib
import json
import re
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

import linrec
from linrec.benchmark import (
    accuracy,
    cases,
    certificates,
    crossover,
    latency,
    models,
    peak_memory,
    peers,
    recurrences,
    regret,
    small_models,
    tables,
    timing,
)
from linrec.benchmark.peers import Peer
from linrec.commands import app
from linrec.planner import CPU, Rates, rates
from linrec.reporting import duration

bench = importlib.import_module("linrec.commands.bench")  # the module, not the command

SMALL = (
    cases.all_states(2, 32, 4, most=1e9),
    cases.all_states(1, 16, 3, 2, most=1e-9),  # no time is so short: it misses its target
    cases.elementwise(2, 8, 3),
    cases.Case("a choice", "–", cases.choice),
)
TINY = Peer("tiny", "json", "pip install nothing", "states", "ways = {'forward': lambda: 1}")


def run(*words: object) -> str:
    done = CliRunner().invoke(app, ["bench", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(bench, "CASES", SMALL)
    monkeypatch.setattr(bench, "measure_rates", lambda seconds: CPU)
    little = partial(accuracy.measure_accuracy, (3,), (0.1,), 8)
    monkeypatch.setattr(accuracy, "measure_accuracy", little)
    brief = partial(certificates.measure_certificates, orders=(3,), steps=(20,))
    monkeypatch.setattr(certificates, "measure_certificates", brief)
    monkeypatch.setattr(latency, "ORDERS", (4, 5))
    monkeypatch.setattr(bench, "CALLS", 10)
    monkeypatch.setattr(bench, "QUICK", 0.01)
    monkeypatch.setattr(crossover, "STEPS", (16, 64))
    monkeypatch.setattr(crossover, "STATES", (4,))
    monkeypatch.setattr(peers, "SHAPES", {"states": ((1, 8, 2),), "elementwise": ((1, 8, 2),)})
    monkeypatch.setattr(peers, "PEERS", (TINY,))
    monkeypatch.setattr(models, "QUICK_STEPS", (4, 8))
    monkeypatch.setattr(models, "WIDTH", 8)
    monkeypatch.setattr(recurrences, "SIZES", ((2, 128, 4, 3),))
    monkeypatch.setattr(small_models, "STEPS", (5,))


def test_everything_is_measured_kept_drawn_and_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = run("--quick", "--output", out)
    assert "all states: 2 × 32, order 4" in printed
    assert re.search(r"\d (ns|µs|ms) ", printed)  # however busy the machine is
    run("--quick", "--charts", "--output", out)
    run("--quick", "--regret", "--shapes", 2, "--output", out)
    run("--quick", "--peers", "--dtype", "float32", "--dtype", "float64", "--output", out)
    assert "Error over the loop's error" in run("--accuracy", "--output", out)
    assert "GatedDeltaNet" in run("--quick", "--models", "--output", out)
    assert "bound over error" in run("--quick", "--certify", "--output", out)
    printed = run("--latency", "--output", out)
    assert "product A x" in printed and "p99" in printed
    kept = json.loads((out / "bench.json").read_text())
    assert kept.keys() == {"machine", "other machines", "rates", *tables.SECTIONS}
    assert not kept["other machines"]
    pictures = {"roofline.png", "crossover.png", "models.png"}
    assert {path.name for path in out.iterdir()} == {"bench.json", *pictures}
    assert all(row["seconds"] > 0 for row in [*kept["cases"], *kept["crossover"]])
    assert len(kept["regret"]["rows"]) == kept["regret"]["summary"]["shapes"] == 2
    assert kept["peers"][0]["peer"] == "tiny" and kept["peers"][0]["ours"] > 0
    assert kept["peers"][0]["ours, kept"] > 0
    assert [row["dtype"] for row in kept["peers"]] == ["float32", "float64"]

    page = tmp_path / "page.md"
    marks = [
        f"<!-- linrec bench: {n} -->\n<!-- linrec bench: end of {n} -->" for n in tables.SECTIONS
    ]
    page.write_text("# Speed\n\n" + "\nbetween\n".join(marks) + "\nafter\n")
    run("--page", page, "--output", out)
    once = page.read_text()
    assert once.startswith("# Speed\n") and once.endswith("\nafter\n") and "between" in once
    assert "| ours in kept memory | its time over that |" in once
    assert "| case | what | time |" in once and "★" in once and "Measured on" in once
    assert "**≤ 1e-09**" in once  # what misses its target is in bold
    run("--page", page, "--output", out)
    assert page.read_text() == once


def test_what_another_machine_measured_is_kept_under_its_name(tmp_path: Path) -> None:
    first, second = ({**timing.machine(), "processor": name} for name in ("First", "Second"))
    kept = {"machine": second, "other machines": {"peers": first}, "peers": [], "accuracy": []}
    (tmp_path / "bench.json").write_text(json.dumps(kept))
    run("--quick", "--output", tmp_path)
    merged = json.loads((tmp_path / "bench.json").read_text())
    assert merged["other machines"] == {"accuracy": second, "peers": first}
    for section, name in (("peers", "First"), ("accuracy", "Second")):
        assert name in tables.machine(merged, section)
    assert tables.machine_of(merged, "cases") == merged["machine"] == timing.machine()


@pytest.mark.parametrize("others", [{}, {"other machines": 3}])
def test_sections_of_no_machine_lose_nothing(tmp_path: Path, others: dict) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({"peers": [], **others}))
    run("--quick", "--output", tmp_path)
    merged = json.loads((tmp_path / "bench.json").read_text())
    assert merged["peers"] == [] and merged["other machines"] == {"peers": {}} and merged["cases"]


def test_rates_are_measured_kept_and_ignored(tmp_path, monkeypatch) -> None:
    measured = Rates(operations=1.0, transforms=2.0, bytes=3.0, rounds=4.0)
    monkeypatch.setattr(bench, "measure_rates", lambda seconds: measured)
    assert "LINREC_IGNORE_RATES" in run("--calibrate")
    assert rates.stored_rates() == measured
    monkeypatch.setenv("LINREC_IGNORE_RATES", "1")
    assert rates.stored_rates() == CPU


def refused(*words: object) -> str:
    """Run the command, which is to refuse without a traceback, and return what it says."""
    done = CliRunner().invoke(app, ["bench", *map(str, words)])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.replace("│", " ").split())


def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure_rates", lambda seconds: pytest.fail("time was spent"))


@pytest.mark.parametrize("words", [("--calibrate",), ("--quick", "--output")])
@pytest.mark.parametrize(
    "place",
    [
        "file",
        pytest.param("/proc", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux's")),
    ],
)
def test_folders_that_cannot_be_made(words, place: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
    no_time(monkeypatch)
    folder = [tmp_path / place] if "--output" in words else []
    assert "nothing can be written into" in refused(*words, *folder)


@pytest.mark.parametrize(
    "words, name", [(("--calibrate",), "rates.json"), (("--quick",), "bench.json")]
)
def test_a_folder_in_the_place_of_a_file_is_named_before_time_is_spent(
    words, name: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "linrec" / name).mkdir(parents=True)
    no_time(monkeypatch)
    assert f"{name} is a folder" in refused(*words, "--output", tmp_path / "linrec")


CORRUPT = ["", "[]", '{"machine": ', "\xff", "[" * 10**5]


@pytest.mark.parametrize("cases", [1, [1], [{}], {"a": 1}, None, "text"])
def test_results_of_another_form_are_named(cases: object, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    marks = "<!-- linrec bench: cases -->\n<!-- linrec bench: end of cases -->"
    (tmp_path / "page.md").write_text(marks)
    (tmp_path / "bench.json").write_text(json.dumps({"cases": cases}))
    assert "bench.json" in refused("--page", "page.md", "--output", tmp_path)


@pytest.mark.parametrize("text", CORRUPT)
@pytest.mark.parametrize("words", [("--quick",), ("--page", "page.md")])
def test_results_that_cannot_be_read_are_named_before_time_is_spent(
    words, text: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text("<!-- linrec bench: cases -->")
    (tmp_path / "bench.json").write_bytes(text.encode("latin-1"))
    no_time(monkeypatch)
    told = refused(*words, "--output", tmp_path)
    assert f"{tmp_path / 'bench.json'} cannot be read as results" in told
    assert (tmp_path / "bench.json").read_bytes() == text.encode("latin-1")


def test_rates_of_this_machine_are_positive_numbers() -> None:
    from linrec.benchmark.calibration import measure_rates

    found = measure_rates(0.01)
    assert all(0 < rate < 1e15 for rate in vars(found).values())


@pytest.mark.parametrize(
    "page, folder, error",
    [
        (None, True, "No such file or directory"),
        ("# no results", False, "there is no bench.json in --output"),
        ("# no marks", True, "no line `<!-- linrec bench: NAME -->`"),
        ("<!-- linrec bench: cases -->", True, "expected one line"),
        (
            "<!-- linrec bench: peers -->\n<!-- linrec bench: end of peers -->",
            True,
            "expected peers among",
        ),
    ],
)
def test_pages_that_cannot_be_written(
    page: str | None, folder: bool, error: str, tmp_path: Path
) -> None:
    path = tmp_path / "page.md"
    if page is not None:
        path.write_text(page)
    if folder:
        run("--quick", "--output", tmp_path)
    assert error in refused("--page", path, "--output", tmp_path)
    assert (path.read_text() if path.exists() else None) == page


@pytest.mark.parametrize(
    "found, error",
    [
        ({"machine": {}}, "it has none of cases, peers, regret, accuracy, crossover"),
        ({"machine": {}, "cases": []}, "KeyError: 'processor'"),
        ({"machine": timing.machine(), "cases": [{}]}, "KeyError: 'target'"),
        ({"machine": timing.machine(), "cases": 3}, "TypeError: 'int'"),
    ],
)
def test_results_without_tables_are_not_written(found: dict, error: str, tmp_path: Path) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "bench.json"
    text = "<!-- linrec bench: cases -->\n<!-- linrec bench: end of cases -->"
    page.write_text(text)
    kept.write_text(json.dumps(found))
    told = refused("--page", page, "--output", tmp_path)
    assert error in told and str(kept) in told and page.read_text() == text


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_targets_are_of_ways_that_there_are(case: cases.Case) -> None:
    names = set(nested(case.make.__code__.co_consts))
    for way, (base, most) in case.targets.items():
        assert most is None or most > 0
        assert {way, base} <= names


def nested(constants: tuple) -> Iterator[object]:
    """Go through constants, and those of tuples among them: the names of a dictionary."""
    for each in constants:
        yield from nested(each) if isinstance(each, tuple) else (each,)


def test_ways_in_kept_memory_take_turns_by_themselves() -> None:
    ways = cases.CASES[0].make()
    new, kept = cases.rounds(ways)
    assert list(kept) == ["forward, kept", "with gradient, kept"]
    assert new | kept == ways and cases.rounds(new) == [new]


def test_calls_are_timed_in_turns() -> None:
    calls: list[str] = []
    ways = {name: lambda name=name: (calls.append(name), time.sleep(0.003)) for name in "ab"}
    found = timing.medians(ways, 0.0, 3)
    assert "".join(calls) == "ab" * 4 and found.keys() == {"a", "b"}


@pytest.mark.parametrize("seconds, turn", [(2**-11, 2**-9), (2**-10, 2**-9), (2**-2, 2**-9)])
def test_short_calls_are_timed_in_a_row(seconds: float, turn: float, monkeypatch) -> None:
    """Until they fill a turn, after one that is not counted; a long one is timed once."""
    now = 0.0

    def call() -> None:
        nonlocal now
        now += seconds

    calls: list[None] = []
    monkeypatch.setattr(timing, "TURN", turn)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now))
    count = 1 if seconds >= timing.LONG else round(turn / seconds)
    assert timing.in_a_row(lambda: calls.append(call())) == [seconds] * count
    assert len(calls) == (count if count == 1 else count + 1)


def test_calls_whose_memory_is_new_are_timed_alone(monkeypatch) -> None:
    given_back = []
    monkeypatch.setattr(timing, "give_back", lambda: given_back.append(1))
    assert len(timing.alone(lambda: None)) == 1 and len(given_back) == 1
    calls: list[str] = []
    timing.medians({"a": lambda: calls.append("a")}, 0.0, 3, fresh=False)
    assert len(calls) > 3 and len(given_back) == 1


def test_the_memory_of_a_call_is_counted() -> None:
    size = 1 << 26
    tries = [
        peak_memory.peak_bytes(lambda: torch.ones(size, dtype=torch.uint8).add(1)) for _ in range(5)
    ]
    if sys.platform == "linux":
        # Two tensors at once. (A system short of memory may take pages back meanwhile, and other
        # threads' be counted: not five times in a row.)
        assert any(peak is not None and 1.9 * size <= peak <= 2.5 * size for peak in tries), tries
    else:
        assert tries == [None] * 5


def test_shapes_of_regret_come_in_one_order_and_cover_the_grid() -> None:
    all_of_them = [str(shape) for shape in regret.shapes()]
    assert all_of_them == [str(shape) for shape in regret.shapes()]
    assert len(set(all_of_them)) == len(all_of_them) >= 200


def test_shapes_that_train_ask_for_gradients_of_the_system() -> None:
    shape = regret.Sizes(3, 5, 2, 1, 0, last_only=False, gradient=True, trained=True)
    assert str(shape).endswith("all outputs, trained")
    to_inputs, to_A, to_B = regret.way_of(shape.recurrence(), shape, linrec.Recurrent())()  # type: ignore[misc]  # gradients
    assert [each.shape for each in (to_inputs, to_A, to_B)] == [(2, 5, 1), (3, 3), (3, 1)]
    shape = dataclasses.replace(shape, trained=False)
    assert str(shape).endswith("with gradient")
    assert len(regret.way_of(shape.recurrence(), shape, linrec.Chunked())()) == 1  # type: ignore[arg-type]  # as above
    shape = dataclasses.replace(shape, gradient=False)
    assert regret.way_of(shape.recurrence(), shape, linrec.Chunked())().shape == (2, 5, 3)  # type: ignore[attr-defined]  # outputs


def test_regret_is_the_time_of_the_choice_over_the_least() -> None:
    rows = [
        {"shape": "a", "chosen": "X", "seconds": {"X": 2.0, "Y": 1.0}},
        {"shape": "b", "chosen": "Y", "seconds": {"X": 2.0, "Y": 1.0}},
    ]
    kept = regret.Regret(rows)
    assert kept.ratios() == [2.0, 1.0]
    assert kept.summary()["geometric mean"] == pytest.approx(2**0.5)
    assert tables.of_regret({"summary": kept.summary(), "rows": rows}).rows[0][-1] == "2.00"


@pytest.mark.parametrize(
    "seconds, written",
    [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.56e-5, "45.6 µs"), (0, "0 µs"), (150, "2.5 min")],
)
def test_times_are_written_with_their_unit(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize(
    "name, folder, sections",
    [
        ("performance.md", "performance", {"cases", "crossover", "regret", "peers"}),
        ("processors.md", "intel-xeon", {"cases", "crossover", "regret", "peers"}),
        ("avx2.md", "amd-epyc-avx2", {"cases", "peers"}),
        ("numerics.md", "accuracy", {"accuracy"}),
        ("models.md", "models", {"models", "small models", "recurrences"}),
        ("streaming.md", "latency", {"latency"}),
        ("verifying.md", "certificates", {"certificates"}),
    ],
)
def test_a_page_has_the_tables_of_what_was_measured(name, folder, sections) -> None:
    root, folder = Path(__file__).parents[2], f"linrec/benchmark/measured/{folder}"
    page = (root / "docs" / name).read_text(encoding="utf-8")
    found = json.loads((root / folder / "bench.json").read_text(encoding="utf-8"))
    for section in tables.SECTIONS:
        assert (f"<!-- linrec bench: end of {section} -->" in page) == (section in sections)
    assert tables.written_into(page, found) == page, (
        f"`linrec bench --page docs/{name} --output {folder}` writes them."
    )
