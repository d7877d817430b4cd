"""Sequences in one row: each is run as if it were alone."""

# Wrong arguments are passed on purpose.
# pyright: reportArgumentType=false

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import linrec
from linrec import packed
from tests.linrec.test_resets import CASES, marks, recurrences

OFFSETS = [
    [0, 21],
    [0, 1, 21],
    [0, 0, 7, 7, 7, 8, 10, 13, 21, 21],
    list(range(22)),
]


def row(recurrence: linrec.LinearRecurrence, sequences: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    states = recurrence.state_size
    inputs = torch.randn(21, recurrence.input_size, dtype=torch.float64)
    return inputs, torch.randn(sequences, states, dtype=torch.float64)


def one_by_one(recurrence, inputs: Tensor, offsets: list[int], states: Tensor | None):
    """Run each sequence alone, by the loop, with the matrices of its own steps."""
    outputs, ends = [], []
    for i, (start, end) in enumerate(pairwise(offsets)):
        state, read = None if states is None else states[i], []
        own = range(start, end)
        for t in own:
            now = linrec.step(recurrence.at(t), inputs[t], state)
            read.append(now.outputs)
            state = now.final_state
        outputs += read
        size = recurrence.state_size
        ends.append(torch.zeros(size, dtype=torch.float64) if state is None else state)
    return torch.stack(outputs), torch.stack(ends)


@pytest.mark.parametrize("offsets", OFFSETS, ids=str)
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("name", [case for case in CASES if "batch" not in case])
def test_each_sequence_is_run_alone(name: str, varying: bool, offsets: list[int]) -> None:
    """Within 1e-11 of the loop in float64: 21 steps of systems of norm 1 or so."""
    recurrence = recurrences(name, varying)
    inputs, states = row(recurrence, len(offsets) - 1)
    for given in (None, states):
        expected = one_by_one(recurrence, inputs, offsets, given)
        got = linrec.run_packed(recurrence, inputs, torch.tensor(offsets), given)
        assert got.outputs.shape == expected[0].shape
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs.to(mine.dtype), rtol=1e-11, atol=1e-11)
    together = linrec.run(recurrence, inputs, resets=linrec.resets_at(torch.tensor(offsets)))
    alone = linrec.run_packed(recurrence, inputs, torch.tensor(offsets))
    torch.testing.assert_close(together.outputs, alone.outputs, rtol=1e-11, atol=1e-11)


def test_no_bit_of_one_sequence_reaches_another() -> None:
    """Values of any size, NaN too, and gradients."""
    recurrence = recurrences("dense", False)
    inputs, states = row(recurrence, 3)
    offsets = torch.tensor([0, 6, 13, 21])
    whole = linrec.run_packed(recurrence, inputs, offsets, states)
    other = inputs.clone()
    other[12] = torch.nan  # in the second
    moved = linrec.run_packed(recurrence, other, offsets, states)
    kept = torch.tensor([*range(6), *range(13, 21)])
    assert torch.equal(moved.outputs[kept], whole.outputs[kept])
    assert torch.equal(moved.final_state[[0, 2]], whole.final_state[[0, 2]])
    inputs.requires_grad_()
    states.requires_grad_()
    linrec.run_packed(recurrence, inputs, offsets, states).outputs[13:].sum().backward()
    assert inputs.grad is not None and states.grad is not None
    assert not inputs.grad[:13].any() and inputs.grad[13:].all()
    assert not states.grad[:2].any() and states.grad[2].any()


def test_little_padding_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long sequence among a hundred short ones: counted, less than twice the steps."""
    computed, plain = [], packed.run

    def counted(recurrence, inputs, *rest, **options):
        computed.append(inputs.shape[0] * inputs.shape[1])
        return plain(recurrence, inputs, *rest, **options)

    monkeypatch.setattr(packed, "run", counted)
    lengths = torch.tensor([1000, *([3, 5] * 50)])
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
    linrec.run_packed(average, torch.ones(int(offsets[-1]), 1), offsets)
    assert sum(computed) < 2 * int(offsets[-1]) and len(computed) == 3


def test_resets_of_run_and_final() -> None:
    recurrence = recurrences("diagonal complex", True)
    inputs, states = row(recurrence, 1)
    expected = linrec.run(linrec.with_resets(recurrence, marks(0, 9)), inputs, states[0])
    got = linrec.run(recurrence, inputs, states[0], resets=marks(0, 9))
    assert torch.equal(got.outputs, expected.outputs)
    last = linrec.final(recurrence, inputs, states[0], resets=marks(0, 9))
    torch.testing.assert_close(last.outputs, expected.outputs[-1], rtol=1e-12, atol=1e-12)


def test_an_empty_row() -> None:
    average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
    outputs, ends = linrec.run_packed(average, torch.ones(0, 1), torch.tensor([0]))
    assert outputs.shape == (0, 1) and ends.shape == (0, 1)
    assert linrec.run_packed(average, torch.ones(0, 1), torch.tensor([0, 0])).final_state.shape == (
        1,
        1,
    )


def test_what_is_refused() -> None:
    average, ones = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]]), torch.ones(4, 1)
    for wrong in ([0, 3], [1, 4], [0, 3, 2, 4], []):
        with pytest.raises(ValueError, match="one row of numbers from 0 to 4"):
            linrec.run_packed(average, ones, torch.tensor(wrong, dtype=torch.int64))
    with pytest.raises(TypeError, match="whole numbers"):
        linrec.run_packed(average, ones, torch.tensor([0.0, 4.0]))
    with pytest.raises(ValueError, match=r"`initial_states` has shape \(1,\)"):
        linrec.run_packed(average, ones, torch.tensor([0, 4]), torch.ones(1))
    with pytest.raises(ValueError, match="expected one row of inputs"):
        linrec.run_packed(average, torch.ones(2, 4, 1), torch.tensor([0, 2]))
    varying = linrec.LinearRecurrence(linrec.Diagonal(torch.ones(3, 1)), time_varying=True)
    with pytest.raises(ValueError, match="has 3 steps and `inputs` 4"):
        linrec.run_packed(varying, ones, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="begins with 0"):
        linrec.resets_at(torch.tensor([1, 2]))
