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
    """Step by step gives what all steps at once give."""
    outputs, state = whole(trial.module, trial.inputs)
    single, after = steps(trial.module, trial.inputs)
    yield Comparison("outputs of single steps", single, outputs, trial.allowed)
    yield from same_states("state after single steps", after, state, trial.allowed)
    pairs = zip((single, *tensors_of(after)), (outputs, *tensors_of(state)), strict=True)
    for mine, theirs in pairs:
        text = f"{mine.dtype} of single steps, {theirs.dtype} of all at once"
        yield Comparison(text, torch.tensor(mine.dtype != theirs.dtype), torch.tensor(False), 0.0)


def not_a_number(trial: Trial) -> Comparisons:
    """Where single steps give no number, after an input of NaN or infinity, one call gives none."""
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
    """Two calls joined by the state are one call.

    Half of the steps are one of the cuts; of a power of two one less than half is another, so that
    one part has one step less, and the other one step more, than a power of two. One step more
    than a power of two is cut into that power and one.
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
    """Copy a state into memory in which another number follows each of its own."""
    if isinstance(state, Tensor):
        return torch.stack([state, torch.ones_like(state)], -1)[..., 0]
    if isinstance(state, dict):
        return {name: spread_out(part) for name, part in state.items()}
    if isinstance(state, tuple | list):
        parts = [spread_out(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


def no_steps(trial: Trial) -> Comparisons:
    """A call on no steps changes nothing, and on no sequences gives none, where a module can."""
    outputs, state = whole(trial.module, trial.inputs)
    yield from no_sequences(trial, outputs)
    nothing = trial.inputs[:, :0]
    for before in (None, state):
        try:
            none, after = whole(trial.module, nothing, before)
        except (RuntimeError, ValueError, TypeError):
            return  # refused, which is no wrong answer
        wanted = (len(nothing), 0, *outputs.shape[2:])
        yield Comparison("outputs of no steps", none, outputs.new_zeros(wanted), 0.0)
        got, later = whole(trial.module, trial.inputs, after)
        expected, end = whole(trial.module, trial.inputs, before)
        yield Comparison("outputs after no steps", got, expected, 2 * trial.allowed)
        yield from same_states("state after no steps", later, end, 2 * trial.allowed)


def no_sequences(trial: Trial, outputs: Tensor) -> Comparisons:
    """Outputs of no sequences have the shape of outputs of some, in both forms."""
    for form, name in ((whole, "forward"), (steps, "step")):
        try:
            none, _ = form(trial.module, trial.inputs[:0])
        except (RuntimeError, ValueError, TypeError, IndexError):
            continue  # refused
        yield Comparison(f"outputs of no sequences, `{name}`", none, outputs[:0], 0.0)


def untouched(trial: Trial) -> Comparisons:
    """A call leaves its inputs, the caller's state and the module as they were."""
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
    # (What a module keeps between calls would move it under rounding errors, too.)
    eps = torch.finfo(inputs.dtype).eps * operations(module, inputs)
    yield Comparison("outputs of a second call", again, outputs, eps * size_of(outputs))


def training_mode(trial: Trial) -> Comparisons:
    """In training mode a module is the same function, once its randomness is turned off."""
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
    """The function is the same, in both forms, whether gradients are recorded or not.

    It is where torch promises that none will be (`torch.inference_mode`), too.
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
    """A module in double precision rounds nothing to single: so close, it is a straight line.

    f(u + h d) + f(u - h d) - 2 f(u) is h² f'' and rounding errors; what bends it shows 4,096 times
    as large in a step 64 times as long, which numbers rounded to single precision do not. Where
    there is a kink within the step nothing can be said: what fails has to fail at two places. What
    is rounded more coarsely has derivatives other than its differences.
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
    """Later inputs change nothing before them."""
    cut = trial.steps // 2
    changed = torch.cat([trial.inputs[:, :cut], 1 - trial.inputs[:, cut:]], 1)
    allowed = trial.allowed + sensitivity(trial.module, changed)
    mine, other = (whole(trial.module, each)[0][:, :cut] for each in (trial.inputs, changed))
    yield Comparison("outputs before a change", other, mine, allowed)


def independence(trial: Trial) -> Comparisons:
    """A sequence comes out the same whatever stands beside it."""
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
