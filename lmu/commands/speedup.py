"""`lmu speedup`: the time of an epoch of training, step by step and in parallel."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from linrec.reporting import show
from lmu.commands.options import Device, Threads, make_folder, report_errors
from lmu.experiments.speedup import CASES, LENGTHS, Case, Speedups, measure, over_length
from lmu.experiments.speedup.chart import chart
from lmu.experiments.tables import speedup_tables
from lmu.experiments.training import write
from lmu.files import DamagedFile, read_text

OVER_LENGTH = "lengths"
NAMES = (*(case.name for case in CASES), OVER_LENGTH)


def select_cases(names: list[str], longest: int) -> list[Case]:
    """Find cases by their names."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(
            f"`{unknown[0]}` is nothing that is timed: expected one of {', '.join(NAMES)}."
        )
    cases = [case for case in CASES if case.name in names]
    if OVER_LENGTH in names:
        cases += [over_length(length) for length in LENGTHS if length <= longest]
    return cases


def read_timings(path: Path) -> Speedups:
    """Read the timings that a folder already holds."""
    text = read_text(path)
    try:
        return Speedups.from_json(text)
    except ValueError as error:
        raise DamagedFile(f"`{path}`: {error} Delete it, or give another folder.") from None


def speedup(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"What is timed: {', '.join(NAMES)}."),
    ] = None,
    longest: Annotated[
        int, typer.Option(min=1, help="Sequences that are longer are left out.")
    ] = LENGTHS[-1],
    turns: Annotated[int, typer.Option(min=1, help="How often each is timed, at least.")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="For how long what is short takes more turns.")
    ] = 5.0,
    output: Annotated[
        Path | None,
        typer.Option(help="A folder for speedup.json and speedup.png; timings there are kept."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Time training: the LMU of 2019, and the simplified one step by step and in parallel."""
    console = Console()
    with report_errors():
        cases = select_cases(names or list(NAMES), longest)
        kept = None if output is None else output / "speedup.json"
        found = Speedups.here(device=device)
        if kept is not None and kept.is_file():
            found = read_timings(kept)
        here = Speedups.here(device=device).hardware
        if found.hardware != here:
            raise ValueError(
                f"`{kept}` has timings of another machine ({found.hardware}): expected this one's "
                f"({here}). Give another folder with `--output FOLDER`."
            )
    if output is not None:
        make_folder(output, "--output")
    for case in cases:
        with console.status(f"{case.title}: the unit of 2019 takes seconds a step"):
            found = found.with_case(measure(case, turns, seconds, device))
        if kept is not None:
            with report_errors():
                write(kept, found.to_json().encode())
    for table in speedup_tables(found):
        show(table.rich())
        console.print()
    if output is not None:
        with report_errors():
            write(output / "speedup.png", chart(found))
        console.print(f"Written to {output}.")
