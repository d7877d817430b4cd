"""The test kit: its reference against two others, its bounds, its strategies, its programs."""

# Wrong arguments are passed on purpose.
# pyright: reportArgumentType=false

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count, pairwise

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import find, given, seed, settings
from hypothesis import strategies as st

import linrec
from linrec.testing import (
    EXECUTORS,
    Disagreement,
    check_case,
    check_executor,
    check_module,
    check_recurrence,
    check_structure,
    error_bound,
    exact_reference,
    recurrences,
    shrink,
    structures,
    transitions,
)
from linrec.testing.as_code import IMPORTS, imports_of, written
from linrec.testing.case import Case, Comparison
from linrec.testing.check import PROPERTIES, cases
from linrec.testing.forms import Trial
from linrec.testing.matrices import KINDS
from linrec.testing.module_derivatives import differences
from linrec.testing.on_device import OnDevice
from linrec.testing.report import share
from linrec.testing.values import agreement
from tests.linrec.deliberate_bugs import BUGS, Distorted
from tests.linrec.wrong_executors import Pieces

REAL = recurrences(
    structures(sizes=st.integers(1, 5), dtypes=st.just(torch.float64), batch_shapes=st.just(()))
)
SMALL = settings(max_examples=40, deadline=None, database=None)


def first_sequence(case: Case) -> torch.Tensor:
    return case.inputs[(0,) * (case.inputs.ndim - 2)]


def fractions_of(recurrence: linrec.LinearRecurrence, inputs: torch.Tensor) -> list[list[Fraction]]:
    """Run one real sequence in Python's fractions, from the definition, copy by copy."""
    A, n = recurrence.A.to_dense(), recurrence.A.state_size
    B = torch.eye(n).double() if recurrence.B is None else recurrence.B
    C = torch.eye(n).double() if recurrence.C is None else recurrence.C
    D = torch.zeros(C.shape[0], B.shape[1]) if recurrence.D is None else recurrence.D

    def times(matrix: torch.Tensor, vector: list[Fraction]) -> list[Fraction]:
        rows = matrix.tolist()
        return [
            sum((Fraction(a) * x for a, x in zip(row, vector, strict=True)), Fraction(0))
            for row in rows
        ]

    def plus(left: list[Fraction], right: list[Fraction]) -> list[Fraction]:
        return [a + b for a, b in zip(left, right, strict=True)]

    m, rows = B.shape[1], [[] for _ in inputs]
    for copy in range(recurrence.copies):
        state = [Fraction(0)] * n
        for t, values in enumerate(inputs.tolist()):
            u = [Fraction(value) for value in values[copy * m : (copy + 1) * m]]
            state = plus(times(A, state), times(B, u))
            rows[t] += plus(times(C, state), times(D, u))
    return rows


@seed(0)
@SMALL
@given(cases(REAL))
def test_the_reference_is_that_of_fractions(case: Case) -> None:
    inputs = first_sequence(case)
    got = exact_reference(case.recurrence, inputs).outputs
    expected = [[float(value) for value in row] for row in fractions_of(case.recurrence, inputs)]
    assert got.tolist() == expected  # every digit: both are rounded once


@seed(0)
@SMALL
@given(cases(REAL))
def test_the_reference_is_that_of_scipy(case: Case) -> None:
    """scipy's system answers a step later: its state before a step is ours after the last one."""
    one = linrec.LinearRecurrence(case.recurrence.A, case.recurrence.B)
    inputs = first_sequence(case)[:, : one.input_size]
    if not len(inputs):
        return
    n = one.state_size
    B = np.eye(n) if one.B is None else one.B.numpy()
    system = (one.A.to_dense().numpy(), B, np.eye(n), np.zeros((n, B.shape[1])), 1)
    fed = np.concatenate([inputs.numpy(), np.zeros((1, B.shape[1]))])
    late = scipy.signal.dlsim(system, fed)[1]
    got = exact_reference(one, inputs).outputs
    bound = error_bound(one, inputs, linrec.Recurrent()).outputs
    assert bool(((got - torch.as_tensor(late[1:])).abs() <= bound).all())


def test_bounds_hold_and_are_tight() -> None:
    """The median case uses more than a thousandth of the bound: ten times less than measured."""
    shares: dict[linrec.Executor, list[float]] = {executor: [] for executor in EXECUTORS}

    @seed(1)
    @settings(max_examples=60, deadline=None, database=None)
    @given(cases())
    def collect(case: Case) -> None:
        for executor in EXECUTORS:
            if executor.why_not(case.recurrence, case.steps) is None:
                used = max(share(each) for each in list(agreement(case, executor))[:2])
                shares[executor] += [used] if used else []

    collect()
    for executor, used in shares.items():
        assert max(used) <= 1, executor
        assert statistics.median(used) > 1e-3, executor


