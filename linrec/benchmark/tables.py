"""Tables of the measurements, for a terminal and for a page."""

from collections.abc import Callable
from statistics import median
from typing import Any

from linrec.reporting import Table, duration, fill_page

PROGRAM = "linrec bench"  # in the marks of pages

Rows = list[dict[str, Any]]


def of_cases(rows: Rows) -> Table:
    """Tabulate the times of the cases and their floors."""
    cells, missed = [], set()
    for index, row in enumerate(rows):
        target = "" if row["target"] is None else f"≤ {row['target']:g}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}× {row['beside']}"
        memory = "" if row["memory"] is None else f"{row['memory']:.2f}×"
        cells.append([row["case"], row["way"], duration(row["seconds"]), ratio, target, memory])
        late = row["target"] is not None and row["ratio"] > row["target"]
        heavy = row["leanest"] is not None and (row["memory"] or 0.0) > row["leanest"]
        if late or heavy:
            missed.add(index)
    columns = ["case", "what", "time", "ratio", "aim", "memory, of the outputs"]
    return Table("Times, and ratios to a floor", columns, cells, frozenset(missed))


def of_peers(rows: Rows) -> Table:
    """Tabulate the times of other libraries and of linrec, also in kept memory if measured."""
    in_kept_memory = any(row.get("ours, kept") for row in rows)
    measured = ["ours", "ours, kept"] if in_kept_memory else ["ours"]
    cells = []
    for row in rows:
        shape = " × ".join(f"{size:,}" for size in row.get("shape", ()))
        told = [row["peer"], shape, row.get("dtype", "float32"), row.get("way", "")]
        if "seconds" not in row:
            cells.append([*told, row["reason"], *([""] * 2 * len(measured))])
            continue
        told.append(duration(row["seconds"]))
        for ours in (row.get(name) for name in measured):
            told += [duration(ours), f"{row['seconds'] / ours:.3g}×"] if ours else ["", ""]
        cells.append(told)
    columns = ["library", "shape", "precision", "what", "its time", "ours", "its time over ours"]
    if in_kept_memory:
        columns += ["ours in kept memory", "its time over that"]
    ran = "; ".join(dict.fromkeys(row["versions"] for row in rows if row.get("versions")))
    return Table(f"Other libraries ({ran})" if ran else "Other libraries", columns, cells)


def of_accuracy(rows: Rows) -> Table:
    """Tabulate the executors' errors over the loop's, by family and precision."""
    executors = list(dict.fromkeys(row["executor"] for row in rows))
    groups: dict[tuple[str, str], dict[str, list[float]]] = {}
    loops: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        key = (row["family"], row["dtype"])
        groups.setdefault(key, {}).setdefault(row["executor"], []).append(row["ratio"])
        loops.setdefault(key, []).append(row["loop"])
    cells = [
        [
            *key,
            f"{max(loops[key]):.0e}",
            *(f"{median(found[name]):.2g} / {max(found[name]):.2g}" for name in executors),
        ]
        for key, found in groups.items()
    ]
    columns = ["family", "precision", "the loop's largest error", *executors]
    return Table("Error over the loop's error, median / largest", columns, cells)


def of_models(rows: Rows) -> list[Table]:
    """Tabulate the times of a training step over the number of steps, torch's layers included."""
    steps = list(dict.fromkeys(row["steps"] for row in rows))
    names = dict.fromkeys((row["model"], row["parameters"]) for row in rows)
    taken = {(row["model"], row["steps"]): row["seconds"] for row in rows}
    cells, beside = [], []
    for name, parameters in names:
        times = [taken[name, each] for each in steps]
        cells.append([name, f"{parameters:,}", *map(duration, times)])
        if name in TORCHS:
            continue
        ratios = (
            " / ".join(f"{taken[theirs, each] / time:.2g}" for theirs in TORCHS)
            for each, time in zip(steps, times, strict=True)
        )
        beside.append([name, *ratios])
    columns = [f"{each:,} steps" for each in steps]
    return [
        Table("A training step", ["layer", "parameters", *columns], cells),
        Table(f"How often it fits into one of {' / '.join(TORCHS)}", ["layer", *columns], beside),
    ]


