"""Tables: recorded results with the published ones, in the terminal and in the page."""

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmu.commands import app
from lmu.experiments import EXPERIMENTS, Budget, Experiment, Record
from lmu.experiments.tables import (
    Results,
    fill_page_tables,
    read_measured,
    read_records,
    result_tables,
    speedup_tables,
)
from lmu.experiments.tables.results import effort
from lmu.experiments.training import write

PAGE = Path(__file__).resolve().parents[2] / "docs" / "experiments.md"
RECORD = Record(
    experiment="tiny",
    model="lmu",
    budget=Budget.FULL,
    seed=0,
    figures={"accuracy": 90.0},
    best_epoch=2,
    epochs=6,
    parameters=1_234,
    seconds=60.0,
    examples=(60, 30, 30),
    data="0123",
    reduced="",
    versions={},
    hardware="a machine",
)
OTHERS = (
    replace(RECORD, seed=1, figures={"accuracy": 92.0}, seconds=600.0, data="4567"),
    replace(RECORD, budget=Budget.QUICK, epochs=2, reduced="half is missing."),
    replace(RECORD, model="lstm", figures={"points": 7.0, "accuracy": 3.0}, epochs=0),
    replace(RECORD, experiment="unknown"),
)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    for record in (RECORD, *OTHERS):
        write(tmp_path / record.path, record.to_json().encode())
    return tmp_path


def test_a_run_without_validation_examples_is_said_to_be_one() -> None:
    assert effort(RECORD) == "full, 6 epochs"
    assert effort(replace(RECORD, examples=(90, 0, 30))) == "full, 6 epochs, no validation"
    assert effort(replace(RECORD, examples=(0, 0, 30), epochs=0)) == "full, untrained"


def test_seeds_are_put_together(records: Path, tiny: Experiment) -> None:
    (table,) = result_tables(read_records(records), {"tiny": tiny})
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["tiny: who"] for row in rows] == [
        "guessing",
        "lmu, ours",
        "lmu, ours",
        "lstm, ours",
    ]
    both, quick, lstm = rows[1:]
    assert (both["accuracy"], both["seeds"]) == ("91.00 ± 1.41", "0, 1")
    assert (both["data"], both["parameters"], both["time of a run"]) == (
        "whole",
        "1,234",
        "5.5 min",
    )
    assert (quick["accuracy"], quick["data"]) == ("90.00", "reduced")
    assert (quick["budget"], lstm["budget"]) == ("quick, 2 epochs", "full, untrained")
    assert (lstm["accuracy"], lstm["further figures"]) == ("7.00", "accuracy 3.00")
    assert table.marked == {1}  # a figure of one seed does not stand out
    # √(0.91 · 0.09 / 30), in percent; of figures that are no shares there is none.
    assert (both["sampling error"], lstm["sampling error"]) == ("5.22", "")
    assert table.notes == ("Reduced: half is missing.", "Run on a machine.")


def test_the_time_of_the_processor_is_shown_where_it_was_kept(tiny: Experiment) -> None:
    kept = [replace(RECORD, seed=seed, cpu_seconds=seconds) for seed, seconds in enumerate((9, 5))]
    (table,) = result_tables([Results((*kept,))], {"tiny": tiny})
    assert "7 s CPU" in table.rows[1]
    (table,) = result_tables([Results((kept[0], RECORD))], {"tiny": tiny})
    assert "60 s" in table.rows[1]


def test_runs_on_an_accelerator_have_a_time_of_their_own(tiny: Experiment) -> None:
    card = replace(RECORD, seed=2, seconds=4.0, hardware="a card GPU")
    (table,) = result_tables([Results((replace(RECORD, cpu_seconds=9.0), card))], {"tiny": tiny})
    assert "9 s CPU, 4 s GPU" in table.rows[1] and table.notes == ("Run on a machine, a card GPU.",)
    (table,) = result_tables([Results((card,))], {"tiny": tiny})
    assert "4 s GPU" in table.rows[1]


def test_records_of_earlier_versions_lack_what_came_later() -> None:
    full = replace(
        RECORD, validation=89.5, cpu_seconds=3.5, recipe={"batch_size": 50}, commit="0123abc"
    )
    assert Record.from_json(full.to_json()) == full
    old = json.loads(RECORD.to_json())
    for name in ("validation", "cpu_seconds", "recipe", "commit"):
        del old[name]
    assert Record.from_json(json.dumps(old)) == RECORD


def test_an_experiment_without_runs_has_its_published_figures(tiny: Experiment) -> None:
    (table,) = result_tables([], {"tiny": tiny})
    assert len(table.rows) == 1 and table.notes == ("There are no runs of ours yet.",)


def test_markdown_has_a_row_for_each(records: Path, tiny: Experiment) -> None:
    (table,) = result_tables(read_records(records), {"tiny": tiny})
    lines = table.markdown().splitlines()
    assert table.title == "waves, test accuracy in percent"
    assert lines[0].startswith("| tiny: who | accuracy | sampling error | seeds |")
    assert len([line for line in lines if line.startswith("|")]) == 2 + 4
    assert "| **lmu, ours** | **91.00 ± 1.41** | 5.22 | 0, 1 |" in table.markdown(bold=2)


