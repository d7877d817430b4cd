"""The Legendre memory, derived in two ways, is the one of the closed form."""

# Wrong arguments are passed on purpose, and sympy's annotations are narrower than what it does.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import pytest
import sympy
import torch

import lmu
from linrec import symbolic


@pytest.mark.parametrize("way", ["projection", "pade"])
@pytest.mark.parametrize("order", range(1, 9))
def test_both_ways_lead_to_the_closed_form(order: int, way: str) -> None:
    system = lmu.derive(order, way)
    theta = sympy.Symbol("theta", positive=True)
    A = sympy.Matrix(
        order, order, lambda i, j: (2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1)) / theta
    )
    B = sympy.Matrix(order, 1, lambda i, _: (2 * i + 1) * (-1) ** i / theta)
    assert system == symbolic.StateSpace(A, B)
    bound = system.bind(theta=torch.tensor(7.0, dtype=torch.float64))
    known = lmu.delay_system(order, 7.0)
    # The entries are one quotient each, rounded once or twice.
    torch.testing.assert_close(bound.A.to_dense(), known.A.to_dense(), rtol=4e-16, atol=0)
    torch.testing.assert_close(bound.B, known.B, rtol=4e-16, atol=0)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_end_of_the_window_is_the_pade_approximant_of_the_delay(order: int) -> None:
    s = sympy.Symbol("s")
    A, B, _, _ = lmu.derive(order).matrices
    end = symbolic.StateSpace(A, B, sympy.ones(1, order))  # P̃_i(1) = 1
    theta = end.parameters[0]
    pade = symbolic.StateSpace.from_delay(theta, order - 1, order)
    assert sympy.simplify(end.transfer_function(s) - pade.transfer_function(s)) == 0


@pytest.mark.parametrize(
    ("order", "way", "message"),
    [
        (0, "pade", "`order` is 0"),
        (2.0, "pade", r"`order` is 2\.0"),
        (2, "taylor", "one of projection, pade"),
    ],
)
def test_wrong_arguments_are_told(order: int, way: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lmu.derive(order, way)
