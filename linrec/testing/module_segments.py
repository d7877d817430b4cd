"""Properties of a module that cuts sequences, by `lengths` that end them or by `resets`."""

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor

from linrec.testing.case import Comparison, like
from linrec.testing.forms import (
    Trial,
    everything,
    fill_zeros,
    gradient,
    sensitivity,
    tensors_of,
    whole,
)
from linrec.testing.module_values import same_states

Comparisons = Iterator[Comparison]

FEW = 16  # the most sequences that are each tried and differentiated alone


def padding(trial: Trial) -> Comparisons:
    """Check that nothing past a sequence's length, even of 0, reaches its outputs or state."""
    if not takes(trial, "lengths"):
        return
    # The first sequence ends in the middle, the second goes on to the end, the third has one step.
    ends = (max(trial.steps // 2, 1), trial.steps, 1)[: len(trial.inputs)]
    lengths = torch.tensor([ends[row % len(ends)] for row in range(len(trial.inputs))])
    past = (torch.arange(trial.steps) >= lengths.unsqueeze(-1)).unsqueeze(-1)
    spoiled = torch.where(past, torch.nan, trial.inputs)
    outputs, state = trial.module(spoiled, lengths=lengths)
    rows = enumerate(lengths.tolist())
    alone = [whole(trial.module, trial.inputs[row : row + 1, :end]) for row, end in rows]
    for row, (own, _) in enumerate(alone):
        padded = outputs[row : row + 1, : own.shape[1]]
        yield Comparison("outputs of a padded sequence", padded, own, trial.allowed)
    after = [tensors_of(own) for _, own in alone]
    for mine, *theirs in zip(tensors_of(state), *after, strict=True):
        yield Comparison(
            "state of padded sequences", mine, side_by_side(theirs, mine), trial.allowed
        )
    none = torch.zeros_like(lengths)
    unmoved = trial.module(torch.full_like(trial.inputs, torch.nan), lengths=none)[1]
    later, expected = (whole(trial.module, trial.inputs, each)[0] for each in (unmoved, None))
    yield Comparison("outputs after a sequence of no steps", later, expected, trial.allowed)
    yield from padding_after_a_state(trial)


def padding_after_a_state(trial: Trial) -> Comparisons:
    """Check padded sequences that continue from states; one without steps keeps its own."""
    if len(trial.inputs) > FEW:
        return
    ends = [(0, trial.steps, trial.steps // 2)[row % 3] for row in range(len(trial.inputs))]
    before = 1 - trial.inputs
    starts = [whole(trial.module, before[row : row + 1])[1] for row in range(len(ends))]
    _, start = whole(trial.module, before)
    outputs, state = trial.module(trial.inputs, start, lengths=torch.tensor(ends))
    after, allowed = [], 2 * trial.allowed + 2 * sensitivity(trial.module, before)
    for row, (end, own) in enumerate(zip(ends, starts, strict=True)):
        if end:
            alone, own = whole(trial.module, trial.inputs[row : row + 1, :end], own)
            padded = outputs[row : row + 1, :end]
            yield Comparison("outputs of a padded sequence after a state", padded, alone, allowed)
        after.append(tensors_of(own))
    for mine, *theirs in zip(tensors_of(state), *after, strict=True):
        what = "state of padded sequences after a state"
        yield Comparison(what, mine, side_by_side(theirs, mine), allowed)


def resets(trial: Trial) -> Comparisons:
    """Check resets: earlier inputs of a sequence change no bit of the steps after its reset."""
    if not takes(trial, "resets") or not trial.steps:
        return
    fresh, state = whole(trial.module, trial.inputs)
    carried, _ = whole(trial.module, trial.inputs, state)
    some = torch.arange(len(fresh)) % 2 == 0  # every other sequence forgets the state at once
    marks = some.unsqueeze(-1) & (torch.arange(trial.steps) == 0)
    outputs, _ = trial.module(trial.inputs, state, resets=marks)
    expected = torch.where(some.view(-1, *[1] * (fresh.ndim - 1)), fresh, carried)
    what, allowed = "outputs where every other sequence is reset at the first step", trial.allowed
    yield Comparison(what, outputs, expected, 2 * allowed)
    if trial.steps < 2:
        return
    cut, marks = halves_of(trial)
    at = (torch.arange(trial.steps) == cut - 1).unsqueeze(-1)
    outputs, state = trial.module(trial.inputs, resets=marks)
    changed, after = trial.module(
        torch.where(at, 1 - trial.inputs, trial.inputs), state, resets=marks
    )
    yield Comparison("outputs after a reset", changed[:, cut:], outputs[:, cut:], 0.0)
    yield from same_states("state after a reset", after, state, 0.0)
    alone, end = whole(trial.module, trial.inputs[:, cut:])
    yield Comparison("outputs of a segment", outputs[:, cut:], alone, trial.allowed)
    yield from same_states("state after a segment", state, end, trial.allowed)
    last = trial.steps - 1
    marks = marks | (torch.arange(trial.steps) == last)
    outputs, state = trial.module(trial.inputs, resets=marks)
    alone, end = whole(trial.module, trial.inputs[:, last:])
    yield Comparison("outputs of the last of three segments", outputs[:, last:], alone, allowed)
    yield from same_states("state after the last of three segments", state, end, allowed)
    if takes(trial, "lengths"):
        yield from resets_of_padded(trial)


def resets_of_padded(trial: Trial) -> Comparisons:
    """Check that padded sequences with resets end with the last of their own steps."""
    cut, marks = halves_of(trial)
    end = (cut + trial.steps) // 2
    past = (torch.arange(trial.steps) >= end).unsqueeze(-1)
    spoiled = torch.where(past, torch.nan, trial.inputs)
    lengths = torch.full((len(trial.inputs),), end)
    outputs, state = trial.module(spoiled, lengths=lengths, resets=marks)
    expected, after = trial.module(trial.inputs[:, :end], resets=marks[:, :end])
    allowed = 2 * trial.allowed
    yield Comparison("outputs of padded segments", outputs[:, :end], expected, allowed)
    yield from same_states("state after padded segments", state, after, allowed)


def takes(trial: Trial, name: str) -> bool:
    """Return whether a module's `forward` has an argument of this name."""
    return name in inspect.signature(trial.module.forward).parameters


def halves_of(trial: Trial) -> tuple[int, Tensor]:
    """Return the middle step of the sequences, and marks of a reset before it."""
    cut = trial.steps // 2
    return cut, (torch.arange(trial.steps) == cut).expand(trial.inputs.shape[:2])


def gradients_of_segments(trial: Trial, limit: float) -> Comparisons:
    """Compare gradients in inputs that are reset in the middle with both halves' alone."""
    if not takes(trial, "resets") or trial.steps < 2:
        return
    cut, marks = halves_of(trial)
    inputs = trial.inputs.detach().clone().requires_grad_()
    together = everything(trial.module(inputs, resets=marks))
    first, _ = whole(trial.module, inputs[:, :cut])
    second, end = whole(trial.module, inputs[:, cut:])
    alone = everything((torch.cat([first, second], 1), end))
    v = like(alone.detach()).conj()
    totals = [(each * v).real.sum() for each in (together, alone)]
    got, expected = (fill_zeros(gradient(each, [inputs]), [inputs])[0] for each in totals)
    yield Comparison("gradient in inputs that are reset", got, expected, limit)


def gradients_of_padded(trial: Trial, limit: float) -> Comparisons:
    """Compare gradients in padded inputs with each sequence's alone, and zero past its end."""
    if not takes(trial, "lengths") or len(trial.inputs) > FEW:
        return
    ends = [(trial.steps, max(trial.steps // 2, 1))[row % 2] for row in range(len(trial.inputs))]
    inputs = trial.inputs.detach().clone().requires_grad_()
    padded, _ = trial.module(inputs, lengths=torch.tensor(ends))
    v = like(padded.detach())

    def own(row: int, outputs: Tensor) -> Tensor:
        return (outputs * v[row, : ends[row]].conj()).real.sum()

    rows = range(len(ends))
    alone = [whole(trial.module, inputs[row : row + 1, : ends[row]])[0][0] for row in rows]
    totals = [
        torch.stack([own(row, each) for row, each in enumerate(every)]).sum()
        for every in ([padded[row, : ends[row]] for row in rows], alone)
    ]
    got, expected = (fill_zeros(gradient(each, [inputs]), [inputs])[0] for each in totals)
    yield Comparison("gradient in padded inputs", got, expected, limit)


def side_by_side(alone: list[Tensor], together: Tensor) -> Tensor:
    """Join the states of single sequences along the axis that is longer in the joint state."""
    shapes = zip(alone[0].shape, together.shape, strict=True)
    longer = [axis for axis, (one, all_of_them) in enumerate(shapes) if one != all_of_them]
    return torch.cat(alone, longer[0]) if longer else alone[0]
