"""Padded sequences: nothing past a sequence's end has an effect."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false
# pyright: reportOptionalIterable=false

import pytest
import torch
from scipy import signal
from torch import Tensor

import linrec
from linrec.testing import error_bound, exact_reference
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, VARYING, data
from tests.linrec.test_agreement import assert_within

STEPS = 11
LENGTHS = torch.tensor([4, 11, 0, 1, 7])
ABLE = ("recurrent", "scan", "auto")
CASES = [
    (executor, transition, system)
    for executor in EXECUTORS
    for transition in ("dense", "legendre", "diagonal complex", "low rank", "nilpotent")
    for system in ("A", "AB", "ABCD", "ABCD, 2 copies")
] + [
    (executor, transition, system)
    for executor in ABLE
    for transition in ("varying dense", "varying diagonal", "varying low rank")
    for system in ("A", "ABCD", "ABCD, 2 copies")
]


def spoiled(inputs: Tensor) -> Tensor:
    """NaN past every end."""
    padding = torch.arange(STEPS) >= LENGTHS[:, None]
    return torch.where(padding[..., None], float("nan"), inputs)


def build(transition: str, system: str) -> linrec.LinearRecurrence:
    A = VARYING[transition](STEPS) if transition in VARYING else TRANSITIONS[transition]()
    return SYSTEMS[system](A)


@pytest.mark.parametrize("executor, transition, system", CASES)
@pytest.mark.sampled(3)
def test_outputs_and_states(executor: str, transition: str, system: str) -> None:
    recurrence = build(transition, system)
    inputs, state = data(recurrence, STEPS, len(LENGTHS))
    for initial in (state, None):
        expected = exact_reference(recurrence, inputs, initial, LENGTHS)
        bound = error_bound(recurrence, inputs, EXECUTORS[executor], initial, LENGTHS)
        got = linrec.run(
            recurrence, spoiled(inputs), initial, lengths=LENGTHS, executor=EXECUTORS[executor]
        )
        assert_within(got.outputs, expected.outputs, bound.outputs)
        assert_within(got.final_state, expected.final_state, bound.final_state)
        past = torch.arange(STEPS) >= LENGTHS[:, None]
        assert not got.outputs[past].any()

        last = linrec.final(
            recurrence, spoiled(inputs), initial, lengths=LENGTHS, executor=EXECUTORS[executor]
        )
        assert_within(last.final_state, expected.final_state, bound.final_state)
        ends = torch.stack(
            [
                row[length - 1] if length else 0 * row[0]
                for row, length in zip(expected.outputs, LENGTHS, strict=True)
            ]
        )
        assert_within(last.outputs, ends, 2 * bound.outputs.max())


@pytest.mark.parametrize("executor, transition, system", CASES)
@pytest.mark.sampled(2)
def test_gradients(executor: str, transition: str, system: str) -> None:
    """Gradients are those of the sequences cut to length, and exactly zero in the padding."""
    recurrence = build(transition, system)
    inputs, state = data(recurrence, STEPS, len(LENGTHS))
    tensors = [spoiled(inputs), state, *recurrence.leaves().values()]
    tensors = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    names = list(recurrence.leaves())
    fresh = recurrence.with_leaves(dict(zip(names, tensors[2:], strict=True)))
    for verb in (linrec.run, linrec.final):
        result = verb(fresh, tensors[0], tensors[1], lengths=LENGTHS, executor=EXECUTORS[executor])
        loss = result.outputs.abs().square().sum() + result.final_state.abs().square().sum()
        got = torch.autograd.grad(loss, tensors)
        assert all(bool(gradient.isfinite().all()) for gradient in got)
        past = torch.arange(STEPS) >= LENGTHS[:, None]
        assert not got[0][past].any()

        loss = torch.zeros((), dtype=torch.float64)
        for row, length in enumerate(LENGTHS.tolist()):
            if length == 0:
                loss = loss + tensors[1][row].abs().square().sum()
                continue
            cut = fresh if not fresh.time_varying else cut_to(fresh, length)
            one = verb(cut, tensors[0][row, :length], tensors[1][row], executor=linrec.Recurrent())
            loss = loss + one.outputs.abs().square().sum() + one.final_state.abs().square().sum()
        expected = torch.autograd.grad(loss, tensors)
        for mine, theirs in zip(got, expected, strict=True):
            scale = theirs.abs().max() * STEPS**2 * recurrence.state_size**2
            assert (mine - theirs).abs().max() <= 64 * torch.finfo(torch.float64).eps * scale


def cut_to(recurrence: linrec.LinearRecurrence, length: int) -> linrec.LinearRecurrence:
    return recurrence.map_batched(lambda leaf, core: leaf.narrow(-core - 1, 0, length))


@pytest.mark.parametrize("executor", ABLE)
def test_padding_of_the_matrices_reaches_nothing(executor: str) -> None:
    """Steps of unknown length past the end give NaN matrices there, and nothing elsewhere."""
    system = linrec.StateSpace([[-1.0, 2.0], [0.0, -0.5]], [[1.0], [1.0]])
    dt = torch.rand(len(LENGTHS), STEPS) + 0.1
    inputs = torch.randn(len(LENGTHS), STEPS, 1)
    nan = torch.where(torch.arange(STEPS) >= LENGTHS[:, None], float("nan"), dt)
    for steps in (dt, nan):
        steps.requires_grad_()
    results, gradients = [], []
    for steps in (dt, nan):
        # The exponential of NaN has a NaN gradient of its own: the matrices are what is checked.
        recurrence = linrec.discretize(system, steps.nan_to_num(1.0))
        A = recurrence.A.to_dense().detach()
        A = torch.where(steps.isnan()[..., None, None], float("nan"), A).requires_grad_()
        fresh = linrec.LinearRecurrence(linrec.Varying(A), recurrence.B)
        result = linrec.run(fresh, inputs, lengths=LENGTHS, executor=EXECUTORS[executor])
        results.append(result)
        gradients.append(torch.autograd.grad(result.final_state.square().sum(), A)[0])
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    own = torch.arange(STEPS) < LENGTHS[:, None]
    torch.testing.assert_close(gradients[1][own], gradients[0][own], rtol=0, atol=0)
    assert not gradients[1][~own].any()


@pytest.mark.filterwarnings("ignore:torch.quantize")  # deprecated, and so refused
def test_bad_lengths_are_refused() -> None:
    recurrence = SYSTEMS["AB"](TRANSITIONS["dense"]())
    inputs, _ = data(recurrence, 5, 2)
    with pytest.raises(ValueError, match="between 1 and 6: expected 0 to 5"):
        linrec.run(recurrence, inputs, lengths=torch.tensor([1, 6]))
    with pytest.raises(ValueError, match="between -1 and"):
        linrec.run(recurrence, inputs, lengths=torch.tensor([-1, 2]))
    with pytest.raises(TypeError, match=r"lengths\.long"):
        linrec.run(recurrence, inputs, lengths=torch.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match=r"lengths\.long"):
        wrong = torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 1.0, 0, torch.qint8)
        linrec.run(recurrence, inputs, lengths=wrong)
    with pytest.raises(ValueError, match=r"lengths \(3,\)"):
        linrec.run(recurrence, inputs, lengths=torch.tensor([1, 2, 3]))


@pytest.mark.parametrize("executor", ["scan", "chunked", "toeplitz", "fft", "auto"])
@pytest.mark.parametrize("verb", [linrec.run, linrec.final])
def test_no_step_leaves_the_state_to_the_last_bit_in_any_coordinates(verb, executor: str) -> None:
    """Powers of a Butterworth filter are taken in other coordinates, and states rounded twice."""
    recurrence = linrec.LinearRecurrence(*signal.tf2ss(*signal.butter(6, 0.05)))
    plan = EXECUTORS[executor].prepare(recurrence, 600)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    inputs = torch.randn(3, 600, 1, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([0, 600, 0])
    last = verb(recurrence, inputs, state, lengths=lengths, plan=plan).final_state
    assert torch.equal(last[::2], state[::2])
    assert not torch.equal(last[1], state[1])
