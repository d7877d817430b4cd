"""The tables that tests cross: transition matrices, systems around them, and executors."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

import linrec

EXECUTORS: dict[str, linrec.Executor] = {
    "recurrent": linrec.Recurrent(),
    "toeplitz": linrec.Toeplitz(),
    "fft": linrec.FFTConvolution(),
    "scan": linrec.AssociativeScan(),
    "chunked": linrec.Chunked(),
    "chunked-1": linrec.Chunked(size=1),
    "chunked-3": linrec.Chunked(size=3),
    "auto": linrec.Auto(),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def contraction(n: int, *batch: int, radius: float = 0.9) -> Tensor:
    """Random matrices of the given spectral radius at most (their norms are scaled to it)."""
    matrix = normal(*batch, n, n)
    return radius * matrix / torch.linalg.matrix_norm(matrix, 2)[..., None, None]


def rotation(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def legendre(order: int, theta: float) -> Tensor:
    """The discretised Legendre matrix, from the formula, not from lmu."""
    i, j = torch.arange(order)[:, None], torch.arange(order)[None, :]
    signs = torch.where(i < j, -1.0, (-1.0) ** (i - j + 1).abs())
    return torch.linalg.matrix_exp(((2 * i + 1) * signs).double() / theta)


COMPLEX = torch.complex128

TRANSITIONS: dict[str, Callable[[], linrec.Structure]] = {
    "one state": lambda: linrec.Dense(torch.tensor([[0.5]], dtype=torch.float64)),
    "dense": lambda: linrec.Dense(contraction(4)),
    "identity": lambda: linrec.Dense(torch.eye(3, dtype=torch.float64)),
    "zero": lambda: linrec.Dense(torch.zeros(3, 3, dtype=torch.float64)),
    "nilpotent": lambda: linrec.Dense(torch.diag(torch.ones(3, dtype=torch.float64), 1)),
    "jordan": lambda: linrec.Dense(
        0.9 * torch.eye(3, dtype=torch.float64) + torch.diag(torch.ones(2, dtype=torch.float64), 1)
    ),
    "unstable": lambda: linrec.Dense(contraction(3, radius=1.0) + 0.5 * torch.eye(3).double()),
    "badly scaled": lambda: linrec.Dense(
        torch.tensor([[0.5, 1e6], [1e-8, 0.9]], dtype=torch.float64)
    ),
    "legendre": lambda: linrec.Dense(legendre(6, 12.0)),
    "dense complex": lambda: linrec.Dense(torch.complex(contraction(3), 0.3 * contraction(3))),
    "dense batch": lambda: linrec.Dense(contraction(3, 2)),
    "diagonal": lambda: linrec.Diagonal(torch.linspace(-0.9, 1.0, 4, dtype=torch.float64)),
    "diagonal complex": lambda: linrec.Diagonal(
        torch.polar(torch.full((3,), 0.95).double(), torch.tensor([0.1, 1.0, 3.0]).double())
    ),
    "diagonal batch": lambda: linrec.Diagonal(normal(2, 3).tanh()),
    "blocks": lambda: linrec.BlockDiagonal(
        0.9 * torch.stack([rotation(0.3), rotation(1.0), rotation(2.5)])
    ),
    "blocks complex batch": lambda: linrec.BlockDiagonal(
        torch.complex(contraction(2, 2, 2), 0.2 * contraction(2, 2, 2))
    ),
    "companion": lambda: linrec.Companion(torch.tensor([-1.2, 0.5, -0.1]).double()),
    "companion complex batch": lambda: linrec.Companion(
        0.3 * normal(2, 1, 3, dtype=COMPLEX), transposed=True
    ),
    "low rank": lambda: linrec.DiagonalPlusLowRank(
        torch.full((5,), 0.5).double(), 0.2 * normal(5, 1, seed=1), 0.2 * normal(5, 1, seed=2)
    ),
    "low rank complex": lambda: linrec.DiagonalPlusLowRank(
        torch.polar(torch.full((4,), 0.6).double(), torch.arange(4).double()),
        0.2 * normal(4, 2, seed=1, dtype=COMPLEX),
        0.2 * normal(4, 2, seed=2, dtype=COMPLEX),
    ),
    "low rank batch": lambda: linrec.DiagonalPlusLowRank(
        normal(2, 1, 4).tanh(), 0.2 * normal(4, 1, seed=1), 0.2 * normal(4, 1, seed=2)
    ),
}

VARYING: dict[str, Callable[[int], linrec.Varying]] = {
    "varying dense": lambda steps: linrec.Varying(contraction(3, steps, radius=1.0)),
    "varying dense batch": lambda steps: linrec.Varying(contraction(3, 2, steps, radius=1.0)),
    "varying diagonal": lambda steps: linrec.Varying(linrec.Diagonal(normal(steps, 3).tanh())),
    "varying diagonal complex batch": lambda steps: linrec.Varying(
        linrec.Diagonal(0.5 * normal(2, steps, 3, dtype=COMPLEX))
    ),
    "varying blocks": lambda steps: linrec.Varying(
        linrec.BlockDiagonal(contraction(2, steps, 2, radius=1.0))
    ),
    "varying companion": lambda steps: linrec.Varying(
        linrec.Companion(0.4 * normal(steps, 3), transposed=True)
    ),
    "varying low rank": lambda steps: linrec.Varying(
        linrec.DiagonalPlusLowRank(
            0.5 * normal(steps, 4).tanh(),
            0.2 * normal(steps, 4, 1, seed=1),
            0.2 * normal(4, 1, seed=2),
        )
    ),
}


def around(
    A: linrec.Structure | linrec.Varying,
    m: int | None,
    p: int | None,
    through: bool,
    copies: int = 1,
) -> linrec.LinearRecurrence:
    """Put B (n, m), C (p, n) and D around A; None leaves them out; complex if A is."""
    n, dtype = (bare := linrec.LinearRecurrence(A)).state_size, bare.dtype
    dtype = COMPLEX if dtype.is_complex else torch.float64
    B = None if m is None else normal(n, m, seed=3, dtype=dtype)
    C = None if p is None else normal(p, n, seed=4, dtype=dtype)
    D = normal(p or n, m or n, seed=5, dtype=dtype) if through else None
    return linrec.LinearRecurrence(A, B, C, D, copies=copies)


SYSTEMS: dict[str, Callable[[linrec.Structure | linrec.Varying], linrec.LinearRecurrence]] = {
    "A": lambda A: around(A, None, None, False),
    "AB": lambda A: around(A, 1, None, False),
    "ABC": lambda A: around(A, 2, 1, False),
    "ABCD": lambda A: around(A, 1, 3, True),
    "AD": lambda A: around(A, None, None, True),
    "AC, 2 copies": lambda A: around(A, None, 2, False, copies=2),
    "AB, 3 copies": lambda A: around(A, 1, None, False, copies=3),
    "ABCD, 2 copies": lambda A: around(A, 2, 2, True, copies=2),
}


def data(
    recurrence: linrec.LinearRecurrence, steps: int, *batch: int, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Inputs `(*batch, *system batch, steps, m)` and an initial state for a recurrence."""
    shape = (*batch, *recurrence.batch_shape)
    dtype = dtype or recurrence.dtype
    inputs = normal(*shape, steps, recurrence.input_size, seed=6, dtype=dtype)
    return inputs, normal(*shape, recurrence.state_size, seed=7, dtype=dtype)
