"""The choice of an executor, its explanation, and the assumed rates of the machine."""

import dataclasses
import json
import math

import pytest
import scipy.signal
import torch

import linrec
from linrec.benchmark import calibration
from linrec.planner import CANDIDATES, estimates_of, rates
from linrec.planner.explain import variations
from linrec.planner.rates import CPU, CUDA, Rates
from linrec.planner.selection import MAKING
from tests.cases import VARYING, legendre, normal


def memory(order: int, copies: int = 1, readout: int | None = None) -> linrec.LinearRecurrence:
    C = None if readout is None else normal(readout, order)
    return linrec.LinearRecurrence(
        legendre(order, 4.0 * order), normal(order, 1), C, copies=copies
    ).to(torch.float32)


AUTO = linrec.Auto(rates=CPU)  # whatever is stored of the machine that runs the tests


@pytest.mark.parametrize(
    "recurrence, length, batch, last_only, expected",
    [
        (memory(468), 784, (100,), True, linrec.Toeplitz),
        (memory(64), 1 << 16, (4,), False, linrec.Chunked),
        (memory(32), 1024, (2048,), False, linrec.Chunked),
        (memory(468), 784, (1000,), False, linrec.Recurrent),
        (
            linrec.LinearRecurrence(linrec.Diagonal(torch.linspace(0, 1, 256))),
            4096,
            (16,),
            False,
            linrec.AssociativeScan,
        ),
        (
            linrec.LinearRecurrence(VARYING["varying diagonal"](512)),
            512,
            (8,),
            False,
            linrec.AssociativeScan,
        ),
    ],
)
def test_choices_that_are_clear(recurrence, length, batch, last_only, expected) -> None:
    chosen = AUTO.select(recurrence, length, batch, last_only=last_only)
    assert isinstance(chosen, expected)


def test_varying_recurrences_get_an_executor_that_can() -> None:
    for make in VARYING.values():
        recurrence = linrec.LinearRecurrence(make(100))
        for batch in ((), (1000,)):
            chosen = AUTO.select(recurrence, 100, batch)
            assert chosen.why_not(recurrence, 100) is None


def test_explain_lists_every_executor() -> None:
    explained = linrec.explain(memory(32), 1000, (10,), executor=AUTO)
    assert {type(row.executor) for row in explained.rows} == {type(e) for e in CANDIDATES}
    assert explained.chosen == explained.rows[0].executor
    assert "<- chosen" in str(explained) and explained.warning is None
    assert str(explained) == str(AUTO.explain(memory(32), 1000, (10,)))
    seconds = [row.seconds for row in explained.rows if row.reason is None]
    assert seconds == sorted(seconds)
    for row in explained.rows:
        assert row.cost is not None and row.cost.memory > 0 and 0 < row.error < 1


def test_explain_says_why_not() -> None:
    recurrence = linrec.LinearRecurrence(VARYING["varying dense"](5))
    explained = linrec.explain(recurrence, 5)
    reasons = {type(row.executor): row.reason for row in explained.rows}
    assert reasons[linrec.Recurrent] is None
    assert "change from step to step" in (reasons[linrec.FFTConvolution] or "")
    assert "ruled out: its matrices change" in str(explained)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("tolerance", [None, 1e-5])
@pytest.mark.parametrize("last_only", [False, True])
def test_the_change_that_is_named_makes_the_choice(last_only, tolerance, gradient) -> None:
    recurrence, auto = memory(32, readout=1), dataclasses.replace(AUTO, tolerance=tolerance)
    explained = auto.explain(recurrence, 4096, (16,), last_only=last_only, gradient=gradient)
    assert explained.changes and explained.chosen not in explained.changes
    for executor, words in explained.changes.items():
        size = int("".join(filter(str.isdigit, words)) or 0)
        steps = size if size and words.endswith(("step", "steps")) else 4096
        batch = size if size and words.endswith(("sequence", "sequences")) else 16
        other = last_only != ("all steps" in words or "last step" in words)
        asked = AUTO if words == "without the tolerance" else auto
        chosen = asked.select(
            recurrence,
            steps,
            (batch,),
            last_only=other,
            prepared="plans" in words,
            gradient=gradient != ("gradient" in words),
        )
        assert chosen == executor, words


