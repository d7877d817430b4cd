"""Certificates: no error exceeds its bound, and bounds are close to the errors."""

import math
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import signal
from torch import Tensor

import linrec
import lmu
from linrec._call import prepare_call
from linrec._tensors.dtypes import double_dtype
from linrec.certificate import enclosure, propagation, sums
from linrec.certificate.real import real_system
from linrec.testing import inputs_for, recurrences, structures
from linrec.testing.reference import Dyadic, real_matrices
from tests.cases import normal

DTYPES = (torch.float32, torch.float64)


def of_scipy(coefficients: Any) -> linrec.LinearRecurrence:
    matrices = (torch.as_tensor(matrix) for matrix in signal.tf2ss(*coefficients))
    return linrec.LinearRecurrence(*matrices)


def dense(A: Tensor, seed: int = 1) -> linrec.LinearRecurrence:
    n = A.shape[-1]
    B, C = normal(n, 1, seed=seed, dtype=A.dtype), normal(2, n, seed=seed + 1, dtype=A.dtype)
    return linrec.LinearRecurrence(A, B, C)


def turned(values: Tensor, seed: int) -> Tensor:
    """Put values on a diagonal, in coordinates that mix them."""
    T = normal(len(values), len(values), seed=seed)
    return T @ torch.diag(values) @ torch.linalg.inv(T)


def gates(*shape: int) -> Tensor:
    return normal(*shape).sigmoid()


ROTATION = torch.linalg.qr(normal(6, 6)).Q
JORDAN = torch.eye(4, dtype=torch.float64) + torch.diag(torch.ones(3, dtype=torch.float64), 1)
POLES = torch.polar(gates(5), normal(5))
UNITS = torch.tensor([1e-4, 1.0, 1e4], dtype=torch.float64)

CERTIFIED = {
    "butter(6, .05)": of_scipy(signal.butter(6, 0.05)),
    "bessel(7, .07)": of_scipy(signal.bessel(7, 0.07)),
    "cheby1(6, 1, .1)": of_scipy(signal.cheby1(6, 1, 0.1)),
    "ellip(4, 1, 40, .3)": of_scipy(signal.ellip(4, 1, 40, 0.3)),
    "Legendre 8": linrec.discretize(lmu.delay_system(8, 30.0).to(torch.float64)),
    "Legendre 20": linrec.discretize(lmu.delay_system(20, 60.0).to(torch.float64)),
    "Jordan at 1": dense(JORDAN),
    "rotation": dense(ROTATION),
    "nilpotent": dense(torch.diag(torch.ones(5, dtype=torch.float64), -1)),
    "norm 50, radius 0.9": dense(torch.diag(torch.full((4,), 0.9).double()) + 50 * JORDAN.triu(1)),
    "badly scaled": dense(
        torch.diag(torch.tensor([1e-6, 1, 1e6])).double()
        @ turned(torch.tensor([0.9, 0.8, 0.5]).double(), 3)
        @ torch.diag(torch.tensor([1e6, 1, 1e-6])).double()
    ),
    "units apart": dense(
        turned(torch.tensor([0.9, 0.8, 0.5]).double(), 3) * torch.outer(UNITS, 1 / UNITS)
    ),
    "nilpotent, mixed": dense(normal(5, 5).tril(-1)),
    "random": dense(0.4 * normal(6, 6, seed=4)),
    "unstable": dense(normal(5, 5, seed=5)),
    "diagonal": linrec.LinearRecurrence(linrec.Diagonal(1.1 * gates(6)), normal(6, 1)),
    "complex poles": linrec.LinearRecurrence(linrec.Diagonal(POLES), normal(5, 2) + 0j),
    "complex": dense(0.3 * normal(4, 4, dtype=torch.complex128)),
    "low rank": linrec.LinearRecurrence(
        linrec.DiagonalPlusLowRank(gates(5), normal(5, 1) / 3, normal(5, 1, seed=7) / 3)
    ),
    "blocks": linrec.LinearRecurrence(linrec.BlockDiagonal(0.5 * normal(2, 3, 3)), copies=2),
    "gated": linrec.LinearRecurrence(linrec.Varying(linrec.Diagonal(gates(60, 4)))),
    "varying": linrec.LinearRecurrence(linrec.Varying(normal(60, 4, 4) / 2), normal(60, 4, 1)),
}


