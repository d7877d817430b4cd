"""`linrec verify`: check that all ways to run something compute the same function."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from typing import Annotated, TypedDict

import torch
import typer
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn

from linrec.commands.target import call_factory, load, recurrence
from linrec.executors import Executor, Recurrent
from linrec.structures import Structure
from linrec.systems import LinearRecurrence, StateSpace, Varying
from linrec.testing import operations
from linrec.testing.check import EXECUTORS, cases, search
from linrec.testing.engineers_systems import everyday
from linrec.testing.large import EXTENTS, Extent
from linrec.testing.modules import features, search_module
from linrec.testing.report import MODULE_TO_BE_MADE, Report
from linrec.testing.strategies import MANY_STEPS, recurrences, transitions

DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "complex128", "complex64", "bfloat16", "float16")
}

WIDTH = 110


class Options(TypedDict):
    """The options of a search."""

    most_failures: int
    progress: Callable[[], object]


Verified = tuple[str, Callable[[int, int, Callable[[], object]], Report]]


def verify(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A recurrence, a system, a structure, an executor, a module, or a function that "
            "makes one. Left out: the library itself.",
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many cases are tried.")] = 200,
    seed: Annotated[int, typer.Option(help="Where the search begins.")] = 0,
    dtype: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(DTYPES)}. Default: its own, or the first four."),
    ] = None,
    dt: Annotated[
        float | None, typer.Option(help="The time step of a system in continuous time.")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(help="How many features a module takes, if it does not say.")
    ] = None,
) -> None:
    """Search for inputs on which the ways to run something disagree with its definition.

    The table shows, for each property and executor, the largest error found as a share of the
    bound that it has to keep. Exit status 1 where something fails, with the smallest such case
    as a program.
    """
    if dtype is not None and dtype not in DTYPES:
        raise typer.BadParameter(f"`{dtype}` is unknown: expected one of {', '.join(DTYPES)}.")
    torch.set_num_threads(1)  # cases are too small for more
    kind = None if dtype is None else DTYPES[dtype]
    searches = package(kind) if target is None else of_target(target, kind, dt, input_size)
    # Columns stay whole in a narrow window, and if a program reads the table.
    console, failed = Console(width=max(Console().width, WIDTH)), False
    for title, run in searches:
        report = with_progress(title, examples, seed, run)
        console.print(table(title, report))
        for failure in report.failures:
            failed = True
            shown = as_pasted(str(failure), target, kind)
            console.print(f"\n{shown}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def package(dtype: torch.dtype | None) -> list[Verified]:
    """List the checks of the library's own structures and executors."""
    transitions, around = transitions_of(dtype), recurrences(transitions_of(dtype))
    drawn = cases(everyday(around, dtype))
    return [
        of_operations("structures", cases(recurrences(transitions))),
        of_cases("executors", drawn, large=dtype is None),
    ]


def of_target(
    target: str, dtype: torch.dtype | None, dt: float | None, input_size: int | None
) -> list[Verified]:
    """List the checks of the user's recurrence, executor, structure or module."""
    torch.manual_seed(0)  # printed programs can draw the same random weights again
    found = call_factory(load(target))
    if isinstance(found, Executor):
        systems = everyday(recurrences(transitions_of(dtype)), dtype)
        executor, drawn = found, cases(systems, MANY_STEPS)

        def tried(n: int, seed: int, progress: Callable[[], object]) -> Report:
            # A wrong one fails most properties: its first failure says enough.
            large = extents(n, dtype is None)
            return search(drawn, [executor], n, seed, large=large, progress=progress)

        return [(target, tried)]
    if isinstance(found, Structure | Varying):
        structure = found.A if isinstance(found, Varying) else found
        keep_imaginary([structure.dtype], dtype)
        structure = structure if dtype is None else structure.to(dtype)
        structure = Varying(structure) if isinstance(found, Varying) else structure
        around = cases(recurrences(st.just(structure)))
        return [of_operations(target, around), of_cases(f"{target}, run", around)]
    if isinstance(found, nn.Module):
        keep_imaginary([each.dtype for each in found.state_dict().values()], dtype)
        module = found if dtype is None else found.to(dtype)
        try:
            size = features(module, input_size)
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(str(error)) from None
        return [of_module(target, module, size)]
    if isinstance(found, LinearRecurrence | StateSpace):
        system = recurrence(target, dt)
        keep_imaginary([system.dtype], dtype)
        system = system if dtype is None else system.to(dtype)
        return [of_cases(target, cases(st.just(system)))]
    raise typer.BadParameter(
        f"`{target}` is a {type(found).__name__}: expected a `LinearRecurrence`, a `StateSpace`, "
        "a structure, an executor, an `nn.Module`, or a function that makes one."
    )


