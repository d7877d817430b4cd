"""The rates of a machine, which turn a cost into time."""

import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from linrec.executors import Cost

# Set to anything but an empty string, it makes this machine's own rates be ignored.
IGNORE = "LINREC_IGNORE_RATES"


@dataclass(frozen=True)
class Rates:
    """Operations, bytes and rounds a second; their ratios decide which executor is chosen.

    Args:
        operations: multiplications and additions in float32 matrix products.
        transforms: the same in Fourier transforms.
        bytes: bytes between processor and memory, much of it touched for the first time.
        rounds: small operations that wait for one another.
    """

    operations: float
    transforms: float
    bytes: float
    rounds: float

    def __post_init__(self) -> None:
        for name, rate in asdict(self).items():
            if not (isinstance(rate, float | int) and 0 < rate < math.inf):
                raise ValueError(f"`{name}` is {rate!r}: expected a positive number a second.")

    def seconds(self, cost: Cost) -> float:
        """Add up the time of operations, of traffic and of waiting."""
        return (
            cost.operations / self.operations
            + cost.transforms / self.transforms
            + cost.bytes / self.bytes
            + cost.rounds / self.rounds
        )


# Two x86 cores with AVX2.
CPU = Rates(operations=1.2e11, transforms=2.2e10, bytes=7.0e9, rounds=1.6e5)

# Not measured: on the careful side of what a data-centre device is said to do.
CUDA = Rates(operations=1.0e13, transforms=5.0e11, bytes=8.0e11, rounds=1.0e5)


def rates_file() -> Path:
    """Return the path of this machine's own rates, in the user's cache folder."""
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "linrec" / "rates.json"


def stored_rates() -> Rates:
    """Read this machine's own rates; the built-in ones where there are none or they are ignored."""
    if os.environ.get(IGNORE):
        return CPU
    try:
        stored = json.loads(rates_file().read_text(encoding="utf-8"))
        found = {name: float(stored[name]) for name in asdict(CPU)}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError):
        return CPU  # none was stored, or what was is not one
    return Rates(**found) if all(0 < rate < math.inf for rate in found.values()) else CPU


# Read once: a choice must not change while a program runs, nor read files while it is traced.
HERE = stored_rates()


def rates_of(device: str) -> Rates:
    """Return the rates of a type of device."""
    return HERE if device == "cpu" else CUDA
