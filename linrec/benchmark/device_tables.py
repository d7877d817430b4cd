"""Tables of measurements on a device, for a terminal and for the device's page."""

from collections.abc import Callable
from typing import Any

from linrec.benchmark.regret import Regret
from linrec.benchmark.tables import PROGRAM, of_peers, of_regret
from linrec.reporting import Table, duration, fill_page

Found = dict[str, Any]
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NOT_MEASURED = "Not measured on a device."


def of_checks(found: Found) -> Table:
    """Count the passed checks, and name the failed ones."""
    rows = found["checks"]
    failed = [row for row in rows if not row["passed"]]
    cells = [[row["check"], row["error"].splitlines()[0][:120]] for row in failed]
    title = f"{len(rows) - len(failed)} of {len(rows)} checks hold"
    return Table(title, ["those that do not", "why"], cells, frozenset(range(len(cells))))


def of_floors(found: Found) -> Table:
    """Tabulate the device's rates, the reference for other rates."""
    cells = [
        [row["what"], f"{format_scaled(row['rate'])}{row['unit']}/s"] for row in found["floors"]
    ]
    return Table("What the device does", ["what", "rate"], cells)


def of_cases(found: Found) -> Table:
    """Tabulate the times of the cases, and their shares of the device's rates."""
    rates = {row["name"]: row["rate"] for row in found.get("floors", [])}
    cells, missed = [], set()
    for row in found["cases"]:
        if "chosen" in row:
            continue
        if "reason" in row:
            cells.append([row["case"], row["way"], row["reason"], "", "", ""])
            continue
        floor, aim = row["floor"], row["aim"]
        moved = rates.get("add" if floor in (None, "tf32") else floor)
        bandwidth = share(row["bytes"], row["seconds"], moved)
        products = share(row["operations"], row["seconds"], rates.get("tf32", rates.get("float32")))
        got = products if floor == "tf32" else bandwidth
        if aim is not None and got is not None and got < aim:
            missed.add(len(cells))
        aimed = "" if aim is None else f"≥ {aim:.0%}"
        shares = ["" if each is None else f"{each:.0%}" for each in (bandwidth, products)]
        cells.append([row["case"], row["way"], duration(row["seconds"]), *shares, aimed])
    columns = ["case", "what", "time", "of the bandwidth", "of TF32's products", "aim"]
    return Table("Times, and shares of what the device does", columns, cells, frozenset(missed))


def share(amount: float | None, seconds: float, rate: float | None) -> float | None:
    """Return the share of a rate; None if there is nothing to compare."""
    return None if not amount or not rate or seconds <= 0 else amount / seconds / rate


def of_steps(found: Found) -> Table:
    """Tabulate the times of one sample."""
    cells = [
        [f"{row['streams']}", row["way"], row.get("reason") or duration(row["seconds"])]
        for row in found["steps"]
    ]
    return Table("One sample of each stream, order 256", ["streams", "what", "time"], cells)


def of_rates(found: Found) -> Table:
    """Tabulate the rates used to choose executors."""
    cells = [
        [name, f"{format_scaled(rate)}/s"]
        for row in found["rates"]
        for name, rate in row["rates"].items()
    ]
    return Table("Rates of the planner", ["what", "rate"], cells)


def regret_table(found: Found) -> Table:
    """Tabulate the shapes with the largest losses."""
    return of_regret({"rows": found["regret"], "summary": Regret(found["regret"]).summary()})


def of_parts(found: Found) -> Table:
    """Tabulate the outcome of each part."""
    cells = [
        [name, part["outcome"].splitlines()[0], duration(part["seconds"])]
        for name, part in found["parts"].items()
    ]
    return Table("Parts", ["part", "what became of it", "time"], cells)


DEVICE_SECTIONS: dict[str, Callable[[Found], Table]] = {
    "checks": of_checks,
    "floors": of_floors,
    "cases": of_cases,
    "steps": of_steps,
    "rates": of_rates,
    "regret": regret_table,
    "peers": lambda found: of_peers(found["peers"]),
    "parts": of_parts,
}


def tables_of(found: Found) -> list[Table]:
    """Make the tables of all measurements."""
    return [make(found) for name, make in DEVICE_SECTIONS.items() if found.get(name)]


def mark(name: str) -> str:
    """Return the name of a section as in a page's marks."""
    return f"device {name}"


def device_sections(page: str) -> list[str]:
    """List the device's sections that have marks in a page."""
    return [name for name in DEVICE_SECTIONS if f"<!-- {PROGRAM}: {mark(name)} -->" in page]


def written_into(page: str, found: Found) -> str:
    """Write the tables of a device into a page, or a note that nothing was measured.

    Args:
        page: a text with `<!-- linrec bench: device NAME -->` and, after it,
            `<!-- linrec bench: end of device NAME -->` for some of `DEVICE_SECTIONS`.
        found: the content of `device.json`; empty if there is none.

    Raises:
        ValueError: the page has a mark without an end, or the measurements cannot be read.
    """
    for name in device_sections(page):
        text = NOT_MEASURED
        if found.get(name):
            try:
                table = DEVICE_SECTIONS[name](found)
                text = f"{place(found)}\n\n{table.title}{':' if table.rows else '.'}"
                text += f"\n\n{table.markdown()}" if table.rows else ""
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise ValueError(
                    f"What was measured of {name} cannot be read ({type(error).__name__}: {error}):"
                    f" expected it as `{PROGRAM} --device DEVICE --output FOLDER` writes it."
                ) from None
        page = fill_page(page, PROGRAM, mark(name), text)
    return page


def place(found: Found) -> str:
    """Name the device and the versions."""
    named = found["machine"]
    card = named.get("device", named["processor"])
    drivers = {"cuda": "CUDA", "triton": "Triton"}
    told = "".join(f", {word} {named[key]}" for key, word in drivers.items() if key in named)
    return f"Measured on {card}, torch {named['torch']}{told}, Python {named['python']}."


def format_scaled(rate: float) -> str:
    """Write a number with three digits and a prefix."""
    for scale, prefix in UNITS:
        if rate >= scale:
            return f"{rate / scale:.3g} {prefix}"
    return f"{rate:.3g} "
