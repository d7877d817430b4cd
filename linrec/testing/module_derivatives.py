"""Properties of a module's derivatives: both forms compared, and with differences."""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from linrec.testing.case import Comparison, like
from linrec.testing.forms import (
    MANY,
    State,
    Trial,
    everything,
    fill_zeros,
    gradient,
    in_double,
    is_number,
    like_double,
    movement,
    operations,
    sensitivity,
    size_of,
    steps,
    tensors_of,
    whole,
    with_tensors,
)
from linrec.testing.module_segments import gradients_of_padded, gradients_of_segments

Comparisons = Iterator[Comparison]
Caller = Callable[[nn.Module, Tensor, State], tuple[Tensor, State]]

FORMS: tuple[tuple[str, Caller], ...] = (("forward", whole), ("step", steps))

GROUPS = "inputs", "initial state", "parameters"
STEP = 1e-6  # of differences in double precision


class Start(NamedTuple):
    """The tensors that a call is differentiated with respect to.

    Attributes:
        inputs (batch, time, features): the inputs.
        state: the state before the first step, as the module takes it.
        leaves: the inputs, the state's tensors, and the trained parameters.
    """

    inputs: Tensor
    state: State
    leaves: list[Tensor]


def gradients(trial: Trial) -> Comparisons:
    """Compare both forms' gradients in inputs, initial state and every parameter.

    They are compared in training mode too, where gradients are used.
    """
    if not is_differentiable(trial):
        return
    module, start = trial.module, start_later(trial.module, trial.inputs)
    results = [drawn_sum(form, module, start) for _, form in FORMS]
    mine, theirs = (gradient(each, start.leaves) for each in results)
    if any((left is None) != (right is None) for left, right in zip(mine, theirs, strict=True)):
        for left, right in zip(mine, theirs, strict=True):
            yield Comparison("gradient of one form only", unlike(left, right), torch.zeros(()), 0.0)
    names = [name for name, each in module.named_parameters() if each.requires_grad]

    def moving(own: Mapping[str, Tensor], inputs: Tensor) -> list[Tensor]:
        named, moved = moved_leaves(own, names, inputs, start.state)
        total = drawn_sum(lambda m, u, x: call(m, named, u, x), module, moved)
        return fill_zeros(gradient(total, moved.leaves), moved.leaves)

    limits = movement(moving, module, trial.inputs)
    eps = torch.finfo(trial.inputs.dtype).eps * operations(module, trial.inputs)
    expected = fill_zeros(mine, start.leaves)
    others = [("gradient", fill_zeros(theirs, start.leaves))]
    others += [
        (f"gradient of `{name}` in training mode", each)
        for name, each in differentiate_training(trial)
    ]
    others.append(("gradient of one group of tensors", differentiate_groups(module, start)))
    for what, found in others:
        for left, right, limit in zip(found, expected, limits, strict=True):
            yield Comparison(what, left, right, limit + eps * (size_of(left) + size_of(right)))
    limit = limits[0] + 2 * eps * size_of(expected[0])
    yield from gradients_of_padded(trial, limit)
    yield from gradients_of_segments(trial, limit)


def differentiate_groups(module: nn.Module, start: Start) -> list[Tensor]:
    """Differentiate `forward` in one group of leaves at a time; the others need no gradient."""
    found: list[Tensor] = []
    for first, last in groups_of(start).values():
        wanted = start.leaves[first:last]
        others = [each for each in start.leaves if not any(each is one for one in wanted)]
        try:
            for each in others:
                each.requires_grad_(False)
            total = drawn_sum(whole, module, start)
            found += fill_zeros(gradient(total, wanted), wanted) if wanted else []
        finally:
            for each in others:
                each.requires_grad_()
    return found


def groups_of(start: Start) -> dict[str, tuple[int, int]]:
    """Return the begin and end of each group among the leaves."""
    own = sum(each.requires_grad for each in tensors_of(start.state))
    return dict(zip(GROUPS, pairwise((0, 1, 1 + own, len(start.leaves))), strict=True))


def differentiate_training(trial: Trial) -> Iterator[tuple[str, list[Tensor]]]:
    """Differentiate both forms in training mode; with many inputs `forward` alone."""
    if trial.training is None:
        return
    start = start_later(trial.training, trial.inputs)
    for name, form in FORMS if trial.inputs.numel() < MANY else FORMS[:1]:
        total = drawn_sum(form, trial.training, start)
        yield name, fill_zeros(gradient(total, start.leaves), start.leaves)


