"""Search for cases in which an executor, a structure or a recurrence breaks its promises."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from hypothesis import strategies as st
from torch import Tensor

from linrec.executors import (
    AssociativeScan,
    Chunked,
    Executor,
    FFTConvolution,
    Recurrent,
    Toeplitz,
)
from linrec.planner import Auto
from linrec.structures import Structure
from linrec.systems import LinearRecurrence, Varying
from linrec.testing import derivatives, operations, values
from linrec.testing.bounds import an_executor
from linrec.testing.case import Case, Comparison
from linrec.testing.engineers_systems import everyday
from linrec.testing.large import EXTENTS, Extent, large_cases
from linrec.testing.modes import in_own_modes
from linrec.testing.report import Disagreement, Report, reason, share
from linrec.testing.shrink import smallest_failure
from linrec.testing.strategies import (
    MANY_STEPS,
    STEPS,
    initial_states_for,
    inputs_for,
    lengths,
    recurrences,
    transitions,
)

# Properties tried on large cases. The others would take long, and errors show on small cases too.
LARGE_TOO = (
    "agreement",
    "last step",
    "continuation",
    "padding",
    "gradient in inputs",
    "gradient in state",
    "gradient of the final state",
)

Property = Callable[[Case, Executor], Iterator[Comparison]]
Pairs = list[tuple[str, Executor]]

EXECUTORS: tuple[Executor, ...] = (
    Recurrent(),
    Toeplitz(),
    FFTConvolution(),
    AssociativeScan(),
    Chunked(),
    Chunked(size=1),  # many chunks of few steps
    Auto(),
)

PROPERTIES: dict[str, Property] = {
    "agreement": values.agreement,
    "last step": values.last_step,
    "streaming": values.streaming,
    "continuation": values.continuation,
    "padding": values.padding,
    "linearity": values.linearity,
    "time invariance": values.time_invariance,
    "causality": values.causality,
    "independence": values.independence,
    "resets": values.resets,
    "adjoint": values.adjoint_identity,
    "plans": values.plans,
    "untouched": values.untouched,
    "recording": values.recording,
    "gradient in inputs": derivatives.gradient_of_inputs,
    "gradient in state": derivatives.gradient_of_state,
    "gradient of the final state": derivatives.gradient_of_final_state,
    "first derivatives": derivatives.first_differences,
    "second derivatives": derivatives.second_differences,
    "forward mode": derivatives.forward_mode,
    "vmap": derivatives.vectorized,
}

# The most states over hundreds of steps: with more, bounds take seconds. Large cases cover those.
FEW_STATES = 8

# Costly properties run a case some hundred times; one case in `SELDOM` is tried with them.
COSTLY = ("first derivatives", "second derivatives", "forward mode")
SELDOM = 5


@st.composite
def cases(
    draw: st.DrawFn,
    systems: st.SearchStrategy[LinearRecurrence] = recurrences(),  # noqa: B008  # a constant
    steps: st.SearchStrategy[int] = STEPS,
    batch: st.SearchStrategy[int] | None = None,
) -> Case:
    """Draw a recurrence with inputs and, in some cases, an initial state and lengths."""
    recurrence = draw(systems)
    if steps is MANY_STEPS and recurrence.A.state_size > FEW_STATES:
        steps = STEPS
    inputs = draw(inputs_for(recurrence, steps, batch))
    own = tuple(inputs.shape[:-2])  # or one state for all
    state = draw(initial_states_for(recurrence, draw(st.sampled_from((own, own, own, ())))))
    return Case(recurrence, inputs, state, draw(lengths(inputs)))


@in_own_modes
def check_executor(
    executor: Executor,
    *,
    steps: st.SearchStrategy[int] | None = None,
    batch: st.SearchStrategy[int] | None = None,
    sizes: st.SearchStrategy[int] | None = None,
    examples: int = 100,
    random_seed: int = 0,
) -> Report:
    """Search for recurrences on which an executor breaks a promise.

    Outputs, final states and derivatives are compared with the exact recurrence; see
    docs/verifying.md for all properties, and `error_bound` for the allowed errors.

    Args:
        executor: the executor. Your own executors must keep the bound for additions and
            multiplications in any order.
        steps: draws the number of steps. None: up to 24, in some cases up to 300, and large
            cases as well. For an executor that cuts time into pieces of thousands of steps, give
            lengths of several pieces.
        batch: draws the number of sequences, in addition to the system's axes. None: one or two.
        sizes: draws the number of states. None: up to 5, in some cases 8, 16 or 40; one case in
            eight has an engineering system (`engineering_systems`). If none of the three is given,
            one case in six, 29 in all, is large: up to 4,096 steps, 140 states, or 300
            sequences, powers of two among them, and numbers of 10⁶.
        examples: the number of cases to try.
        random_seed: the seed of the search; the same seed tries the same cases in the same
            program. (Hypothesis also draws constants that it finds in loaded modules.)

    Returns:
        The share of its bound that each property used.

    Raises:
        Disagreement: a promise is broken; the message has the smallest such case as code.
        TypeError: the argument is not an executor.

    Example:
        >>> import linrec
        >>> from linrec.testing import check_executor
        >>> report = check_executor(linrec.Recurrent(), examples=2)
        >>> max(report.shares.values()) <= 1
        True
    """
    drawn, large = drawn_for(steps, batch, sizes, examples)
    return search(drawn, [executor], examples, random_seed, large=large).raise_first()


def drawn_for(
    steps: st.SearchStrategy[int] | None,
    batch: st.SearchStrategy[int] | None,
    sizes: st.SearchStrategy[int] | None,
    examples: int,
    dtypes: st.SearchStrategy[torch.dtype] | None = None,
) -> tuple[st.SearchStrategy[Case], tuple[Extent, ...]]:
    """Choose the cases of an executor, and the default sizes of large ones."""
    given = {"sizes": sizes, "dtypes": dtypes}
    drawn_from = transitions(**{name: each for name, each in given.items() if each is not None})
    systems = recurrences(drawn_from)
    if sizes is None and dtypes is None:
        systems = everyday(systems)
    drawn = cases(systems, MANY_STEPS if steps is None else steps, batch)
    free = steps is None and batch is None and sizes is None and dtypes is None
    return drawn, EXTENTS[: math.ceil(examples / 6)] if free else ()


@in_own_modes
def check_recurrence(
    recurrence: LinearRecurrence,
    *,
    executors: Iterable[Executor] = EXECUTORS,
    steps: st.SearchStrategy[int] = STEPS,
    batch: st.SearchStrategy[int] | None = None,
    examples: int = 100,
    random_seed: int = 0,
) -> Report:
    """Search for inputs on which the executors disagree about a recurrence.

    Args:
        recurrence: the system.
        executors: the executors to compare; those that cannot run it are left out.
        steps: draws the number of steps; by default up to 24.
        batch: draws the number of sequences, in addition to the system's axes. None: one or two.
        examples: the number of cases to try.
        random_seed: the seed of the search.

    Returns:
        The share of its bound that each property used, for each executor.

    Raises:
        Disagreement: a promise is broken.
        TypeError: the arguments are not a recurrence and executors.

    Example:
        >>> import linrec
        >>> from linrec.testing import check_recurrence
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> len(check_recurrence(average, examples=2).executors)
        7
    """
    if not isinstance(recurrence, LinearRecurrence):
        raise TypeError(
            f"`recurrence` is {recurrence!r}: expected a `LinearRecurrence`. Of a `StateSpace`, "
            "`linrec.discretize(system, dt)` makes one."
        )
    found = search(cases(st.just(recurrence), steps, batch), executors, examples, random_seed)
    return found.raise_first()


@in_own_modes
def check_structure(
    structure: Structure | Varying | st.SearchStrategy[Structure | Varying],
    *,
    examples: int = 100,
    random_seed: int = 0,
) -> Report:
    """Check the five operations of a structure, and every executor on recurrences around it.

    Args:
        structure: a structure, a `Varying` with one for each step, or a strategy that draws these.
        examples: the number of cases to try.
        random_seed: the seed of the search.

    Returns:
        The share of its bound that each property used, for each executor.

    Raises:
        Disagreement: a promise is broken.
        TypeError: the argument is neither a structure nor a strategy.

    Example:
        >>> import torch, linrec
        >>> from linrec.testing import check_structure
        >>> report = check_structure(linrec.Diagonal(torch.tensor([0.5, -1.0])), examples=2)
        >>> "compose" in report.properties
        True
    """
    if not isinstance(structure, Structure | Varying | st.SearchStrategy):
        raise TypeError(
            f"`structure` is {structure!r}: expected a structure such as `linrec.Dense(A)`, or a "
            "strategy that draws such."
        )
    drawn = structure if isinstance(structure, st.SearchStrategy) else st.just(structure)
    around = cases(recurrences(drawn))
    report = search(around, [Recurrent()], examples, random_seed, operations.PROPERTIES)
    found = search(around, EXECUTORS, examples, random_seed)
    report.shares |= found.shares
    report.examples |= found.examples
    report.comparisons |= found.comparisons
    report.failures += found.failures
    return report.raise_first()


@in_own_modes
def check_case(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    executor: Executor,
    property: str,
) -> float:
    """Check one property of one executor on one case; printed programs call this.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        initial_state (*batch, n): the state before the first step. None: zeros.
        lengths (*batch): the steps of each sequence; None: all.
        executor: the executor to check.
        property: the name of the property.

    Returns:
        The share of the bound that is used.

    Raises:
        Disagreement: the property does not hold.
        ValueError: there is no property with this name.

    Example:
        >>> import torch, linrec
        >>> from linrec.testing import check_case
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> options = {"executor": linrec.Chunked(), "property": "agreement"}
        >>> check_case(average, torch.ones(3, 1), **options) < 1
        True
    """
    known = PROPERTIES | operations.PROPERTIES
    if property not in known:
        raise ValueError(f"`{property}` is no property: expected one of {', '.join(known)}.")
    case = Case(recurrence, inputs, initial_state, lengths)
    return hold(property, known[property], executor, case)[0]


def hold(name: str, property: Property, executor: Executor, case: Case) -> tuple[float, int]:
    """Check a property; return the largest share used of its bound, and the comparison count."""
    worst, compared = 0.0, 0
    try:
        for comparison in property(case, executor):
            used = share(comparison)
            if used > 1:
                raise Disagreement(name, executor, case, reason(comparison))
            worst, compared = max(worst, used), compared + 1
    except Disagreement:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise Disagreement(name, executor, case, text) from error
    return worst, compared


def search(
    cases: st.SearchStrategy[Case],
    executors: Iterable[Executor],
    examples: int,
    random_seed: int,
    properties: dict[str, Property] = PROPERTIES,
    *,
    large: Iterable[Extent] = (),
    most_failures: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Try cases on every executor and property; shrink a failure, and continue without it.

    One case of each large extent follows the first few cases, so that errors of large cases are
    found early. It is tried with the properties for large cases.
    """
    listed = executors if isinstance(executors, Iterable) else [executors]
    executors = [an_executor(each) for each in listed]
    report = Report()
    pairs: Pairs = [(name, executor) for executor in executors for name in properties]

    def attempt(pair: tuple[str, Executor], case: Case) -> None:
        name, executor = pair
        if executor.why_not(case.recurrence, case.steps) is None:
            sequences = math.prod(case.inputs.shape[:-2])
            states = case.recurrence.A.state_size
            report.see(steps=case.steps, states=states, sequences=sequences)
            report.note(name, executor, *hold(name, properties[name], executor, case))

    def small(number: int) -> Pairs:
        return [pair for pair in pairs if number % SELDOM == 1 or pair[0] not in COSTLY]

    def wide(number: int) -> Pairs:
        return [pair for pair in pairs if pair[0] in LARGE_TOO]

    tail = [(large_cases(extent), wide, 1, random_seed + k) for k, extent in enumerate(large)]
    first = math.ceil(examples / 5) if tail else examples
    rounds = [(cases, small, first, random_seed), *tail]
    rest = examples - first - len(tail)
    rounds += [(cases, small, rest, random_seed + 1)] if rest > 0 else []
    for k, (drawn, tried, count, start) in enumerate(rounds):
        while pairs and len(report.failures) < most_failures:
            failed = smallest_failure(drawn, tried, attempt, count, start, progress, simplest=not k)
            if failed is None:
                break
            report.fail(*failed)
            pairs.remove(failed[0])
    return report