# States of very different sizes are looked at beside the largest.
LOOSE = ("badly scaled",)


def exact_loop(
    recurrence: linrec.LinearRecurrence, inputs: Tensor, state: Tensor | None = None
) -> tuple[list[Dyadic], Dyadic]:
    """Run one copy of one system without any rounding, in whole numbers over a power of two.

    (`exact_reference` would write out low-rank structures in double precision first, and run long
    sequences in 64 bits.)
    """
    is_complex = inputs.is_complex() or recurrence.dtype.is_complex

    def numbers(tensor: Tensor, vector: bool = False) -> Dyadic:
        array = tensor.detach().to(double_dtype(tensor.dtype)).resolve_conj().numpy()
        if is_complex and vector:
            return Dyadic.of(np.concatenate([np.real(array), np.imag(array)]))
        return Dyadic.of(real_matrices(array[None])[0] if is_complex else array)

    def transition(A: linrec.Structure) -> Dyadic:
        if isinstance(A, linrec.DiagonalPlusLowRank):
            return numbers(torch.diag(A.diagonal)) + numbers(A.left) @ numbers(A.right.mH)
        return numbers(A.to_dense())

    n = recurrence.A.state_size
    start = torch.zeros(n, dtype=torch.float64) if state is None else state
    x, outputs = numbers(start, True), []
    for t, now in enumerate(inputs):
        at = recurrence.at(t)
        u = numbers(now, True)
        x = transition(at.A) @ x + (u if at.B is None else numbers(at.B) @ u)
        y = x if at.C is None else numbers(at.C) @ x
        outputs.append(y if at.D is None else y + numbers(at.D) @ u)
    return outputs, x


def shares(computed: Tensor, bounds: Tensor, true: Dyadic) -> list[float]:
    """Divide each error by its bound, exactly; the square root of a complex one is rounded."""
    scale = Fraction(1, 1 << true.scale)
    parts = [Fraction(int(whole)) * scale for whole in true.whole]
    values = computed.detach().to(double_dtype(computed.dtype))
    n = len(values)
    found = []
    for i, (value, bound) in enumerate(zip(values.tolist(), bounds.tolist(), strict=True)):
        if isinstance(value, complex):
            off = [Fraction(value.real) - parts[i], Fraction(value.imag) - parts[i + n]]
        else:
            off = [Fraction(value) - parts[i]]
        assert math.isfinite(bound)
        square = sum(each * each for each in off)
        if square:
            found.append(math.sqrt(square / Fraction(bound) ** 2) if bound else math.inf)
    return found


def used(recurrence: linrec.LinearRecurrence, inputs: Tensor, state: Tensor | None = None):
    """Give the share of each bound that the errors use, and of each radius."""
    found = linrec.certify(recurrence, inputs, state)
    outputs, last = exact_loop(recurrence, inputs, state)
    bound, radius = [], []
    for t, row in enumerate(outputs):
        bound += shares(found.result.outputs[t], found.bound.outputs[t], row)
        radius += shares(found.centre.outputs[t], found.radius.outputs[t], row)
    bound += shares(found.result.final_state, found.bound.final_state, last)
    radius += shares(found.centre.final_state, found.radius.final_state, last)
    return bound, radius


def one_copy(recurrence: linrec.LinearRecurrence) -> linrec.LinearRecurrence:
    A, (B, C, D) = recurrence.A, recurrence.matrices()
    return linrec.LinearRecurrence(A, B, C, D, time_varying=recurrence.time_varying)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CERTIFIED)
