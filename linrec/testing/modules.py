"""Check that a module's parallel form and its streaming form are one function."""

from collections.abc import Callable, Collection, Iterator
from typing import cast

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from linrec.executors import Executor
from linrec.nn.checks import declared_input_size
from linrec.testing import module_derivatives, module_memory, module_segments, module_values
from linrec.testing.case import Comparison
from linrec.testing.forms import Trial, dtype_of, in_double, whole
from linrec.testing.modes import in_own_modes
from linrec.testing.report import Disagreement, Report, reason, share
from linrec.testing.shrink import smallest_failure
from linrec.testing.strategies import normal, tensors

Comparisons = Iterator[Comparison]
Strategy = st.SearchStrategy

between = st.integers
FEW_STEPS, FEW_SEQUENCES = between(1, 12), between(1, 3)

# Numbers of steps and sequences, and sizes of inputs, for modules that are right on short sequences
# only, because they cut time into pieces, count in powers of two, or clamp large numbers. Each kind
# of size comes once before any comes again; joined calls also have powers of two. The most
# revealing come first, because a short search tries only those.
# Errors over many steps add up, so these are tried in double precision if the module can run in it.
LARGE: tuple[tuple[Strategy[int], Strategy[int], float], ...] = (
    (between(40, 100), between(4, 8), 1.0),
    (between(2, 4), between(70, 200), 1.0),
    (st.just(256), st.just(1), 1.0),
    (between(1200, 2200), st.just(1), 1.0),
    (between(2, 4), between(17, 63), 1.0),
    (FEW_STEPS, FEW_SEQUENCES, 2.0**17),
    (st.just(65), between(9, 16), 1.0),
    (st.just(1025), st.just(1), 1.0),
    (st.just(129), between(2, 3), 1.0),
    (between(17, 31), between(4, 16), 1.0),
    (st.just(513), st.just(1), 1.0),
    (st.just(257), st.just(1), 1.0),
    (st.just(3), st.just(256), 1.0),
    *((st.just(2**power), st.just(1), 1.0) for power in (6, 4, 5, 7, 10, 9)),
)


@in_own_modes
def check_module(
    module: nn.Module,
    input_size: int | None = None,
    *,
    inputs: Tensor | None = None,
    steps: st.SearchStrategy[int] | None = None,
    batch: st.SearchStrategy[int] | None = None,
    without: Collection[str] = (),
    examples: int = 30,
    random_seed: int = 0,
) -> Report:
    """Search for inputs on which a module's `forward` and its `step` disagree.

        forward(inputs (batch, time, features), state=None) -> (outputs, state)
        step(input (batch, features), state=None) -> (output, state)

    A state is whatever the module accepts back: a tensor, or tuples, lists or dicts of tensors. If
    `forward` has an argument `lengths`, padding is checked too, for sequences of several lengths,
    including 0. Gradients of outputs and final state with respect to inputs, initial state and
    parameters are compared between the forms and with differences. In training mode, apart from
    dropout, the module has to compute the same function as in evaluation mode. If it can be
    differentiated twice, mapped by `torch.func.vmap`, or called without any step, that is checked
    too.

    A module need not be linear, so no bound can be derived. Instead, every parameter, buffer and
    input is moved by a random rounding error, eight times (three for large inputs). The allowed
    error is the largest movement of outputs and states times the number of operations along the
    longest path (time and the widest tensor together). That is an estimate, not a proof.

    Args:
        module: the module; it is put into evaluation mode, and back.
        input_size: the number of features. None: `module.input_size`.
        inputs (batch, time, features): the only inputs to try. None: inputs are searched for. If
            their dtype is not the module's, a copy of the module in double precision is checked.
        steps: draws the number of steps in the search. None: mostly 1 to 12; one example in three
            is larger, with up to 2,200 steps, 256 sequences, or numbers of 10⁵. For a module that
            cuts time into longer pieces, give lengths of several pieces.
        batch: draws the number of sequences. None: mostly 1 to 3, as above.
        without: properties that are not checked, such as "differences" if a gradient is not meant
            to be the function's own (straight-through, truncated).
        examples: the number of inputs to try.
        random_seed: the seed of the search.

    Returns:
        The share of the allowed error that each property used.

    Raises:
        Disagreement: the forms differ; the message says where, and has the inputs as code.
        ValueError: the number of features is not known, or `without` names no property.
        TypeError: the argument is not a module, or has no `step`.

    Example:
        >>> import linrec
        >>> from linrec.testing import check_module
        >>> average = linrec.nn.Recurrence(linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]]))
        >>> report = check_module(average, 1, examples=5)
        >>> report.properties[:4]
        ['streaming', 'continuation', 'causality', 'independence']
    """
    if inputs is not None:
        input_size, examples, random_seed = inputs.shape[-1], 1, 0
    return search_module(
        module,
        input_size,
        examples,
        random_seed,
        None if inputs is None else st.just(inputs),
        steps=steps,
        batch=batch,
        without=without,
    ).raise_first()


