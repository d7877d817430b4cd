"""The executors' accuracy compared with the plain loop's, on systems from practice."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import linalg, signal
from torch import Tensor

from linrec.benchmark.cases import legendre
from linrec.executors import (
    AssociativeScan,
    Chunked,
    Executor,
    FFTConvolution,
    Recurrent,
    Toeplitz,
)
from linrec.planner import Auto
from linrec.run import run
from linrec.systems import LinearRecurrence

# The number of steps, and the reference's bits after the binary point.
STEPS, POINT = 600, 300

# Kinds of filters, with the arguments that scipy's functions take between order and cutoff.
FILTERS = {
    "butter": (),
    "cheby1": (1,),
    "cheby2": (40,),
    "ellip": (0.7, 41),
    "bessel": (),
}
ORDERS = (2, 3, 4, 5, 6, 7, 8)
CUTOFFS = (0.005, 0.013, 0.05, 0.1, 0.2, 0.3, 0.45)

EXECUTORS: tuple[Executor, ...] = (
    Toeplitz(),
    FFTConvolution(),
    AssociativeScan(),
    Chunked(),
    Auto(),
)


def systems(
    orders: tuple[int, ...] = ORDERS, cutoffs: tuple[float, ...] = CUTOFFS, largest: int = 256
) -> Iterator[tuple[str, Any]]:
    """Yield the systems of each family, with the family's name."""
    for kind, between in FILTERS.items():
        for order, cutoff in product(orders, cutoffs):
            b, a = getattr(signal, kind)(order, *between, cutoff)
            yield f"scipy's {kind}", signal.tf2ss(b, a)
    random = np.random.default_rng(0)
    for n in (3, 6, 10):
        modulus, angle = random.uniform(0.5, 0.99, n // 2), random.uniform(0, np.pi, n // 2)
        pairs = modulus * np.exp(1j * angle)
        poles = np.concatenate([pairs, pairs.conj(), [0.7] * (n % 2)])
        yield "random companion", around(linalg.companion(np.poly(poles).real), random)
    for n, sign in product((6, 12), (1, -1)):
        chain = np.diag(np.full(n, 0.95)) + sign * np.diag(np.full(n - 1, 0.8), -1)
        yield "cascade", (chain, np.eye(n, 1), np.eye(1, n, n - 1), np.zeros((1, 1)))
    for order in (8, 32, 64, 256):
        if order <= largest:
            memory = legendre(order, max(100.0, 2.0 * order)).to(torch.float64)
            A, B = memory.A.to_dense().numpy(), memory.B
            assert B is not None
            yield "Legendre", (A, B.numpy(), random.standard_normal((1, order)), np.zeros((1, 1)))
    for n in (3, 6):
        yield "Jordan block at 1", around(np.eye(n) + np.eye(n, k=1), random)
    for n in (5, 20):
        turn = np.linalg.qr(random.standard_normal((n, n)))[0]
        yield "orthogonal", around(turn, random)
        # A matrix of norm 50 that no rounding can make unstable.
        skew = np.triu(random.standard_normal((n, n)), 1) * np.eye(n, k=1)
        skew *= 50 / np.linalg.norm(skew, 2)
        if n == 5:
            yield (
                "norm 50, radius 0.9",
                around(turn @ (skew + np.diag(np.linspace(-0.9, 0.9, n))) @ turn.T, random),
            )
        full = random.standard_normal((n, n))
        yield "random", around(full * 0.97 / np.abs(np.linalg.eigvals(full)).max(), random)


def around(A: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Add one random input and output to a matrix."""
    n = len(A)
    return A, random.standard_normal((n, 1)), random.standard_normal((1, n)), np.zeros((1, 1))


def exact_outputs(matrices: list[np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """Run a loop in Python's integers as fixed-point numbers with 300 bits after the point.

    Args:
        matrices: A, B, C and D.
        inputs (time, 1): u.

    Returns:
        Outputs `(time, 1)`, rounded to doubles.
    """
    A, B, C, D = (to_fixed_point(matrix) for matrix in matrices)
    state, outputs = to_fixed_point(np.zeros(len(A))), []
    for now in to_fixed_point(inputs):
        state = (A @ state + B @ now) >> POINT
        outputs.append((C @ state + D @ now) >> POINT)
    return np.array([[entry / (1 << POINT) for entry in row] for row in outputs])


def to_fixed_point(array: np.ndarray) -> np.ndarray:
    """Convert doubles to whole multiples of 2^-POINT, cutting off smaller parts."""
    ratios = [float(entry).as_integer_ratio() for entry in array.flat]
    whole = [(top << POINT) // bottom for top, bottom in ratios]
    return np.array(whole, object).reshape(array.shape)


def measure_accuracy(
    orders: tuple[int, ...] = ORDERS, cutoffs: tuple[float, ...] = CUTOFFS, largest: int = 256
) -> Iterator[dict[str, Any]]:
    """Run every system with every executor and with the loop, in both precisions.

    Args:
        orders: the orders of scipy's filters.
        cutoffs: their cutoffs, as fractions of half the sampling rate.
        largest: the largest order of a Legendre memory.

    Yields:
        The family, the dtype, the executor, the largest errors of the loop and of the executor,
        relative to the largest output, and the ratio of the two.
    """
    inputs = np.random.default_rng(1).standard_normal((STEPS, 1))
    for family, matrices in systems(orders, cutoffs, largest):
        for dtype in (torch.float64, torch.float32):
            cast = [torch.tensor(np.asarray(matrix)).to(dtype) for matrix in matrices]
            u = torch.tensor(inputs).to(dtype)
            exact = exact_outputs([matrix.double().numpy() for matrix in cast], u.double().numpy())
            recurrence = LinearRecurrence(*cast)
            loop = error(run(recurrence, u, executor=Recurrent()).outputs, exact)
            for executor in EXECUTORS:
                found = error(run(recurrence, u, executor=executor).outputs, exact)
                yield {
                    "family": family,
                    "dtype": str(dtype).removeprefix("torch."),
                    "executor": type(executor).__name__,
                    "loop": loop,
                    "error": found,
                    "ratio": found / max(loop, torch.finfo(dtype).eps / 2),
                }


def error(outputs: Tensor, exact: np.ndarray) -> float:
    """Return the largest error of a sequence relative to its largest output."""
    difference = np.abs(outputs.detach().double().numpy() - exact).max()
    return float(difference / np.abs(exact).max())
