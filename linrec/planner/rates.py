"""The rates of a machine, which convert a cost into time."""

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch

from linrec.executors import Cost

# If set to a non-empty string, this machine's own rates are ignored.
IGNORE = "LINREC_IGNORE_RATES"


@dataclass(frozen=True)
class Rates:
    """Operations, bytes and rounds a second; their ratios decide which executor is chosen.

    Args:
        operations: multiplications and additions in float32 matrix products.
        transforms: the same in Fourier transforms of float32.
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

    def seconds(self, cost: Cost, *, double: bool = False) -> float:
        """Add up the time of operations, of traffic and of waiting.

        Args:
            cost: the cost.
            double: whether numbers are in double precision: a vector holds half as many of them.
        """
        computing = cost.operations / self.operations + cost.transforms / self.transforms
        waiting = cost.bytes / self.bytes + cost.rounds / self.rounds
        return (2 * computing if double else computing) + waiting


# Two x86 cores with AVX2.
CPU = Rates(operations=1.2e11, transforms=2.2e10, bytes=7.0e9, rounds=1.6e5)

# Not measured: conservative figures from the specifications of a data-centre device. `linrec bench
# --device cuda --calibrate` measures a card.
CUDA = Rates(operations=1.0e13, transforms=5.0e11, bytes=8.0e11, rounds=1.0e5)


def rates_file(device: str = "cpu") -> Path:
    """Return the path of this machine's own rates, in the user's cache folder.

    Args:
        device: a type of device. The CPU's file has its rates; other files have the rates of each
            card, by name.
    """
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "linrec" / ("rates.json" if device == "cpu" else f"rates-{device}.json")


def read_stored(device: str = "cpu") -> Mapping[str, object]:
    """Read the file of a type of device; return nothing if it cannot be read."""
    try:
        stored = json.loads(rates_file(device).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):
        return {}  # none was stored, or it is invalid
    return cast("dict[str, object]", stored) if isinstance(stored, dict) else {}


def rates_in(stored: object) -> Rates | None:
    """Read rates from an entry of the file; None if it is invalid."""
    try:
        found = {name: float(stored[name]) for name in asdict(CPU)}  # type: ignore[index]  # caught
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return Rates(**found) if all(0 < rate < math.inf for rate in found.values()) else None


def stored_rates() -> Rates:
    """Read this machine's own rates; the built-in ones where there are none or they are ignored."""
    return CPU if os.environ.get(IGNORE) else rates_in(read_stored()) or CPU


def stored_cards(device: str = "cuda") -> dict[str, Rates]:
    """Read the rates of cards by name, unless they are to be ignored."""
    if os.environ.get(IGNORE):
        return {}
    found = {name: rates_in(stored) for name, stored in read_stored(device).items()}
    return {name: rates for name, rates in found.items() if rates is not None}


# Read once: a choice must not change while a program runs, nor read files while it is traced.
HERE, CARDS = stored_rates(), stored_cards()


def rates_of(device: str) -> Rates:
    """Return the rates of a type of device; for a GPU its card's rates, where measured."""
    if device == "cpu":
        return HERE
    if not CARDS or device != "cuda":
        return CUDA
    if len(CARDS) == 1 and torch.compiler.is_compiling():  # a name is not traced
        return next(iter(CARDS.values()))
    return CUDA if torch.compiler.is_compiling() else CARDS.get(card_name(), CUDA)


@cache
def card_name() -> str:
    """Return the name of the current CUDA card; an empty string if there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
