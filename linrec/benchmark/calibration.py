"""This machine's own rates, measured and kept."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from linrec.benchmark.timing import machine, medians
from linrec.planner.rates import Rates, rates_file, read_stored
from linrec.reporting import write

# A GPU is busy with products, transforms and copies so many times as large as a CPU is.
LARGER = 16


def measure_rates(seconds: float = 4.0, device: str = "cpu") -> Rates:
    """Measure what this machine does in a second, of each kind of work that costs are made of.

    Args:
        seconds: for how long it measures, in seconds.
        device: of which device.
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
    # Results are written into memory that is new, and read and written again within it.
    fresh, reused = 4.0 * many / taken["fresh"], 8.0 * few / taken["reused"]
    return Rates(
        operations=2.0 * 512 * scale * 256 * 2048 / taken["product"],
        transforms=256 * scale * 2.5 * 1024 * 10 / taken["transform"],
        bytes=(fresh * reused) ** 0.5,
        rounds=100 / taken["chain"],
    )


def store_rates(rates: Rates, path: Path | None = None, device: str = "cpu") -> Path:
    """Keep rates for the planner to use from the next start on; the file is whole or not there.

    Args:
        rates: what was measured.
        path: where. None: the user's cache folder.
        device: of which device; those of other cards stay.

    Returns:
        Where they are.
    """
    kind, here = torch.device(device).type, machine(device)
    path = path or rates_file(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {**asdict(rates), "machine": here}
    if kind != "cpu":
        found = {**read_stored(kind), str(here["device"]): found}
    write(path, (json.dumps(found, indent=2) + "\n").encode())
    return path
