"""Measurements of a device: parts within a time limit, saved separately, and the page's tables."""

import importlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from linrec.benchmark import device_cases, device_peers, device_tables, floors, parts, session
from linrec.benchmark.device_tables import DEVICE_SECTIONS, NOT_MEASURED
from linrec.benchmark.parts import PARTS, Settings
from linrec.benchmark.peers import Peer
from linrec.benchmark.session import RESULTS, Session, complaints, run_apart
from linrec.commands import app
from linrec.kernels import elementwise

QUICK = Settings("cpu", 100.0, quick=True)
TINY = Peer("tiny", "json", "pip install nothing", "elementwise", "ways = {'forward': lambda: 1}")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run parts in this process, and few checks and peers."""

    def run_here(name: str, given: Settings, most: float) -> tuple[list, str]:
        parts.run_part(name, given, tmp_path / "rows")
        return list(session.read_rows(tmp_path / "rows")), "done"

    few = [each for each in parts.CHECKS if each.name in ("training", "Chunked, float32")]
    monkeypatch.setattr(session, "run_apart", run_here)
    monkeypatch.setattr(parts, "CHECKS", few)
    monkeypatch.setattr(parts, "QUICK_FIELD", replace(device_peers.QUICK_FIELD, peers=(TINY,)))
    monkeypatch.setattr(elementwise, "HAS_TRITON", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


def bench(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["bench", *map(str, words)])
    assert done.exit_code == code, done.output
    return " ".join(done.output.replace("│", " ").split())


@pytest.mark.usefixtures("here")
def test_all_of_it_runs_on_a_cpu_and_is_written_into_the_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = bench("--device", "cpu", "--all", "--quick", "--output", out)
    assert "2 of 2 checks hold" in printed and "only CUDA has graphs" in printed
    found = json.loads((out / RESULTS).read_text())
    assert found.keys() == {"machine", "parts", *PARTS}
    assert all(part["outcome"] == "done" for part in found["parts"].values())
    assert not (tmp_path / "linrec" / "rates.json").exists()  # a first look is not kept
    ways = {row["way"] for row in found["cases"] if "way" in row}
    assert ways == {
        "floor",
        "forward",
        "forward, kept",
        "with gradient",
        "with gradient, kept",
        "gradient alone",
        "trained",
    }
    page = tmp_path / "page.md"
    marks = [
        f"<!-- linrec bench: device {n} -->\n<!-- linrec bench: end of device {n} -->"
        for n in DEVICE_SECTIONS
    ]
    page.write_text("# A page\n\n" + "\n\n".join(marks) + "\n")
    bench("--page", page, "--output", out)
    text = page.read_text()
    assert NOT_MEASURED not in text and "| rounds |" in text and "of the bandwidth" in text
    bench("--page", page, "--output", tmp_path / "nothing")
    assert page.read_text().count(NOT_MEASURED) == len(DEVICE_SECTIONS)


def test_the_page_of_devices_says_what_was_measured() -> None:
    page = (ROOT / "docs/devices.md").read_text(encoding="utf-8")
    found = session.read_results(ROOT / "linrec/benchmark/measured/devices/nvidia-h200")
    assert device_tables.device_sections(page) == list(DEVICE_SECTIONS)
    assert device_tables.written_into(page, found) == page, "linrec bench --page docs/devices.md"


@pytest.mark.usefixtures("here")
def test_one_part_is_asked_for_and_added_to_the_others(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    given = Session(QUICK, ["steps"], tmp_path / "out").run(lambda line: None)
    assert list(given["parts"]) == ["steps"]
    again = Session(QUICK, ["rates"], tmp_path / "out").run(lambda line: None)
    assert list(again["parts"]) == ["steps", "rates"] and again["steps"] == given["steps"]


def test_a_part_in_a_process_of_its_own(tmp_path: Path) -> None:
    rows, outcome = run_apart("floors", QUICK, 300.0)
    assert outcome == "done" and {"add", "fill", "float32"} <= {row["name"] for row in rows}


SCRIPT = """
import os, sys, time
open(sys.argv[3], "w").write('{"row": 1}\\n{"row": 2}\\n{"ro')
sys.stderr.write("no kernel image is available\\n")
sys.stderr.flush()
KIND
"""


@pytest.mark.parametrize(
    "kind, told",
    [
        ("os._exit(7)", "failed with 7: no kernel image"),
        ("os.abort()", "failed with"),
        ("raise ValueError('bad')", "failed with 1: ValueError: bad"),
        ("time.sleep(60)", "ended after 3 seconds"),
    ],
)
def test_what_crashes_or_hangs_loses_nothing_that_was_found(
    kind: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("KIND", kind))
    own = session.subprocess.run

    def run(command: list[str], **options):  # type: ignore[no-untyped-def]
        assert command[:3] == [sys.executable, "-m", "linrec.benchmark.parts"]
        return own([sys.executable, str(script), *command[3:]], **options)

    monkeypatch.setattr(session.subprocess, "run", run)
    monkeypatch.setattr(session, "GRACE", 2.0)
    rows, outcome = run_apart("floors", replace(QUICK, seconds=1.0 if "sleep" in kind else 30), 60)
    assert rows == [{"row": 1}, {"row": 2}] and outcome.startswith(told)


def test_parts_for_which_no_time_is_left_are_skipped(tmp_path, monkeypatch) -> None:
    begun = []

    def slow(name: str, given: Settings, most: float) -> tuple[list, str]:
        begun.append(given.seconds)
        time.sleep(0.02)
        return [], "failed with 1: no"

    monkeypatch.setattr(session, "run_apart", slow)
    monkeypatch.setattr(session, "LEAST", 0.99)
    found = Session(replace(QUICK, seconds=1.0), list(PARTS), tmp_path).run(lambda line: None)
    outcomes = [part["outcome"] for part in found["parts"].values()]
    assert outcomes == ["failed with 1: no", *["skipped: the time was used up"] * 6]
    assert 0.2 < begun[0] < 0.4  # its share of eight minutes
    assert complaints(found) == ["checks: failed with 1: no"]
    assert json.loads((tmp_path / RESULTS).read_text()) == found


def test_a_part_stops_after_its_time(tmp_path: Path, monkeypatch) -> None:
    rows = ({"row": index} for index in range(9))
    monkeypatch.setitem(parts.PARTS, "floors", (lambda given: rows, 1.0))
    parts.run_part("floors", replace(QUICK, seconds=-1.0), tmp_path / "rows")
    assert list(session.read_rows(tmp_path / "rows")) == [
        {"row": 0},
        {"stopped": "after -1 seconds"},
    ]


def test_a_check_that_does_not_hold_is_named_and_the_command_fails(
    here: None, tmp_path: Path, monkeypatch
) -> None:
    def hold(device: str, effort: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(parts, "CHECKS", [parts.CHECKS[0]._replace(name="spoilt", hold=hold)])
    command = importlib.import_module("linrec.commands.bench")  # the module, not the command
    monkeypatch.setattr(command, "PARTS", {"checks": PARTS["checks"]})
    printed = bench("--all", "--quick", "--output", tmp_path, code=1)
    assert "0 of 1 checks hold" in printed
    assert "spoilt: RuntimeError: CUDA error: an illegal memory access" in printed


@pytest.mark.parametrize(
    "words, told",
    [
        (("--device", "cuda:99"), "there is no device `cuda:99`"),
        (("--device", "nonsense"), "there is no device `nonsense`"),
        (("--all", "--accuracy"), "--accuracy is measured on the CPU alone"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(words: tuple, told: str) -> None:
    assert told in bench(*words, code=2)


@pytest.mark.parametrize("text", ["[]", "{}", '{"parts": 3}', "\xff", "{"])
def test_results_of_another_form_are_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # (a long path would be cut where the line ends)
    Path(RESULTS).write_text(text, encoding="latin-1")
    assert f"{RESULTS} cannot be read" in bench("--all", "--output", ".", code=2)
    page = (ROOT / "docs/devices.md").read_text(encoding="utf-8")
    Path("page.md").write_text(page, encoding="utf-8")
    bench("--page", "page.md", "--output", ".", code=2)


def test_shares_of_what_the_device_does() -> None:
    rates = [{"name": n, "rate": r} for n, r in (("add", 1e9), ("fill", 2e9), ("tf32", 4e9))]
    case = {"case": "c", "operations": 1e9, "memory": None}
    rows = [
        case | {"way": "forward", "seconds": 1.0, "bytes": 9e8, "floor": "add", "aim": 0.85},
        case | {"way": "slow", "seconds": 2.0, "bytes": 9e8, "floor": "add", "aim": 0.85},
        case | {"way": "wide", "seconds": 1.0, "bytes": 9e8, "floor": "tf32", "aim": 0.2},
        {"case": "d", "way": "all", "reason": "CUDA out of memory"},
    ]
    table = device_tables.of_cases({"cases": rows, "floors": rates})
    assert [row[3:] for row in table.rows] == [
        ["90%", "25%", "≥ 85%"],
        ["45%", "12%", "≥ 85%"],
        ["90%", "25%", "≥ 20%"],
        ["", "", ""],
    ]
    assert table.marked == {1}


def test_aims_are_those_of_each_case() -> None:
    aims = {case.name: device_cases.bounds_of(case, "forward") for case in device_cases.CASES}
    found = {name: (each["floor"], each["aim"]) for name, each in aims.items() if each["aim"]}
    assert found == {
        "all states: 2048 × 1,024, order 32": ("fill", 0.8),
        "all states: 100 × 784, order 468": ("tf32", 0.2),
        "all states: 4 × 65,536, order 64": ("fill", 0.8),
        "all states: 16 × 512, order 256, 32 channels": ("tf32", 0.2),
        "elementwise scan: 16 × 1,024 × 512": ("add", 0.85),
        "elementwise scan: 64 × 512 × 256": ("add", 0.85),
        "elementwise scan: 1 × 65,536 × 64": ("add", 0.7),
    }


def test_products_in_tf32_are_set_for_a_while() -> None:
    before = floors.torch.backends.cuda.matmul.fp32_precision
    with floors.precision_of_products("tf32"):
        assert floors.torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert floors.torch.backends.cuda.matmul.fp32_precision == before
