"""A stream gives the results of one run, however its samples are cut, and owns its memory."""

import copy
import os
import pickle
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import linrec
from linrec.executors import Executor
from linrec.stream.prepared import BlockPlans
from linrec.testing import EXECUTORS, error_bound, exact_reference
from linrec.testing.case import Case, Comparison, of_steps
from linrec.testing.engineers_systems import everyday
from linrec.testing.report import share
from linrec.testing.strategies import inputs_for, recurrences
from tests.cases import SYSTEMS, TRANSITIONS, normal

FULL = bool(os.environ.get("LINREC_FULL"))
average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
swing = linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], [[1.0], [0.0]], [[0.0, 1.0]])


@st.composite
def cuts(draw: st.DrawFn, steps: int) -> list[tuple[int, bool]]:
    """Draw where blocks end, and which of those of one step come without an axis of time."""
    places = draw(st.lists(st.integers(0, steps), max_size=6).map(sorted))
    return [(place, draw(st.booleans())) for place in (*places, steps)]


def fed(
    stream: linrec.Stream, recurrence: linrec.LinearRecurrence, block: Tensor, start: int, one: bool
) -> Tensor:
    """Push a block, or one sample by itself, with the matrices of its steps where they vary."""
    steps, matrices = block.shape[-2], None
    if recurrence.time_varying:
        matrices = of_steps(recurrence, start, start + steps) if steps else recurrence
        if not steps:  # of no step there is nothing to cut
            return block.new_zeros(*stream.state.shape[:-1], 0, recurrence.output_size)
    if one and steps == 1:
        return stream.push(block.squeeze(-2), matrices=matrices).unsqueeze(-2)
    return stream.push(block, matrices=matrices)


def check_blocks(
    recurrence: linrec.LinearRecurrence,
    inputs: Tensor,
    executor: Executor,
    places: list[tuple[int, bool]],
) -> float:
    """Push blocks, and compare with the exact recurrence over all steps.

    The error of a block is that of its own run, and what the error of the state before it has
    become: e_{k+1} = own + |A^L| e_k. Returns the largest share of the bound that is used.
    """
    truth = exact_reference(recurrence, inputs)
    executors: tuple[Executor, ...] = (executor, linrec.Recurrent())  # what single steps do
    stream = linrec.Stream(recurrence, streams=inputs.shape[:-2], executor=executor)
    error, start, worst = torch.zeros_like(stream.state).abs().double(), 0, 0.0
    for stop, one in places:
        block = inputs[..., start:stop, :]
        piece = recurrence
        if recurrence.time_varying and stop > start:
            piece = of_steps(recurrence, start, stop)
        before = stream.state
        outputs = fed(stream, recurrence, block, start, one)
        if stop > start:
            case = Case(piece, block, before)
            carried = case.bounds.carried(error)
            own = [case.allowed(each) for each in executors]
            allowed = torch.stack([each.outputs for each in own]).amax(0) + carried.outputs
            error = torch.stack([each.final_state for each in own]).amax(0) + carried.final_state
            expected = truth.outputs[..., start:stop, :]
            worst = max(worst, share(Comparison("outputs", outputs, expected, allowed)))
        start = stop
    worst = max(worst, share(Comparison("state", stream.state, truth.final_state, error)))
    return worst


@settings(max_examples=2000 if FULL else 80)
@given(st.data())
def test_blocks_are_the_whole(data: st.DataObject) -> None:
    recurrence = data.draw(everyday(recurrences()))
    inputs = data.draw(inputs_for(recurrence))
    executor = data.draw(st.sampled_from(EXECUTORS))
    places = data.draw(cuts(inputs.shape[-2]))
    lengths = [
        stop - start for (start, _), (stop, _) in zip([(0, 0), *places], places, strict=False)
    ]
    if any(length and executor.why_not(recurrence, length) for length in lengths):
        executor = linrec.Auto()
    assert check_blocks(recurrence, inputs, executor, places) <= 1


@pytest.mark.parametrize("name", TRANSITIONS)
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.sampled(3)
def test_steps_alone_are_the_whole(name: str, system: str) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[name]())
    inputs = normal(2, *recurrence.batch_shape, 6, recurrence.input_size, dtype=recurrence.dtype)
    places = [(t + 1, True) for t in range(6)]
    assert check_blocks(recurrence, inputs, linrec.Auto(), places) <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("samples_dtype", ["system", "float32"])
def test_half_precision_is_kept_as_run_keeps_it(dtype: torch.dtype, samples_dtype: str) -> None:
    recurrence = swing.to(dtype)
    inputs = normal(20, 1).to(dtype if samples_dtype == "system" else torch.float32)
    stream = linrec.Stream(recurrence)
    parts = [stream.push(inputs[:8]), stream.push(inputs[8])[None], stream.push(inputs[9:])]
    whole = linrec.run(recurrence, inputs, executor=linrec.Recurrent())
    assert stream.state.dtype == torch.float32 == whole.final_state.dtype
    assert torch.cat(parts).dtype == whole.outputs.dtype
    # Outputs are rounded to half precision at the end; states are sums of single precision.
    eps = torch.finfo(whole.outputs.dtype).eps
    bound = error_bound(recurrence, inputs, linrec.Auto()).outputs
    assert ((torch.cat(parts) - whole.outputs).abs() <= 2 * bound + eps * whole.outputs.abs()).all()


