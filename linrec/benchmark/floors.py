"""Bandwidths and rates of a device; its results are given as fractions of these."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from linrec.benchmark.cases import Ways
from linrec.benchmark.timing import medians

# Numbers of a tensor and rows of a square matrix: on CUDA, for a quick look, and otherwise.
SIZES = {"cuda": (1 << 27, 8192), "quick": (1 << 20, 256), "other": (1 << 24, 1024)}


def measure_floors(device: str, seconds: float, quick: bool = False) -> Iterator[dict[str, object]]:
    """Measure bandwidths, rates of products, and launches.

    Args:
        device: the device.
        seconds: the time for all, in seconds.
        quick: whether small sizes are enough.

    Yields:
        Rows with a name, a description, and the bytes, operations or launches a second.
    """
    kind = torch.device(device).type
    numbers, rows = SIZES["quick" if quick else kind if kind in SIZES else "other"]
    traffic: dict[str, tuple[str, int]] = {
        "add": ("torch.add of float32, bytes read and written", 12 * numbers),
        "copy": ("Tensor.copy_ of float32, bytes read and written", 8 * numbers),
        "fill": ("Tensor.fill_ of float32, bytes written", 4 * numbers),
    }
    taken = medians(traffic_of(numbers, device), seconds / 4, 3, device=device)
    for name, (what, moved) in traffic.items():
        yield {"name": name, "what": what, "unit": "bytes", "rate": moved / taken[name]}
    for name, (what, dtype, precision) in products(kind).items():
        square = torch.rand(2, rows, rows, device=device).to(dtype)
        with precision_of_products(precision):
            ways = {name: lambda square=square: square[0] @ square[1]}
            time = medians(ways, seconds / 8, 3, fresh=False, device=device)[name]
        yield {"name": name, "what": what, "unit": "operations", "rate": 2.0 * rows**3 / time}
    one = torch.zeros(1, device=device)
    time = medians({"launch": lambda: one.add_(1)}, seconds / 8, 3, fresh=False, device=device)
    what = "small operations of torch in a row"
    yield {"name": "launch", "what": what, "unit": "operations", "rate": 1 / time["launch"]}


def traffic_of(numbers: int, device: str) -> Ways:
    """Make ways that only read and write memory."""
    left, right, out = torch.rand(3, numbers, device=device)
    return {
        "add": lambda: torch.add(left, right, out=out),
        "copy": lambda: out.copy_(left),
        "fill": lambda: out.fill_(1.0),
    }


def products(kind: str) -> dict[str, tuple[str, torch.dtype, str]]:
    """List the products to time, each with its dtype and the precision of float32 products."""
    found = {"float32": ("products in float32", torch.float32, "ieee")}
    if kind == "cuda":
        # Three products in TF32 make one with nearly float32's digits (Triton's "tf32x3").
        found["tf32"] = ("products in TF32; a third of it is 3xTF32's", torch.float32, "tf32")
        found["bfloat16"] = ("products in bfloat16", torch.bfloat16, "ieee")
        found["float64"] = ("products in float64", torch.float64, "ieee")
    return found


@contextmanager
def precision_of_products(wanted: str) -> Iterator[None]:
    """Set the precision of float32 products on CUDA within the context."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
