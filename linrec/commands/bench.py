"""`linrec bench`: measure executors on this machine."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track

import linrec.benchmark
from linrec.benchmark import CASES, Regret, measure_rates, medians, peak_bytes, store_rates
from linrec.benchmark.cases import rounds
from linrec.benchmark.crossover import crossover
from linrec.benchmark.device_tables import device_sections, tables_of
from linrec.benchmark.device_tables import written_into as device_page
from linrec.benchmark.latency import CALLS, measure_latency
from linrec.benchmark.models import measure_models
from linrec.benchmark.parts import PARTS, Settings
from linrec.benchmark.peers import measure_peers
from linrec.benchmark.recurrences import measure_recurrences
from linrec.benchmark.regret import measure
from linrec.benchmark.session import RESULTS as DEVICE_RESULTS
from linrec.benchmark.session import Session, complaints, read_results
from linrec.benchmark.small_models import measure_small_models
from linrec.benchmark.tables import SECTIONS, machine_of, written_into
from linrec.benchmark.timing import machine
from linrec.planner.rates import rates_file
from linrec.reporting import check_writable, write

RESULTS = "bench.json"
QUICK, LONG = 0.3, 4.0  # seconds for all ways of a case


class Dtype(StrEnum):
    """The precisions in which other libraries are compared."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"


def bench(
    peers: Annotated[bool, typer.Option(help="Other libraries, where installed.")] = False,
    python: Annotated[
        list[str] | None, typer.Option(help="An interpreter that has a peer; may be repeated.")
    ] = None,
    dtype: Annotated[
        list[Dtype] | None,
        typer.Option(help="A precision to compare peers in; may be repeated. Default: float32."),
    ] = None,
    regret: Annotated[bool, typer.Option(help="What Auto loses by estimating.")] = False,
    shapes: Annotated[int, typer.Option(min=1, help="Over how many shapes.")] = 200,
    accuracy: Annotated[
        bool,
        typer.Option(help="How accurate, next to the plain loop, on filters and the like."),
    ] = False,
    latency: Annotated[
        bool, typer.Option(help="How long one sample takes, and the bare product.")
    ] = False,
    certify: Annotated[
        bool,
        typer.Option(help="What a certificate costs next to its run, and how close it is."),
    ] = False,
    charts: Annotated[bool, typer.Option(help="Which executor is fastest where.")] = False,
    models: Annotated[
        bool,
        typer.Option(help="Training steps of layers beside torch's and plain code; recurrences."),
    ] = False,
    calibrate: Annotated[
        bool, typer.Option(help="Measure this machine's rates, for Auto to use from now on.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Where: cpu, cuda, … On a device, in processes of their own.")
    ] = "cpu",
    everything: Annotated[
        bool, typer.Option("--all", help="All that is measured on a device, its checks first.")
    ] = False,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="How long that may take; the rest is skipped.")
    ] = 8.0,
    quick: Annotated[bool, typer.Option(help="Fewer turns: for a first look.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="A folder for bench.json and charts; what else it has is kept."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Only write the tables in --output into this page.")
    ] = None,
) -> None:
    """Measure this machine: each shape beside the least that any method has to do.

    With --peers, --regret, --accuracy, --certify, --charts, --models or --latency, measure that.
    With --device or --all, device.json is written: checks, floors, cases, steps, rates, regret and
    peers, or those of the options that are given.
    """
    console = Console(width=120)
    if page is not None:
        write_page(page, output)
        console.print(f"Written into {page}.")
        return
    if everything or device != "cpu":
        asked = {"peers": peers, "regret": regret, "rates": calibrate}
        names = [name for name, wanted in asked.items() if wanted] or ["floors", "cases", "steps"]
        beyond = {"accuracy": accuracy, "latency": latency, "certify": certify, "charts": charts}
        refuse(device, [name for name, wanted in beyond.items() if wanted])
        given = Settings(device, 60 * minutes, quick, shapes, tuple(python or ()))
        measure_device(console, given, list(PARTS) if everything else names, output)
        return
    # Files that cannot be written or added to are refused before minutes are spent.
    if calibrate:
        make_room(rates_file())
    if output is not None:
        make_room(output / RESULTS)
        read_file(output)
    found: dict[str, Any] = {"machine": machine()}
    console.print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    seconds = QUICK if quick else LONG
    if calibrate:
        rates = measure_rates(seconds)
        show_rates(console, asdict(rates), store_rates(rates))
        return
    if peers:
        named = [each.value for each in dtype or [Dtype.FLOAT32]]
        rows = (measure_peers(python or [], seconds=seconds / 2, dtype=each) for each in named)
        found["peers"] = list(chain.from_iterable(rows))
    if regret:
        kept = Regret(list(track(measure(shapes), "shapes", shapes, console=console)))
        found["regret"] = {"summary": kept.summary(), "rows": kept.rows}
    if accuracy:
        from linrec.benchmark.accuracy import measure_accuracy  # (loads scipy.signal: a second)

        found["accuracy"] = list(measure_accuracy())
    if latency:
        found["latency"] = list(measure_latency(2_000 if quick else CALLS))
    if charts:
        found["crossover"] = list(crossover(seconds / 8))
    if models:
        found["models"] = list(measure_models(seconds, quick))
        found["small models"] = list(measure_small_models(seconds / 4, quick))
        found["recurrences"] = list(measure_recurrences(seconds, quick))
    if certify:
        from linrec.benchmark.certificates import measure_certificates

        found["certificates"] = list(measure_certificates(seconds))
    if not (peers or regret or charts or accuracy or models or latency or certify):
        found["rates"] = asdict(measure_rates(seconds))
        found["cases"] = list(measure_cases(seconds, 2 if quick else 5))
    for name in found.keys() & SECTIONS.keys():
        for table in SECTIONS[name](found[name]):
            console.print(table.rich("red"))
    if output is not None:
        save(found, output)
        console.print(f"Written to {output}.")


