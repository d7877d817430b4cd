"""The entry point of calls: each combination of arguments on a small system, within its bound."""

import itertools

import pytest
import torch
from torch import Tensor

import linrec
from linrec._call import prepared_call
from linrec.testing import error_bound, exact_reference
from tests.linrec.test_agreement import assert_within

STEPS, LENGTHS = 5, torch.tensor([5, 0, 3])


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) / 2


A, B, C, D = (numbers(*shape, seed=9) for shape in ((2, 2), (2, 1), (3, 2), (3, 1)))
VARYING = linrec.Varying(linrec.Diagonal(numbers(STEPS, 2)))
SYSTEMS: dict[str, linrec.LinearRecurrence] = {
    "A": linrec.LinearRecurrence(A),
    "AB": linrec.LinearRecurrence(A, B),
    "ABC": linrec.LinearRecurrence(A, B, C),
    "AB, D": linrec.LinearRecurrence(A, B, D=D[:2]),
    "ABCD": linrec.LinearRecurrence(A, B, C, D),
    "diagonal": linrec.LinearRecurrence(linrec.Diagonal(A[0])),
    "copies": linrec.LinearRecurrence(A, B, C, D, copies=2),
    "copies of states": linrec.LinearRecurrence(A, copies=3),
    "a system each": linrec.LinearRecurrence(numbers(3, 2, 2), B, C),
    "varying": linrec.LinearRecurrence(VARYING, B, C),
    "varying read": linrec.LinearRecurrence(VARYING, B, numbers(STEPS, 3, 2), D),
    "varying copies": linrec.LinearRecurrence(VARYING, B, C, copies=2),
}
WAYS: tuple[linrec.Executor, ...] = (
    linrec.Recurrent(),
    linrec.Toeplitz(),
    linrec.AssociativeScan(),
)


@pytest.mark.parametrize("name", SYSTEMS)
def test_arguments_of_run_and_final(name: str) -> None:
    system = SYSTEMS[name]
    size = system.state_size
    starts = None, numbers(3, size, seed=2), numbers(size, seed=2), numbers(3, size).double()
    inputs = numbers(3, STEPS, system.input_size, seed=1)
    for start, lengths, batched in itertools.product(starts, (None, LENGTHS), (True, False)):
        if not batched and (lengths is not None or start is starts[1]):
            continue
        fed = inputs if batched else inputs[0]
        expected = exact_reference(system, fed, start, lengths)
        for way in WAYS:
            if way.why_not(system, STEPS) is not None:
                continue
            bound = error_bound(system, fed, way, start, lengths)
            spoiled = fed
            if lengths is not None:
                past = torch.arange(STEPS) >= lengths.unsqueeze(-1)
                spoiled = torch.where(past.unsqueeze(-1), torch.nan, fed)
            got = linrec.run(system, spoiled, start, lengths=lengths, executor=way)
            assert_within(got.outputs, expected.outputs, bound.outputs)
            assert_within(got.final_state, expected.final_state, bound.final_state)
            dtype = torch.float32 if start is None else start.dtype
            assert got.outputs.dtype == got.final_state.dtype == dtype
            last = linrec.final(system, spoiled, start, lengths=lengths, executor=way)
            ends = torch.full((3,), STEPS) if lengths is None else lengths
            at = (ends if expected.outputs.ndim == 3 else ends[0]).clamp(min=1) - 1
            for mine, theirs, allowed in (
                (last.outputs, expected.outputs, bound.outputs),
                (last.outputs, got.outputs, 2 * bound.outputs),
            ):
                assert_within(mine, at_step(theirs, at), at_step(allowed, at))
            assert_within(last.final_state, expected.final_state, bound.final_state)


def at_step(sequences: Tensor, steps: Tensor) -> Tensor:
    """Take a step of each sequence."""
    index = steps[..., None, None].expand(*sequences.shape[:-2], 1, sequences.shape[-1])
    return sequences.gather(-2, index).squeeze(-2)


