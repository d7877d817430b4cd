"""Check that a module's parallel form and its streaming form are one function."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from linrec.executors import Executor
from linrec.systems import LinearRecurrence
from linrec.testing.case import Comparison, like
from linrec.testing.forms import (
    State,
    Trial,
    dtype_of,
    movement,
    operations,
    sensitivity,
    steps,
    tensors_of,
    whole,
)
from linrec.testing.report import Disagreement, Report, reason, share
from linrec.testing.shrink import smallest_failure
from linrec.testing.strategies import tensors

Comparisons = Iterator[Comparison]


def check_module(
    module: nn.Module,
    input_size: int | None = None,
    *,
    inputs: Tensor | None = None,
    examples: int = 30,
    random_seed: int = 0,
) -> Report:
    """Search for inputs on which a module's `forward` and its `step` are different functions.

        forward(inputs (batch, time, features), state=None) -> (outputs, state)
        step(input (batch, features), state=None) -> (output, state)

    A state is whatever the module takes back: a tensor, or tuples, lists or dicts of them. Where
    `forward` has an argument `lengths`, padding is checked too: of sequences of several lengths,
    and of none of their own. Where it can be differentiated twice, or mapped by `torch.func.vmap`,
    that is checked too. A module need not be linear, so that there is no bound to derive: what is
    allowed is how far the outputs move when every parameter, buffer and input moves by one rounding
    error, at random, eight times, multiplied by the number of operations along the longest path
    (time and the widest tensor together). That is an estimate, not a proof.

    Args:
        module: the module; it is put into evaluation mode, and back.
        input_size: the number of features. None: `module.input_size`.
        inputs (batch, time, features): these alone are tried. None: others are searched for.
        examples: how many inputs are tried.
        random_seed: where the search begins.

    Returns:
        How much of what is allowed each property used.

    Raises:
        Disagreement: the forms differ; the message says where, and has the inputs as code.
        ValueError: the number of features is not known.
        TypeError: no module, or one that has no `step`.

    Example:
        >>> import linrec
        >>> from linrec.testing import check_module
        >>> average = linrec.nn.Recurrence(linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]]))
        >>> report = check_module(average, 1, examples=5)
        >>> report.properties[:4]
        ['streaming', 'continuation', 'causality', 'independence']
    """
    if inputs is None:
        return search_module(module, input_size, examples, random_seed).raise_first()
    return search_module(module, inputs.shape[-1], 1, 0, st.just(inputs)).raise_first()


def search_module(
    module: nn.Module,
    input_size: int | None,
    examples: int,
    random_seed: int,
    drawn: st.SearchStrategy[Tensor] | None = None,
    *,
    most_failures: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Try inputs on every property; shrink what fails, and go on without it."""
    size = features(module, input_size)
    report, names, was_training = Report(), list(PROPERTIES), module.training
    column = cast(Executor, module)  # what the report's table calls its column
    if drawn is None:
        shapes = st.tuples(st.integers(1, 3), st.integers(1, 12))
        drawn = shapes.flatmap(lambda shape: tensors((*shape, size), dtype_of(module)))

    def attempt(name: str, inputs: Tensor) -> None:
        trial = Trial(module, inputs, sensitivity(module, inputs))
        report.note(name, column, worst_share(name, trial))

    module.eval()
    try:
        while names and len(report.failures) < most_failures:
            failed = smallest_failure(
                drawn, lambda _: list(names), attempt, examples, random_seed, progress
            )
            if failed is None:
                break
            report.fail((failed[0], column), failed[1])
            names.remove(failed[0])
    finally:
        module.train(was_training)
    return report


def worst_share(name: str, trial: Trial) -> float:
    """See that a property holds; give the share of what is allowed that is used."""
    module, worst = type(trial.module).__name__, 0.0
    try:
        for comparison in PROPERTIES[name](trial):
            used = share(comparison)
            if used > 1:
                raise Disagreement(name, module, trial.inputs, reason(comparison))
            worst = max(worst, used)
    except Disagreement:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise Disagreement(name, module, trial.inputs, text) from error
    return worst


def streaming(trial: Trial) -> Comparisons:
    """Step by step gives what all steps at once give."""
    outputs, state = whole(trial.module, trial.inputs)
    single, after = steps(trial.module, trial.inputs)
    yield Comparison("outputs of single steps", single, outputs, trial.allowed)
    yield from same_states("state after single steps", after, state, trial.allowed)


def continuation(trial: Trial) -> Comparisons:
    """Two calls joined by the state are one call."""
    cut = trial.steps // 2
    outputs, state = whole(trial.module, trial.inputs)
    if not cut:
        return
    first, between = whole(trial.module, trial.inputs[:, :cut])
    second, after = whole(trial.module, trial.inputs[:, cut:], between)
    joined = torch.cat([first, second], 1)
    yield Comparison("joined outputs", joined, outputs, trial.allowed)
    yield from same_states("state after the second call", after, state, trial.allowed)


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


def padding(trial: Trial) -> Comparisons:
    """Nothing past a sequence's length reaches its outputs or its state, and none leaves both."""
    if "lengths" not in inspect.signature(trial.module.forward).parameters:
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


