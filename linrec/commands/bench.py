"""`linrec bench`: how fast it is here."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from linrec.benchmark import CASES, Regret, measure_rates, medians, store_rates
from linrec.benchmark.charts import draw_crossover, draw_roofline
from linrec.benchmark.crossover import crossover
from linrec.benchmark.peers import measure_peers
from linrec.benchmark.regret import measure
from linrec.benchmark.timing import machine

Rows = list[dict[str, Any]]


def bench(
    peers: Annotated[bool, typer.Option(help="Other libraries too, where installed.")] = False,
    python: Annotated[
        list[str] | None, typer.Option(help="An interpreter that has a peer; may be repeated.")
    ] = None,
    regret: Annotated[bool, typer.Option(help="What Auto loses by estimating.")] = False,
    shapes: Annotated[int, typer.Option(min=1, help="Over how many shapes.")] = 200,
    charts: Annotated[bool, typer.Option(help="Crossovers too, and draw the charts.")] = False,
    calibrate: Annotated[
        bool, typer.Option(help="Measure this machine's rates, for Auto to use from now on.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="Fewer turns: for a first look.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="A folder for bench.json and the charts.")
    ] = None,
) -> None:
    """Measure this machine: each shape beside the least that any method has to do."""
    console = Console(width=110)
    found: dict[str, Any] = {"machine": machine()}
    console.print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    rates = measure_rates(1.0 if quick else 4.0)
    found["rates"] = asdict(rates)
    if calibrate:
        show_rates(console, found["rates"], store_rates(rates))
        return
    if regret:
        kept = Regret(list(track(measure(shapes), "shapes", shapes, console=console)))
        found["regret"] = kept.rows
        found["regret summary"] = kept.summary()
        show_regret(console, kept)
    else:
        found["cases"] = list(measure_cases(0.3 if quick else 4.0, 2 if quick else 5))
        show_cases(console, found["cases"])
        if peers:
            found["peers"] = list(measure_peers(python or []))
            show_peers(console, found["peers"])
        if charts:
            found["crossover"] = list(crossover(0.05 if quick else 0.5))
    if output is not None:
        save(found, output)
        console.print(f"Written to {output}.")


def measure_cases(seconds: float, least: int) -> Iterable[dict[str, Any]]:
    """Time every case, and compare its ways with their targets."""
    for case in CASES:
        times = medians(case.make(), seconds, least)
        for way, taken in times.items():
            base, most = case.targets.get(way, ("floor", None))
            yield {
                "case": case.name,
                "way": way,
                "seconds": taken,
                "beside": base,
                "ratio": taken / times[base] if base in times else None,
                "target": most,
                "floor": case.floor,
                "numbers": case.numbers,
                "operations": case.operations,
            }


def table(title: str, *columns: str) -> Table:
    """Begin a table whose first column is text and whose others are numbers."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index > 1 else "left")
    return made


def show_cases(console: Console, rows: Rows) -> None:
    """Print the table of cases."""
    shown = table("Times, and ratios to a floor", "case", "way", "time", "ratio", "target")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}× {row['beside']}"
        target = "" if row["target"] is None else f"≤ {row['target']:g}"
        missed = row["target"] is not None and row["ratio"] > row["target"]
        style = "red" if missed else None
        time = f"{row['seconds'] * 1e3:.3g} ms"
        shown.add_row(row["case"], row["way"], time, ratio, target, style=style)
    console.print(shown)


def show_peers(console: Console, rows: Rows) -> None:
    """Print what others take, or why it is not known."""
    shown = table("Other libraries, forward", "peer", "shape", "time")
    for row in rows:
        time = f"{row['seconds'] * 1e3:.3g} ms" if "seconds" in row else row["reason"]
        shown.add_row(row["peer"], " × ".join(map(str, row.get("shape", ()))), time)
    console.print(shown)


def show_regret(console: Console, kept: Regret) -> None:
    """Print the shapes on which most was lost, and the summary."""
    shown = table("The worst choices", "shape", "chosen", "time", "best", "time", "regret")
    pairs = zip(kept.ratios(), kept.rows, strict=True)
    for ratio, row in sorted(pairs, key=lambda pair: -pair[0])[:12]:
        seconds: Any = row["seconds"]
        best = min(seconds, key=lambda name: seconds[name])
        chosen = str(row["chosen"])
        times = [f"{seconds[name] * 1e3:.3g} ms" for name in (chosen, best)]
        shown.add_row(str(row["shape"]), chosen, times[0], best, times[1], f"{ratio:.2f}")
    console.print(shown)
    console.print(", ".join(f"{name} {value:.4g}" for name, value in kept.summary().items()))


def show_rates(console: Console, rates: dict[str, float], path: Path) -> None:
    """Print what was measured, and where it is kept."""
    console.print(", ".join(f"{name} {rate:.3g} a second" for name, rate in rates.items()))
    console.print(
        f"Kept in {path}, and used from the next start on. Set LINREC_IGNORE_RATES=1 to ignore "
        "it, or delete it."
    )


def save(found: dict[str, Any], folder: Path) -> None:
    """Write the JSON, and the charts of what it holds; each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    replace(folder / "bench.json", lambda path: path.write_text(text, encoding="utf-8"))
    if "cases" in found:
        draw = lambda path: draw_roofline(found["cases"], found["rates"], path)  # noqa: E731  # short
        replace(folder / "roofline.png", draw)
    if "crossover" in found:
        replace(folder / "crossover.png", lambda path: draw_crossover(found["crossover"], path))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, then put it in its place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