@pytest.mark.parametrize("name", SYSTEMS)
def test_one_step_and_none(name: str) -> None:
    """A step is a run of one; no steps leave the state, and no sequences have the shape of some."""
    system = SYSTEMS[name]
    one = system.at(0) if system.time_varying else system
    batch = 3 if name == "a system each" else 2
    for start in (None, numbers(batch, system.state_size, seed=2)):
        inputs = numbers(batch, 1, system.input_size, seed=1)
        expected = exact_reference(one, inputs, start)
        bound = error_bound(one, inputs, linrec.Recurrent(), start)
        got = linrec.step(one, inputs[:, 0], start)
        assert_within(got.outputs, expected.outputs[:, 0], bound.outputs[:, 0])
        assert_within(got.state, expected.final_state, bound.final_state)
        for verb, shape in ((linrec.run, (batch, 0)), (linrec.final, (batch,))):
            none = verb(one, inputs[:, :0], start)
            assert none.outputs.shape == (*shape, system.output_size)
            held = torch.zeros(batch, system.state_size) if start is None else start
            assert torch.equal(none.final_state, held)
    if not one.batch_shape:
        for verb, shape in ((linrec.run, (0, 4)), (linrec.final, (0,))):
            none = verb(one, torch.zeros(0, 4, system.input_size))
            assert none.outputs.shape == (*shape, system.output_size)
            assert none.final_state.shape == (0, system.state_size)
        assert linrec.nn.Recurrence(one)(torch.zeros(0, 4, one.input_size)).outputs.shape[0] == 0


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_choice_without_sequences(name: str) -> None:
    """Costs are estimated of empty batches too, with and without a gradient, of any length."""
    system = SYSTEMS[name]
    lengths = [STEPS] if system.time_varying else [1, 4, 5000]
    for steps, gradient in itertools.product(lengths, (False, True)):
        batch = (0, *system.batch_shape[: len(system.batch_shape) - system.time_varying])
        chosen = linrec.Auto().select(system, steps, batch, gradient=gradient)
        assert isinstance(chosen, linrec.Executor)


def test_a_step_of_one_sequence_whose_matrix_is_trained() -> None:
    system = linrec.LinearRecurrence(A.clone().requires_grad_(), B)
    alone, run = linrec.step(system, numbers(1)), linrec.run(system, numbers(1, 1))
    assert alone.outputs.shape == alone.state.shape == (2,)
    assert torch.equal(alone.outputs, run.outputs[0])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(half: torch.dtype) -> None:
    system = linrec.LinearRecurrence(A.to(half), B.to(half), C.to(half), D.to(half))
    inputs, start = numbers(STEPS, 1, dtype=half), numbers(2, seed=2)
    exact = exact_reference(system, inputs, start)
    for way in WAYS:
        bound = error_bound(system, inputs, way, start)
        got = linrec.run(system, inputs, start, executor=way)
        assert got.outputs.dtype == half and got.final_state.dtype == torch.float32
        assert_within(got.final_state, exact.final_state, bound.final_state)
        assert_within(got.outputs, exact.outputs, bound.outputs)
    alone = linrec.step(system, inputs[0], start)
    assert alone.outputs.dtype == half and alone.state.dtype == torch.float32
    for state in (start.double(), start.to(half)):
        wide = linrec.run(system, inputs, state).final_state.dtype
        assert wide == torch.promote_types(state.dtype, torch.float32)


STARTS: tuple[Tensor | None, ...] = (
    None,
    numbers(3, 2, seed=2),
    numbers(2, seed=2),  # one for all sequences
    numbers(3, 2, seed=2).double(),
    numbers(3, 2, seed=2).to(torch.complex64),
)