def of_small_models(rows: Rows) -> Table:
    """Tabulate the times of small models, and of their plain forms over linrec's."""
    forms = dict.fromkeys(form for row in rows for form in row["seconds"] if form != "ours")
    cells = []
    for row in rows:
        taken = row["seconds"]
        ratios = (f"{taken[form] / taken['ours']:.2f}" if form in taken else "" for form in forms)
        cells.append(
            [row["model"], str(row["steps"]), row["what"], duration(taken["ours"]), *ratios]
        )
    columns = ["model", "steps", "what", "ours", *forms]
    return Table("Small models, and the time of plain torch over ours", columns, cells)


def of_recurrences(rows: Rows) -> list[Table]:
    """Tabulate the times of loops and chunk forms over linrec's, and linrec's over the steps."""
    cells = []
    for row in rows:
        if "size" not in row:
            continue
        batch, steps, keys, values = row["size"]
        for what in ("forward", "with gradient"):
            taken, peak = row[what], row["memory"][what]
            others = (taken.get(way) for way in ("loop", "chunk form", "authors'"))
            ratios = ("" if each is None else f"{each / taken['ours']:.2f}" for each in others)
            held = "" if peak is None else f"{peak:.2f}"
            shape = f"{batch} × {steps:,}, {keys} × {values}"
            cells.append([row["model"], shape, what, duration(taken["ours"]), *ratios, held])
    columns = ["model", "sequences × steps, state", "what", "time", "the loop's", "chunk form's"]
    columns += ["authors'", "memory, of what is given and given back"]
    tables = [Table("Recurrences alone, and the time of others over theirs", columns, cells)]
    longer = [row for row in rows if "size" not in row]
    if longer:
        steps = list(dict.fromkeys(row["steps"] for row in longer))
        taken = {(row["model"], row["steps"]): row["seconds"] for row in longer}
        cells = [
            [name, *(f"{taken[name, each] / each * 1e6:.3g} µs" for each in steps)]
            for name in dict.fromkeys(row["model"] for row in longer)
        ]
        columns = ["model", *(f"{each:,} steps" for each in steps)]
        tables.append(Table("With gradient, a step of two sequences, 32 × 32", columns, cells))
    return tables


TORCHS = ("torch.nn.GRU", "torch.nn.LSTM")


def of_latency(rows: Rows) -> Table:
    """Tabulate percentiles of the time of one sample, and of the bare product."""
    cells, product, beside = [], "", {}
    for row in rows:
        product = product or row["way"]
        beside = row if row["way"] == product else beside
        ratio = f"{row['p50'] / beside['p50']:.2f}×" if row["way"] != product else ""
        extra = f"{(row['p50'] - beside['p50']) * 1e6:.1f} µs" if row["way"] != product else ""
        times = [duration(row["p50"]), duration(row["p99"])]
        cells.append([f"{row['order']:,}", row["way"], *times, ratio, extra])
    columns = ["order", "what", "p50", "p99", f"p50 over {product}", f"p50 beyond {product}"]
    return Table("Time of one sample", columns, cells)


def of_certificates(rows: Rows) -> Table:
    """Tabulate the cost of certificates relative to their runs, and their tightness."""
    cells = [
        [
            f"{row['order']:,}",
            f"{row['steps']:,}",
            row["dtype"],
            duration(row["run"]),
            duration(row["certify"]),
            f"{row['certify'] / row['run']:.1f}",
            f"{row['tightness']:.2f}",
        ]
        for row in rows
    ]
    columns = ["order", "steps", "precision", "run", "certify", "ratio", "bound over error, median"]
    return Table("Processor time of a certificate, its run included", columns, cells)


def of_regret(kept: dict[str, Any]) -> Table:
    """Tabulate the shapes with the largest losses."""
    cells = []
    for row in sorted(kept["rows"], key=lambda row: -regret(row))[:12]:
        best = min(row["seconds"], key=lambda name: row["seconds"][name])
        times = [duration(row["seconds"][name]) for name in (row["chosen"], best)]
        cells.append([row["shape"], row["chosen"], times[0], best, times[1], f"{regret(row):.2f}"])
    columns = ["shape", "chosen", "its time", "best", "its time", "ratio"]
    summary = ", ".join(f"{name} {value:.4g}" for name, value in kept["summary"].items())
    return Table(f"The worst choices ({summary})", columns, cells)


