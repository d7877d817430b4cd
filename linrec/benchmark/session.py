"""A measurement of a device within a time limit, saved after each part."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from linrec.benchmark.parts import PARTS, Row, Settings
from linrec.benchmark.timing import machine
from linrec.reporting import write

RESULTS = "device.json"

# A part starts only if this many seconds are left; it is killed this long after its limit.
LEAST, GRACE = 5.0, 15.0

# The number of characters kept from the output of a failed process.
KEPT = 3000


class Session:
    """A run of parts within a time limit, which keeps the rows of each.

    Args:
        given: the device and other settings; `seconds` is the time of all parts together.
        names: the parts, in the order of `PARTS`.
        folder: the folder for `device.json`. None: it is not written.
    """

    def __init__(self, given: Settings, names: Sequence[str], folder: Path | None) -> None:
        self.given, self.folder = given, folder
        self.names = [name for name in PARTS if name in names]
        self.found: dict[str, Any] = {"machine": machine(given.device), "parts": {}}
        kept = {} if folder is None else read_results(folder)
        if kept.get("machine") == self.found["machine"]:
            self.found = kept

    def run(self, say: Callable[[str], object] = print) -> dict[str, Any]:
        """Run the parts one after another; time left over by one goes to the others.

        Args:
            say: called with a line about each part.

        Returns:
            The content of `device.json`.
        """
        end = time.perf_counter() + self.given.seconds
        for index, name in enumerate(self.names):
            left = end - time.perf_counter()
            shares = [PARTS[each][1] for each in self.names[index:]]
            seconds = left * shares[0] / sum(shares)
            start = time.perf_counter()
            if left < LEAST:
                rows, outcome = None, "skipped: the time was used up"
            else:
                rows, outcome = run_apart(name, replace(self.given, seconds=seconds), left)
            self.keep(name, rows, outcome, time.perf_counter() - start)
            say(f"{name}: {outcome.splitlines()[0]} ({time.perf_counter() - start:.0f} s)")
        return self.found

    def keep(self, name: str, rows: list[Row] | None, outcome: str, seconds: float) -> None:
        """Keep the rows of a part; if it was skipped, earlier rows stay."""
        self.found["parts"][name] = {"outcome": outcome, "seconds": seconds}
        if rows is not None:
            self.found[name] = rows
        if self.folder is not None:
            text = json.dumps(self.found, indent=1, ensure_ascii=False) + "\n"
            write(self.folder / RESULTS, text.encode())


def run_apart(name: str, given: Settings, most: float) -> tuple[list[Row], str]:
    """Run a part in its own process, which may crash or hang.

    Args:
        name: the part.
        given: its settings.
        most: the seconds after which it is killed in any case.

    Returns:
        Its rows, including those before an error, and "done" or the reason why it ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        settings = json.dumps(asdict(given))
        command = [sys.executable, "-m", "linrec.benchmark.parts", name, settings, str(file)]
        # (Triton's interpreter must not be measured, even if it is set.)
        own = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        try:
            limit = min(given.seconds + GRACE, most)
            done = subprocess.run(command, capture_output=True, timeout=limit, env=own)
        except subprocess.TimeoutExpired:
            return list(read_rows(file)), f"ended after {limit:.0f} seconds"
        rows = list(read_rows(file))
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()[-KEPT:]
        last = (told.splitlines() or ["nothing was said"])[-1]
        return rows, f"failed with {done.returncode}: {last}\n{told}"
    if rows and rows[-1].keys() == {"stopped"}:
        return rows[:-1], f"stopped {rows[-1]['stopped']}"
    return rows, "done"


def read_rows(file: Path) -> Iterator[Row]:
    """Read rows, up to an incomplete one."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            return
        yield row


def read_results(folder: Path) -> dict[str, Any]:
    """Read the file of an earlier session; empty if there was none.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        kept = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError, RecursionError):
        kept = None
    if isinstance(kept, dict) and isinstance(kept.get("parts"), dict):
        return kept
    raise ValueError(
        f"{folder / RESULTS} cannot be read as results of a device: expected the JSON object that "
        "`linrec bench --device DEVICE --output FOLDER` wrote. Delete it, or give another folder."
    )


def complaints(found: dict[str, Any]) -> list[str]:
    """List the checks and the parts that failed."""
    wrong = [
        f"{row['check']}: {row['error']}" for row in found.get("checks", []) if not row["passed"]
    ]
    for name, part in found["parts"].items():
        if part["outcome"].startswith(("failed", "ended")):
            wrong.append(f"{name}: {part['outcome']}")
    return wrong
