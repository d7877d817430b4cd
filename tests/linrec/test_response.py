"""Responses, poles and compositions, against scipy, numpy and runs of the parts."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false
# pyright: reportOptionalIterable=false

import math

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

import linrec
from linrec import LinearRecurrence, StateSpace
from linrec.powers import Powers, free_response, matrix_power
from linrec.testing import error_bound, exact_reference
from tests.cases import SYSTEMS, TRANSITIONS, VARYING, data, normal
from tests.linrec.test_agreement import assert_within

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("system", ["A", "AB", "ABC", "ABCD", "ABCD, 2 copies"])
@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.sampled(2)
def test_impulse_response_is_what_an_impulse_gives(transition: str, system: str) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    m = recurrence.input_size // recurrence.copies
    p = recurrence.output_size // recurrence.copies
    for length in (1, 2, 9, 16):
        got = linrec.impulse_response(recurrence, length)
        assert got.shape == (*recurrence.batch_shape, length, p, m)
        for channel in range(m):
            impulse = torch.zeros(length, recurrence.input_size, dtype=recurrence.dtype)
            impulse[0, channel] = 1
            expected = exact_reference(recurrence, impulse).outputs[..., :p]
            bound = error_bound(recurrence, impulse, linrec.Toeplitz()).outputs
            assert_within(got[..., channel], expected, bound[..., :p])
    assert linrec.impulse_response(recurrence, 0).shape[-3] == 0


def test_step_response_is_what_ones_give() -> None:
    recurrence = SYSTEMS["ABCD"](TRANSITIONS["legendre"]())
    ones = torch.ones(30, 1, dtype=torch.float64)
    got = linrec.step_response(recurrence, 30)[..., 0]
    bound = error_bound(recurrence, ones, linrec.Toeplitz()).outputs
    assert_within(got, exact_reference(recurrence, ones).outputs, bound)


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_free_response_and_powers(transition: str) -> None:
    A = TRANSITIONS[transition]()
    state = normal(*A.batch_shape, A.state_size, dtype=A.dtype)
    states = free_response(A, state, 11)
    dense = A.to_dense()
    for t in range(11):
        power = torch.linalg.matrix_power(dense, t + 1)
        scale = (
            torch.linalg.matrix_norm(dense).max().clamp(min=1) ** (t + 1) * state.abs().max() * 100
        )
        expected = torch.einsum("...ij,...j->...i", power, state)
        assert (states[..., t, :] - expected).abs().max() <= EPS * scale
        assert (matrix_power(A, t + 1).to_dense() - power).abs().max() <= EPS * scale / (
            state.abs().max().clamp(max=1)
        )


def scipy_matrices(recurrence: LinearRecurrence) -> list[np.ndarray]:
    """The same system as scipy reads it, one step later: C A and D + C B."""
    A, B, C = recurrence.A.to_dense(), recurrence.B, recurrence.C
    D = C @ B if recurrence.D is None else C @ B + recurrence.D
    return [matrix.numpy() for matrix in (A, B, C @ A, D)]


@pytest.mark.parametrize("transition", ["dense", "legendre", "diagonal", "jordan", "blocks"])
def test_frequency_response_against_scipy(transition: str) -> None:
    A = TRANSITIONS[transition]()
    n = A.state_size
    recurrence = LinearRecurrence(A, normal(n, 1, seed=3), normal(1, n, seed=4), [[0.5]])
    frequencies = np.linspace(0.1, 3.0, 7)
    numerator, denominator = scipy.signal.ss2tf(*scipy_matrices(recurrence))
    _, expected = scipy.signal.freqz(numerator[0], denominator, worN=frequencies)
    got = linrec.frequency_response(recurrence, torch.from_numpy(frequencies)).squeeze()
    assert np.abs(got.numpy() - expected).max() <= 1e-9 * np.abs(expected).max()


def test_frequency_response_is_the_transform_of_the_impulse_response() -> None:
    recurrence = SYSTEMS["ABCD"](TRANSITIONS["dense complex"]())
    frequencies = 2 * math.pi * torch.arange(512, dtype=torch.float64) / 512
    kernel = linrec.impulse_response(recurrence, 512)  # has died out after 512 steps
    expected = torch.fft.fft(kernel, dim=-3)
    got = linrec.frequency_response(recurrence, frequencies)
    assert (got - expected).abs().max() <= 1e4 * EPS * expected.abs().max()


def test_frequency_response_at_a_pole_is_infinite_there_alone() -> None:
    """As scipy's freqz and python-control answer; all other samples, and gradients, are finite."""
    omega = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    A = torch.tensor([[[1.0]], [[0.5]]], dtype=torch.float64, requires_grad=True)
    summing = LinearRecurrence(A, [[1.0]])
    integrating = StateSpace(A - torch.tensor([[[1.0]], [[1.0]]]), [[1.0]])
    for system, right in (
        (summing, lambda w, a: 1 / (1 - a * torch.exp(-1j * w))),
        (integrating, lambda w, a: 1 / (1j * w - a + 1)),
    ):
        got = linrec.frequency_response(system, omega)[..., 0, 0]
        assert got[0, 0].abs() == math.inf
        torch.testing.assert_close(got[0, 1:], right(omega[1:], 1.0))
        torch.testing.assert_close(got[1], right(omega, 0.5))
        (gradient,) = torch.autograd.grad(got[:, 1:].abs().sum(), A)
        assert gradient.isfinite().all()


