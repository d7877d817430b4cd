"""Diagonal plus low rank in a narrow dtype: A written out there would be another matrix.

Here a pole near 1 is the sum of two numbers that float16 holds and of which it does not hold the
sum; in float32 of two that differ by more than its digits.
"""

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

import linrec
from linrec.export.c_source import matrices_of
from linrec.interop import from_pre_update, run_pre_update

DOUBLE = torch.float64
NARROW = {
    "float16": (torch.float16, 0.9995, 0.0156, 0.0128),
    "bfloat16": (torch.bfloat16, 0.996, 0.0156, 0.0625),
    "float32": (torch.float32, 1 - 2.0**-24, 2.0**-13, 2.0**-12),
}


def system(name: str) -> linrec.LinearRecurrence:
    dtype, d, u, v = NARROW[name]
    diagonal, left, right = (
        torch.tensor(each).to(dtype) for each in ([d, 0.5], [[u], [0.1]], [[v], [0.0]])
    )
    A = linrec.DiagonalPlusLowRank(diagonal, left, right)
    B, C = torch.tensor([[1.0], [0.5]]).to(dtype), torch.tensor([[1.0, 0.5]]).to(dtype)
    return linrec.LinearRecurrence(A, B, C)


def written_out(recurrence: linrec.LinearRecurrence) -> Tensor:
    """A in double precision, in which its sums are exact."""
    diagonal, left, right = (each.double() for each in recurrence.A.leaves().values())
    return torch.diag(diagonal) + left @ right.mT


@pytest.fixture(params=NARROW)
def narrow(request: pytest.FixtureRequest) -> linrec.LinearRecurrence:
    recurrence = system(request.param)
    assert not torch.equal(recurrence.A.to_dense().double(), written_out(recurrence))
    return recurrence


def test_the_poles(narrow: linrec.LinearRecurrence) -> None:
    expected = float(written_out(narrow)[0, 0])  # A is lower triangular
    assert abs(float(linrec.poles(narrow)[0].real) - expected) <= 2.0**-24  # rounded to complex64


def test_the_gain(narrow: linrec.LinearRecurrence) -> None:
    A = written_out(narrow).numpy()
    assert narrow.B is not None and narrow.C is not None
    B, C = narrow.B.double().numpy(), narrow.C.double().numpy()
    expected = (C @ np.linalg.solve(np.eye(2) - A, B)).item()
    found = linrec.frequency_response(narrow, torch.tensor([0.0])).real.item()
    assert found == pytest.approx(expected, rel=2.0**-22)  # cast to complex64 last


def test_the_matrix_in_c(narrow: linrec.LinearRecurrence) -> None:
    found = matrices_of(narrow, DOUBLE)["A"]
    assert np.array_equal(found.values, written_out(narrow).numpy())


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_singular_values(name: str) -> None:
    narrow = system(name)
    A = written_out(narrow).numpy()
    assert narrow.B is not None and narrow.C is not None
    B, C = narrow.B.double().numpy(), narrow.C.double().numpy()
    P, Q = solve_discrete_lyapunov(A, B @ B.T), solve_discrete_lyapunov(A.T, C.T @ C)
    expected = np.sort(np.sqrt(np.linalg.eigvals(P @ Q).real))[::-1]
    found = linrec.balanced_realization(narrow).singular_values
    assert float(found[0]) == pytest.approx(expected[0], rel=1e-9)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_read_before_each_step(
    narrow: linrec.LinearRecurrence, outputs: int, varying: bool
) -> None:
    """The matrices are copied, whichever of C and I is held back, one or one a step."""
    A = linrec.Varying(narrow.A[None].map(lambda each, core: each.expand(50, *each.shape[1:])))
    C = torch.ones(outputs, 2).to(narrow.dtype)
    inputs = torch.ones(50, 1).to(narrow.dtype)
    extended = from_pre_update(A if varying else narrow.A, narrow.B, C)
    dense, n = extended.A.to(DOUBLE).to_dense(), 2
    assert torch.equal(dense[..., :n, :n].reshape(-1, n, n)[0], written_out(narrow))
    assert not dense[..., n:].any()
    found = linrec.run(extended, inputs).outputs.double()
    expected = run_pre_update(narrow.A, narrow.B, C, None, inputs).outputs.double()
    # All numbers are positive: 50 steps of at most five roundings in float32, and one at the end.
    off = 2 * 250 * 2.0**-24 + torch.finfo(narrow.dtype).eps
    torch.testing.assert_close(found, expected, rtol=off, atol=0.0)


def test_the_step_response_is_summed_in_double_precision() -> None:
    """4,000 numbers of 1e-6, of which float16 holds two digits."""
    recurrence = linrec.LinearRecurrence(
        linrec.Diagonal(torch.tensor([0.999]).half()), torch.tensor([[1e-6]]).half()
    )
    a, b = float(recurrence.A.leaves()["diagonal"][0]), float(recurrence.B[0, 0])  # type: ignore[index]  # there is a B
    expected = b * (1 - a**4000) / (1 - a)
    found = float(linrec.step_response(recurrence, 4000)[-1])
    assert found == pytest.approx(expected, rel=2.0**-10)  # float16 holds it to 2^-11
