"""The cases on a device: their times, and the bytes and operations of their bounds."""

from collections.abc import Iterator
from typing import Any

import torch

from linrec.benchmark.cases import CASES, Case, Ways, all_states, elementwise, legendre
from linrec.benchmark.timing import medians
from linrec.nn import Recurrence
from linrec.planner import Auto
from linrec.run import step
from linrec.stream import Stream

# For a first look.
SMALL = (all_states(8, 64, 8, most=1.0), elementwise(2, 64, 32), elementwise(1, 512, 4))

# The bytes that a way must move for each number of its result.
STATES = {"floor": 4, "forward": 4, "with gradient": 8}
SCANS = {"floor": 12, "forward": 12, "with gradient": 32, "gradient alone": 20}

# Targets, as shares of the device's measured rates.
SCAN_AIMS = {"forward": ("add", 0.85), "gradient alone": ("add", 0.8)}
LONG_AIMS = {"forward": ("add", 0.7)}  # one long sequence
STATE_AIMS = {"forward": ("fill", 0.8)}  # up to 64 states
WIDE_AIMS = {"forward": ("tf32", 0.2)}  # beyond: 60 % of a third of TF32's rate


def measure_cases(device: str, seconds: float, cases: tuple[Case, ...] = CASES) -> Iterator[dict]:
    """Time every case on a device.

    Args:
        device: the device.
        seconds: the time for all, in seconds.
        cases: the cases.

    Yields:
        Rows with the seconds of each way, its bytes and operations where they are known, and its
        target as a share of a floor.
    """
    for case in cases:
        try:
            ways = case.make(device)
            cold = case.numbers > 0  # large results are not in caches
            times = medians(ways, seconds / len(cases), 2, fresh=cold, device=device)
            memory = {name: peak_bytes(device, way) for name, way in ways.items()}
        except torch.OutOfMemoryError as error:
            yield {"case": case.name, "way": "all", "reason": str(error).splitlines()[0]}
            continue
        finally:
            ways = {}
        if "with gradient" in times and "forward" in times:
            times["gradient alone"] = times["with gradient"] - times["forward"]
        for way, taken in times.items():
            yield {"case": case.name, "way": way, "seconds": taken, "memory": memory.get(way)} | (
                bounds_of(case, way)
            )


def bounds_of(case: Case, way: str) -> dict[str, Any]:
    """Return the bytes and the operations of a way, and its target as a share of a floor."""
    scan = case.name.startswith("elementwise")
    each = (SCANS if scan else STATES).get(way)
    moved = each * case.numbers if each and case.numbers else None
    products = case.operations if way == "forward" and not scan else 0.0
    aims = SCAN_AIMS if scan else STATE_AIMS
    if scan and ": 1 × " in case.name:
        aims = LONG_AIMS
    elif not scan and case.operations > 130.0 * case.numbers:
        aims = WIDE_AIMS
    floor, share = aims.get(way, (None, None)) if case.numbers else (None, None)
    return {"bytes": moved, "operations": products or None, "floor": floor, "aim": share}


def peak_bytes(device: str, way: Any) -> int | None:
    """Measure the peak memory that a call adds on a GPU, in bytes; None elsewhere."""
    if torch.device(device).type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    way()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def measure_steps(device: str, seconds: float, order: int = 256) -> Iterator[dict[str, Any]]:
    """Time one sample of a memory on a device: as a step, pushed, and pushed as a graph."""
    memory = Recurrence(legendre(order, 784.0, device=device)).recurrence
    for streams in (1, 64):
        sample = torch.randn(streams, 1, device=device)
        state = torch.randn(streams, order, device=device)
        plain, graphed = (Stream(memory, streams=streams) for _ in range(2))
        A, B = memory.A.to_dense(), memory.B
        assert B is not None
        driven = B[:, 0] * sample
        ways: Ways = {
            "product A x + B u": lambda d=driven, x=state, A=A: torch.addmm(d, x, A.mT),
            "linrec.step": lambda u=sample, x=state: step(memory, u, x).outputs,
            "Stream.push": lambda u=sample, s=plain: s.push(u),
        }
        reason = graphed.capture()
        if reason is None:
            ways["Stream.push, captured"] = lambda u=sample, s=graphed: s.push(u)
        times = medians(ways, seconds / 2, 3, fresh=False, device=device)
        for name, taken in times.items():
            yield {"order": order, "streams": streams, "way": name, "seconds": taken}
        if reason is not None:
            yield {"order": order, "streams": streams, "way": "captured", "reason": reason}


def chosen_on(device: str) -> Iterator[dict[str, str]]:
    """Yield the executor chosen for three shapes of the cases."""
    for order, steps, batch in ((32, 1024, 2048), (468, 784, 100), (64, 65536, 4)):
        memory = legendre(order, steps / 2, device=device)
        chosen = Auto().select(memory, steps, (batch,), prepared=True)
        yield {"shape": f"{batch} × {steps:,}, order {order}", "chosen": str(chosen)}
