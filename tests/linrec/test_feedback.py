"""Closed loops answer as python-control's do."""

# The third party's results are of types that it does not declare.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from typing import Any

import control
import numpy as np
import pytest
import torch

import linrec
from linrec.interop import to_control
from tests.cases import contraction, normal

FREQUENCIES = np.linspace(0.1, 3.0, 7)


def system(kind: type, n: int, m: int, p: int, through: bool, seed: int = 0) -> Any:
    A = 0.8 * contraction(n) + 0.05 * normal(n, n, seed=seed)
    A = A if kind is linrec.LinearRecurrence else A - torch.eye(n).double()
    D = normal(p, m, seed=seed + 3) if through else None
    return kind(A, normal(n, m, seed=seed + 1), normal(p, n, seed=seed + 2), D)


def responses(theirs: Any, mine: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both frequency responses, (frequency, p, m)."""
    points = np.exp(1j * FREQUENCIES) if theirs.isdtime(strict=True) else 1j * FREQUENCIES
    other = to_control(mine)
    return np.array([theirs(s, squeeze=False) for s in points]), np.array(
        [other(s, squeeze=False) for s in points]
    )


kinds = pytest.mark.parametrize("kind", [linrec.LinearRecurrence, linrec.StateSpace])


@kinds
@pytest.mark.parametrize("sign", [-1, 1, -0.5])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("through", [(False, False), (True, False), (False, True), (True, True)])
def test_is_controls(kind: type, sign: float, m: int, p: int, through: tuple[bool, bool]) -> None:
    first, second = system(kind, 3, m, p, through[0]), system(kind, 2, p, m, through[1], seed=9)
    closed = linrec.feedback(first, second, sign)
    assert closed.state_size == 5 and (closed.input_size, closed.output_size) == (m, p)
    theirs, mine = responses(control.feedback(to_control(first), to_control(second), sign), closed)
    # Solving the loop loses what its condition says, and so does the response at a frequency.
    assert np.abs(theirs - mine).max() <= 1e-9 * max(np.abs(theirs).max(), 1)
    if kind is linrec.LinearRecurrence and not through[0]:
        assert closed.D is None


@kinds
@pytest.mark.parametrize("through", [False, True])
def test_gains_come_back(kind: type, through: bool) -> None:
    first = system(kind, 3, 2, 2, through)
    for gain in (0.5, [[0.1, 0.2], [0.3, -0.4]], normal(2, 2)):
        matrix = gain * np.eye(2) if isinstance(gain, float) else np.asarray(gain)
        theirs = control.feedback(to_control(first), matrix)
        closed = linrec.feedback(first, gain)
        assert closed.state_size == 3 and closed.dtype == torch.float64
        expected, mine = responses(theirs, closed)
        assert np.abs(expected - mine).max() <= 1e-7 * max(np.abs(expected).max(), 1)
    unity = linrec.feedback(first)
    expected, mine = responses(control.feedback(to_control(first), np.eye(2)), unity)
    assert np.abs(expected - mine).max() <= 1e-9 * max(np.abs(expected).max(), 1)


def closed_loop(first: Any, second: Any, inputs: Any, sign: float) -> torch.Tensor:
    """Solve u₁ = r + s y₂ for the whole sequence at once, both systems as lower-triangular maps."""
    steps, m = inputs.shape
    maps = []
    for each in (first, second):
        basis = torch.eye(steps * each.input_size).double().unflatten(-1, (steps, -1))
        answers = linrec.run(each, basis, executor=linrec.Recurrent()).outputs
        maps.append(answers.flatten(-2).mT)
    forth, back = maps
    u = torch.linalg.solve(torch.eye(steps * m).double() - sign * back @ forth, inputs.flatten())
    return (forth @ u).unflatten(0, (steps, -1))


@pytest.mark.parametrize("varying", [False, True])
def test_time_domain_answers_solve_the_loop(varying: bool) -> None:
    first = system(linrec.LinearRecurrence, 3, 2, 1, True)
    if varying:
        A = linrec.Varying(contraction(3, 6, radius=0.7))
        first = linrec.LinearRecurrence(A, normal(6, 3, 2, seed=1), normal(1, 3, seed=2), first.D)
    second = system(linrec.LinearRecurrence, 2, 1, 2, True, seed=9)
    inputs = normal(6, 2, seed=7)
    outputs = linrec.run(linrec.feedback(first, second), inputs).outputs
    expected = closed_loop(first, second, inputs, -1)
    assert torch.allclose(outputs, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    outputs = linrec.run(linrec.feedback(first, 0.3 * normal(2, 1)), inputs).outputs
    assert outputs.shape == (6, 1)


def test_batches_copies_and_gradients() -> None:
    gains = torch.tensor([0.5, 1.0, 2.0]).double().reshape(3, 1, 1)
    plant = linrec.LinearRecurrence(contraction(2), normal(2, 1), normal(1, 2, seed=1))
    bank = linrec.feedback(plant, gains)
    assert bank.batch_shape == (3,)
    for index in range(3):
        single = linrec.feedback(plant, gains[index])
        assert torch.allclose(bank.A.to_dense()[index], single.A.to_dense())
    twice = linrec.LinearRecurrence(plant.A, plant.B, plant.C, copies=2)
    closed = linrec.feedback(twice, 0.5)
    assert closed.copies == 2 and torch.equal(
        closed.A.to_dense(), linrec.feedback(plant, 0.5).A.to_dense()
    )
    controller = normal(1, 1, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda gain: linrec.feedback(plant, gain).A.to_dense(), (controller,)
    )


@kinds
def test_a_loop_without_a_solution_is_refused(kind: type) -> None:
    D = [[0.0]] if kind is linrec.LinearRecurrence else [[1.0]]
    first = kind([[0.5]], [[1.0]], [[1.0]], D)  # its outputs have u_t once, either way
    with pytest.raises(ValueError, match="The loop is algebraic and has no solution"):
        linrec.feedback(first, 1.0, sign=1)
    assert linrec.feedback(first, 1.0, sign=-1).state_size == 1


def test_systems_that_do_not_fit_are_refused() -> None:
    first, second = (system(linrec.LinearRecurrence, 2, 2, 1, False) for _ in range(2))
    with pytest.raises(ValueError, match="2 inputs and 1 outputs"):
        linrec.feedback(first, second)
    with pytest.raises(ValueError, match="2 inputs and 1 outputs"):
        linrec.feedback(first)
    with pytest.raises(ValueError, match=r"`second` has shape \(2,\)"):
        linrec.feedback(first, torch.ones(2))
    with pytest.raises(TypeError, match="expected two of a kind"):
        linrec.feedback(first, system(linrec.StateSpace, 2, 1, 2, False))
    with pytest.raises(TypeError, match="`second` is of type str"):
        linrec.feedback(first, "unity")
