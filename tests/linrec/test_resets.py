"""Resets: nothing before a reset affects the steps after it; each segment is its own sequence."""

# Wrong arguments are passed on purpose.
# pyright: reportArgumentType=false

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import linrec
from linrec import nn
from linrec.testing import error_bound, exact_reference
from tests.cases import EXECUTORS, TRANSITIONS
from tests.linrec.layers import LAYERS
from tests.linrec.test_agreement import assert_within

STEPS, CUT = 21, 13
CASES = ["dense", "diagonal complex", "blocks", "low rank", "dense batch"]


def recurrences(name: str, varying: bool) -> linrec.LinearRecurrence:
    """A system of one of the structures, of two copies, the same at all steps or not."""
    torch.manual_seed(0)
    A = TRANSITIONS[name]()
    n, dtype = A.state_size, A.dtype
    if varying:
        scales = 0.5 + 0.5 * torch.rand(STEPS, dtype=torch.float64)
        batch = A.batch_shape
        parts = A.map(
            lambda leaf, core: (
                leaf.unsqueeze(-core - 1).expand(
                    *leaf.shape[: leaf.ndim - core], STEPS, *leaf.shape[leaf.ndim - core :]
                )
                * scales[(..., *[None] * core)]
            )
        )
        assert parts.batch_shape == (*batch, STEPS)
        A = parts
    B, C = torch.randn(n, 2).to(dtype), torch.randn(3, n).to(dtype)
    return linrec.LinearRecurrence(A, B, C, time_varying=varying, copies=2)


def inputs_for(recurrence: linrec.LinearRecurrence) -> tuple[Tensor, Tensor]:
    batch = recurrence.batch_shape or (2,)
    dtype = torch.float64
    return (
        torch.randn(*batch, STEPS, 4, dtype=dtype),
        torch.randn(*batch, recurrence.state_size, dtype=dtype),
    )


def marks(*places: int) -> Tensor:
    resets = torch.zeros(STEPS, dtype=torch.bool)
    resets[list(places)] = True
    return resets


def runs(recurrence: linrec.LinearRecurrence) -> list[linrec.Executor]:
    return [each for each in EXECUTORS.values() if each.why_not(recurrence, STEPS) is None]


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_nothing_before_a_reset_moves_a_bit_after_it(name: str, varying: bool) -> None:
    """Values and gradients, of inputs, states and matrices; final states and last steps, too."""
    plain = recurrences(name, varying)
    inputs, state = inputs_for(plain)
    recurrence = linrec.with_resets(plain, marks(CUT))
    other = torch.cat([1e3 * torch.randn_like(inputs[..., :CUT, :]), inputs[..., CUT:, :]], -2)
    assert len(runs(recurrence)) >= 3
    for executor in runs(recurrence):
        mine = linrec.run(recurrence, inputs, state, executor=executor)
        theirs = linrec.run(recurrence, other, 1e3 * state, executor=executor)
        assert torch.equal(mine.outputs[..., CUT:, :], theirs.outputs[..., CUT:, :])
        assert not torch.equal(mine.outputs[..., :CUT, :], theirs.outputs[..., :CUT, :])
        assert torch.equal(mine.final_state, theirs.final_state)
        last = [
            linrec.final(recurrence, *given, executor=executor)
            for given in ((inputs, state), (other, -state))
        ]
        assert torch.equal(last[0].outputs, last[1].outputs)
        leaves = [inputs.clone().requires_grad_(), state.clone().requires_grad_()]
        after = linrec.run(recurrence, *leaves, executor=executor).outputs[..., CUT:, :]
        to_inputs, to_state = torch.autograd.grad(after.abs().sum(), leaves)
        assert not to_inputs[..., :CUT, :].any() and not to_state.any()
        assert to_inputs[..., CUT:, :].any()


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_each_segment_is_a_sequence_of_its_own(name: str, varying: bool) -> None:
    """Within the bound of the executor, of the exact answer for the segment alone."""
    plain = recurrences(name, varying)
    inputs, state = inputs_for(plain)
    cuts = (0, 5, 6, CUT)
    recurrence = linrec.with_resets(plain, marks(*cuts))
    for executor in runs(recurrence):
        got = linrec.run(recurrence, inputs, state, executor=executor).outputs
        bound = error_bound(recurrence, inputs, executor, state).outputs
        for start, end in zip(cuts, (*cuts[1:], STEPS), strict=True):
            piece = plain
            if varying:
                piece = plain.map_batched(
                    lambda leaf, core, start=start, end=end: leaf.narrow(
                        -core - 1, start, end - start
                    )
                )
            expected = exact_reference(piece, inputs[..., start:end, :]).outputs
            assert_within(got[..., start:end, :], expected, bound[..., start:end, :])


