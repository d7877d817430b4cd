"""Properties of a module's outputs and states, in both of its forms."""

from collections.abc import Iterator

import torch
from torch import Tensor

from linrec.testing.case import Comparison
from linrec.testing.forms import (
    State,
    Trial,
    dtype_of,
    everything,
    like_double,
    operations,
    own_tensors,
    sensitivity,
    size_of,
    steps,
    tensors_of,
    whole,
)

Comparisons = Iterator[Comparison]


def streaming(trial: Trial) -> Comparisons:
    """Compare single steps with all steps at once."""
    outputs, state = whole(trial.module, trial.inputs)
    single, after = steps(trial.module, trial.inputs)
    yield Comparison("outputs of single steps", single, outputs, trial.allowed)
    yield from same_states("state after single steps", after, state, trial.allowed)
    pairs = zip((single, *tensors_of(after)), (outputs, *tensors_of(state)), strict=True)
    for mine, theirs in pairs:
        text = f"{mine.dtype} of single steps, {theirs.dtype} of all at once"
        yield Comparison(text, torch.tensor(mine.dtype != theirs.dtype), torch.tensor(False), 0.0)


def not_a_number(trial: Trial) -> Comparisons:
    """Check that after NaN or infinity one call gives numbers only where single steps do."""
    at = torch.arange(trial.steps).unsqueeze(-1) == trial.steps // 2
    for what in (torch.nan, torch.inf):
        spoiled = torch.where(at, what, trial.inputs)
        try:
            (single, after), (outputs, state) = (
                form(trial.module, spoiled) for form in (steps, whole)
            )
        except (RuntimeError, ValueError):
            continue  # refused
        pairs = zip((single, *tensors_of(after)), (outputs, *tensors_of(state)), strict=True)
        for mine, theirs in pairs:
            text = f"after {what}, how many numbers are finite all at once, and not in single steps"
            count = (theirs.isfinite() & ~mine.isfinite()).sum().double()
            yield Comparison(text, count, torch.zeros(()), 0.0)


def continuation(trial: Trial) -> Comparisons:
    """Compare two calls joined by the state with one call.

    One cut is in the middle. A power of two steps is also cut one step before the middle, so that
    the parts have one step less and one step more than a power of two. One step more than a power
    of two is cut into that power and one.
    """
    outputs, state = whole(trial.module, trial.inputs)
    half = trial.steps // 2
    other = half - 1 if trial.steps.bit_count() == 1 else trial.steps // 3
    other = trial.steps - 1 if (trial.steps - 1).bit_count() == 1 else other
    for cut in sorted({half, other} - {0, -1}):
        first, between = whole(trial.module, trial.inputs[:, :cut])
        second, after = whole(trial.module, trial.inputs[:, cut:], between)
        joined = torch.cat([first, second], 1)
        yield Comparison("joined outputs", joined, outputs, trial.allowed)
        yield from same_states("state after the second call", after, state, trial.allowed)
        apart, _ = whole(trial.module, trial.inputs[:, cut:], spread_out(between))
        what = "outputs after a state whose numbers lie apart in memory"
        yield Comparison(what, apart, outputs[:, cut:], trial.allowed)