def test_a_bound_is_that_of_what_is_computed() -> None:
    """Twice the input may err by twice as much, and a longer sequence by no less."""
    swing = linrec.LinearRecurrence(torch.eye(2).double() / 2, torch.ones(2, 1).double())
    inputs = torch.ones(8, 1).double()
    for executor in EXECUTORS:
        once, twice = (error_bound(swing, k * inputs, executor).outputs for k in (1, 2))
        torch.testing.assert_close(twice, 2 * once, rtol=1e-12, atol=1e-300)
        lasts = [float(error_bound(swing, inputs[:t], executor).final_state[0]) for t in (1, 4, 8)]
        assert all(earlier <= later for earlier, later in pairwise(lasts))


FORMS = (
    linrec.Dense,
    linrec.Diagonal,
    linrec.BlockDiagonal,
    linrec.Companion,
    linrec.DiagonalPlusLowRank,
)


def test_one_state_of_all_sequences_without_steps_is_no_false_alarm() -> None:
    swing = linrec.LinearRecurrence([[1.9, -0.91], [1.0, 0.0]], [[1.0], [0.0]], [[0.0, 1.0]])
    none, state = torch.zeros(2, 0, 1, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for name in PROPERTIES:
        check_case(swing, none, initial_state=state, executor=linrec.Recurrent(), property=name)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_structure_is_drawn(form: type, varying: bool) -> None:
    def wanted(A: linrec.Structure) -> bool:
        if not varying:
            return type(A) is form
        return isinstance(A, linrec.Varying) and type(A.A) is form

    found = find(transitions(), wanted, settings=settings(database=None, max_examples=2000))
    assert wanted(found)


CLAIMS = {
    "stable": lambda A: A.abs().sum(-1).max() <= 0.9 + 1e-12,
    "unstable": lambda A: A.abs().sum(-1).max() <= 1.25 + 1e-12,
    "identity": lambda A: torch.equal(A, torch.eye(4).double()),
    "marginal": lambda A: torch.allclose(A @ A.mH, torch.eye(4).double()),
    "shift": lambda A: torch.equal(torch.linalg.matrix_power(A, 4), torch.eye(4).double()),
    "nilpotent": lambda A: not torch.linalg.matrix_power(A, 4).any(),
    "jordan": lambda A: torch.linalg.matrix_rank(A - A[0, 0] * torch.eye(4)) == 3,
    "singular": lambda A: torch.linalg.matrix_rank(A) == 1,
    "badly_scaled": lambda A: A.abs().max() / A.abs().min() > 1e6,
    "legendre": lambda A: (A @ A.mT - A.mT @ A).abs().max() > 0.1,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_matrix_is_what_it_is_called(kind: str) -> None:
    drawn = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    assert bool(CLAIMS[kind](KINDS[kind](drawn)))


@seed(0)
@SMALL
@given(cases())
def test_a_case_can_be_written_down_and_read_back(case: Case) -> None:
    names: dict[str, object] = {}
    exec(IMPORTS, names)
    for value in (case.recurrence, case.inputs):
        again = eval(written(value), names)
        if isinstance(value, linrec.LinearRecurrence):
            assert isinstance(again, linrec.LinearRecurrence)
            assert type(again.A) is type(value.A) and again.copies == value.copies
            mine, theirs = value.leaves(), again.leaves()
        else:
            mine, theirs = {"": value}, {"": again}
        for name, tensor in mine.items():
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name])


def test_executors_can_be_written_down_and_read_back() -> None:
    names: dict[str, object] = {}
    exec(IMPORTS, names)
    several = linrec.Auto(tolerance=1e-3, candidates=(linrec.Chunked(size=4),))
    for executor in (*EXECUTORS, several):
        assert eval(written(executor), names) == executor
    there = OnDevice(linrec.Chunked(size=3), "cpu")  # of the kit: imported from its own module
    exec(IMPORTS + imports_of(there), names)
    assert eval(written(there), names) == there
    assert eval(written([torch.ones(1), (), ("a",)]), names) == [torch.ones(1), (), ("a",)]


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_of_many_states_are_finite_in_single_precision(kind: str) -> None:
    made = KINDS[kind](torch.randn(40, 40, generator=torch.Generator().manual_seed(0)))
    assert made.dtype == torch.float32 and bool(made.isfinite().all())


def test_differences_of_a_badly_scaled_system_are_within_what_rounding_allows() -> None:
    """Rounding errors of an adjoint of 10⁵, divided by the step, outweigh derivatives of one."""
    A = linrec.Dense(KINDS["badly_scaled"](torch.ones(3, 3).double()))
    options = {"executor": linrec.Recurrent(), "property": "second derivatives"}
    inputs = torch.ones(1, 3).double()
    assert check_case(linrec.LinearRecurrence(A), inputs, **options) == 0


