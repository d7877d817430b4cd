"""Filters that change from step to step, whose matrix products cancel like powers."""

# Of scipy's overloads those that return two arrays are meant.
# pyright: reportOptionalIterable=false, reportCallIssue=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor

import linrec
from linrec.benchmark.accuracy import POINT, to_fixed_point
from linrec.powers import Powers

STEPS = 400
EXECUTORS = (linrec.AssociativeScan(), linrec.Auto())


def matrices(*cutoffs: float) -> list[Tensor]:
    """A, B, C, D of low-pass filters of order 6, one a step; of one cutoff alone, without time."""
    each = [signal.tf2ss(*signal.butter(6, cutoff)) for cutoff in cutoffs]
    stacked = [torch.tensor(np.stack(parts)) for parts in zip(*each, strict=True)]
    return [part[0] if len(cutoffs) == 1 else part for part in stacked]


def inputs_vary() -> linrec.LinearRecurrence:
    A, B, C, D = matrices(0.05)
    gains = torch.linspace(0.5, 2, STEPS, dtype=torch.float64)[:, None, None]
    return linrec.LinearRecurrence(A, gains * B, C, D, time_varying=True)


def read_outs_vary() -> linrec.LinearRecurrence:
    A, B, C, D = matrices(0.05)
    gains = torch.linspace(0.5, 2, STEPS, dtype=torch.float64)[:, None, None]
    return linrec.LinearRecurrence(A, B, gains * C, D, time_varying=True)


def written_out() -> linrec.LinearRecurrence:
    A, *rest = matrices(0.05)
    return linrec.LinearRecurrence(linrec.Varying(A.expand(STEPS, -1, -1)), *rest)


def sweep() -> linrec.LinearRecurrence:
    A, *rest = matrices(*np.linspace(0.05, 0.08, STEPS))
    return linrec.LinearRecurrence(linrec.Varying(A), *rest)


def resets() -> linrec.LinearRecurrence:
    marked = torch.zeros(STEPS, dtype=torch.bool)
    marked[[0, 90, 91, 250]] = True
    return linrec.with_resets(linrec.LinearRecurrence(*matrices(0.05)), marked)


def uneven_clock() -> linrec.LinearRecurrence:
    """An analog filter of 1 kHz whose samples come at uneven times."""
    continuous = signal.lti(*signal.butter(6, 2e3 * np.pi, analog=True)).to_ss()
    system = linrec.interop.from_scipy(continuous)
    lengths = 2.5e-5 * torch.linspace(0.8, 1.2, STEPS, dtype=torch.float64)
    return linrec.discretize(system, lengths[torch.randperm(STEPS)])


def beside_one_that_grows() -> linrec.LinearRecurrence:
    A, B, C, D = matrices(0.05)
    grows = 1.9 * torch.eye(6, dtype=torch.float64)
    both = torch.stack([A, grows])[:, None].expand(2, STEPS, -1, -1)
    return linrec.LinearRecurrence(linrec.Varying(both), B, C, D)


VARYING: dict[str, Callable[[], linrec.LinearRecurrence]] = {
    each.__name__: each
    for each in (inputs_vary, read_outs_vary, written_out, sweep, resets, uneven_clock)
}


def exact(recurrence: linrec.LinearRecurrence, inputs: Tensor) -> np.ndarray:
    """Run a loop in fixed-point numbers of Python."""
    state, outputs = to_fixed_point(np.zeros(recurrence.state_size)), []
    for step, now in enumerate(to_fixed_point(inputs.double().numpy())):
        one = recurrence.at(step)
        A, B, C, D = (
            to_fixed_point(matrix.double().numpy())
            for matrix in (one.A.to_dense(), one.B, one.C, one.D)
            if matrix is not None
        )
        state = (A @ state + B @ now) >> POINT
        outputs.append((C @ state + D @ now) >> POINT)
    return np.array([[entry / (1 << POINT) for entry in row] for row in outputs])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", VARYING)
def test_no_executor_errs_a_hundred_times_more_than_the_loop(name: str, dtype) -> None:
    """butter(6, .05): products in pairs would err 3e-3 in float64, and by 1000 in float32."""
    recurrence = VARYING[name]()
    zero = torch.zeros(1, 1, dtype=torch.float64)
    D = zero if recurrence.D is None else recurrence.D
    recurrence = linrec.LinearRecurrence(
        recurrence.A, recurrence.B, recurrence.C, D, time_varying=True
    ).to(dtype)
    inputs = torch.randn(STEPS, 1, generator=torch.Generator().manual_seed(0)).to(dtype)
    true = exact(recurrence, inputs)
    loop = linrec.run(recurrence, inputs, executor=linrec.Recurrent()).outputs
    least = 32 * torch.finfo(dtype).eps * np.abs(true).max()
    allowed = 100 * max(np.abs(loop.double().numpy() - true).max(), least)
    for executor in EXECUTORS:
        outputs = linrec.run(recurrence, inputs, executor=executor).outputs
        last = linrec.final(recurrence, inputs, executor=executor).outputs
        assert np.abs(outputs.double().numpy() - true).max() <= allowed
        assert np.abs(last.double().numpy() - true[-1]).max() <= allowed


def test_a_system_that_grows_hides_no_other() -> None:
    recurrence = beside_one_that_grows()
    assert linrec.AssociativeScan().loses_digits(recurrence)
    powers = Powers(linrec.Dense(torch.stack([recurrence.A.to_dense()[i, 0] for i in (0, 1)])))
    powers.square(8)
    alone = Powers(linrec.Dense(recurrence.A.to_dense()[0, 0]))
    alone.square(8)
    # (Squares that cancel 4e4 times have 11 digits; a stack of matrices may round otherwise.)
    assert powers.cancellation(STEPS) == pytest.approx(alone.cancellation(STEPS), rel=1e-6)


def test_what_does_not_cancel_is_scanned() -> None:
    """Contractions, rotations, matrices without negative entries, and what is diagonal."""
    turn = torch.linalg.qr(torch.randn(STEPS, 6, 6, generator=torch.Generator().manual_seed(1))).Q
    scan = linrec.AssociativeScan()
    for A in (turn, 0.9 * turn, torch.rand(STEPS, 3, 3) / 2, torch.eye(2).expand(STEPS, 2, 2)):
        assert not scan.loses_digits(linrec.LinearRecurrence(linrec.Varying(A)))
    assert not scan.loses_digits(
        linrec.LinearRecurrence(linrec.Diagonal(turn[:, 0]), time_varying=True)
    )


def test_explain_says_that_the_loop_runs() -> None:
    assert "Recurrent runs in place of AssociativeScan()" in str(linrec.explain(sweep(), STEPS))
    assert "in place of" not in str(linrec.explain(linrec.LinearRecurrence(*matrices(0.05)), STEPS))
