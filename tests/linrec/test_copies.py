"""Copies: one kernel for all of them, and outputs written where they belong."""

import pytest
import torch

import linrec
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, data, legendre, normal


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("transition", ["dense", "dense batch", "diagonal", "low rank complex"])
def test_copies_are_the_block_diagonal_system(transition: str, executor: str) -> None:
    """I ⊗ A, I ⊗ B, I ⊗ C, I ⊗ D, copy by copy."""
    A = TRANSITIONS[transition]()
    one = SYSTEMS["ABCD"](A)
    copied = linrec.LinearRecurrence(A, one.B, one.C, one.D, copies=3)
    inputs, state = data(copied, 12, 2)
    got = linrec.run(copied, inputs, state, executor=EXECUTORS[executor])
    parts = [
        linrec.run(one, u, x, executor=EXECUTORS[executor])
        for u, x in zip(inputs.chunk(3, -1), state.chunk(3, -1), strict=True)
    ]
    scale = got.outputs.abs().max() * 1e3 * torch.finfo(torch.float64).eps
    assert (got.outputs - torch.cat([part.outputs for part in parts], -1)).abs().max() <= scale
    states = torch.cat([part.final_state for part in parts], -1)
    assert (got.final_state - states).abs().max() <= scale


@pytest.mark.parametrize("copies, order", [(16, 32), (5, 4)])
@pytest.mark.parametrize("executor", ["recurrent", "fft", "chunked", "chunked-3"])
def test_outputs_are_written_in_their_order(executor: str, copies: int, order: int) -> None:
    """What an executor returns is a view of time-first memory, so that joining copies is free."""
    recurrence = linrec.LinearRecurrence(legendre(order, 64.0), normal(order, 1), copies=copies)
    inputs, _ = data(recurrence, 64, 3)
    plan = EXECUTORS[executor].prepare(recurrence, 64)
    by_copy = inputs.unflatten(-1, (copies, 1)).movedim(-2, -3)
    outputs = plan.executor.execute(recurrence.per_copy(), plan, by_copy, None).outputs
    assert outputs.shape == (3, copies, 64, order)
    assert outputs.transpose(-2, -3).is_contiguous()
    joined = linrec.run(recurrence, inputs, executor=EXECUTORS[executor], plan=plan).outputs
    assert joined.is_contiguous()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_one_kernel_serves_all_copies(executor: str) -> None:
    sizes = []
    for copies in (1, 8):
        recurrence = linrec.LinearRecurrence(legendre(4, 16.0), normal(4, 1), copies=copies)
        plan = EXECUTORS[executor].prepare(recurrence, 48)
        sizes.append(sum(tensor.numel() for tensor in plan.tensors.values()))
    assert sizes[0] == sizes[1]