def of_crossover(rows: Rows) -> list[Table]:
    """Tabulate every executor's nanoseconds per output, over steps and over states."""
    return [crossing(over, [row for row in rows if row["over"] == over]) for over in PANELS]


PANELS = ("steps", "states")


def crossing(over: str, rows: Rows) -> Table:
    """Tabulate nanoseconds per output over one of the two; the fastest has a star."""
    executors = list(dict.fromkeys(row["executor"] for row in rows))
    cells = []
    for size in dict.fromkeys(row[over] for row in rows):
        taken = {
            row["executor"]: row["seconds"] / row["numbers"] * 1e9
            for row in rows
            if row[over] == size
        }
        least = min(taken.values())
        written = {name: f"{time:.3g}{' ★' * (time == least)}" for name, time in taken.items()}
        cells.append([f"{size:,}", *(written.get(name, "") for name in executors)])
    fixed = ", ".join(dict.fromkeys(row["fixed"] for row in rows))
    return Table(f"Nanoseconds an output; {fixed}", [over, *executors], cells)


def regret(row: dict[str, Any]) -> float:
    """Return the time of the choice over the least time."""
    return row["seconds"][row["chosen"]] / min(row["seconds"].values())


SECTIONS: dict[str, Callable[[Any], list[Table]]] = {
    "cases": lambda rows: [of_cases(rows)],
    "peers": lambda rows: [of_peers(rows)],
    "regret": lambda kept: [of_regret(kept)],
    "accuracy": lambda rows: [of_accuracy(rows)],
    "crossover": of_crossover,
    "models": of_models,
    "small models": lambda rows: [of_small_models(rows)],
    "recurrences": of_recurrences,
    "latency": lambda rows: [of_latency(rows)],
    "certificates": lambda rows: [of_certificates(rows)],
}


def written_into(page: str, found: dict[str, Any]) -> str:
    """Write the tables into a page, between its marks for them.

    Args:
        page: a text with `<!-- linrec bench: NAME -->` and `<!-- linrec bench: end of NAME -->`
            for some of cases, peers, regret, accuracy, crossover, models, small models,
            recurrences, latency, certificates.
        found: the content of the JSON file of `linrec bench --output`.

    Raises:
        ValueError: the page has no mark, a mark without an end, or a mark of a missing measurement.
    """
    asked = [name for name in SECTIONS if f"<!-- {PROGRAM}: {name} -->" in page]
    if not asked:
        raise ValueError(
            f"The page has no line `<!-- {PROGRAM}: NAME -->`: expected it, and "
            f"`<!-- {PROGRAM}: end of NAME -->` after it, where a table belongs; NAME is one of "
            f"{', '.join(SECTIONS)}."
        )
    for name in asked:
        if name not in found:
            raise ValueError(
                f"The page asks for {name}: expected {name} among what was measured (see "
                f"`{PROGRAM} --help`)."
            )
        try:
            made = [f"{each.title}:\n\n{each.markdown()}" for each in SECTIONS[name](found[name])]
            text = "\n\n".join([machine(found, name), *made])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"What was measured of {name} cannot be read ({type(error).__name__}: {error}): "
                f"expected it as `{PROGRAM} --output FOLDER` writes it. Measure it again."
            ) from None
        page = fill_page(page, PROGRAM, name, text)
    return page


def machine_of(found: dict[str, Any], section: str) -> dict[str, Any]:
    """Return the machine on which a section was measured; empty if the file does not say."""
    others = found.get("other machines")
    named = others.get(section) if isinstance(others, dict) else None
    return named or found.get("machine") or {}


def machine(found: dict[str, Any], section: str) -> str:
    """Name the machine and the precision of a measurement."""
    named = machine_of(found, section)
    precision = "" if section in ("accuracy", "certificates", "peers") else ", float32"
    loops = f", Numba {named['numba']}" if "numba" in named else ""
    return (
        f"Measured on {named['processor']} ({named['vector instructions']}), {named['threads']} of "
        f"{named['cores']} threads, torch {named['torch']}{loops}, Python {named['python']}"
        f"{precision}."
    )
