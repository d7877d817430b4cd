"""Measurement of this machine's rates, which the planner uses."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from linrec.benchmark.timing import machine, medians
from linrec.planner.rates import Rates, rates_file, read_stored
from linrec.reporting import write

# The factor by which products, transforms and copies are larger on a GPU than on a CPU.
LARGER = 16


def measure_rates(seconds: float = 4.0, device: str = "cpu") -> Rates:
    """Measure this machine's rates for each kind of work in the planner's costs.

    Args:
        seconds: the time to measure for, in seconds.
        device: the device.
    """
    scale = LARGER if torch.device(device).type == "cuda" else 1
    left, right = (
        torch.randn(512 * scale, 256, device=device),
        torch.randn(256, 2048, device=device),
    )
    spectra = torch.randn(256 * scale, 513, dtype=torch.complex64, device=device)
    small, matrix = torch.randn(8, 32, device=device), torch.randn(32, 32, device=device)
    few, many = (1 << 23) * scale, (1 << 24) * scale
    filled, copied = torch.empty(few, device=device), torch.randn(few, device=device)

    def chain() -> torch.Tensor:
        state = small
        for _ in range(100):
            state = torch.addmm(small, state, matrix.mT)
        return state

    taken = medians(
        {
            "product": lambda: left @ right,
            "transform": lambda: torch.fft.irfft(spectra, 1024),
            "fresh": lambda: torch.full((many,), 1.0, device=device),
            "reused": lambda: filled.copy_(copied),
            "chain": chain,
        },
        seconds,
        fresh=False,
        device=device,
    )
    # Results are written into new memory once, then read and written again there.
    fresh, reused = 4.0 * many / taken["fresh"], 8.0 * few / taken["reused"]
    return Rates(
        operations=2.0 * 512 * scale * 256 * 2048 / taken["product"],
        transforms=256 * scale * 2.5 * 1024 * 10 / taken["transform"],
        bytes=(fresh * reused) ** 0.5,
        rounds=100 / taken["chain"],
    )


def store_rates(rates: Rates, path: Path | None = None, device: str = "cpu") -> Path:
    """Save rates for the planner to use from the next start on, in a file written atomically.

    Args:
        rates: the measured rates.
        path: the file. None: one in the user's cache folder.
        device: the measured device; rates of other cards are kept.

    Returns:
        The path of the file.
    """
    kind, here = torch.device(device).type, machine(device)
    path = path or rates_file(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {**asdict(rates), "machine": here}
    if kind != "cpu":
        found = {**read_stored(kind), str(here["device"]): found}
    write(path, (json.dumps(found, indent=2) + "\n").encode())
    return path