def test_no_error_is_above_its_bound_and_most_are_close(name: str, dtype: torch.dtype) -> None:
    recurrence = one_copy(CERTIFIED[name])
    dtype = dtype.to_complex() if recurrence.dtype.is_complex else dtype
    recurrence = recurrence.to(dtype)
    inputs = normal(60, recurrence.input_size, dtype=dtype)
    state = normal(recurrence.state_size, dtype=dtype)
    bound, radius = used(recurrence, inputs, state)
    assert max(bound) <= 1 and max(radius) <= 1
    if name not in LOOSE:
        assert np.median(bound) >= 1 / 4


SINGLE = recurrences(structures(sizes=st.integers(1, 5), batch_shapes=st.just(()))).map(one_copy)


@settings(max_examples=40)
@given(SINGLE.flatmap(lambda drawn: st.tuples(st.just(drawn), inputs_for(drawn))))
def test_no_error_of_any_recurrence_is_above_its_bound(drawn) -> None:
    recurrence, inputs = drawn
    if inputs.ndim == 2:  # a batch is many of these
        bound, radius = used(recurrence, inputs)
        assert max(bound + radius, default=0) <= 1


def no_rest(found: sums.Sum) -> sums.Sum:
    return replace(found, rest=0 * found.rest)


def no_low(high: Tensor, low: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return high, 0 * low, 0 * error


CERTIFY = sys.modules["linrec.certificate.certify"]

BREAKS = {
    "half the radius": (CERTIFY, "certain", lambda old: lambda bound: old(bound) / 2),
    "rests dropped": (sums.Matrices, "add_up", lambda old: lambda *a: no_rest(old(*a))),
    "losses of sums dropped": (enclosure, "add_up", lambda old: lambda *a: no_low(*old(*a))),
    "nothing carried along": (propagation, "accumulate", lambda _: lambda _, sizes: 1e-9 * sizes),
}


# Seen where a matrix changes from step to step, whose products are added up one by one.
BY_STEP = ("losses of sums dropped",)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_certificate_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, broken = BREAKS[name]
    monkeypatch.setattr(module, attribute, broken(getattr(module, attribute)))
    recurrence = CERTIFIED["varying" if name in BY_STEP else "butter(6, .05)"]
    inputs, state = normal(60, 1), normal(recurrence.state_size)
    bound, radius = used(recurrence, inputs, state)
    assert max(bound + radius + remainders(recurrence, inputs, state)) > 1


def remainders(recurrence: linrec.LinearRecurrence, inputs: Tensor, state: Tensor) -> list[float]:
    """Give the share that the error of x̂ + ê, not rounded to one number, uses of its bound."""
    system = real_system(prepare_call(recurrence, inputs, state, None))
    states = enclosure.enclose_states(system, propagation.choose_propagation(system, False), 3)
    varying = recurrence.time_varying
    reader = linrec.LinearRecurrence(recurrence.A, recurrence.B, time_varying=varying)
    exactly, _ = exact_loop(reader, inputs, state)
    found = []
    for high, low, radius, true in zip(
        *(each[1:].tolist() for each in (states.high, states.low, states.radius)),
        exactly,
        strict=True,
    ):
        for i, bound in enumerate(radius):
            off = (
                Fraction(high[i]) + Fraction(low[i]) - Fraction(int(true.whole[i]), 1 << true.scale)
            )
            found.append(float(abs(off) / Fraction(bound)))
    return found


@pytest.mark.parametrize(
    "name", ["butter(6, .05)", "Legendre 8", "Jordan at 1", "rotation", "low rank", "varying"]
)
def test_what_is_left_is_within_its_bound(name: str) -> None:
    recurrence = CERTIFIED[name]
    n, m = recurrence.state_size, recurrence.input_size
    shares = remainders(recurrence, normal(60, m), normal(n))
    assert 0 < max(shares) <= 1


def test_batches_copies_and_lengths_are_certified_like_single_sequences() -> None:
    copied = linrec.LinearRecurrence(normal(3, 3) / 3, normal(3, 1), normal(2, 3), copies=2)
    one, inputs, state = one_copy(copied), normal(2, 40, 2), normal(2, 6)
    lengths = torch.tensor([40, 25])
    whole = linrec.certify(copied, inputs, state, lengths=lengths)
    for row, copy in ((0, 0), (0, 1), (1, 0), (1, 1)):
        steps = int(lengths[row])
        u, start = inputs[row, :steps, copy, None], state[row, 3 * copy : 3 * copy + 3]
        alone = linrec.certify(one, u, start)
        mine = whole.centre.outputs[row, :, 2 * copy : 2 * copy + 2]
        off = (mine[:steps] - alone.centre.outputs).abs()
        both = whole.radius.outputs[row, :steps, 2 * copy : 2 * copy + 2] + alone.radius.outputs
        assert (off <= both).all() and not mine[steps:].any()
        off = whole.centre.final_state[row, 3 * copy : 3 * copy + 3] - alone.centre.final_state
        assert (off.abs() <= 2 * alone.radius.final_state).all()
    assert not whole.bound.outputs[1, 25:].any()


@pytest.mark.parametrize("executor", [linrec.Toeplitz(), linrec.FFTConvolution()], ids=str)
def test_outputs_of_anybody_are_certified(executor: linrec.Executor) -> None:
    recurrence, inputs = CERTIFIED["butter(6, .05)"], normal(400, 1)
    outputs = linrec.run(recurrence, inputs, executor=executor).outputs
    found = linrec.certify(recurrence, inputs, result=outputs)
    error = (outputs - found.centre.outputs).abs()
    assert ((found.bound.outputs - error).abs() <= 1e-5 * error + found.radius.outputs).all()
    assert (found.radius.outputs <= 1e-14 * outputs.abs().amax()).all()
    outputs[200] += 1e-3
    assert linrec.certify(recurrence, inputs, result=outputs).bound.outputs[200] >= 9e-4


def test_the_centre_is_what_scipy_filters() -> None:
    coefficients: Any = signal.butter(6, 0.05)
    b, a = coefficients
    recurrence, u = of_scipy((b, a)), normal(300, 1)
    states = linrec.LinearRecurrence(recurrence.A, recurrence.B)
    x = linrec.certify(states, u).centre.outputs
    before = torch.cat([torch.zeros(1, 6, dtype=torch.float64), x[:-1]])
    ours = recurrence.read(before, u)  # scipy's systems are read before they move
    theirs = signal.lfilter(b, a, u[:, 0].numpy())
    assert np.abs(theirs - ours[:, 0].numpy()).max() < 1e-9


def test_what_is_not_finite_has_no_bound() -> None:
    inputs = normal(30, 1)
    inputs[20] = math.nan
    found = linrec.certify(CERTIFIED["diagonal"], inputs)
    assert torch.isfinite(found.bound.outputs[:20]).all()
    assert (
        torch.isinf(found.bound.outputs[20:]).all() and torch.isinf(found.bound.final_state).all()
    )
    grown = linrec.LinearRecurrence(A=[[2.0]])
    found = linrec.certify(grown, torch.ones(3000, 1), executor=linrec.Recurrent())
    assert torch.isinf(found.bound.outputs[2000:]).all()
    assert torch.isfinite(found.bound.outputs[:100]).all()


def test_no_steps_and_no_sequences() -> None:
    state = normal(2, 4)
    for inputs in (normal(2, 0, 1), normal(2, 1, 1)[:0]):
        first = state[: len(inputs)]
        found = linrec.certify(dense(JORDAN), inputs, first)
        assert found.bound.outputs.shape == (len(inputs), inputs.shape[1], 2)
    found = linrec.certify(dense(JORDAN), normal(2, 0, 1), state)
    assert (
        torch.equal(found.centre.final_state, state) and not (found.bound.final_state > 1e-14).any()
    )


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`outputs` has shape \(30, 3\): expected \(30, 2\)"):
        linrec.certify(dense(JORDAN), normal(30, 1), result=normal(30, 3))


@pytest.mark.parametrize("inputs", [None, "low", [[1.0], [2.0]], np.ones((2, 1))], ids=repr)
def test_inputs_that_are_no_tensor_are_refused(inputs: Any) -> None:
    with pytest.raises(TypeError, match=r"`inputs` is of type .*: expected a torch.Tensor"):
        linrec.certify(dense(JORDAN), inputs)
