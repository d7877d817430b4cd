"""Sequences with resets, run piece by piece from one reset to the next."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from linrec.executors import Result
from linrec.lengths import expand_lengths
from linrec.resets import check_resets as check_resets


def run_segments(
    forward: Callable[..., Result],
    inputs: Tensor,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    resets: Tensor,
    **over_time: Tensor | None,
) -> Result:
    """Run from one reset to the next, with the state set to zero at each reset.

    This is for modules that are not a linear recurrence, and for recurrences whose matrix would
    have to be written out for each step. All sequences are cut wherever one of them is reset.

    Args:
        forward: a method such as `Layer.forward`.
        inputs (*batch, time, input_size): x.
        initial_state (*batch, state_size): the state before the first step. None: zeros.
        lengths (*batch): the steps of each right-padded sequence.
        resets (*batch, time): True where the state before a step is forgotten.
        over_time (*batch, time): other arguments of `forward` that have an axis of time.

    Returns:
        The result of `forward`.
    """
    steps = inputs.shape[-2]
    resets = check_resets(resets, inputs).expand(inputs.shape[:-1])
    lengths = expand_lengths(lengths, inputs)
    anew = resets.reshape(math.prod(resets.shape[:-1]), steps).any(0)
    cuts = [0, *(step for step in anew.nonzero().flatten().tolist() if step), steps]
    outputs, state = [], initial_state
    for start, stop in pairwise(cuts):
        piece = slice(start, stop)
        own = None if lengths is None else (lengths - start).clamp(0, stop - start)
        if state is not None and steps:
            forgotten = resets[..., start]
            # Resets in the padding are ignored: the state there is the sequence's last.
            forgotten = forgotten if lengths is None else forgotten & (start < lengths)
            state = torch.where(forgotten.unsqueeze(-1), 0, state)
        named: dict[str, Any] = {
            name: given[..., piece] for name, given in over_time.items() if given is not None
        }
        some, state = forward(inputs[..., piece, :], state, own, **named)
        outputs.append(some)
    assert state is not None, "there is a piece at least"
    return Result(torch.cat(outputs, -2), state)


def pass_resets(resets: Tensor | None) -> dict[str, Tensor]:
    """Make the argument of an inner layer, which need not accept resets if there are none."""
    return {} if resets is None else {"resets": resets}
