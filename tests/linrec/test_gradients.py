"""Gradients through inputs, both states and every matrix, of every executor, to second order."""

import pytest
import torch
from torch import Tensor

import linrec
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, VARYING, data

STEPS = 5
ABLE = ("recurrent", "scan", "auto")
CASES = [
    (executor, transition, system)
    for executor in EXECUTORS
    for transition, system in [
        ("dense", "ABCD"),
        ("dense complex", "ABCD"),
        ("dense batch", "AB"),
        ("diagonal complex", "ABC"),
        ("blocks", "A"),
        ("low rank complex", "AB"),
        ("nilpotent", "AB"),
        ("dense", "ABCD, 2 copies"),
    ]
] + [(executor, transition, "ABCD") for executor in ABLE for transition in VARYING]


def build(transition: str, system: str) -> linrec.LinearRecurrence:
    A = VARYING[transition](STEPS) if transition in VARYING else TRANSITIONS[transition]()
    return SYSTEMS[system](A)


def function(recurrence: linrec.LinearRecurrence, verb, executor: linrec.Executor):
    """Outputs and final state as a function of inputs, initial state and all tensors."""
    names = list(recurrence.leaves())

    def call(inputs: Tensor, state: Tensor, *leaves: Tensor) -> tuple[Tensor, Tensor]:
        fresh = recurrence.with_leaves(dict(zip(names, leaves, strict=True)))
        return tuple(verb(fresh, inputs, state, executor=executor))

    return call


def differentiable(recurrence: linrec.LinearRecurrence) -> tuple[Tensor, ...]:
    inputs, state = data(recurrence, STEPS)
    tensors = (inputs, state, *recurrence.leaves().values())
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


@pytest.mark.parametrize("executor, transition, system", CASES)
@pytest.mark.sampled(2)
def test_first_derivatives(executor: str, transition: str, system: str) -> None:
    recurrence = build(transition, system)
    for verb in (linrec.run, linrec.final):
        call = function(recurrence, verb, EXECUTORS[executor])
        assert torch.autograd.gradcheck(call, differentiable(recurrence), fast_mode=True)


@pytest.mark.parametrize(
    "executor, transition, system",
    [case for case in CASES if case[1] in ("dense complex", "varying diagonal complex batch")],
)
@pytest.mark.sampled(2)
def test_second_derivatives(executor: str, transition: str, system: str) -> None:
    recurrence = build(transition, system)
    call = function(recurrence, linrec.run, EXECUTORS[executor])
    assert torch.autograd.gradgradcheck(call, differentiable(recurrence), fast_mode=True)


@pytest.mark.parametrize("executor, transition, system", CASES)
def test_executors_agree_on_gradients(executor: str, transition: str, system: str) -> None:
    recurrence = build(transition, system)
    tensors = differentiable(recurrence)
    gradients = []
    for run in (linrec.Recurrent(), EXECUTORS[executor]):
        outputs, state = function(recurrence, linrec.run, run)(*tensors)
        total = (outputs * outputs.conj()).real.sum() + (state * state.conj()).real.sum()
        gradients.append(torch.autograd.grad(total, tensors))
    for expected, got in zip(*gradients, strict=True):
        # Both are sums of at most T² n² terms, each as large as the gradient's largest entry.
        terms = STEPS**2 * recurrence.state_size**2
        limit = terms * torch.finfo(torch.float64).eps * expected.abs().max() * 16
        assert (got - expected).abs().max() <= limit


@pytest.mark.parametrize("executor", EXECUTORS)
def test_adjoint_identity(executor: str) -> None:
    """⟨S u, v⟩ = ⟨u, S* v⟩, S* being the adjoint recurrence run backwards."""
    for transition in ("dense complex", "legendre", "diagonal complex", "low rank complex"):
        recurrence = SYSTEMS["ABCD"](TRANSITIONS[transition]())
        inputs, _ = data(recurrence, 12)
        outputs = linrec.run(recurrence, inputs, executor=EXECUTORS[executor]).outputs
        other = torch.randn_like(outputs)
        backwards = linrec.run(
            linrec.adjoint(recurrence), other.flip(-2), executor=EXECUTORS[executor]
        ).outputs.flip(-2)
        left, right = (
            torch.vdot(outputs.flatten(), other.flatten()),
            torch.vdot(inputs.flatten(), backwards.flatten()),
        )
        scale = (outputs.abs() * other.abs()).sum() + (inputs.abs() * backwards.abs()).sum()
        assert (left - right).abs() <= 1000 * torch.finfo(torch.float64).eps * scale


@pytest.mark.parametrize("transition", VARYING)
def test_adjoint_identity_varying(transition: str) -> None:
    recurrence = SYSTEMS["ABCD"](VARYING[transition](9))
    inputs, _ = data(recurrence, 9)
    outputs = linrec.run(recurrence, inputs).outputs
    other = torch.randn_like(outputs)
    backwards = linrec.run(linrec.adjoint(recurrence), other.flip(-2)).outputs.flip(-2)
    left = torch.vdot(outputs.flatten(), other.flatten())
    right = torch.vdot(inputs.flatten(), backwards.flatten())
    scale = (outputs.abs() * other.abs()).sum() + (inputs.abs() * backwards.abs()).sum()
    assert (left - right).abs() <= 1000 * torch.finfo(torch.float64).eps * scale