def test_a_page_takes_tables_between_its_marks(records: Path, tiny: Experiment) -> None:
    tables = {"results": result_tables(read_records(records), {"tiny": tiny})}
    empty = "before\n<!-- lmu table: results -->\nold\n<!-- lmu table: end of results -->\nafter\n"
    once = fill_page_tables(empty, tables)
    assert once.startswith("before\n") and once.endswith("\nafter\n") and "old" not in once
    assert fill_page_tables(once, tables) == once
    with pytest.raises(ValueError, match="no place for results"):
        fill_page_tables("a page", tables)


def test_the_command_shows_the_library_s_results_and_a_user_s(
    records: Path, tiny: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "tiny", tiny)
    monkeypatch.setenv("COLUMNS", "200")
    write(records / "runs" / "one" / "result.json", RECORD.to_json().encode())
    result = CliRunner().invoke(app, ["table", "--runs", str(records / "runs")])
    assert result.exit_code == 0, result.output
    assert "lmu, yours" in result.output and "An epoch of training" in result.output


DAMAGED: dict[str, bytes] = {
    "truncated": RECORD.to_json().encode()[:80],
    "utf-16": RECORD.to_json().encode("utf-16"),
    "nested": b"[" * 100_000,
    "a list": b"[]",
    "empty": b"",
    "large": b" " * (2**20 + 1),
    "twice": RECORD.to_json().replace('"seed": 0,', '"seed": 0, "seed": 1,').encode(),
}
ODD: dict[str, object] = {
    "figures": {},
    "figures, a text": {"accuracy": "90"},
    "figures, NaN": {"accuracy": math.nan},
    "figures, true": {"accuracy": True},
    "figures, whole": {"accuracy": 10**400},
    "seed": 2**70,
    "seed, negative": -1,
    "seed, true": True,
    "seed, a fraction": 0.5,
    "budget": "large",
    "budget, a list": ["full"],
    "examples": [60, 30],
    "examples, texts": ["60", "30", "30"],
    "seconds": None,
    "epochs": 1.5,
    "hardware": "\x1b[2J",
    "model": "\ud800",
    "validation": "90",
    "cpu_seconds, NaN": math.nan,
    "recipe": {"betas": [0.9, 0.99]},
    "commit": 7,
    "versions": ["3.11"],
    "unknown": 1,
}


@pytest.mark.parametrize("name", [*DAMAGED, *ODD])
@pytest.mark.sampled(3)
def test_a_damaged_record_is_named_and_hides_no_other(
    name: str, records: Path, tiny: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "tiny", tiny)
    monkeypatch.setenv("COLUMNS", "200")
    content = DAMAGED.get(name)
    if content is None:
        odd = {**asdict(RECORD), name.partition(",")[0]: ODD[name]}
        content = json.dumps(odd).encode()
    runs = records / "runs"
    write(runs / "of-monday" / "result.json", RECORD.to_json().encode())
    write(runs / "of-tuesday" / "result.json", content)
    write(runs / "of-wednesday" / "result.json", OTHERS[2].to_json().encode())
    with pytest.raises(ValueError, match=r"of-tuesday.result\.json"):
        read_records(runs, yours=True)
    result = CliRunner().invoke(app, ["table", "--runs", str(runs)])
    assert result.exit_code == 1
    assert "lmu, yours" in result.stdout and "lstm, yours" in result.stdout
    assert str(runs / "of-tuesday" / "result.json") in result.stderr
    assert "1 of your results are left out" in result.stderr


def test_a_folder_and_a_pipe_of_the_name_of_a_record_hold_nobody_up(records: Path) -> None:
    (records / "runs/one/result.json").mkdir(parents=True)
    (records / "runs/two").mkdir()
    os.mkfifo(records / "runs/two/result.json")
    damaged: list[Exception] = []
    assert read_records(records / "runs", yours=True, damaged=damaged) == []
    assert [part in str(error) for part, error in zip(("one", "two"), damaged, strict=True)]


@pytest.mark.parametrize("name", ["nowhere", "file", "folder"])
def test_the_command_refuses_a_place_without_results(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    result = CliRunner().invoke(app, ["table", "--runs", str(tmp_path / name)])
    assert result.exit_code == 1
    assert result.output.startswith(f"error: `{tmp_path / name}` holds no `result.json`")


def test_the_records_that_came_with_the_library_are_in_their_places() -> None:
    for results in read_records():
        assert results.first.experiment in EXPERIMENTS
        assert results.first.model in EXPERIMENTS[results.first.experiment].models


def test_the_page_has_the_tables_of_what_is_recorded() -> None:
    page = PAGE.read_text(encoding="utf-8")
    tables = {
        "results": result_tables(read_records(), EXPERIMENTS),
        "speedup": speedup_tables(read_measured()),
    }
    assert fill_page_tables(page, tables) == page, (
        "docs/experiments.md is not what is recorded: type `lmu table --page docs/experiments.md`"
    )
