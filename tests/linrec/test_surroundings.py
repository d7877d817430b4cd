"""Process-wide defaults change nothing, and shapes are known without values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import linrec
from linrec import testing
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, VARYING, data

SINGLE = {torch.float64: torch.float32, torch.complex128: torch.complex64}
STEPS = 100
MEMORY = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.5])), torch.ones(1, 1))
LAYER = linrec.nn.MinGRU(1, 3)
CASES = [
    ("dense", "ABCD"),
    ("dense complex", "AB"),
    ("dense batch", "ABC"),
    ("diagonal", "A"),
    ("blocks", "AD"),
    ("low rank complex", "ABCD, 2 copies"),
    ("varying dense", "ABCD"),
    ("varying diagonal", "AB"),
]
each_case = pytest.mark.parametrize("transition, system", CASES)
METHODS = ("zoh", "foh", "bilinear", "euler", "backward_diff", "impulse")


def recurrence_of(transition: str, system: str) -> linrec.LinearRecurrence:
    """In single precision, which is nobody's default here."""
    varying = transition in VARYING
    A = VARYING[transition](STEPS) if varying else TRANSITIONS[transition]()
    recurrence = SYSTEMS[system](A)
    return recurrence.to(SINGLE[recurrence.dtype])


def able(recurrence: linrec.LinearRecurrence) -> list[linrec.Executor]:
    return [each for each in EXECUTORS.values() if each.why_not(recurrence, STEPS) is None]


def everything(recurrence, inputs, state, executor, lengths=None) -> list[torch.Tensor]:
    """Outputs, states and gradients of all ways to run, in one list."""
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in recurrence.leaves().items()}
    trained, inputs = recurrence.with_leaves(leaves), inputs.detach().requires_grad_()
    outputs, after = linrec.run(trained, inputs, state, executor=executor)
    found = torch.autograd.grad(outputs.abs().sum(), [*leaves.values(), inputs])
    frozen = torch.autograd.grad(
        linrec.run(recurrence, inputs, executor=executor).outputs.abs().sum(), inputs
    )
    last = linrec.final(recurrence, inputs.detach(), state, executor=executor, lengths=lengths)
    own = linrec.run(recurrence, inputs.detach(), state, executor=executor, lengths=lengths)
    return [outputs, after, *found, *frozen, *last, *own]


@each_case
def test_default_device_and_dtype_do_not_matter(transition: str, system: str) -> None:
    """Tensors that were made on the default device could not meet those of the call."""
    recurrence = recurrence_of(transition, system)
    inputs, state = data(recurrence, STEPS, 2)
    lengths = torch.full(inputs.shape[:-2], 70)
    for executor in able(recurrence):
        expected = everything(recurrence, inputs, state, executor, lengths)
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                got = everything(recurrence, inputs, state, executor, lengths)
        finally:
            torch.set_default_dtype(torch.float32)
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, msg=str(executor))


@pytest.mark.parametrize("structure", [linrec.Dense, linrec.Diagonal])
@pytest.mark.parametrize("method", METHODS)
def test_default_device_and_dtype_do_not_matter_to_discretisation(method, structure) -> None:
    A = torch.tensor([-1.0, -0.5]) if structure is linrec.Diagonal else -torch.eye(2)
    system = linrec.StateSpace(structure(A), torch.ones(2, 1))
    dt = torch.tensor([0.1, 0.2])
    expected = [linrec.discretize(system, each, method) for each in (0.1, dt)]
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = [linrec.discretize(system, each, method) for each in (0.1, dt)]
    finally:
        torch.set_default_dtype(torch.float32)
    for mine, theirs in zip(got, expected, strict=True):
        for name, leaf in theirs.leaves().items():
            torch.testing.assert_close(mine.leaves()[name], leaf, rtol=0, atol=0)


@each_case
def test_shapes_without_values(transition: str, system: str) -> None:
    """On torch's "meta" device tensors have shapes and no values."""
    recurrence = recurrence_of(transition, system)
    inputs, state = data(recurrence, STEPS, 2)
    nowhere = recurrence.to("meta")
    for executor in able(recurrence):
        expected = linrec.run(recurrence, inputs, state, executor=executor)
        given = inputs.to("meta").requires_grad_()
        got = linrec.run(nowhere, given, state.to("meta"), executor=executor)
        for mine, theirs in zip(got, expected, strict=True):
            assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
            assert mine.device.type == "meta"
        (gradient,) = torch.autograd.grad(got.outputs.abs().sum(), given)
        assert gradient.shape == inputs.shape and gradient.device.type == "meta"


@pytest.mark.parametrize("structure", [linrec.Dense, linrec.Diagonal])
@pytest.mark.parametrize("method", METHODS)
def test_shapes_of_discretised_systems_without_values(method: str, structure: type) -> None:
    A = torch.tensor([-1.0, -0.5]) if structure is linrec.Diagonal else -torch.eye(2)
    system = linrec.StateSpace(structure(A), torch.ones(2, 1))
    nowhere = linrec.StateSpace(structure(A.to("meta")), torch.ones(2, 1, device="meta"))
    expected, got = (linrec.discretize(each, 0.1, method) for each in (system, nowhere))
    for name, leaf in expected.leaves().items():
        assert got.leaves()[name].shape == leaf.shape
        assert got.leaves()[name].device.type == "meta"


CHECKS: dict[str, Callable[[], object]] = {
    "recurrence": lambda: testing.check_recurrence(MEMORY, examples=3),
    "module": lambda: testing.check_module(LAYER, examples=3),
    "structure": lambda: testing.check_structure(MEMORY.A, examples=3),
    "executor": lambda: testing.check_executor(linrec.Chunked(), examples=3),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_kit_records_gradients_in_any_mode(check: str, mode: Callable[[], Any]) -> None:
    with mode():
        assert CHECKS[check]() is not None
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_bounds_of_the_kit_are_never_rounded(check: str, dtype: torch.dtype) -> None:
    """In float16 a number such as 1e-15 is zero."""
    torch.set_default_dtype(dtype)
    try:
        assert CHECKS[check]() is not None
    finally:
        torch.set_default_dtype(torch.float32)