def test_plans_for_steps_without_matrices_are_refused() -> None:
    recurrence = linrec.LinearRecurrence(VARYING["varying dense"](5))
    for ask in (linrec.explain, AUTO.select):
        with pytest.raises(ValueError, match=r"`length` is 6, but .* matrices for 5 steps"):
            ask(recurrence, 6)


def test_explain_warns_of_unstable_systems() -> None:
    explained = linrec.explain(linrec.LinearRecurrence([[1.1]]), 100)
    assert explained.warning is not None and "spectral radius of A is 1.1" in explained.warning
    assert "931 steps" in explained.warning  # ln(3.4e38) / ln(1.1)


def test_costs_grow_with_the_work() -> None:
    for executor in CANDIDATES:
        small, large = (
            estimates_of(executor).cost(linrec.Workload.of(memory(16), length, 10))
            for length in (128, 4096)
        )
        assert large.operations + large.transforms > small.operations + small.transforms
        assert large.bytes > small.bytes
        assert large.memory > small.memory


def test_planning_looks_at_no_values() -> None:
    """A recurrence without numbers can be planned for."""
    recurrence = memory(64).to("meta")
    assert dataclasses.replace(AUTO).select(memory(64), 1000, (10,)) == linrec.Auto(
        rates=CPU
    ).select(recurrence, 1000, (10,))


def test_a_workload_says_what_there_is() -> None:
    one = linrec.Workload.of(memory(6, copies=3, readout=2), 50, 12)
    assert (one.states, one.inputs, one.outputs, one.steps, one.batch) == (6, 1, 2, 50, 12)
    assert (one.multiplications, one.systems, one.itemsize, one.numbers) == (36, 1, 4, 600)
    assert one.driven and one.read and not one.time_varying and not one.diagonal
    many = linrec.LinearRecurrence(linrec.Diagonal(normal(5, 1, 4)), normal(7, 4, 2))
    work = linrec.Workload.of(many, 9, 1)
    assert (work.systems, work.multiplications, work.itemsize) == (35, 4, 8) and work.diagonal
    changing = linrec.Workload.of(linrec.LinearRecurrence(VARYING["varying dense"](5)), 5, 1)
    assert changing.time_varying and changing.systems == 1 and changing.multiplications == 9
    complex_ = linrec.LinearRecurrence(linrec.Diagonal(torch.ones(2, dtype=torch.complex64)))
    assert linrec.Workload.of(complex_, 5, 1).roundoff == 2.0**-24


def trained(recurrence: linrec.LinearRecurrence) -> linrec.LinearRecurrence:
    leaves = {name: leaf.requires_grad_() for name, leaf in recurrence.leaves().items()}
    return recurrence.with_leaves(leaves)


def test_a_workload_says_of_what_a_gradient_is_asked_for() -> None:
    frozen, learning = memory(4), trained(memory(4))
    asked = {
        (gradient, recurrence is learning): linrec.Workload.of(recurrence, 5, 1, gradient)
        for gradient in (False, True)
        for recurrence in (frozen, learning)
    }
    flags = {which: (work.gradient, work.trained) for which, work in asked.items()}
    assert flags[False, False] == (False, False) and flags[True, False] == (True, False)
    assert flags[False, True] == (False, True) and flags[True, True] == (True, True)
    with torch.no_grad():
        work = linrec.Workload.of(learning, 5, 1)
    assert not work.trained and not work.gradient