def test_narrower_samples_are_taken_and_wider_ones_are_refused() -> None:
    assert linrec.Stream(average).push(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
    doubles = linrec.Stream(average.to(torch.float64))
    assert doubles.push(torch.ones(1)).dtype == torch.float64
    turning = linrec.Stream(average.to(torch.complex64))
    assert turning.push(torch.ones(3, 1)).dtype == torch.complex64
    with pytest.raises(TypeError, match=r"expected no wider ones.*torch.float32.*torch.float64"):
        linrec.Stream(average).push(torch.ones(1, dtype=torch.float64))
    with pytest.raises(TypeError, match="complex64"):
        linrec.Stream(average).push(torch.ones(1, dtype=torch.complex64))
    with pytest.raises(TypeError, match="int64"):
        linrec.Stream(average).push(torch.ones(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.ones(3, 1), r"expected \(2, 1\), one sample of each stream, or \(2, time, 1\)"),
        (torch.ones(2, 3), "one sample of each stream"),
        (torch.ones(2, 4, 4, 1), "one sample of each stream"),
        (torch.ones(2, 1, device="meta"), "expected one device"),
        (torch.ones(()), "one sample"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples: Tensor, message: str) -> None:
    stream = linrec.Stream(average, streams=2)
    with pytest.raises(ValueError, match=message):
        stream.push(samples)
    assert not stream.state.any()


def test_only_systems_with_a_step_are_taken() -> None:
    continuous = linrec.StateSpace([[-1.0]], [[1.0]])
    for wrong, message in (
        (continuous, "discretize"),
        ("average", "expected a LinearRecurrence"),
        (torch.nn.Linear(2, 2), "has no `step`"),
    ):
        with pytest.raises(TypeError, match=message):
            linrec.Stream(wrong)  # type: ignore[arg-type]  # that is the point


def test_a_module_is_copied_and_no_graph_is_recorded() -> None:
    module = linrec.nn.Recurrence(swing, trainable=["A", "B", "C"])
    stream = linrec.Stream(module)
    samples = normal(9, 1, dtype=torch.float32).requires_grad_()
    first = stream.push(samples)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    rest = [stream.push(sample) for sample in samples]
    assert not any(each.requires_grad for each in (first, stream.state, *rest))
    assert all(parameter.requires_grad for parameter in module.parameters())
    inputs = torch.cat([samples, samples]).detach()
    torch.testing.assert_close(
        torch.cat([first, torch.stack(rest)]), linrec.run(swing, inputs).outputs
    )


def test_it_is_written_into_by_nobody() -> None:
    for system in (
        average,
        swing,
        linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.5, 0.9])), copies=2),
    ):
        m = system.input_size
        quiet, disturbed = linrec.Stream(system), linrec.Stream(system)
        handed_out: list[tuple[Tensor, Tensor]] = []
        for samples in (torch.ones(m), torch.ones(1, m), torch.ones(3, m), torch.ones(0, m)) * 2:
            given = samples.clone()
            expected, got = quiet.push(samples), disturbed.push(given)
            torch.testing.assert_close(got, expected, rtol=0, atol=0)
            state = disturbed.state
            handed_out += [(got, got.clone()), (state, state.clone())]
            for kept, before in handed_out:
                torch.testing.assert_close(kept, before, rtol=0, atol=0, equal_nan=True)
            for each in (got, given, state):
                each.fill_(torch.nan)
            handed_out = [(kept, kept.clone()) for kept, _ in handed_out]
        assigned = quiet.state
        disturbed.state = assigned
        assigned.fill_(torch.nan)
        assert torch.equal(disturbed.state, quiet.state)


def test_a_state_is_taken_and_refused() -> None:
    stream, other = linrec.Stream(swing), linrec.Stream(swing)
    samples = normal(7, 1, dtype=torch.float32)
    stream.push(samples)
    other.state = stream.state
    assert torch.equal(other.push(samples), stream.push(samples))
    with pytest.raises(ValueError, match=r"`state` has shape \(3,\): expected \(2,\)"):
        other.state = torch.zeros(3)
    with pytest.raises(TypeError, match="float64"):
        other.state = torch.zeros(2, dtype=torch.float64)


def test_copies_of_a_stream_go_on_by_themselves() -> None:
    stream = linrec.Stream(swing, streams=2)
    stream.push(normal(2, 7, 1, dtype=torch.float32))
    for other in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        sample = torch.ones(2, 1)
        before = stream.state
        outputs = other.push(sample)
        assert torch.equal(stream.state, before)
        assert torch.equal(outputs, copy.deepcopy(stream).push(sample))
    assert "states=2" in repr(stream) and "(2,)" in repr(stream)