def test_frequency_response_of_continuous_systems() -> None:
    system = StateSpace(normal(3, 3), normal(3, 2, seed=1), normal(2, 3, seed=2))
    omega = np.array([0.0, 0.7, 10.0])
    for channel in range(2):
        matrices = [system.A.to_dense(), system.B[:, channel : channel + 1], system.C]
        arrays = [matrix.numpy() for matrix in matrices] + [np.zeros((2, 1))]
        numerators, denominator = scipy.signal.ss2tf(*arrays)
        got = linrec.frequency_response(system, torch.from_numpy(omega))[..., channel]
        for output in range(2):
            _, expected = scipy.signal.freqs(numerators[output], denominator, omega)
            assert np.abs(got[:, output].numpy() - expected).max() <= 1e-10


def test_poles() -> None:
    for name in ("dense", "diagonal complex", "blocks", "low rank", "dense batch"):
        A = TRANSITIONS[name]()
        got = linrec.poles(LinearRecurrence(A))
        assert bool((got.abs().diff(dim=-1) <= 0).all())
        eigenvalues = np.linalg.eigvals(A.to_dense().numpy())
        for value in eigenvalues.ravel():
            assert (got - torch.tensor(value)).abs().min() <= 1e-12
    assert linrec.poles(LinearRecurrence([[0.5]])).dtype == torch.complex64


@pytest.mark.parametrize("first", ["ABC", "ABCD"])
@pytest.mark.parametrize("transition", ["dense", "diagonal", "legendre", "low rank complex"])
def test_series_runs_one_after_the_other(transition: str, first: str) -> None:
    one = SYSTEMS[first](TRANSITIONS[transition]())
    two = LinearRecurrence(normal(2, 2), normal(2, one.output_size), normal(3, 2))
    inputs, _ = data(one, 15)
    joined = linrec.series(one, two)
    middle = linrec.run(one, inputs).outputs
    expected = linrec.run(two, middle).outputs
    got = linrec.run(joined, inputs)
    assert (got.outputs - expected).abs().max() <= 1e4 * EPS * expected.abs().max()
    assert joined.state_size == one.state_size + 2


@pytest.mark.parametrize("other", ["dense", "diagonal"])
def test_parallel_adds_up(other: str) -> None:
    one = SYSTEMS["ABCD"](TRANSITIONS["diagonal"]())
    two = SYSTEMS["ABCD"](TRANSITIONS[other]())
    inputs, _ = data(one, 15)
    joined = linrec.parallel(one, two)
    expected = linrec.run(one, inputs).outputs + linrec.run(two, inputs).outputs
    got = linrec.run(joined, inputs).outputs
    assert (got - expected).abs().max() <= 1e3 * EPS * expected.abs().max()
    assert isinstance(joined.A, linrec.Diagonal if other == "diagonal" else linrec.Dense)


