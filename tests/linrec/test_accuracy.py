"""Executors compared with the loop, on filters and other systems whose powers grow, then decay."""

# Of scipy's overloads those that return two arrays are meant.
# pyright: reportOptionalIterable=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false

import itertools
import math
from statistics import median

import numpy as np
import pytest
import torch
from scipy import signal

import linrec
from linrec.benchmark.accuracy import exact_outputs, measure_accuracy
from linrec.testing.engineers_systems import FAMILIES

ORDERS, CUTOFFS = (3, 7), (0.013, 0.2)
EXECUTORS = (
    linrec.Toeplitz(),
    linrec.FFTConvolution(),
    linrec.AssociativeScan(),
    linrec.Chunked(),
    linrec.Chunked(size=1),
    linrec.Auto(),
)


@pytest.fixture(scope="module")
def measured():
    return list(measure_accuracy(ORDERS, CUTOFFS, largest=8))


def test_no_executor_errs_a_hundred_times_more_than_the_loop(measured):
    worst = max(measured, key=lambda row: row["ratio"])
    assert worst["ratio"] < 100, worst


def test_half_of_all_errors_are_within_three_of_the_loop(measured):
    for dtype in ("float32", "float64"):
        assert median(row["ratio"] for row in measured if row["dtype"] == dtype) < 3


