"""Check that a module's parallel form and its streaming form are one function."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from linrec.executors import Executor
from linrec.systems import LinearRecurrence
from linrec.testing.case import Comparison
from linrec.testing.report import Disagreement, Report, reason, share
from linrec.testing.shrink import smallest_failure
from linrec.testing.strategies import tensors

Comparisons = Iterator[Comparison]
State = Any  # a tensor, or tuples, lists and dicts of such; None before the first step


class Trial(NamedTuple):
    """A module with inputs for it.

    Attributes:
        module: the module, in evaluation mode.
        inputs (batch, time, features): what it is fed.
        allowed: how far two ways to compute the same outputs may lie apart.
    """

    module: nn.Module
    inputs: Tensor
    allowed: float

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.inputs.shape[1]


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
    and of none of their own. A module need not be linear, so
    that there is no bound to derive: what is allowed is how far the outputs move when every
    parameter, buffer and input moves by one rounding error, at random, eight times, multiplied by
    the number of operations along the longest path (time and the widest tensor together). That is
    an estimate, not a proof.

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
        >>> report.properties
        ['streaming', 'continuation', 'causality', 'independence', 'padding', 'gradients']
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
    given = [trial.inputs.clone().requires_grad_()]
    given += [each for each in trial.module.parameters() if each.requires_grad]
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


PROPERTIES: dict[str, Callable[[Trial], Comparisons]] = {
    function.__name__: function
    for function in (streaming, continuation, causality, independence, padding, gradients)
}


def same_states(what: str, mine: State, theirs: State, allowed: float) -> Comparisons:
    """Compare two states, tensor by tensor."""
    for one, other in zip(tensors_of(mine), tensors_of(theirs), strict=True):
        yield Comparison(what, one, other, allowed)


def side_by_side(alone: list[Tensor], together: Tensor) -> Tensor:
    """Join the states of single sequences along the axis that is longer in that of all."""
    shapes = zip(alone[0].shape, together.shape, strict=True)
    longer = [axis for axis, (one, all_of_them) in enumerate(shapes) if one != all_of_them]
    return torch.cat(alone, longer[0]) if longer else alone[0]


def whole(module: nn.Module, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
    """Call a module on all steps."""
    outputs, state = module(inputs) if state is None else module(inputs, state)
    return outputs, state


def steps(module: nn.Module, inputs: Tensor) -> tuple[Tensor, State]:
    """Call a module step by step."""
    step = cast(Callable[..., tuple[Tensor, State]], module.step)
    state, outputs = None, []
    for now in inputs.unbind(1):
        output, state = step(now) if state is None else step(now, state)
        outputs.append(output)
    return torch.stack(outputs, 1), state


def sensitivity(module: nn.Module, inputs: Tensor) -> float:
    """How far outputs and states move under rounding errors, times how many there may be."""
    generator, eps = torch.Generator().manual_seed(0), torch.finfo(dtype_of(module)).eps

    def moved(tensor: Tensor) -> Tensor:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        kind = tensor.real.dtype
        noise = torch.randint(-1, 2, tensor.shape, generator=generator).to(kind)
        return tensor * (1 + eps * noise)

    own = dict(module.named_parameters()) | dict(module.named_buffers())
    own = {name: tensor.detach() for name, tensor in own.items()}
    with torch.no_grad():
        base = everything(whole(module, inputs))
        furthest = eps * float(base.abs().max())
        for _ in range(8):
            changed = {name: moved(tensor) for name, tensor in own.items()}
            outcome = torch.func.functional_call(module, changed, (moved(inputs),))
            furthest = max(furthest, float((everything(outcome) - base).abs().max()))
    return operations(module, inputs) * furthest


def everything(outcome: State) -> Tensor:
    """Put all numbers of outputs and states side by side."""
    parts = [tensor.flatten() for tensor in tensors_of(outcome)]
    dtype = torch.complex128 if any(part.is_complex() for part in parts) else torch.float64
    return torch.cat([part.to(dtype) for part in parts])


def operations(module: nn.Module, inputs: Tensor) -> int:
    """Count the roundings along the longest path: the steps, and the widest sum."""
    widths = [max(tensor.shape, default=1) for tensor in module.state_dict().values()]
    return inputs.shape[1] + max(widths, default=1) + 8


def tensors_of(state: State) -> list[Tensor]:
    """List the tensors of a state, in order."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for name in sorted(state) for tensor in tensors_of(state[name])]
    if isinstance(state, list | tuple):
        return [tensor for part in state for tensor in tensors_of(part)]
    return []


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


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype of a module's numbers."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor.dtype
    return torch.get_default_dtype()
