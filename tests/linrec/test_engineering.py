"""Systems that engineers have: bounds hold there for every executor, and say something."""

import os
import statistics
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import linrec
from linrec.benchmark.accuracy import exact_outputs
from linrec.testing import error_bound
from linrec.testing.engineering import CUTOFFS, FAMILIES, ORDERS

FULL = bool(os.environ.get("LINREC_FULL"))
STEPS = 200 if FULL else 60
EXECUTORS = (
    linrec.Recurrent(),
    linrec.Toeplitz(),
    linrec.FFTConvolution(),
    linrec.AssociativeScan(),
    linrec.Chunked(),
    linrec.Auto(),
)


def systems(family: str) -> Iterator[tuple[linrec.LinearRecurrence, list[np.ndarray]]]:
    """Systems of a family in both precisions, and their matrices as doubles."""
    orders, cutoffs = (ORDERS, CUTOFFS) if FULL else ((3, 6), (0.05, 0.2))
    random = np.random.default_rng(0)
    for order in orders:
        for cutoff in cutoffs:
            made = FAMILIES[family](order, cutoff, random)
            for dtype in (torch.float64, torch.float32):
                cast = [torch.as_tensor(np.array(matrix, np.float64)).to(dtype) for matrix in made]
                yield linrec.LinearRecurrence(*cast), [each.double().numpy() for each in cast]


@pytest.mark.parametrize("family", FAMILIES)
def test_bounds_hold_and_say_something(family: str) -> None:
    """At each step; the largest bound of a sequence is compared with its largest error."""
    ratios: dict[tuple[str, str], list[float]] = {}
    given = np.random.default_rng(1).standard_normal((STEPS, 1))
    for recurrence, matrices in systems(family):
        inputs = torch.as_tensor(given).to(recurrence.dtype)
        exact = torch.as_tensor(exact_outputs(matrices, inputs.double().numpy()))
        rounding = torch.finfo(torch.float64).eps * exact.abs()
        loop = 2 * float(error_bound(recurrence, inputs, linrec.Recurrent()).outputs.max())
        for executor in EXECUTORS:
            outputs = linrec.run(recurrence, inputs, executor=executor).outputs
            bound = error_bound(recurrence, inputs, executor).outputs + rounding
            error = (outputs.double() - exact).abs()
            assert bool((error <= bound).all()), (executor, recurrence, (error / bound).max())
            least = float(torch.finfo(recurrence.dtype).eps / 2 * exact.abs().max())
            # What a bound is for: of these systems in double precision it promises six digits or
            # more, of the sharpest filters (orders of 7 and 8 at cutoffs of 0.005 and 0.02, tried
            # with LINREC_FULL alone), as many as the loop's.
            if recurrence.dtype == torch.float64:
                promised = max(1e-6 * float(exact.abs().max()), 0.0 if not FULL else loop)
                assert float(bound.max()) < promised, (executor, recurrence)
            ratio = float(bound.max()) / max(float(error.max()), least)
            key = type(executor).__name__, str(recurrence.dtype).removeprefix("torch.")
            ratios.setdefault(key, []).append(ratio)
    for (name, dtype), found in ratios.items():
        median = statistics.median(found)
        print(f"| {family} | {dtype} | {name} | {median:.2g} | {max(found):.2g} |")