def test_composition_of_varying_and_copied_recurrences() -> None:
    varying = SYSTEMS["ABC"](VARYING["varying dense batch"](6))
    still = LinearRecurrence(normal(2, 3, 3, seed=8) / 4, normal(3, 1), normal(2, 3))
    inputs, _ = data(varying, 6)
    expected = linrec.run(still, linrec.run(varying, inputs).outputs).outputs
    got = linrec.run(linrec.series(varying, still), inputs).outputs
    assert (got - expected).abs().max() <= 1e4 * EPS * expected.abs().max()
    copied = SYSTEMS["ABCD, 2 copies"](TRANSITIONS["dense"]())
    inputs, _ = data(copied, 6)
    expected = linrec.run(copied, linrec.run(copied, inputs).outputs).outputs
    got = linrec.run(linrec.series(copied, copied), inputs).outputs
    assert (got - expected).abs().max() <= 1e4 * EPS * expected.abs().max()


def test_continuous_composition() -> None:
    one = StateSpace(normal(2, 2), normal(2, 1, seed=1), normal(1, 2, seed=2), [[1.0]])
    two = StateSpace(normal(3, 3, seed=3), normal(3, 1, seed=4), normal(1, 3, seed=5))
    omega = torch.tensor([0.3, 2.0]).double()
    H1, H2 = (linrec.frequency_response(system, omega) for system in (one, two))

    def close(got: Tensor, expected: Tensor) -> None:
        assert (got - expected).abs().max() <= 1e4 * EPS * expected.abs().max()

    close(linrec.frequency_response(linrec.series(one, two), omega), H2 @ H1)
    close(linrec.frequency_response(linrec.parallel(one, two), omega), H1 + H2)


def test_what_cannot_be_composed_or_has_no_response() -> None:
    still, varying = (
        LinearRecurrence([[0.5]]),
        LinearRecurrence(linrec.Varying(torch.ones(3, 1, 1))),
    )
    with pytest.raises(TypeError, match="discretize"):
        linrec.series(still, StateSpace([[1.0]], [[1.0]]))  # type: ignore[type-var]  # tested
    with pytest.raises(ValueError, match="1 outputs and `second` 2 inputs"):
        linrec.series(still, LinearRecurrence(torch.eye(2)))
    with pytest.raises(ValueError, match="the same numbers of both"):
        linrec.parallel(still, LinearRecurrence(torch.eye(2)))
    with pytest.raises(ValueError, match="1 copies and `second` 2"):
        linrec.series(still, LinearRecurrence([[0.5]], copies=2))
    for ask in (
        lambda: linrec.impulse_response(varying, 3),
        lambda: linrec.poles(varying),
        lambda: linrec.frequency_response(varying, torch.ones(1)),
    ):
        with pytest.raises(ValueError, match="time-varying recurrence, which is another system"):
            ask()
    with pytest.raises(ValueError, match="`length` is -1"):
        linrec.impulse_response(still, -1)
    for length in (3.0, None, "3", True):
        for ask in (linrec.impulse_response, linrec.step_response):
            with pytest.raises(TypeError, match=f"`length` is {length!r}: expected a whole number"):
                ask(still, length)  # type: ignore[arg-type]  # tested
    assert linrec.step_response(still, np.int64(3)).flatten().tolist() == [1.0, 1.5, 1.75]
    with pytest.raises(ValueError, match="a vector of real angular frequencies"):
        linrec.frequency_response(still, torch.ones(1, 1))


def test_one_system_of_as_many_states_as_inputs_and_frequencies() -> None:
    A, B, omega = normal(1, 2, 2, seed=1), normal(2, 2, seed=2), torch.tensor([0.1, 0.7]).double()
    for kind in (linrec.StateSpace, linrec.LinearRecurrence):
        got = linrec.frequency_response(kind(A, B), omega)
        expected = linrec.frequency_response(kind(A[0], B), omega)
        torch.testing.assert_close(got[0], expected, rtol=1e-13, atol=1e-13)


def test_powers_count_what_squaring_cancels():
    """Companion matrices of slow filters cancel; orthogonal and triangular ones do not."""
    companion = scipy.signal.tf2ss(*scipy.signal.butter(6, 0.05))[0]
    filters = Powers(linrec.Dense(torch.tensor(companion)))
    filters.power(512)
    assert filters.cancellation(512)[0] > 1e3
    rotation = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]
    for harmless in (rotation, torch.ones(6, 6).triu().double()):
        powers = Powers(linrec.Dense(harmless))
        powers.power(512)
        assert 0 < powers.cancellation(512)[0] < 4
    assert Powers(linrec.Diagonal(torch.rand(3))).cancellation(512) == (0.0, 0.0)