def test_a_varying_recurrence_needs_the_matrices_of_each_block() -> None:
    gates, drive = torch.rand(2, 9, 3), normal(2, 9, 3, dtype=torch.float32)

    def gated(part: slice) -> linrec.LinearRecurrence:
        return linrec.LinearRecurrence(linrec.Diagonal(gates[:, part]), time_varying=True)

    stream = linrec.Stream(gated(slice(0, 1)), streams=2)
    parts = [
        stream.push(drive[:, :4], matrices=gated(slice(0, 4))),
        stream.push(drive[:, 4], matrices=gated(slice(4, 5)))[:, None],
        stream.push(drive[:, 5:], matrices=gated(slice(5, 9))),
    ]
    torch.testing.assert_close(torch.cat(parts, 1), linrec.linear_scan(gates, drive))
    with pytest.raises(TypeError, match="varies in time: expected a `LinearRecurrence`"):
        stream.push(drive)
    with pytest.raises(ValueError, match="5 steps"):
        stream.push(drive[:, :5], matrices=gated(slice(0, 4)))
    with pytest.raises(ValueError, match="expected"):
        stream.push(drive, matrices=linrec.LinearRecurrence(torch.rand(9, 2, 2), time_varying=True))
    with pytest.raises(TypeError, match="float64"):
        stream.push(drive, matrices=gated(slice(0, 9)).to(torch.float64))
    with pytest.raises(ValueError, match="does not vary in time"):
        linrec.Stream(average).push(torch.ones(1), matrices=average)


def test_plans_are_kept_for_few_lengths_and_made_once() -> None:
    made: list[int] = []

    class Counted(BlockPlans):
        def chosen(self, length: int, *others: object) -> object:  # type: ignore[override]
            made.append(length)
            return super().chosen(length, *others)  # type: ignore[arg-type]

    plans = Counted(swing, linrec.Auto())
    state = torch.zeros(2)
    for length in (32, 32, 32, 32, *range(1, 40), 32, 7, 32):
        plans.run(torch.ones(length, 1), state, None)
        assert len(plans.kept) <= BlockPlans.capacity
    # Forgotten when eight others have come since.
    assert made == [32, *range(1, 40), 7]


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_a_block_has_the_same_bits_whatever_was_pushed_before(transition: str) -> None:
    recurrence = SYSTEMS["ABCD"](TRANSITIONS[transition]())
    shape = (2, *recurrence.batch_shape)
    old = linrec.Stream(recurrence, streams=shape)
    for length in (1, 2, 5, 16, 64, 2, 5, 300):
        block = normal(*shape, length, recurrence.input_size, dtype=recurrence.dtype)
        new = linrec.Stream(recurrence, streams=shape)
        new.state = old.state
        assert torch.equal(old.push(block), new.push(block))
        assert torch.equal(old.state, new.state)


def test_an_executor_that_cannot_run_it_is_refused() -> None:
    class Odd(linrec.Executor):
        def why_not(self, recurrence: linrec.LinearRecurrence, length: int) -> str | None:
            return "it is odd" if length % 2 else None

        execute = linrec.Recurrent.execute  # type: ignore[assignment]  # of another class
        cost = linrec.Recurrent.cost  # type: ignore[assignment]  # likewise

    stream = linrec.Stream(swing, executor=Odd())
    stream.push(torch.ones(2, 1))
    with pytest.raises(ValueError, match="cannot run this recurrence in blocks of 3: it is odd"):
        stream.push(torch.ones(3, 1))
    module = linrec.nn.Recurrence(swing, executor=Odd())
    with pytest.raises(ValueError, match="it is odd"):
        linrec.Stream(module).push(torch.ones(3, 1))


def test_inference_mode_and_autocast_change_nothing() -> None:
    inputs = normal(12, 1, dtype=torch.float32)
    plain, stream = linrec.Stream(swing), linrec.Stream(swing)
    expected = [plain.push(inputs[:4]), plain.push(inputs[4]), plain.push(inputs[5])]
    with torch.inference_mode():
        got = [stream.push(inputs[:4])]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got.append(stream.push(inputs[4]))
    got.append(stream.push(inputs[5]))
    stream.reset(None)
    for left, right in zip(got, expected, strict=True):
        assert torch.equal(left, right)


def test_threads_take_turns() -> None:
    """Each push adds one to a counter: not one is lost, and every count is returned once."""
    counter = linrec.Stream(linrec.LinearRecurrence([[1.0]], [[1.0]]))
    threads, pushes, seen = 4, 500, []

    def work() -> None:
        mine = [float(counter.push(torch.ones(1))) for _ in range(pushes)]
        assert mine == sorted(mine)
        seen.extend(mine)

    started = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in started)
    assert sorted(seen) == [float(count) for count in range(1, threads * pushes + 1)]