def refuse(device: str, beyond: list[str]) -> None:
    """Refuse a missing device, and options that are only for the CPU."""
    if beyond:
        raise typer.BadParameter(
            f"--{beyond[0]} is measured on the CPU alone: expected --device and --all without it."
        )
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise typer.BadParameter(
            f"there is no device `{device}` ({told}): expected one of torch's that this machine "
            "has, as `cuda`, or `cpu`.",
            param_hint="--device",
        ) from None


def measure_device(
    console: Console, given: Settings, names: list[str], output: Path | None
) -> None:
    """Run parts on a device, print their tables, and fail where a check or a part did."""
    if output is not None:
        make_room(output / DEVICE_RESULTS)
    try:
        session = Session(given, names, output)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from None
    found = session.run(lambda line: console.print(line, highlight=False, markup=False))
    for table in tables_of(found):
        console.print(table.rich("red"))
    if output is not None:
        console.print(f"Written to {output / DEVICE_RESULTS}.")
    wrong = complaints(found)
    for line in wrong:
        console.print(line, markup=False, highlight=False)
    if wrong:
        raise typer.Exit(1)


def measure_cases(seconds: float, least: int) -> Iterable[dict[str, Any]]:
    """Time every case, and compare its ways with their targets."""
    for case in CASES:
        ways = case.make()
        times: dict[str, float] = {}
        for some in rounds(ways):
            times |= medians(some, seconds, least, fresh=case.fresh)
        for way, taken in times.items():
            base, most = case.targets.get(way, ("floor", None))
            leanest = case.leanest.get(way)
            peak = None if leanest is None else peak_bytes(ways[way])
            yield {
                "case": case.name,
                "way": way,
                "seconds": taken,
                "beside": base,
                "ratio": taken / times[base] if base in times and base != way else None,
                "target": most,
                "floor": case.floor,
                "numbers": case.numbers,
                "operations": case.operations,
                "memory": None if peak is None else peak / (4 * case.numbers),
                "leanest": leanest,
            }