@pytest.mark.parametrize("executor", CANDIDATES, ids=lambda executor: type(executor).__name__)
@pytest.mark.parametrize("last_only", [False, True])
def test_gradients_cost_their_multiples(executor: linrec.Executor, last_only: bool) -> None:
    def cost(recurrence, prepared: bool, gradient: bool) -> linrec.Cost:
        asked = AUTO.problem(recurrence, 784, (8,), last_only, prepared, gradient)
        return asked.criteria.cost(executor)

    frozen, learning = memory(16), trained(memory(16))
    there, preparation = cost(frozen, True, False), cost(frozen, False, False)
    through_states = not isinstance(executor, linrec.Toeplitz | linrec.FFTConvolution)
    costs = (
        there,
        estimates_of(executor).gradient,
        cost(frozen, True, True),
        cost(learning, True, True),
        cost(learning, True, False),
        preparation,
        cost(learning, False, False),
        linrec.Cost(0, 0, 0) if preparation == there else MAKING,
    )
    for forward, back, inputs, both, system, prepared, all_of_it, making in zip(
        *map(dataclasses.astuple, costs), strict=True
    ):
        assert inputs == pytest.approx(forward * (1 + back))
        assert both == pytest.approx(forward * (1 + 2 * back))
        assert system == pytest.approx(both if through_states else inputs)
        assert all_of_it == pytest.approx(system + 3 * (prepared - forward) + making)


def test_calls_say_what_gradients_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    select = linrec.Auto.select

    def noted(self, *args, gradient: bool, **others) -> linrec.Executor:
        told.append(gradient)
        return select(self, *args, gradient=gradient, **others)

    monkeypatch.setattr(linrec.Auto, "select", noted)
    recurrence, module = memory(4), linrec.nn.Recurrence(memory(4))
    inputs, state = torch.ones(3, 1), torch.ones(4)
    for run in (lambda *given: linrec.run(recurrence, *given), module, module.final):
        run(inputs, state)
        run(inputs.clone().requires_grad_(), state)
        run(inputs, state.clone().requires_grad_())
        with torch.no_grad():
            run(inputs.clone().requires_grad_(), state)
        assert told in ([False, True, True, False], [False, True]), told  # modules keep plans
        told.clear()


def test_trained_systems_are_explained_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert AUTO.explain(trained(memory(8)), 100).warning is None and not recwarn.list
    words = {
        gradient: [
            words for words, _ in variations(AUTO.problem(system, 100, (), False, False, gradient))
        ]
        for system, gradient in ((memory(8), False), (trained(memory(8)), True))
    }
    assert "with a gradient in the inputs" in words[False] and "without a gradient" in words[True]


def test_bounds_hold_for_whatever_may_be_chosen() -> None:
    recurrence, learning = memory(64), trained(memory(64))
    for length, batch in ((16, (1,)), (784, (8,)), (4096, (16,))):
        choices = AUTO.choices(recurrence, length, batch)
        for last_only in (False, True):
            for prepared in (False, True):
                for system in (recurrence, learning):
                    for gradient in (False, True):
                        options = {"last_only": last_only, "prepared": prepared}
                        chosen = AUTO.select(system, length, batch, gradient=gradient, **options)
                        assert chosen in choices


def test_what_errs_alike_at_every_step_is_admitted_by_one_argument() -> None:
    large, loose = memory(468), linrec.Auto(per_step=False)
    assert loose.select(large, 784, (1000,)) == linrec.FFTConvolution()
    explained = AUTO.explain(large, 784, (1000,))
    reasons = {type(row.executor): row.reason for row in explained.rows}
    assert "Auto(per_step=False)" in (reasons[linrec.FFTConvolution] or "")
    assert explained.changes[linrec.FFTConvolution()] == "with `Auto(per_step=False)`"


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("radius", [1.001, 1.01])
def test_small_steps_before_large_ones_keep_their_digits(radius: float, prepared: bool) -> None:
    """Growth by e^4 to e^40, and a spike: at every step errors are small beside that step."""
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    recurrence = linrec.LinearRecurrence(radius * turn.double(), torch.ones(4, 1).double())
    inputs = torch.zeros(4096, 1, dtype=torch.float64)
    inputs[0], inputs[3000] = 1.0, 1e8
    run = linrec.nn.Recurrence(recurrence) if prepared else None
    outputs = run(inputs).outputs if run else linrec.run(recurrence, inputs).outputs
    loop = linrec.run(recurrence, inputs, executor=linrec.Recurrent()).outputs
    # A step's own magnitude is its state's, which an orthogonal matrix keeps but for the radius.
    beside = (outputs - loop).norm(dim=-1) / loop.norm(dim=-1)
    assert beside.max() < 4096 * 4 * 2.0**-52


