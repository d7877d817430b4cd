"""Support for torch's packed sequences in modules, as in `torch.nn.LSTM`."""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from linrec.executors import Result


class TakesPacked(nn.Module):
    """A module whose `forward(inputs, initial_state, lengths)` accepts packed sequences too.

    They are padded and run with their lengths, and the outputs are packed as the inputs were.
    States are at each sequence's own end, in the original (unsorted) order. So do modules with a
    `final`, whose outputs have no time axis and are in the original order.
    """

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "final" in vars(cls):
            cls.final = taking_packed(vars(cls)["final"])

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Run all steps; pad packed sequences, and pack their outputs again."""
        packed = find_packed(given, named)
        if packed is None:
            return super().__call__(*given, **named)
        given, named, lengths = pad_packed(packed, given, named)
        found = super().__call__(*given, **named)
        if isinstance(found, Tensor):
            return packed_like(packed, found, lengths)
        return Result(packed_like(packed, found[0], lengths), found[1])  # type: ignore[arg-type]


def taking_packed(final: Callable[..., Any]) -> Callable[..., Any]:
    """Make a `final` accept packed sequences."""

    @functools.wraps(final)
    def padded(self: nn.Module, *given: Any, **named: Any) -> Any:
        packed = find_packed(given, named)
        if packed is not None:
            given, named, _ = pad_packed(packed, given, named)
        return final(self, *given, **named)

    return padded


def find_packed(given: tuple[Any, ...], named: dict[str, Any]) -> PackedSequence | None:
    """Return the packed sequence among the arguments of a call; None if there is none."""
    first = given[0] if given else named.get("inputs")
    return first if isinstance(first, PackedSequence) else None


def pad_packed(
    packed: PackedSequence, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """Replace a packed sequence by a padded one in the arguments of a call.

    Returns:
        The arguments, by position and by name, and the lengths on the CPU.
    """
    if "lengths" in named or len(given) > 2:
        raise ValueError(
            "`lengths` are given with a PackedSequence, which has its own: expected one of "
            "them. Leave out `lengths`."
        )
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    named = {**named, "lengths": lengths.to(padded.device)}
    if given:
        return (padded, *given[1:]), named, lengths
    return (), {**named, "inputs": padded}, lengths


def packed_like(packed: PackedSequence, outputs: Tensor, lengths: Tensor) -> PackedSequence:
    """Pack `outputs (batch, time, p)` in the order of another packed sequence."""
    order = packed.sorted_indices
    if order is not None:
        outputs, lengths = outputs[order], lengths[order.cpu()]
    data = pack_padded_sequence(outputs, lengths, batch_first=True).data
    return PackedSequence(data, packed.batch_sizes, order, packed.unsorted_indices)
