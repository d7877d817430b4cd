"""Support for torch's packed sequences in modules, as in `torch.nn.LSTM`."""

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from linrec.executors import Result


class TakesPacked(nn.Module):
    """A module whose `forward(inputs, initial_state, lengths)` accepts packed sequences too.

    They are padded and run with their lengths, and the outputs are packed as the inputs were.
    States are at each sequence's own end, in the original (unsorted) order.
    """

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Run all steps; pad packed sequences, and pack their outputs again."""
        if not given or not isinstance(given[0], PackedSequence):
            return super().__call__(*given, **named)
        packed, *rest = given
        if "lengths" in named or len(rest) > 1:
            raise ValueError(
                "`lengths` are given with a PackedSequence, which has its own: expected one of "
                "them. Leave out `lengths`."
            )
        padded, lengths = pad_packed_sequence(packed, batch_first=True)
        found = super().__call__(padded, *rest, lengths=lengths.to(padded.device), **named)
        if isinstance(found, Tensor):
            return packed_like(packed, found, lengths)
        return Result(packed_like(packed, found[0], lengths), found[1])  # type: ignore[arg-type]


def packed_like(packed: PackedSequence, outputs: Tensor, lengths: Tensor) -> PackedSequence:
    """Pack `outputs (batch, time, p)` in the order of another packed sequence."""
    order = packed.sorted_indices
    if order is not None:
        outputs, lengths = outputs[order], lengths[order.cpu()]
    data = pack_padded_sequence(outputs, lengths, batch_first=True).data
    return PackedSequence(data, packed.batch_sizes, order, packed.unsorted_indices)