def search_module(
    module: nn.Module,
    input_size: int | None,
    examples: int,
    random_seed: int,
    drawn: st.SearchStrategy[Tensor] | None = None,
    *,
    steps: st.SearchStrategy[int] | None = None,
    batch: st.SearchStrategy[int] | None = None,
    without: Collection[str] = (),
    most_failures: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Try inputs on every property; shrink a failure, and continue without it."""
    size, dtype = features(module, input_size), dtype_of(module)
    known_names(without)
    report, was_training = Report(), module.training
    wide = wider(module, size)
    names = [name for name in PROPERTIES if name not in without]
    column = cast(Executor, module)  # the name of the table's column

    latest: list[Trial] = []

    def attempt(name: str, inputs: Tensor) -> None:
        if drawn is None and inputs.shape[1] > LONG and name not in LONG_TOO:
            return
        if not latest or latest[0].inputs is not inputs:
            report.see(steps=inputs.shape[1], sequences=len(inputs))
            widened = inputs.dtype != dtype
            latest[:] = [Trial(wide if widened else module, inputs, is_widened=widened)]
        report.note(name, column, worst_share(name, latest[0]))

    def tried_on(
        drawn: st.SearchStrategy[Tensor],
        examples: int,
        among: Collection[str],
        random_seed: int = random_seed,
        *,
        simplest: bool = True,
    ) -> None:
        while len(report.failures) < most_failures:
            failed = smallest_failure(
                drawn,
                lambda number: [name for name in names if name in among],
                attempt,
                examples,
                random_seed,
                progress,
                simplest=simplest,
            )
            if failed is None:
                return
            report.fail((failed[0], column), failed[1])
            names.remove(failed[0])

    module.eval()
    try:
        if drawn is not None:
            tried_on(drawn, examples, PROPERTIES)
        else:
            free = steps is None and batch is None
            large = LARGE[: 1 + examples // 3] if free else ()
            shapes = st.tuples(
                FEW_SEQUENCES if batch is None else batch, FEW_STEPS if steps is None else steps
            )
            few = shapes.flatmap(lambda shape: maybe_silent(tensors((*shape, size), dtype)))
            tried_on(few, max(examples - len(large), 1), PROPERTIES)
            for k, row in enumerate(large):
                few = large_inputs(*row, size, dtype_of(wide))
                tried_on(few, 1, WIDE_TOO, random_seed + k, simplest=False)
    finally:
        module.train(was_training)
    return report


def wider(module: nn.Module, features: int) -> nn.Module:
    """Copy a module into double precision, where errors of many steps stay small, if it runs."""
    try:
        wide = in_double(module).eval()
        with torch.no_grad():
            whole(wide, torch.zeros(1, 1, features, dtype=dtype_of(wide)))
    except (RuntimeError, TypeError, ValueError):
        return module
    return wide


def maybe_silent(drawn: st.SearchStrategy[Tensor]) -> st.SearchStrategy[Tensor]:
    """Draw inputs; in one case in four, replace the second half by zeros."""

    def cut(inputs: Tensor, silent: bool) -> Tensor:
        early = torch.arange(inputs.shape[1]).unsqueeze(-1) < inputs.shape[1] // 2
        return torch.where(early, inputs, 0) if silent else inputs

    silent = st.sampled_from((False, False, False, True))
    return st.tuples(drawn, silent).map(lambda each: cut(*each))


def large_inputs(
    steps: st.SearchStrategy[int],
    batch: st.SearchStrategy[int],
    scale: float,
    features: int,
    dtype: torch.dtype,
) -> st.SearchStrategy[Tensor]:
    """Draw normal inputs with a number of steps, a number of sequences and a scale."""
    shapes = st.tuples(batch, steps, st.integers(0, 2**31 - 1))
    return shapes.map(lambda each: scale * normal((*each[:2], features), dtype, each[2]))


def worst_share(name: str, trial: Trial) -> float:
    """Check a property, and return the largest error as a share of the bound."""
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


PROPERTIES: dict[str, Callable[[Trial], Comparisons]] = {
    function.__name__.replace("_", " "): function
    for function in (
        module_values.streaming,
        module_values.continuation,
        module_values.causality,
        module_values.independence,
        module_segments.padding,
        module_segments.resets,
        module_values.no_steps,
        module_values.not_a_number,
        module_values.untouched,
        module_memory.own_memory,
        module_values.training_mode,
        module_values.recording,
        module_values.precision,
        module_derivatives.gradients,
        module_derivatives.differences,
        module_derivatives.second_derivatives,
        module_derivatives.vmap,
        module_derivatives.batched_gradients,
    )
}

# Properties tried on wide and on very long inputs too. Errors of the others show on small inputs.
WIDE_TOO = (
    "streaming",
    "continuation",
    "causality",
    "independence",
    "padding",
    "resets",
    "gradients",
)
LONG_TOO = ("streaming", "gradients")
LONG = 300


def known_names(names: Collection[str]) -> None:
    """Check that properties with these names exist."""
    for name in names:
        if name not in PROPERTIES:
            raise ValueError(f"`{name}` is no property: expected some of {', '.join(PROPERTIES)}.")


def features(module: nn.Module, input_size: int | None) -> int:
    """Check that an argument is a module with `step`; return its number of input features."""
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"`module` is {module!r}: expected an `nn.Module`, made. Wrap a function in one."
        )
    if not callable(getattr(module, "step", None)):
        raise TypeError(
            f"`{type(module).__name__}` has no `step`: expected a method `step(input, state)` that "
            "returns `(output, state)`. Wrap the module in one that has it."
        )
    size = declared_input_size(module) if input_size is None else input_size
    if isinstance(size, int):
        return size
    raise ValueError(
        f"`{type(module).__name__}` does not say how many features it takes: pass `input_size=…` "
        "(`linrec verify --input-size …`), or give it an attribute `input_size`."
    )