def differences(trial: Trial) -> Comparisons:
    """Compare the gradient along a line, ⟨∇, d⟩, with differences in double precision.

    Inputs, initial state and parameters are moved one group at a time. A difference across a kink
    of the module says nothing, so a failure counts only if it repeats at another place.
    """
    if not is_differentiable(trial):
        return
    try:
        module = in_double(trial.module)
        starts = [start_later(module, like_double(trial.inputs, seed)) for seed in range(2)]
        sums = [[drawn_sum(form, module, start) for _, form in FORMS] for start in starts]
    except (RuntimeError, TypeError, ValueError):
        return  # the module cannot run in double precision
    # All gradients are computed first, because numbers are moved in place below.
    found = [
        [fill_zeros(gradient(each, start.leaves), start.leaves) for each in both]
        for start, both in zip(starts, sums, strict=True)
    ]
    for number, (name, form) in enumerate(FORMS):
        places = [
            slopes(form, module, start, both[number])
            for start, both in zip(starts, found, strict=True)
        ]
        for group in GROUPS:
            best = min((each[group] for each in places if group in each), key=excess, default=None)
            if best is not None:
                along, difference, allowed = best
                text = f"derivative in the {group} of `{name}`"
                # (In float32 two nearly equal numbers could be rounded to different ones.)
                got, expected = torch.tensor([along, difference], dtype=torch.float64)
                yield Comparison(text, got, expected, allowed)


class Slope(NamedTuple):
    """A derivative along a line.

    Attributes:
        along: the derivative by the gradient.
        difference: the derivative by a difference.
        allowed: the allowed distance between them.
    """

    along: float
    difference: float
    allowed: float


def excess(slope: Slope) -> float:
    """Return the error of a slope as a share of its bound."""
    return abs(slope.along - slope.difference) / max(slope.allowed, 1e-300)


def slopes(form: Caller, module: nn.Module, start: Start, found: list[Tensor]) -> dict[str, Slope]:
    """Compare a gradient with differences, along one line for each group of leaves."""
    with torch.no_grad():
        outcome = everything(form(module, start.inputs, start.state))
    # The rounding error of the values, divided by the step.
    values = float((outcome.abs() * like(outcome).abs()).sum()) + size_of(outcome)
    rounding = operations(module, start.inputs) * torch.finfo(torch.float64).eps * values / STEP
    slopes = {}
    for group, (first, last) in groups_of(start).items():
        if first == last:
            continue
        leaves, lines = start.leaves[first:last], [like(g.detach()) for g in found[first:last]]

        def at(h: float, leaves: list[Tensor] = leaves, lines: list[Tensor] = lines) -> float:
            with torch.no_grad():
                before = [leaf.clone() for leaf in leaves]
                for leaf, line in zip(leaves, lines, strict=True):
                    leaf += h * line
                value = float(drawn_sum(form, module, start))
                for leaf, kept in zip(leaves, before, strict=True):
                    leaf.copy_(kept)
            return value

        near, far = ((at(h) - at(-h)) / (2 * h) for h in (STEP, 4 * STEP))
        products = zip(found[first:last], lines, strict=True)
        along = sum(float((g.conj() * line).real.sum()) for g, line in products)
        # A longer step shows the curvature.
        slopes[group] = Slope(along, near, 4 * abs(near - far) + rounding + 1e-9 * abs(near))
    return slopes


def second_derivatives(trial: Trial) -> Comparisons:
    """Compare the second derivatives of both forms, where there are any."""
    if not is_differentiable(trial):
        return
    module, given = trial.module, start_later(trial.module, trial.inputs)
    try:
        outputs = whole(module, given.inputs)[0]
        expected = second(outputs, given.leaves)
    except RuntimeError:
        return  # torch cannot differentiate the module twice
    if expected is None:
        return
    got = second(steps(module, given.inputs)[0], given.leaves)
    names = [name for name, each in module.named_parameters() if each.requires_grad]

    def moving(own: Mapping[str, Tensor], inputs: Tensor) -> list[Tensor]:
        named, moved = moved_leaves(own, names, inputs, given.state)
        found = second(call(module, named, moved.inputs, None)[0], moved.leaves)
        return [torch.zeros_like(expected) if found is None else found]

    allowed = outputs.numel() * movement(moving, module, trial.inputs)[0]
    got = torch.zeros_like(expected) if got is None else got
    yield Comparison("second derivatives", got, expected, allowed)


def vmap(trial: Trial) -> Comparisons:
    """Compare `vmap` over sequences with calls on each, where torch can map the module."""
    other = 1 - trial.inputs
    both = torch.stack([trial.inputs, other])
    try:
        mapped = torch.func.vmap(lambda inputs: whole(trial.module, inputs)[0])(both)
    except RuntimeError:
        return
    limits = trial.allowed, sensitivity(trial.module, other)
    for outputs, inputs, allowed in zip(mapped, both, limits, strict=True):
        yield Comparison("outputs, mapped", outputs, whole(trial.module, inputs)[0], allowed)