@pytest.mark.parametrize("core", [1, 2])
@pytest.mark.parametrize("name", SYSTEMS)
def test_what_needs_no_change_is_what_a_second_look_would_leave(
    name: str, core: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments that are taken as they are, and the same ones looked at one by one."""
    system = SYSTEMS[name] if core == 2 else SYSTEMS[name].at(0)
    fed = numbers(3, STEPS, system.input_size, seed=1)
    fed = fed[:, 0] if core == 1 else fed
    taken, short = 0, prepared_call.needs_no_change
    for inputs, start in itertools.product((fed, fed.double(), fed.half(), fed[..., ::1]), STARTS):
        start = start if start is None or system.copies == 1 else start.repeat_interleave(2, -1)
        if start is not None and start.shape[-1] != system.state_size:
            continue
        monkeypatch.setattr(prepared_call, "needs_no_change", lambda *_: False)
        slow = prepared_call.prepare_call(system, inputs, start, core=core)
        monkeypatch.setattr(prepared_call, "needs_no_change", short)
        taken += short(system, inputs, start, core)
        quick = prepared_call.prepare_call(system, inputs, start, core=core)
        assert quick.result_dtype == slow.result_dtype and quick.lengths is slow.lengths is None
        for mine, theirs in ((quick.inputs, slow.inputs), (quick.state, slow.state)):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
        for mine, theirs in zip(quick.system.tensors(), slow.system.tensors(), strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    plain = not system.time_varying and system.copies == 1 and not system.batch_shape
    assert taken == (4 if plain else 0)  # of no state or one of each sequence, in single precision


@pytest.mark.parametrize(
    "wrong", [numbers(3, STEPS, 2), numbers(1), [[1.0]], numbers(3, STEPS, 1).int()]
)
@pytest.mark.parametrize("start", [None, numbers(3, 2)])
def test_what_does_not_fit_is_never_taken_as_it_is(wrong: object, start: Tensor | None) -> None:
    assert not prepared_call.needs_no_change(SYSTEMS["ABCD"], wrong, start, 2)


def test_halves_are_looked_at() -> None:
    """(Their sums are wider.)"""
    system, fed = SYSTEMS["ABCD"].to(torch.float16), numbers(3, STEPS, 1).half()
    assert not prepared_call.needs_no_change(system, fed, None, 2)


@pytest.mark.parametrize("start", [numbers(3, 3), numbers(2, 2), numbers(3, 2).tolist()])
def test_states_that_do_not_fit_are_looked_at(start: object) -> None:
    fed = numbers(3, STEPS, 1)
    assert not prepared_call.needs_no_change(SYSTEMS["ABCD"], fed, start, 2)
    with pytest.raises((ValueError, TypeError), match="initial_state"):
        linrec.run(SYSTEMS["ABCD"], fed, start)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("name", "BCD")
def test_matrices_of_another_dtype_or_one_a_system_are_looked_at(name: str) -> None:
    given, fed = {"B": B, "C": C, "D": D}, numbers(3, STEPS, 1, seed=1)
    for other in (given[name].double(), given[name].expand(3, -1, -1)):
        own = given | {name: other}
        system = linrec.LinearRecurrence(A, own["B"], own["C"], own["D"])
        assert not prepared_call.needs_no_change(system, fed, None, 2)
        got, expected = linrec.run(system, fed, executor=WAYS[0]), exact_reference(system, fed)
        bound = error_bound(system, fed, linrec.Recurrent())
        assert got.outputs.dtype == other.dtype
        assert_within(got.outputs, expected.outputs, bound.outputs)


def test_all_is_computed_in_the_widest_dtype() -> None:
    half, single, double = torch.bfloat16, torch.float32, torch.float64
    for given in itertools.product((half, single, double), repeat=3):
        system, inputs, start = given
        fed, before = numbers(3, STEPS, 1).to(inputs), numbers(3, 2).to(start)
        call = prepared_call.prepare_call(SYSTEMS["ABCD"].to(system), fed, before)
        widest = double if double in given else single
        assert call.state is not None
        assert {call.inputs.dtype, call.state.dtype, call.system.dtype} == {widest}
        both = double if double in given[:2] else single if single in given[:2] else half
        wide = start == double and both != double
        assert call.result_dtype == (double if wide else both)


@pytest.mark.parametrize("verb", [linrec.run, linrec.final])
def test_the_loop_stands_in_where_products_of_matrices_overflow(verb) -> None:
    sizes = torch.tensor([1e30] * 6 + [0.5] * 2)
    system = linrec.LinearRecurrence(linrec.Varying(sizes[:, None, None] * torch.eye(2)))
    inputs = torch.zeros(8, 2)
    inputs[-1] = 1.0
    scan = linrec.AssociativeScan()
    assert not scan.execute(system, scan.prepare(system, 8), inputs, None).outputs.isfinite().all()
    assert torch.equal(verb(system, inputs, executor=scan).final_state, torch.ones(2))


def test_varying_systems_are_mapped_though_no_number_can_be_looked_at() -> None:
    system, inputs = SYSTEMS["varying"], numbers(3, STEPS, 1)
    scan = linrec.AssociativeScan()
    mapped = torch.vmap(lambda u: linrec.run(system, u, executor=scan).outputs)(inputs)
    expected, bound = exact_reference(system, inputs), error_bound(system, inputs, scan)
    assert_within(mapped, expected.outputs, bound.outputs)


def test_calls_say_whether_they_want_the_last_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told, select = [], linrec.Auto.select

    def noted(self, recurrence, length, batch_shape, *, last_only, gradient) -> linrec.Executor:
        told.append((length, tuple(batch_shape), last_only))
        return select(self, recurrence, length, batch_shape, last_only=last_only, gradient=gradient)

    monkeypatch.setattr(linrec.Auto, "select", noted)
    copies = linrec.LinearRecurrence([[0.5]], [[1.0]], copies=2)
    for call in (linrec.run, linrec.final):
        call(copies, torch.ones(3, 4, 2))
    assert told == [(4, (3,), False), (4, (3,), True)]
