"""Closed loops respond like python-control's."""

# The third party's results are of types that it does not declare.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from fractions import Fraction
from typing import Any

import control
import numpy as np
import pytest
import torch

import linrec
from linrec.interop import to_control
from tests.cases import contraction, normal

FREQUENCIES, EPS = np.linspace(0.1, 3.0, 7), np.finfo(float).eps


def system(kind: type, n: int, m: int, p: int, through: bool, seed: int = 0) -> Any:
    A = 0.8 * contraction(n) + 0.05 * normal(n, n, seed=seed)
    A = A if kind is linrec.LinearRecurrence else A - torch.eye(n).double()
    D = normal(p, m, seed=seed + 3) if through else None
    return kind(A, normal(n, m, seed=seed + 1), normal(p, n, seed=seed + 2), D)


def assert_same_response(theirs: Any, mine: Any, loop: float) -> None:
    """See that two systems, which need not have the same states, have one frequency response.

    A response is C M⁻¹ B + D with M = s I - A. A, B, C and D come of at most ten products of up to
    n + m terms, and of a solution with the gains around the loop, whose condition is `loop`; what
    is off by eps in M comes out as ‖M⁻¹‖ times that, and again by the solution at the frequency.
    """
    points = np.exp(1j * FREQUENCIES) if theirs.isdtime(strict=True) else 1j * FREQUENCIES
    other = to_control(mine)
    for s in points:
        allowed = 0.0
        for each in (theirs, other):
            A, B, C, D = (np.asarray(matrix) for matrix in (each.A, each.B, each.C, each.D))
            M = s * np.eye(len(A)) - A
            inverse, size = np.linalg.inv(M), np.linalg.norm
            read = 1 + size(C, 2) * size(inverse, 2)
            moved = (1 + read) * (1 + size(M, 2) * size(inverse, 2)) * (size(B, 2) + size(D, 2) + 1)
            allowed += 10 * (len(A) + B.shape[1]) * EPS * loop * moved
        off = np.abs(theirs(s, squeeze=False) - other(s, squeeze=False)).max()
        assert off <= allowed, (off, allowed)


def condition(first: Any, second: Any, sign: float) -> float:
    """The condition number of the gains around a loop, I - s E₂ E₁ and I - s D₁ D₂."""
    at_once = isinstance(first, linrec.LinearRecurrence)
    worst = 1.0
    for through in (False, True):
        gains = []
        for each in (first, second):
            if isinstance(each, np.ndarray):
                gains.append(each)
                continue
            gain = np.zeros((each.output_size, each.input_size)) if each.D is None else each.D
            gains.append(np.asarray(gain) + (each.C @ each.B).numpy() * (at_once and not through))
        around = np.eye(gains[0].shape[1]) - sign * gains[1] @ gains[0]
        worst = max(worst, float(np.linalg.cond(around)), *(np.linalg.norm(g, 2) for g in gains))
    return float(worst)


kinds = pytest.mark.parametrize("kind", [linrec.LinearRecurrence, linrec.StateSpace])