def test_explain_says_in_which_coordinates_powers_are_taken() -> None:
    b, a = scipy.signal.butter(6, 0.05)[:2]  # type: ignore[index]  # not None, by its arguments
    A, B, C, D = (torch.tensor(m) for m in scipy.signal.tf2ss(b, a))
    explained = linrec.explain(linrec.LinearRecurrence(A, B, C, D), 600)
    assert "coordinates" in (explained.note or "") and "coordinates" in str(explained)
    assert linrec.explain(memory(32), 600).note is None


def test_a_tolerance_rules_out_what_is_less_accurate() -> None:
    recurrence = memory(64)
    loop = estimates_of(linrec.Recurrent()).error(linrec.Workload.of(recurrence, 1 << 16, 1))
    explained = linrec.Auto(tolerance=loop / 2).explain(recurrence, 1 << 16)
    reasons = {type(row.executor): row.reason for row in explained.rows}
    assert "over the tolerance" in (reasons[linrec.Recurrent] or "")
    assert reasons[type(explained.chosen)] is None
    accurate = linrec.Auto(tolerance=1e-12)
    with pytest.raises(ValueError, match=r"`tolerance` is 1e-12.*recurrence.to\(torch.float64\)"):
        linrec.run(recurrence, torch.ones(9, 1), executor=accurate)
    linrec.run(recurrence.to(torch.float64), torch.ones(9, 1), executor=accurate)
    with pytest.raises(ValueError, match="expected a positive number"):
        linrec.Auto(tolerance=0.0)


@pytest.mark.parametrize("executor", CANDIDATES, ids=lambda executor: type(executor).__name__)
def test_errors_stay_within_what_is_estimated(executor: linrec.Executor) -> None:
    """Against double precision, beside the sum of magnitudes, with a factor of four to spare."""
    recurrence, steps = memory(12), 500
    inputs = normal(8, steps, 1, seed=3).float()
    exact = linrec.run(recurrence.to(torch.float64), inputs.double()).outputs
    got = linrec.run(recurrence, inputs, executor=executor).outputs
    response = linrec.impulse_response(recurrence, steps).abs().sum(0).amax()
    scale = response * inputs.abs().amax()
    error = estimates_of(executor).error(linrec.Workload.of(recurrence, steps, 8))
    assert float((got - exact).abs().max() / scale) < 4 * error


def test_rates_are_read_from_the_users_folder_or_ignored(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rates, "rates_file", lambda device="cpu": tmp_path / "rates.json")
    assert rates.stored_rates() == CPU
    mine = Rates(1e12, 2e11, 3e10, 4e5)
    (tmp_path / "rates.json").write_text(json.dumps({**dataclasses.asdict(mine), "machine": "it"}))
    assert rates.stored_rates() == mine
    monkeypatch.setenv(rates.IGNORE, "1")
    assert rates.stored_rates() == CPU
    monkeypatch.delenv(rates.IGNORE)
    odd = [{**dataclasses.asdict(mine), "bytes": b} for b in (-1, 0, math.inf, math.nan, 10**400)]
    texts = ["", "[]", '{"operations": 1}', '{"operations": "x"}', "[" * 10**5]
    for broken in [*texts, *map(json.dumps, odd)]:
        (tmp_path / "rates.json").write_text(broken)
        assert rates.stored_rates() == CPU


@pytest.mark.parametrize("platform, root", [("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")])
def test_the_folder_is_the_users_own(platform, root, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rates.sys, "platform", platform)
    monkeypatch.setenv(root, str(tmp_path))
    assert rates.rates_file() == tmp_path / "linrec" / "rates.json"