@dataclass(frozen=True)
class Moody(Distorted):
    """Wrong once, and then never again."""

    calls: Iterator[int] = field(default_factory=count)

    def execute(
        self,
        recurrence: linrec.LinearRecurrence,
        plan: linrec.Plan,
        inputs: torch.Tensor,
        state: torch.Tensor | None,
    ) -> linrec.Result:
        result = super().execute(recurrence, plan, inputs, state)
        wrong = next(self.calls) == 10
        return linrec.Result(result.outputs + 1, result.final_state) if wrong else result


def test_a_state_dropped_between_long_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink, "ATTEMPTS", 5)
    with pytest.raises(Disagreement, match="does not hold for Pieces") as found:
        check_executor(Pieces(size=32), examples=80)
    assert isinstance(found.value.case, Case) and found.value.case.steps > 32


# Systems whose numbers leave the range of single precision, or hardly move when one is added.
EXTREME = {
    "A overflows": linrec.LinearRecurrence(A=[[1000.0]]),
    "B overflows with A": linrec.LinearRecurrence(A=[[30.0]], B=[[1e22]]),
    "C overflows with A": linrec.LinearRecurrence(A=[[30.0]], B=[[1e-3]], C=[[1e20]]),
    "D overflows": linrec.LinearRecurrence(A=[[1.0]], B=[[1e30]], C=[[1e-5]], D=[[3e38]]),
    "A is more than its digits": linrec.LinearRecurrence(A=[[2e7]]),
    "C is large": linrec.LinearRecurrence(A=[[0.5]], C=[[1e6]]),
    "no system": linrec.LinearRecurrence(A=torch.zeros(0, 2, 2)),
}


@pytest.mark.parametrize("property", PROPERTIES)
@pytest.mark.parametrize("name", EXTREME)
@pytest.mark.sampled(2)
def test_extreme_systems_raise_no_false_alarm(name: str, property: str) -> None:
    system = EXTREME[name]
    inputs = torch.ones(*system.batch_shape, 13, system.input_size)
    for executor in EXECUTORS:
        assert check_case(system, inputs, executor=executor, property=property) <= 1


WRONG = {
    "a class for an executor": lambda: check_executor(linrec.Recurrent),
    "a name for an executor": lambda: check_recurrence(AVERAGE, executors=["fft"]),
    "a class for a bound": lambda: error_bound(AVERAGE, torch.ones(3, 1), linrec.Recurrent),
    "a number for a recurrence": lambda: check_recurrence(0.5),
    "a recurrence for a structure": lambda: check_structure(AVERAGE),
    "a class for a module": lambda: check_module(linrec.nn.Recurrence),
}
AVERAGE = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_checked_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="expected"):
        WRONG[name]()


def test_the_code_of_a_module_shows_its_failure_again() -> None:
    class Counting(torch.nn.Module):
        input_size = 1

        def forward(self, inputs: torch.Tensor, state: object = None) -> tuple:
            return inputs.cumsum(1), inputs.sum(1)

        def step(self, input: torch.Tensor, state: torch.Tensor | None = None) -> tuple:
            return input, input if state is None else state + input

    module = Counting()
    with pytest.raises(Disagreement) as found:
        check_module(module)
    code = found.value.code.replace("module = ...", "pass")
    with pytest.raises(Disagreement, match=f"{found.value.property} does not hold for Counting"):
        exec(code, {"module": module})


def test_what_fails_only_once_is_a_failure() -> None:
    with pytest.raises(Disagreement, match="does not hold for Moody"):
        check_executor(Moody(), examples=20)


def test_differences_that_do_not_match_are_told_as_numbers() -> None:
    curved = linrec.LinearRecurrence(A=torch.tensor([[0.5]]).double())
    inputs = torch.ones(2, 1).double()
    executor = BUGS["gradient of the gradient off"].executor
    with pytest.raises(Disagreement, match=r"Jacobian mismatch .* numerical:.* analytical:"):
        check_case(curved, inputs, executor=executor, property="second derivatives")


@pytest.mark.parametrize(
    "got, expected, used",
    [
        (torch.inf, torch.inf, 0.0),
        (torch.nan, torch.nan, 0.0),
        (torch.inf, -torch.inf, torch.inf),
        (torch.nan, 1.0, torch.inf),
        (torch.nan, torch.inf, torch.inf),
        (1.0, torch.nan, torch.inf),
        (1.5, 1.0, 0.25),
    ],
)
def test_what_is_not_finite_differs_from_all_but_its_like(got, expected, used) -> None:
    comparison = Comparison("a number", torch.tensor([got]), torch.tensor([expected]), 2.0)
    assert share(comparison) == used


def test_differences_are_compared_in_double_precision() -> None:
    """Rounded to float32, nearly equal numbers may differ by more than their bound."""
    torch.manual_seed(0)
    trial = Trial(linrec.nn.MinGRU(1, 3).double(), torch.ones(1, 2, 1, dtype=torch.float64))
    compared = list(differences(trial))
    assert compared and all(each.got.dtype == torch.float64 for each in compared)