def test_resets_of_each_sequence_and_what_stays_known_of_a() -> None:
    gates = torch.rand(2, STEPS, 1).expand(-1, -1, 4)
    keys = torch.randn(2, STEPS, 4, 1)
    attention = linrec.LinearRecurrence(
        linrec.Diagonal(gates), keys, keys.mT, time_varying=True, copies=3
    )
    resets = torch.stack([marks(3), marks(CUT)])
    recurrence = linrec.with_resets(attention, resets)
    diagonal = recurrence.A.as_diagonal()
    assert diagonal is not None and diagonal.stride(-1) == 0  # still one gate for all states
    values = torch.randn(2, STEPS, 3)
    outputs = linrec.run(recurrence, values).outputs
    for row, cut in enumerate((3, CUT)):
        tail = attention.map_batched(
            lambda leaf, core, row=row, cut=cut: leaf[row].narrow(-core - 1, cut, STEPS - cut)
        )
        alone = linrec.run(tail, values[row, cut:]).outputs
        torch.testing.assert_close(outputs[row, cut:], alone)
    whole = linrec.with_resets(attention, resets.int())
    assert torch.equal(linrec.run(whole, values).outputs, outputs)


@pytest.mark.parametrize(
    ("resets", "message"),
    [
        (torch.rand(STEPS), "expected True and False.*Pass `resets.bool\\(\\)`"),
        (torch.arange(STEPS) // 5, "between 0 and .*resets_between"),
        (torch.zeros(STEPS).long() - 1, "between -1 and -1.*expected True and False"),
        (torch.tensor(True), "expected \\(\\*batch, time\\)"),
        (torch.zeros(3, STEPS + 1, dtype=torch.bool), f"has {STEPS + 1} steps"),
        (torch.zeros(3, STEPS, dtype=torch.bool), "do not broadcast"),
        (["a"], "`resets` is of type list"),
    ],
)
def test_what_does_not_fit_is_refused(resets: Any, message: str) -> None:
    gates = linrec.Diagonal(torch.rand(2, STEPS, 4))
    with pytest.raises((ValueError, TypeError), match=message):
        linrec.with_resets(linrec.LinearRecurrence(gates, time_varying=True), resets)


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 0), (2, 3, 9)])
def test_numbers_of_segments_are_resets_where_they_change(shape: tuple[int, ...]) -> None:
    numbers = torch.randint(3, shape, generator=torch.Generator().manual_seed(0))
    found = linrec.resets_between(numbers)
    assert found.shape == shape and found.dtype == torch.bool
    for place in itertools.product(*map(range, shape)):
        before = (*place[:-1], place[-1] - 1)
        assert found[place] == (place[-1] > 0 and bool(numbers[place] != numbers[before]))
    with pytest.raises(ValueError, match="expected \\(\\*batch, time\\)"):
        linrec.resets_between(torch.tensor(3))


def test_of_no_recurrence_there_are_no_resets() -> None:
    with pytest.raises(TypeError, match="expected a LinearRecurrence"):
        linrec.with_resets(nn.MinGRU(2, 2), marks(0))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_take_resets(name: str) -> None:
    """A document beside another in one sequence is what it is alone, and no bit of it leaks."""
    torch.manual_seed(0)
    layer = LAYERS[name][0]().double()
    inputs = torch.randn(2, STEPS, layer.input_size, dtype=torch.float64)
    state = torch.randn(2, layer.state_size, dtype=torch.float64)
    outputs, end = layer(inputs, state, resets=marks(CUT))
    changed = inputs.clone()
    changed[:, CUT - 1] += 1
    again, same_end = layer(changed, -state, resets=marks(CUT))
    assert torch.equal(outputs[:, CUT:], again[:, CUT:]) and torch.equal(end, same_end)
    assert not torch.equal(outputs[:, :CUT], again[:, :CUT])
    alone = layer(inputs[:, CUT:])
    torch.testing.assert_close(outputs[:, CUT:], alone.outputs)
    torch.testing.assert_close(end, alone.final_state)
    last, last_state = layer.final(inputs, state, resets=marks(CUT))
    torch.testing.assert_close(last, outputs[:, -1])
    torch.testing.assert_close(last_state, end)


def test_stacks_take_resets() -> None:
    torch.manual_seed(0)
    stack = nn.Stack([nn.MinGRU(3, 4), *nn.residual_blocks([nn.S5(4, 3), nn.SSD(4, 2, 3)])])
    inputs = torch.randn(2, STEPS, 3)
    changed = inputs.clone()
    changed[:, CUT - 1] += 1
    outputs, again = (stack(each, resets=marks(CUT)).outputs for each in (inputs, changed))
    assert torch.equal(outputs[:, CUT:], again[:, CUT:])
    torch.testing.assert_close(outputs[:, CUT:], stack(inputs[:, CUT:]).outputs)
    last = stack.final(inputs, resets=marks(CUT)).outputs
    torch.testing.assert_close(last, outputs[:, -1])