def gradients(trial: Trial) -> Comparisons:
    """Both forms have the same gradient in the inputs and in every parameter."""
    given = trained(trial)
    outputs = [form(trial.module, given[0])[0] for form in (whole, steps)]
    if not any(each.requires_grad for each in outputs):
        return  # what is not computed by torch has no gradients to compare
    v = torch.ones_like(outputs[0])
    mine, theirs = (torch.autograd.grad(o, given, v, allow_unused=True) for o in outputs)
    # A gradient moves with its factors, as outputs do; summed over all steps and sequences.
    for left, right in zip(mine, theirs, strict=True):
        if left is None or right is None:
            yield Comparison("gradient of one form only", unlike(left, right), torch.zeros(()), 0.0)
            continue
        size = float(left.abs().max()) + float(right.abs().max())
        eps = torch.finfo(left.dtype).eps
        allowed = v.numel() * trial.allowed + operations(trial.module, trial.inputs) * eps * size
        yield Comparison("gradient", left, right, allowed)


def second_derivatives(trial: Trial) -> Comparisons:
    """Both forms have the same second derivatives, where there are any."""
    module, given = trial.module, trained(trial)
    try:
        outputs = whole(module, given[0])[0]
        expected = second(outputs, given)
    except RuntimeError:
        return  # torch cannot differentiate the module twice
    if expected is None:
        return
    got = second(steps(module, given[0])[0], given)
    names = [name for name, each in module.named_parameters() if each.requires_grad]

    def moving(own: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        moved = [inputs.detach().clone(), *(own[name].clone() for name in names)]
        moved = [each.requires_grad_() for each in moved]
        named = dict(own) | dict(zip(names, moved[1:], strict=True))
        found = second(torch.func.functional_call(module, named, (moved[0],))[0], moved)
        return torch.zeros_like(expected) if found is None else found

    allowed = outputs.numel() * movement(moving, module, trial.inputs)
    got = torch.zeros_like(expected) if got is None else got
    yield Comparison("second derivatives", got, expected, allowed)


def vmap(trial: Trial) -> Comparisons:
    """Mapped over sequences, a module gives what it gives of each, where torch can map it."""
    other = 1 - trial.inputs
    both = torch.stack([trial.inputs, other])
    try:
        mapped = torch.func.vmap(lambda inputs: whole(trial.module, inputs)[0])(both)
    except RuntimeError:
        return
    limits = trial.allowed, sensitivity(trial.module, other)
    for outputs, inputs, allowed in zip(mapped, both, limits, strict=True):
        yield Comparison("outputs, mapped", outputs, whole(trial.module, inputs)[0], allowed)


PROPERTIES: dict[str, Callable[[Trial], Comparisons]] = {
    function.__name__.replace("_", " "): function
    for function in (
        streaming,
        continuation,
        causality,
        independence,
        padding,
        gradients,
        second_derivatives,
        vmap,
    )
}


def trained(trial: Trial) -> list[Tensor]:
    """List what there are derivatives in: the inputs, and the parameters that are trained."""
    own = (each for each in trial.module.parameters() if each.requires_grad)
    return [trial.inputs.clone().requires_grad_(), *own]


def second(outputs: Tensor, given: list[Tensor]) -> Tensor | None:
    """Differentiate the gradient of the sum of outputs, towards fixed numbers; None if constant."""
    if not outputs.requires_grad:
        return None
    ones = torch.ones_like(outputs)
    first = torch.autograd.grad(outputs, given, ones, create_graph=True, allow_unused=True)
    moving = [each for each in first if each is not None and each.requires_grad]
    if not moving:
        return None
    towards = torch.stack([(each.conj() * like(each.detach())).real.sum() for each in moving]).sum()
    found = torch.autograd.grad(towards, given, allow_unused=True)
    pairs = zip(found, given, strict=True)
    return torch.cat([(torch.zeros_like(g) if f is None else f).flatten() for f, g in pairs])


def same_states(what: str, mine: State, theirs: State, allowed: float) -> Comparisons:
    """Compare two states, tensor by tensor."""
    for one, other in zip(tensors_of(mine), tensors_of(theirs), strict=True):
        yield Comparison(what, one, other, allowed)


def side_by_side(alone: list[Tensor], together: Tensor) -> Tensor:
    """Join the states of single sequences along the axis that is longer in that of all."""
    shapes = zip(alone[0].shape, together.shape, strict=True)
    longer = [axis for axis, (one, all_of_them) in enumerate(shapes) if one != all_of_them]
    return torch.cat(alone, longer[0]) if longer else alone[0]


def unlike(left: Tensor | None, right: Tensor | None) -> Tensor:
    """The largest number of the one gradient that there is; zero where there is none."""
    sizes = [float(each.abs().max()) for each in (left, right) if each is not None]
    return torch.tensor(max(sizes, default=0.0))


def features(module: nn.Module, input_size: int | None) -> int:
    """See that a module can be checked; find the number of features that it takes."""
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"`module` is {module!r}: expected an `nn.Module`, made. Wrap a function in one."
        )
    if not callable(getattr(module, "step", None)):
        raise TypeError(
            f"`{type(module).__name__}` has no `step`: expected a method `step(input, state)` that "
            "returns `(output, state)`. Wrap the module in one that has it."
        )
    size = getattr(module, "input_size", None) if input_size is None else input_size
    recurrence = getattr(module, "recurrence", None)
    if size is None and isinstance(recurrence, LinearRecurrence):
        size = recurrence.input_size
    if isinstance(size, int):
        return size
    raise ValueError(
        f"`{type(module).__name__}` does not say how many features it takes: pass `input_size=…` "
        "(`linrec verify --input-size …`), or give it an attribute `input_size`."
    )