@kinds
@pytest.mark.parametrize("sign", [-1, 1, -0.5])
@pytest.mark.parametrize(("m", "p"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("through", [(False, False), (True, False), (False, True), (True, True)])
def test_is_controls(kind: type, sign: float, m: int, p: int, through: tuple[bool, bool]) -> None:
    first, second = system(kind, 3, m, p, through[0]), system(kind, 2, p, m, through[1], seed=9)
    closed = linrec.feedback(first, second, sign)
    assert closed.state_size == 5 and (closed.input_size, closed.output_size) == (m, p)
    theirs = control.feedback(to_control(first), to_control(second), sign)
    assert_same_response(theirs, closed, condition(first, second, sign))
    if kind is linrec.LinearRecurrence and not through[0]:
        assert closed.D is None


ENTRIES = [[0.1, 0.2], [0.3, -0.4]]
GAINS: dict[str, Any] = {
    "number": 0.1,
    "numpy's number": np.float64(0.1),
    "whole number": 2,
    "nested lists": ENTRIES,
    "whole numbers": [[1, 2], [3, -4]],
    "array": np.array(ENTRIES),
    "array of whole numbers": np.array([[1, 2], [3, -4]]),
    "tensor": torch.tensor(ENTRIES).double(),
    "rows of tensors": [torch.tensor(row).double() for row in ENTRIES],
}


@kinds
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("name", GAINS)
def test_gains_come_back(name: str, kind: type, through: bool) -> None:
    first, gain = system(kind, 3, 2, 2, through), GAINS[name]
    matrix = gain * np.eye(2) if isinstance(gain, float | int) else np.asarray(gain, float)
    theirs = control.feedback(to_control(first), matrix)
    closed = linrec.feedback(first, gain)
    assert closed.state_size == 3 and closed.dtype == torch.float64
    assert_same_response(theirs, closed, condition(first, matrix, -1))


@kinds
def test_no_gain_is_unity(kind: type) -> None:
    first = system(kind, 3, 2, 2, True)
    theirs = control.feedback(to_control(first), np.eye(2))
    assert_same_response(theirs, linrec.feedback(first), condition(first, np.eye(2), -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.float16])
@pytest.mark.parametrize("name", [*GAINS, "complex number", "complex lists"])
def test_plain_gains_leave_the_dtype_as_it_is(name: str, dtype: torch.dtype) -> None:
    """But a complex one makes it complex; tensors and arrays widen it as torch's promotion does."""
    given = {"complex number": 0.1j, "complex lists": [[0.1j, 0.0], [0.0, 1.0]], **GAINS}[name]
    first = linrec.StateSpace(*(normal(2, 2, seed=i).to(dtype) for i in range(3)))
    closed = linrec.feedback(first, given)
    expected = dtype.to_complex() if "complex" in name and dtype is not torch.float16 else dtype
    if "complex" in name and dtype is torch.float16:
        expected = torch.complex64
    if name in ("array", "tensor", "rows of tensors"):
        expected = torch.promote_types(dtype, torch.float64)
    assert closed.dtype == expected
    if not torch.finfo(dtype).bits == 16:
        wide = first.to(torch.complex128)
        matrix = torch.from_numpy(np.asarray(given, complex) * (1 if np.ndim(given) else np.eye(2)))
        assert wide.B is not None and wide.C is not None
        exact = wide.A.to_dense() - wide.B @ matrix @ wide.C
        # Two products of two terms, a sum, and the rounding of the gain.
        sizes = wide.A.to_dense().abs() + wide.B.abs() @ matrix.abs() @ wide.C.abs()
        off = (closed.A.to_dense().to(exact.dtype) - exact).abs()
        assert (off <= 16 * torch.finfo(expected).eps * sizes).all()


def closed_loop(first: Any, second: Any, inputs: Any, sign: float) -> tuple[torch.Tensor, float]:
    """Solve u₁ = r + s y₂ for the whole sequence at once, both systems as lower-triangular maps.

    Returns the outputs too, and the condition number of that system of equations, which has the
    loop's own on its diagonal.
    """
    steps, m = inputs.shape
    maps = []
    for each in (first, second):
        basis = torch.eye(steps * each.input_size).double().unflatten(-1, (steps, -1))
        answers = linrec.run(each, basis, executor=linrec.Recurrent()).outputs
        maps.append(answers.flatten(-2).mT)
    forth, back = maps
    around = torch.eye(steps * m).double() - sign * back @ forth
    u = torch.linalg.solve(around, inputs.flatten())
    return (forth @ u).unflatten(0, (steps, -1)), float(torch.linalg.cond(around))


@pytest.mark.parametrize("varying", [False, True])
def test_time_domain_answers_solve_the_loop(varying: bool) -> None:
    first = system(linrec.LinearRecurrence, 3, 2, 1, True)
    if varying:
        A = linrec.Varying(contraction(3, 6, radius=0.7))
        first = linrec.LinearRecurrence(A, normal(6, 3, 2, seed=1), normal(1, 3, seed=2), first.D)
    second = system(linrec.LinearRecurrence, 2, 1, 2, True, seed=9)
    inputs = normal(6, 2, seed=7)
    outputs = linrec.run(linrec.feedback(first, second), inputs).outputs
    assert_closed(outputs, *closed_loop(first, second, inputs, -1))
    outputs = linrec.run(linrec.feedback(first, gain := 0.3 * normal(2, 1)), inputs).outputs
    back = linrec.LinearRecurrence([[0.0]], [[0.0]], torch.zeros(2, 1).double(), gain)
    assert_closed(outputs, *closed_loop(first, back, inputs, -1))


def assert_closed(outputs: torch.Tensor, expected: torch.Tensor, condition: float) -> None:
    """Six steps of up to ten products of five terms each, on both sides, and a solution."""
    allowed = 2 * 6 * 10 * 5 * EPS * condition * float(expected.abs().max())
    assert (outputs - expected).abs().max() <= allowed


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


@kinds
def test_autocast_changes_no_composition(kind: type) -> None:
    first, second = (system(kind, 3, 2, 2, True, seed=seed).to(torch.float32) for seed in (0, 5))
    parts = normal(3).float(), normal(3, 2).float(), normal(3, 2, seed=1).float()
    spread = kind(linrec.DiagonalPlusLowRank(*parts), first.B, first.C)
    for compose in (linrec.series, linrec.parallel, linrec.feedback):
        for other in (second, spread):
            expected = compose(first, other)
            with torch.autocast("cpu", torch.bfloat16):
                found = compose(first, other)
            for mine, theirs in zip(found.tensors(), expected.tensors(), strict=True):
                assert mine.dtype == torch.float32 and torch.equal(mine, theirs)


def test_a_pole_keeps_its_digits_under_autocast() -> None:
    tank = linrec.StateSpace([[0.0]], [[1.0]], [[1.001]])
    with torch.autocast("cpu", torch.bfloat16):
        pole = float(linrec.feedback(tank, 2.0).A.to_dense())
    assert abs(pole + 2.002) < 4 * torch.finfo(torch.float32).eps * 2.002


def gains(values: torch.Tensor) -> linrec.StateSpace:
    """Make a system whose outputs hold its inputs times a matrix, beside states."""
    identity = torch.eye(len(values), dtype=values.dtype)
    return linrec.StateSpace(-identity, identity, identity, values)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.float16, 3e4), (torch.float32, 1e9), (torch.float32, 1e30), (torch.float64, 1e200)],
)
def test_large_gains_beside_small_ones_are_no_singular_loop(
    dtype: torch.dtype, size: float
) -> None:
    D = torch.tensor([[size, 2.0], [0.0, 0.5]], dtype=dtype)
    found = linrec.feedback(gains(D)).D
    assert found is not None
    (a, b), (_, d) = [[Fraction(float(each)) for each in row] for row in D]
    inverse = [[1 / (1 + a), -b / ((1 + a) * (1 + d))], [Fraction(0), 1 / (1 + d)]]
    right = [[a / (1 + a), b / ((1 + a) * (1 + d))], [Fraction(0), d / (1 + d)]]
    inverse, right = (
        torch.tensor([[float(each) for each in row] for row in matrix], dtype=torch.float64)
        for matrix in (inverse, right)
    )
    # D (I + D)⁻¹ is a product of an inverse with an error of eps, or of a spacing near zero.
    limits = torch.finfo(dtype)
    spacing = limits.smallest_normal * limits.eps
    allowed = D.double().abs() @ (8 * limits.eps * inverse.abs() + spacing)
    assert ((found.double() - right).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_singular_loops_of_any_scale_are_refused(dtype: torch.dtype) -> None:
    for scale in (1.0, 128.0, 2.0**13):
        # I + D = [[2, 4s], [1/s, 2]]
        D = torch.tensor([[1.0, 4 * scale], [1 / scale, 1.0]], dtype=dtype)
        with pytest.raises(ValueError, match="no solution"):
            linrec.feedback(gains(D))
        with pytest.raises(ValueError, match="no solution"):
            linrec.feedback(gains(torch.eye(2, dtype=dtype)), torch.stack([D * 0, D]))
    near = torch.diag(torch.tensor([torch.finfo(torch.float64).eps / 2 - 1, 1.0]).double())
    with pytest.raises(ValueError, match="no solution"):
        linrec.feedback(gains(near))


@kinds
@pytest.mark.parametrize("gain", [float("nan"), float("inf")])
def test_gains_that_are_not_finite_are_refused(kind: type, gain: float) -> None:
    first = kind([[0.5]], [[1.0]], [[1.0]], [[1.0]])
    with pytest.raises(ValueError, match=r"holds NaN or an infinity: expected finite numbers"):
        linrec.feedback(first, gain)
    with pytest.raises(ValueError, match=r"holds NaN or an infinity: expected finite numbers"):
        linrec.feedback(first, sign=gain)