def keep_imaginary(own: Iterable[torch.dtype], dtype: torch.dtype | None) -> None:
    """Refuse to cast a complex system to its real part, which would be another system."""
    if dtype is not None and not dtype.is_complex and any(each.is_complex for each in own):
        raise typer.BadParameter(
            f"it is complex, and --dtype {str(dtype).removeprefix('torch.')} has no imaginary "
            "part: expected complex128 or complex64."
        )


def transitions_of(dtype: torch.dtype | None) -> st.SearchStrategy[Structure | Varying]:
    """Draw transition matrices of one dtype, or of all."""
    return transitions() if dtype is None else transitions(dtypes=st.just(dtype))


def options(progress: Callable[[], object]) -> Options:
    """Make options that continue after a failure: the table shows what else fails."""
    return {"most_failures": 1000, "progress": progress}


def of_operations(title: str, drawn: st.SearchStrategy) -> Verified:
    """Make the check of the five operations of the structures in these cases."""
    return title, lambda n, seed, progress: search(
        drawn, [Recurrent()], n, seed, operations.PROPERTIES, **options(progress)
    )


def of_cases(title: str, drawn: st.SearchStrategy, large: bool = False) -> Verified:
    """Make the check of all executors on these cases, and on large ones."""
    return title, lambda n, seed, progress: search(
        drawn, EXECUTORS, n, seed, large=extents(n, large), **options(progress)
    )


def extents(examples: int, large: bool) -> tuple[Extent, ...]:
    """List the sizes of the large cases, by the number of examples."""
    return EXTENTS[: math.ceil(examples / 6)] if large else ()


def as_pasted(failure: str, target: str | None, dtype: torch.dtype | None) -> str:
    """Complete the program of a failure with code that makes the user's module."""
    cast = "" if dtype is None else f".to({dtype})"
    return failure.replace(
        MODULE_TO_BE_MADE,
        "from linrec.commands.target import call_factory, load\n\ntorch.manual_seed(0)\n"
        f'module = call_factory(load("{target}")){cast}\n',
    )


def of_module(title: str, module: nn.Module, size: int) -> Verified:
    """Make the check of a module's two forms, with this many features."""
    return title, lambda n, seed, progress: search_module(
        module, size, n, seed, **options(progress)
    )


def with_progress(
    title: str, examples: int, seed: int, run: Callable[[int, int, Callable[[], object]], Report]
) -> Report:
    """Show the number of cases tried; shrinking a failure tries more."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), transient=True) as bar:
        task = bar.add_task(title, total=examples)
        return run(examples, seed, lambda: bar.advance(task))


def table(title: str, report: Report) -> Table:
    """Show the worst share of its bound that each property used."""
    shown = Table(title=f"{title}: largest error, as a share of its bound")
    shown.add_column("property")
    for executor in report.executors:
        shown.add_column(heading(executor))
    for name in report.properties:
        shown.add_row(name, *(report.cell(name, each) for each in report.executors))
    shown.caption = report.limits
    return shown


def heading(executor: Executor | nn.Module) -> str:
    """Name a column; long names in several words, so that they can be broken."""
    name = type(executor).__name__
    if dataclasses.is_dataclass(executor):
        given = {field: getattr(executor, field.name) for field in dataclasses.fields(executor)}
        own = [f"{field.name}={value}" for field, value in given.items() if value != field.default]
        name += f"({', '.join(own)})" if own else ""
    return re.sub(r"(?<=[a-zT])(?=[A-Z(])", " ", name)