def show_rates(console: Console, rates: dict[str, float], path: Path) -> None:
    """Print the rates, and the path of their file."""
    console.print(", ".join(f"{name} {rate:.3g} a second" for name, rate in rates.items()))
    console.print(
        f"Kept in {path}, and used from the next start on. Set LINREC_IGNORE_RATES=1 to ignore "
        "it, or delete it."
    )


def save(found: dict[str, Any], folder: Path) -> None:
    """Merge the measurements into the JSON file, and draw the new charts.

    Sections measured on another machine are kept, with its name.
    """
    merged, here = read_file(folder), found["machine"]
    machines = {name: machine_of(merged, name) for name in merged.keys() & SECTIONS.keys()}
    machines |= {name: here for name in found.keys() & SECTIONS.keys()}
    others = {name: machines[name] for name in sorted(machines) if machines[name] != here}
    merged = merged | found | {"other machines": others}
    text = json.dumps(merged, indent=1, ensure_ascii=False) + "\n"
    write(folder / RESULTS, text.encode())
    if not found.keys() & {"cases", "crossover", "models"}:
        return
    from linrec.benchmark.charts import draw_crossover, draw_models, draw_roofline

    if "cases" in found:
        write(folder / "roofline.png", draw_roofline(found["cases"], found["rates"]))
    if "crossover" in found:
        write(folder / "crossover.png", draw_crossover(found["crossover"]))
    if "models" in found:
        write(folder / "models.png", draw_models(found["models"]))


def read_file(folder: Path) -> dict[str, Any]:
    """Read earlier measurements, of any machine."""
    try:
        kept = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError, RecursionError):
        kept = None
    if not isinstance(kept, dict):
        raise typer.BadParameter(
            f"{folder / RESULTS} cannot be read as results: expected the JSON object that an "
            "earlier run wrote. Delete it, or give another folder with `--output FOLDER`."
        )
    return kept


def make_room(file: Path) -> None:
    """Refuse a file that cannot be written."""
    try:
        check_writable(file)
    except OSError as error:
        raise typer.BadParameter(str(error)) from None


def write_page(page: Path, folder: Path | None) -> None:
    """Put the tables into a page; device tables say so if nothing was measured."""
    on_device = page.is_file() and device_sections(page.read_text(encoding="utf-8"))
    if on_device:
        kept = folder or Path(linrec.benchmark.__file__).parent / "measured" / "devices"
        try:
            text = device_page(page.read_text(encoding="utf-8"), read_results(kept))
        except ValueError as error:
            raise typer.BadParameter(f"{page}: {error}", param_hint="--page") from None
        write(page, text.encode())
        return
    if folder is None or not (folder / RESULTS).is_file():
        raise typer.BadParameter(
            f"there is no {RESULTS} in --output ({folder}): expected the folder that an earlier "
            "run wrote. Run `linrec bench --output FOLDER` first.",
            param_hint="--page",
        )
    kept = read_file(folder)
    if not kept.keys() & SECTIONS.keys():
        raise typer.BadParameter(
            f"{folder / RESULTS} has no tables: it has none of {', '.join(SECTIONS)}. Run "
            "`linrec bench --output FOLDER` first.",
            param_hint="--page",
        )
    try:
        text = written_into(page.read_text(encoding="utf-8"), kept)
        write(page, text.encode())
    except OSError as error:
        raise typer.BadParameter(
            f"{page} cannot be read and written ({error}): expected a page with marks for "
            "the tables.",
            param_hint="--page",
        ) from None
    except ValueError as error:
        raise typer.BadParameter(
            f"{page}, {folder / RESULTS}: {error}", param_hint="--page"
        ) from None
    except (LookupError, TypeError, AttributeError) as error:
        raise typer.BadParameter(
            f"{folder / RESULTS} has results of another form ({type(error).__name__}: {error}): "
            "expected those that this version wrote. Measure again, into another folder.",
            param_hint="--page",
        ) from None
