"""This machine's own rates, measured and kept."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from linrec.benchmark.timing import machine, medians
from linrec.planner.rates import Rates, rates_file
from linrec.reporting import write


def measure_rates(seconds: float = 4.0) -> Rates:
    """Measure what this machine does in a second, of each kind of work that costs are made of.

    Args:
        seconds: for how long it measures, in seconds.
    """
    left, right = torch.randn(512, 256), torch.randn(256, 2048)
    spectra = torch.randn(256, 513, dtype=torch.complex64)
    small, matrix = torch.randn(8, 32), torch.randn(32, 32)
    filled, copied = torch.empty(1 << 23), torch.randn(1 << 23)

    def chain() -> torch.Tensor:
        state = small
        for _ in range(100):
            state = torch.addmm(small, state, matrix.mT)
        return state

    taken = medians(
        {
            "product": lambda: left @ right,
            "transform": lambda: torch.fft.irfft(spectra, 1024),
            "fresh": lambda: torch.full((1 << 24,), 1.0),
            "reused": lambda: filled.copy_(copied),
            "chain": chain,
        },
        seconds,
        fresh=False,
    )
    # Results are written into memory that is new, and read and written again within it.
    fresh, reused = 4.0 * (1 << 24) / taken["fresh"], 8.0 * (1 << 23) / taken["reused"]
    return Rates(
        operations=2.0 * 512 * 256 * 2048 / taken["product"],
        transforms=256 * 2.5 * 1024 * 10 / taken["transform"],
        bytes=(fresh * reused) ** 0.5,
        rounds=100 / taken["chain"],
    )


def store_rates(rates: Rates, path: Path | None = None) -> Path:
    """Keep rates for the planner to use from the next start on; the file is whole or not there.

    Args:
        rates: what was measured.
        path: where. None: the user's cache folder.

    Returns:
        Where they are.
    """
    path = path or rates_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**asdict(rates), "machine": machine()}, indent=2) + "\n"
    write(path, text.encode())
    return path