@pytest.mark.parametrize("family", ["butter", "cheby1", "ellip", "norm 50, radius 0.9"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.sampled(2)
def test_short_runs_err_no_more_than_long_ones(family, dtype):
    """While powers still grow they cancel as well, and few squares are there to tell."""
    given = np.random.default_rng(1).standard_normal((300, 1))
    for order, cutoff in itertools.product((6, 8), (0.02, 0.2)):
        matrices = FAMILIES[family](order, cutoff, np.random.default_rng(0))
        cast = [torch.as_tensor(np.array(each, float)).to(dtype) for each in matrices]
        recurrence, inputs = linrec.LinearRecurrence(*cast), torch.as_tensor(given).to(dtype)
        exact = exact_outputs([each.double().numpy() for each in cast], inputs.double().numpy())
        loop = linrec.run(recurrence, inputs, executor=linrec.Recurrent()).outputs
        for steps in (8, 16, 31, 60, 300):
            true = exact[:steps]
            least = 32 * torch.finfo(dtype).eps * np.abs(true).max()
            allowed = 100 * max(np.abs(loop[:steps].double().numpy() - true).max(), least)
            for executor in EXECUTORS:
                found = linrec.run(recurrence, inputs[:steps], executor=executor).outputs
                error = np.abs(found.double().numpy() - true).max()
                assert error <= allowed, (order, cutoff, steps, executor, error, allowed)


def test_the_reference_is_scipys_filter_to_the_filters_own_digits():
    """butter(2, .3) is so well-conditioned that scipy's loop has all but its last digits."""
    b, a = signal.butter(2, 0.3)
    inputs = np.random.default_rng(0).standard_normal((200, 1))
    A, B, C, D = signal.tf2ss(b, a)
    # Pre-update: C reads the state before the step, C A⁻¹ the one after it.
    after = [A, B, C @ np.linalg.inv(A), D - C @ np.linalg.inv(A) @ B]
    exact = exact_outputs(after, inputs)[:, 0]
    assert np.abs(exact - signal.lfilter(b, a, inputs[:, 0])).max() < 1e-13


def test_float32_filters_are_better_than_their_own_loop():
    matrices = [torch.tensor(m, dtype=torch.float32) for m in signal.tf2ss(*signal.butter(6, 0.05))]
    recurrence, u = linrec.LinearRecurrence(*matrices), torch.randn(600, 1)
    exact = exact_outputs([m.double().numpy() for m in matrices], u.double().numpy())
    for executor in (linrec.Toeplitz(), linrec.AssociativeScan(), linrec.Chunked()):
        outputs = linrec.run(recurrence, u, executor=executor).outputs.double().numpy()
        assert np.abs(outputs - exact).max() < 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize(
    "executor", [linrec.Toeplitz(), linrec.AssociativeScan(), linrec.Chunked()]
)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_states_are_handed_over_in_the_recurrences_own_coordinates(executor, batch):
    """In two pieces, with initial and final states, as in one; and the loop's states."""
    A, B, _, _ = (torch.tensor(m) for m in signal.tf2ss(*signal.butter(5, 0.1)))
    recurrence = linrec.LinearRecurrence(A, B)
    torch.manual_seed(0)
    u, start = torch.randn(*batch, 300, 1).double(), torch.randn(*batch, 5).double()
    assert executor.prepare(recurrence, 300).coordinates is not None
    whole = linrec.run(recurrence, u, start, executor=executor)
    loop = linrec.run(recurrence, u, start, executor=linrec.Recurrent())
    first = linrec.run(recurrence, u[..., :170, :], start, executor=executor)
    second = linrec.run(recurrence, u[..., 170:, :], first.final_state, executor=executor)
    size = loop.outputs.abs().max()
    for found in (whole.outputs, torch.cat([first.outputs, second.outputs], -2)):
        assert (found - loop.outputs).abs().max() < 1e-9 * size
    for state in (whole.final_state, second.final_state):
        assert (state - loop.final_state).abs().max() < 1e-9 * size
    short = torch.full(batch, 170)
    cut = linrec.run(recurrence, u, start, lengths=short, executor=executor)
    assert (cut.final_state - first.final_state).abs().max() < 1e-9 * size


def test_gradients_are_those_of_the_loop():
    A, B, C, D = (torch.tensor(m) for m in signal.tf2ss(*signal.butter(4, 0.1)))
    torch.manual_seed(0)
    u, weights = torch.randn(120, 1).double(), torch.randn(120, 1).double()
    gradients = []
    for executor in (
        linrec.Recurrent(),
        linrec.Toeplitz(),
        linrec.AssociativeScan(),
        linrec.Chunked(),
    ):
        leaves = [m.clone().requires_grad_() for m in (A, B, C, D)]
        outputs = linrec.run(linrec.LinearRecurrence(*leaves), u, executor=executor).outputs
        gradients.append(torch.autograd.grad((outputs * weights).sum(), leaves))
    for others in gradients[1:]:
        for mine, loop in zip(others, gradients[0], strict=True):
            assert (mine - loop).abs().max() < 1e-8 * loop.abs().max()


def test_systems_whose_powers_do_not_cancel_keep_their_own_coordinates():
    turn = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))[0]
    for A in (turn, torch.eye(5).double() + torch.eye(5).double().diag(0).diag_embed().triu(1)):
        recurrence = linrec.LinearRecurrence(A)
        for executor in (linrec.Toeplitz(), linrec.AssociativeScan(), linrec.Chunked()):
            assert executor.prepare(recurrence, 500).coordinates is None


def test_blocks_are_transformed_one_by_one():
    sections = signal.butter(6, 0.05, output="sos")
    blocks = torch.stack(
        [torch.tensor([[-s[4], -s[5]], [1.0, 0.0]], dtype=torch.float64) for s in sections]
    )
    recurrence = linrec.LinearRecurrence(linrec.BlockDiagonal(blocks), torch.ones(6, 1).double())
    u = torch.randn(400, 1).double()
    loop = linrec.run(recurrence, u, executor=linrec.Recurrent()).outputs
    for executor in (linrec.Toeplitz(), linrec.AssociativeScan(), linrec.Chunked()):
        plan = executor.prepare(recurrence, 400)
        assert (
            plan.coordinates is not None and plan.coordinates.basis.as_block_diagonal() is not None
        )
        found = linrec.run(recurrence, u, plan=plan).outputs
        assert (found - loop).abs().max() < 1e-10 * loop.abs().max()