def spread_out(state: State) -> State:
    """Copy a state into memory with another number after each of its own."""
    if isinstance(state, Tensor):
        return torch.stack([state, torch.ones_like(state)], -1)[..., 0]
    if isinstance(state, dict):
        return {name: spread_out(part) for name, part in state.items()}
    if isinstance(state, tuple | list):
        parts = [spread_out(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


def no_steps(trial: Trial) -> Comparisons:
    """Check calls without steps, which change nothing, and without sequences, if accepted."""
    outputs, state = whole(trial.module, trial.inputs)
    yield from no_sequences(trial, outputs)
    nothing = trial.inputs[:, :0]
    for before in (None, state):
        try:
            none, after = whole(trial.module, nothing, before)
        except (RuntimeError, ValueError, TypeError):
            return  # refused, which is not wrong
        wanted = (len(nothing), 0, *outputs.shape[2:])
        yield Comparison("outputs of no steps", none, outputs.new_zeros(wanted), 0.0)
        got, later = whole(trial.module, trial.inputs, after)
        expected, end = whole(trial.module, trial.inputs, before)
        yield Comparison("outputs after no steps", got, expected, 2 * trial.allowed)
        yield from same_states("state after no steps", later, end, 2 * trial.allowed)


def no_sequences(trial: Trial, outputs: Tensor) -> Comparisons:
    """Check the shapes of outputs without sequences, in both forms."""
    for form, name in ((whole, "forward"), (steps, "step")):
        try:
            none, _ = form(trial.module, trial.inputs[:0])
        except (RuntimeError, ValueError, TypeError, IndexError):
            continue  # refused
        yield Comparison(f"outputs of no sequences, `{name}`", none, outputs[:0], 0.0)


def untouched(trial: Trial) -> Comparisons:
    """Check that a call leaves its inputs, the caller's state and the module unchanged."""
    module, inputs = trial.module, trial.inputs.clone()
    outputs, state = whole(module, inputs)
    kept = [each.clone() for each in tensors_of(state)]
    own = own_tensors(module)
    before_calls = {name: tensor.detach().clone() for name, tensor in own.items()}
    for form, name in ((whole, "forward"), (steps, "step")):
        form(module, inputs, state)
        yield Comparison(f"inputs after `{name}`", inputs, trial.inputs, 0.0)
        for mine, before in zip(tensors_of(state), kept, strict=True):
            yield Comparison(f"state given to `{name}`, afterwards", mine, before, 0.0)
    for name, tensor in before_calls.items():
        now = own[name].detach()
        if not torch.equal(now, tensor):
            yield Comparison(f"`{name}` of the module", now.double(), tensor.double(), 0.0)
    again, _ = whole(module, inputs)
    # (Not `trial.allowed`, which a module that keeps something between calls would widen.)
    eps = torch.finfo(inputs.dtype).eps * operations(module, inputs)
    yield Comparison("outputs of a second call", again, outputs, eps * size_of(outputs))


def training_mode(trial: Trial) -> Comparisons:
    """Check that a module is the same function in training mode, with its randomness off."""
    training = trial.training
    if training is None:
        return
    outputs, state = whole(training, trial.inputs)
    expected, end = whole(trial.module, trial.inputs)
    yield Comparison("outputs in training mode", outputs, expected, trial.allowed)
    yield from same_states("state in training mode", state, end, trial.allowed)
    single, _ = steps(training, trial.inputs)
    yield Comparison("outputs of single steps in training mode", single, expected, trial.allowed)


def recording(trial: Trial) -> Comparisons:
    """Check that both forms are the same function with and without recording of gradients.

    `torch.inference_mode` is tried too.
    """
    with torch.no_grad():
        expected, end = whole(trial.module, trial.inputs)
    with torch.inference_mode():
        outputs, state = whole(trial.module, trial.inputs)
    yield Comparison("outputs in inference mode", outputs, expected, trial.allowed)
    yield from same_states("state in inference mode", state, end, trial.allowed)
    for form, name in ((whole, "forward"), (steps, "step")):
        leaf = trial.inputs.clone().requires_grad_()
        with torch.enable_grad():
            outputs, state = form(trial.module, leaf)
        what = f"while `{name}` records gradients"
        yield Comparison(f"outputs {what}", outputs.detach(), expected, trial.allowed)
        yield from same_states(f"state {what}", state, end, trial.allowed)


def precision(trial: Trial) -> Comparisons:
    """Check that a module in double precision rounds nothing to single.

    Over a small step a function is nearly a straight line: f(u + h d) + f(u - h d) - 2 f(u) is
    h² f'' plus rounding errors. With a step 64 times as long, curvature is 4,096 times as large;
    rounding to single precision is not. A kink within the step says nothing, so a failure counts
    only at two places. Coarser rounding fails the comparison of gradients with differences.
    """
    double = torch.finfo(dtype_of(trial.module)).eps == torch.finfo(torch.float64).eps
    if not double or trial.is_widened:
        return
    bends = []
    for seed in (2, 4):
        u, d = (like_double(trial.inputs, seed + each) for each in range(2))

        def bend(h: float, u: Tensor = u, d: Tensor = d) -> Tensor:
            here, *beside = (everything(whole(trial.module, u + step * d)) for step in (0.0, h, -h))
            return beside[0] + beside[1] - 2 * here

        with torch.no_grad():
            near, far = bend(2.0**-24), bend(2.0**-18)
        allowed = 4 * size_of(far) / 2**12 + 4 * sensitivity(trial.module, u)
        what = "outputs and states, bent by numbers of single precision"
        bends.append(Comparison(what, near, torch.zeros(()), allowed))
    yield min(bends, key=lambda each: size_of(each.got) / each.allowed)


def causality(trial: Trial) -> Comparisons:
    """Check that later inputs change no earlier outputs."""
    cut = trial.steps // 2
    changed = torch.cat([trial.inputs[:, :cut], 1 - trial.inputs[:, cut:]], 1)
    allowed = trial.allowed + sensitivity(trial.module, changed)
    mine, other = (whole(trial.module, each)[0][:, :cut] for each in (trial.inputs, changed))
    yield Comparison("outputs before a change", other, mine, allowed)


def independence(trial: Trial) -> Comparisons:
    """Check that a sequence's results do not depend on the other sequences."""
    alone, _ = whole(trial.module, trial.inputs)
    beside = torch.cat([trial.inputs, 1 - trial.inputs])
    allowed = trial.allowed + sensitivity(trial.module, beside)
    yield Comparison(
        "outputs beside others", whole(trial.module, beside)[0][: len(alone)], alone, allowed
    )


def same_states(what: str, mine: State, theirs: State, allowed: float) -> Comparisons:
    """Compare two states, tensor by tensor."""
    for one, other in zip(tensors_of(mine), tensors_of(theirs), strict=True):
        yield Comparison(what, one, other, allowed)