def test_rates_turn_costs_into_time() -> None:
    cost = linrec.Cost(operations=6, bytes=8, rounds=10, transforms=15)
    own = Rates(operations=2, transforms=5, bytes=4, rounds=1)
    assert own.seconds(cost) == 3 + 2 + 10 + 3
    assert own.seconds(cost, double=True) == 2 * 3 + 2 + 10 + 2 * 3
    assert rates.rates_of("cuda") == CUDA
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"`bytes` is .*expected a positive number"):
            Rates(1.0, 1.0, wrong, 1.0)


def test_rates_decide() -> None:
    recurrence = memory(64)
    slow_to_start = linrec.Auto(rates=dataclasses.replace(CPU, rounds=1.0), per_step=False)
    slow_to_multiply = linrec.Auto(rates=dataclasses.replace(CPU, operations=1e6), per_step=False)
    assert slow_to_start.select(recurrence, 4096) == linrec.FFTConvolution()
    assert slow_to_multiply.select(recurrence, 4096, (10**4,)) == linrec.FFTConvolution()
    assert AUTO.select(recurrence, 4096) == linrec.Chunked()


@pytest.mark.parametrize("make", VARYING.values(), ids=VARYING)
def test_no_step_of_what_varies_is_planned_too(make) -> None:
    for C in (None, torch.ones(1, linrec.LinearRecurrence(make(1)).state_size)):
        recurrence = linrec.LinearRecurrence(make(0), C=C)
        for last_only in (False, True):
            assert AUTO.select(recurrence, 0, last_only=last_only) in CANDIDATES
            assert AUTO.explain(recurrence, 0, (3,), last_only=last_only).rows


def test_a_remembered_choice_is_that_of_the_same_numbers_alone() -> None:
    """What was selected before is no answer to other rates, sizes or executors."""
    recurrence = memory(16)
    slow_rounds = linrec.Auto(rates=dataclasses.replace(CPU, rounds=1e-3))
    fast_rounds = dataclasses.replace(CPU, rounds=1e12, bytes=1e15)
    only = linrec.Auto(candidates=(linrec.Recurrent(), linrec.AssociativeScan()))
    for _ in range(2):
        assert AUTO.select(recurrence, 784, (8,)) == linrec.Chunked()
        assert only.select(recurrence, 784, (8,)) in only.candidates
        assert slow_rounds.select(recurrence, 784, (8,)) != linrec.Recurrent()
        assert linrec.Auto(rates=fast_rounds).select(recurrence, 784, (8,)) == linrec.Recurrent()
        assert AUTO.select(recurrence, 784, (8,), last_only=True) != linrec.Chunked()
        varying = linrec.LinearRecurrence(torch.eye(16).expand(784, 16, 16), time_varying=True)
        assert AUTO.select(varying, 784, (8,)).why_not(varying, 784) is None


def test_rates_of_a_card_are_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rates, "rates_file", lambda device="cpu": tmp_path / f"{device}.json")
    fast = Rates(operations=4.0, transforms=3.0, bytes=2.0, rounds=1.0)
    for name in ("Card A", "Card B"):
        monkeypatch.setattr(calibration, "machine", lambda device, name=name: {"device": name})
        calibration.store_rates(fast, tmp_path / "cuda.json", device="cuda")
    cards = rates.stored_cards()
    assert cards == {"Card A": fast, "Card B": fast} and rates.stored_rates() == CPU
    (tmp_path / "cuda.json").write_text('{"Card A": {"operations": 1}, "Card B": 3}')
    assert rates.stored_cards() == {}
    monkeypatch.setattr(rates, "CARDS", cards)
    for name, expected in (("Card B", fast), ("Card C", rates.CUDA)):
        monkeypatch.setattr(rates, "card_name", lambda name=name: name)
        assert rates.rates_of("cuda") == expected
    assert rates.rates_of("mps") == rates.CUDA and rates.rates_of("cpu") == rates.HERE