@pytest.mark.parametrize("kind", ["dense", "diagonal"])
@pytest.mark.parametrize(
    "executor",
    [
        linrec.Recurrent(),
        linrec.Toeplitz(),
        linrec.AssociativeScan(),
        linrec.Chunked(),
        linrec.Auto(),
    ],
    ids=str,
)
def test_growth_beyond_the_dtypes_range_harms_no_step_before_it(executor, kind):
    """x_t = 1.5 x_{t-1} + u_t with one input ten steps before the end is 1.5^k there, else zero."""
    steps, one = 4000, torch.tensor([1.5])
    A = linrec.Diagonal(one) if kind == "diagonal" else linrec.Dense(one[:, None])
    u = torch.zeros(steps, 1)
    u[-10] = 1.0
    outputs = linrec.run(linrec.LinearRecurrence(A), u, executor=executor).outputs[:, 0]
    expected = [0.0] * (steps - 10) + [1.5**k for k in range(10)]
    assert outputs.tolist() == pytest.approx(expected, rel=1e-5)
    silent = linrec.run(linrec.LinearRecurrence(A), u * 0, executor=executor)
    assert not silent.outputs.any() and not silent.final_state.any()


def test_the_scan_and_its_gradient_stay_finite_where_the_recurrence_does():
    decay = torch.full((4000, 1), 1.5, requires_grad=True)
    drive = torch.zeros(4000, 1, requires_grad=True)
    states = linrec.linear_scan(decay, drive)
    assert not states.any()
    states[:10].sum().backward()
    assert drive.grad is not None and drive.grad.isfinite().all()
    assert drive.grad[0].item() == pytest.approx(math.fsum(1.5**k for k in range(10)), rel=1e-5)


@pytest.mark.parametrize("kind", ["diagonal", "dense"])
@pytest.mark.parametrize("executor", [linrec.AssociativeScan(), linrec.Auto()], ids=str)
def test_products_of_varying_matrices_may_overflow_where_the_recurrence_does_not(executor, kind):
    """Silence through matrices that grow, then a reset, then an input: the loop stays finite."""
    growth = torch.full((400, 2), 3.0)
    growth[350] = 0.0
    A = linrec.Diagonal(growth) if kind == "diagonal" else linrec.Dense(growth.diag_embed())
    inputs = torch.zeros(400, 2)
    inputs[390] = 1.0
    recurrence = linrec.LinearRecurrence(A, time_varying=True)
    found = linrec.run(recurrence, inputs, executor=executor)
    loop = linrec.run(recurrence, inputs, executor=linrec.Recurrent())
    assert loop.outputs.isfinite().all() and torch.equal(found.final_state, loop.final_state)
    assert torch.allclose(found.outputs, loop.outputs)
    last = linrec.final(recurrence, inputs, executor=executor)
    assert torch.allclose(last.final_state, loop.final_state)
    chunks = linrec.Chunked()
    if chunks.why_not(recurrence, 400) is None:
        assert torch.allclose(linrec.run(recurrence, inputs, executor=chunks).outputs, loop.outputs)


@pytest.mark.parametrize("kind", ["butter", "bessel"])
def test_impulse_and_step_responses_keep_their_digits_too(kind):
    matrices = signal.tf2ss(*getattr(signal, kind)(6, 0.05))
    recurrence = linrec.LinearRecurrence(*(torch.tensor(m) for m in matrices))
    for inputs, found in (
        (np.eye(600, 1), linrec.impulse_response(recurrence, 600)),
        (np.ones((600, 1)), linrec.step_response(recurrence, 600)),
    ):
        exact = exact_outputs(list(matrices), inputs)
        u = torch.tensor(inputs)
        loop = linrec.run(recurrence, u, executor=linrec.Recurrent()).outputs.numpy()
        error = np.abs(found.reshape(600, 1).numpy() - exact).max()
        assert error <= 3 * np.abs(loop - exact).max()