def batched_gradients(trial: Trial) -> Comparisons:
    """Compare gradients batched, on a graph used before, with single ones, where torch can."""
    if not is_differentiable(trial):
        return
    start = start_later(trial.module, trial.inputs)
    outputs, fresh = (whole(trial.module, start.inputs, start.state)[0] for _ in range(2))
    if not outputs.requires_grad:
        return
    towards = like(outputs.detach()), torch.ones_like(outputs)
    kept = [each.clone() for each in towards]
    options = {"retain_graph": True, "allow_unused": True}
    one_by_one = [
        torch.autograd.grad(each, start.leaves, v, **options)
        for each, v in zip((outputs, fresh), towards, strict=True)
    ]
    for v, before in zip(towards, kept, strict=True):
        yield Comparison("what a gradient was taken of, afterwards", v, before, 0.0)
    options["is_grads_batched"] = True
    try:
        together = torch.autograd.grad(outputs, start.leaves, torch.stack(towards), **options)
    except RuntimeError:
        return  # torch cannot map the backward pass
    eps = torch.finfo(outputs.dtype).eps * operations(trial.module, trial.inputs)
    for row, alone in enumerate(one_by_one):
        for mine, single in zip(together, alone, strict=True):
            if mine is None or single is None:
                yield Comparison("batched gradient", unlike(mine, single), torch.zeros(()), 0.0)
                continue
            allowed = eps * size_of(single) + outputs.numel() * trial.allowed
            yield Comparison("batched gradient", mine[row], single, allowed)


def is_differentiable(trial: Trial) -> bool:
    """Return whether torch computes either form; other libraries' results have no gradients."""
    inputs = trial.inputs.detach().clone().requires_grad_()
    return any(
        each.requires_grad
        for _, form in FORMS
        for each in tensors_of(form(trial.module, inputs, None))
    )


def start_later(module: nn.Module, inputs: Tensor) -> Start:
    """Prepare to differentiate a call that continues from the state after other inputs."""
    with torch.no_grad():
        _, state = whole(module, like(inputs))
    return leaves_of(inputs, state, [each for each in module.parameters() if each.requires_grad])


def leaves_of(inputs: Tensor, state: State, parameters: list[Tensor]) -> Start:
    """List the leaves to differentiate in; inputs and state become leaves themselves."""
    inputs = inputs.detach().clone().requires_grad_()
    own = [
        each.detach().clone().requires_grad_(is_number(each) and each.numel() > 0)
        for each in tensors_of(state)
    ]
    leaves = [inputs, *(each for each in own if each.requires_grad), *parameters]
    return Start(inputs, with_tensors(state, own), leaves)


def moved_leaves(
    own: Mapping[str, Tensor], names: list[str], inputs: Tensor, state: State
) -> tuple[dict[str, Tensor], Start]:
    """Copy a module's tensors and its arguments; trained ones become leaves."""
    moved = [own[name].clone().requires_grad_() for name in names]
    return dict(own) | dict(zip(names, moved, strict=True)), leaves_of(inputs, state, moved)


def call(
    module: nn.Module, named: Mapping[str, Tensor], inputs: Tensor, state: State
) -> tuple[Tensor, State]:
    """Call a module with other parameters and buffers."""
    given = (inputs,) if state is None else (inputs, state)
    return torch.func.functional_call(module, dict(named), given)


def drawn_sum(form: Caller, module: nn.Module, start: Start) -> Tensor:
    """Sum all numbers of outputs and final state, each with its own weight."""
    outcome = everything(form(module, start.inputs, start.state))
    return (outcome * like(outcome.detach()).conj()).real.sum()


def second(outputs: Tensor, given: list[Tensor]) -> Tensor | None:
    """Differentiate the gradient of a weighted sum, with fixed weights; None if constant."""
    if not outputs.requires_grad:
        return None
    v = like(outputs.detach())
    first = torch.autograd.grad(outputs, given, v, create_graph=True, allow_unused=True)
    moving = [each for each in first if each is not None and each.requires_grad]
    if not moving:
        return None
    towards = torch.stack([(each.conj() * like(each.detach())).real.sum() for each in moving]).sum()
    found = torch.autograd.grad(towards, given, allow_unused=True)
    return torch.cat([each.flatten() for each in fill_zeros(list(found), given)])


def unlike(left: Tensor | None, right: Tensor | None) -> Tensor:
    """Return the largest number of a gradient whose counterpart is None; else zero."""
    if left is not None and right is not None:
        return torch.zeros(())
    sizes = [size_of(each) for each in (left, right) if each is not None]
    return torch.tensor(max(sizes, default=0.0))
