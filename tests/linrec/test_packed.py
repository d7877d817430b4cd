"""Packed sequences in modules: each gives the results that it gives alone."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

import linrec
import lmu

MODULES: dict[str, Callable[[], nn.Module]] = {
    "recurrence": lambda: linrec.nn.Recurrence(
        linrec.LinearRecurrence(torch.rand(4, 4) / 4, torch.rand(4, 3))
    ),
    "sampled": lambda: linrec.nn.SampledSystem(
        linrec.StateSpace(torch.rand(4, 4) - torch.eye(4), torch.rand(4, 3)), dt=0.1
    ),
    "gates": lambda: linrec.nn.MinGRU(3, 4),
    "delta rule": lambda: linrec.nn.GatedDeltaNet(3, 1),
    "both ways": lambda: lmu.Bidirectional(linrec.nn.MinGRU(3, 4), linrec.nn.EMA(3)),
    "stack": lambda: linrec.nn.Stack([linrec.nn.MinLSTM(3, 4), linrec.nn.EMA(4)]),
    "memory": lambda: lmu.LegendreMemory(3, 4, 9.0),
    "memory and layer": lambda: lmu.ParallelLMU(3, 5, 2, 4, 9.0),
    "unit of 2019": lambda: lmu.LMU(3, 2, 4, 9.0, hidden=nn.RNNCell(8, 5), hidden_to_memory=True),
}
ORDERS = {"sorted": ([7, 5, 5, 1], True), "any order": ([2, 7, 1, 5], False)}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", MODULES)
def test_packed_sequences_are_what_each_is_alone(name: str, order: str) -> None:
    torch.manual_seed(0)
    lengths, sorted_ = ORDERS[order]
    module = MODULES[name]().double()
    sequences = [torch.randn(length, 3, dtype=torch.float64) for length in lengths]
    packed = pack_sequence(sequences, enforce_sorted=sorted_)
    outputs, states = module(packed)
    assert isinstance(outputs, PackedSequence)
    assert torch.equal(outputs.batch_sizes, packed.batch_sizes)
    for sequence, own, state in zip(sequences, unpack_sequence(outputs), states, strict=True):
        alone = module(sequence)
        torch.testing.assert_close(own, alone.outputs)
        torch.testing.assert_close(state, alone.final_state)
    whole = module(packed, torch.zeros_like(states))  # with a state before the first step
    torch.testing.assert_close(whole.outputs.data, outputs.data)
    assert torch.equal(module(inputs=packed).outputs.data, outputs.data)
    if isinstance(module, lmu.Bidirectional):  # it has no `final`
        return
    final: Callable[..., linrec.Result] = getattr(module, "final")  # noqa: B009  # of no type that pyright knows
    for last in (final(packed), final(inputs=packed)):
        for sequence, own, state in zip(sequences, *last, strict=True):
            alone = final(sequence)
            torch.testing.assert_close(own, alone.outputs)
            torch.testing.assert_close(state, alone.final_state)


def test_outputs_alone_are_packed_too_and_gradients_flow() -> None:
    layer = linrec.nn.Outputs(linrec.nn.MinGRU(3, 4))
    inputs = [torch.randn(n, 3, requires_grad=True) for n in (2, 6)]
    outputs = layer(pack_sequence(inputs, enforce_sorted=False))
    assert isinstance(outputs, PackedSequence)
    outputs.data.sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in inputs)


def test_lengths_with_a_packed_sequence_are_refused() -> None:
    packed = pack_sequence([torch.randn(3, 3)])
    with pytest.raises(ValueError, match="Leave out `lengths`"):
        linrec.nn.MinGRU(3, 4)(packed, lengths=torch.tensor([3]))
    with pytest.raises(ValueError, match="Leave out `lengths`"):
        linrec.nn.MinGRU(3, 4).final(packed, None, torch.tensor([3]))  # type: ignore[arg-type]  # tested
