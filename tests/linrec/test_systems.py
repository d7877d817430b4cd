"""Construction of systems: accepted and refused arguments, and the error messages."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import linrec
from linrec import LinearRecurrence, StateSpace
from linrec.executors.recurrent import each_step
from tests.cases import EXECUTORS, TRANSITIONS, data, normal


def test_lists_and_arrays_are_taken() -> None:
    recurrence = LinearRecurrence([[0, 1], [-1, -1]], np.ones((2, 1), "f4"), [[1.0, 0.0]])
    assert isinstance(recurrence.A, linrec.Dense)
    assert recurrence.A.dtype == recurrence.dtype == torch.get_default_dtype()
    recurrence = LinearRecurrence([[0, 1], [-1, -1]], np.ones((2, 1)), [[1.0, 0.0]])
    assert recurrence.B is not None and recurrence.B.dtype == torch.float64
    assert recurrence.dtype == torch.float64
    assert (recurrence.state_size, recurrence.input_size, recurrence.output_size) == (2, 1, 1)


WIDE = {
    "tensor": torch.ones(1, 1).double(),
    "complex tensor": torch.ones(1, 1, dtype=torch.complex128),
    "array": np.ones((1, 1)),
    "list of tensors": [torch.ones(1).double()],
    "structure": linrec.Diagonal(torch.ones(1).double()),
}


@pytest.mark.parametrize("kind", [LinearRecurrence, StateSpace])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("name", WIDE)
def test_plain_numbers_beside_wide_ones_keep_their_digits(name, place, kind) -> None:
    """A 0.1 that is read in single precision and widened is off by 1.5e-9."""
    if name == "structure" and place:
        return
    given: list = [[[0.1]]] * 4
    given[place] = WIDE[name]
    system = kind(*given)
    matrices = [system.A.to_dense(), *system.matrices()]
    for number, matrix in enumerate(matrices):
        assert matrix.dtype == (
            torch.complex128 if "complex" in name and number == place else torch.float64
        )
        assert matrix.item() == (1 if number == place else 0.1)


def test_plain_numbers_alone_are_of_the_default_dtype() -> None:
    for beside in (torch.ones(1, 1), torch.ones(1, 1).half(), np.ones((1, 1), int), [[1]]):
        assert LinearRecurrence([[0.1]], beside, [[0.1]], [[1]]).dtype == torch.float32
    assert LinearRecurrence([[0.1]], torch.ones(1, 1), [[0.1j]]).dtype == torch.complex64
    wide = LinearRecurrence([[0.1]], torch.ones(1, 1).double(), [[0.1j]])
    assert wide.C is not None and wide.C.item() == 0.1j


def test_plain_steps_frequencies_and_coordinates_are_read_in_double_precision() -> None:
    tank = StateSpace(torch.tensor([[-1.0]]).double(), [[1.0]])
    assert torch.equal(
        linrec.discretize(tank, [0.1, 0.2]).A.to_dense().flatten(),
        linrec.discretize(tank, torch.tensor([0.1, 0.2], dtype=torch.float64))
        .A.to_dense()
        .flatten(),
    )
    assert torch.equal(
        linrec.frequency_response(tank, [0.1]),
        linrec.frequency_response(tank, torch.tensor([0.1], dtype=torch.float64)),
    )
    moved = linrec.similarity_transform(LinearRecurrence(tank.A, tank.B, tank.B), [[0.1]])
    assert moved.C is not None and moved.C.item() == 0.1


def test_sizes_with_copies() -> None:
    recurrence = LinearRecurrence(torch.eye(4), torch.ones(4, 2), torch.ones(3, 4), copies=5)
    assert (recurrence.state_size, recurrence.input_size, recurrence.output_size) == (20, 10, 15)


def test_values_are_frozen_and_copyable() -> None:
    recurrence = LinearRecurrence(torch.eye(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        recurrence.copies = 2  # type: ignore[misc]  # the refusal is tested
    assert recurrence != LinearRecurrence(torch.eye(2))  # by identity, not by comparing tensors
    assert copy.deepcopy(recurrence).A.to_dense().equal(torch.eye(2))


def test_executors_are_values() -> None:
    for executor in EXECUTORS.values():
        again = dataclasses.replace(executor)
        assert again == executor and hash(again) == hash(executor)


@pytest.mark.parametrize(
    "make, error",
    [
        (
            lambda: LinearRecurrence(torch.eye(6), torch.ones(2, 6)),
            r"`B` has shape \(2, 6\), but `A` has 6 states: expected one row per state, "
            r"\(\*batch, 6, m\). If the axes are swapped then pass `B.mT`.",
        ),
        (lambda: LinearRecurrence(torch.eye(3), torch.ones(3)), r"Pass `B\[:, None\]` for one"),
        (lambda: LinearRecurrence([[0.5]], 2.0), r"Pass `\[\[b\]\]` for one input"),
        (
            lambda: LinearRecurrence(torch.eye(3), C=torch.ones(3, 2)),
            r"`C` has shape \(3, 2\).*\(\*batch, p, 3\). If the axes are swapped",
        ),
        (lambda: LinearRecurrence(torch.eye(3), C=torch.ones(3)), r"Pass `C\[None, :\]`"),
        (
            lambda: LinearRecurrence(
                torch.eye(3), torch.ones(3, 2), torch.ones(1, 3), torch.ones(2, 1)
            ),
            r"`D` has shape \(2, 1\): .*\(\*batch, 1, 2\). Pass `D.mT`.",
        ),
        (lambda: LinearRecurrence(torch.eye(3), copies=0), "`copies` is 0: expected a whole"),
        (
            lambda: LinearRecurrence(torch.ones(2, 3, 3), torch.ones(4, 3, 1)),
            r"A \(2,\), B \(4,\)",
        ),
        (lambda: LinearRecurrence(torch.ones(3)), r"a square matrix \(\*batch, n, n\)"),
    ],
)
def test_shapes_that_do_not_fit(make, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make()


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: LinearRecurrence("abc"), "`A` is of type str: expected a torch.Tensor"),
        (lambda: LinearRecurrence(torch.eye(2).long()), r"dtype torch.int64.*`A.float\(\)`"),
        (lambda: StateSpace(linrec.Varying(torch.ones(2, 1, 1)), [[1.0]]), "time-invariant"),
        (lambda: linrec.run(StateSpace([[1.0]], [[1.0]]), torch.ones(1, 1)), "discretize"),
        (lambda: linrec.run(LinearRecurrence([[1.0]]), [[1.0]]), "torch.as_tensor"),
        (lambda: linrec.run(LinearRecurrence([[1.0]]), torch.ones(2, 1).int()), "inputs.float"),
        (
            lambda: linrec.run(LinearRecurrence([[1.0]]), torch.ones(2, 1), executor="fft"),
            "expected an executor such as",
        ),
    ],
)
def test_types_that_do_not_fit(make, error: str) -> None:
    with pytest.raises(TypeError, match=error):
        make()


@pytest.mark.parametrize(
    "shape, error",
    [
        ((5,), r"\(5,\), but the recurrence has 2 inputs: expected \(\*batch, time, 2\)"),
        ((2, 5), "If time is the last axis then pass `inputs.mT`"),
        ((5, 3), r"expected \(\*batch, time, 2\)"),
        ((), r"shape \(\), but the recurrence has 2 inputs: expected \(\*batch, time, 2\)\.$"),
    ],
)
def test_inputs_that_do_not_fit(shape: tuple[int, ...], error: str) -> None:
    recurrence = LinearRecurrence(torch.eye(4), torch.ones(4, 2))
    with pytest.raises(ValueError, match=error):
        linrec.run(recurrence, torch.ones(shape))


def test_a_single_input_without_its_axis() -> None:
    with pytest.raises(ValueError, match=r"inputs.unsqueeze\(-1\)"):
        linrec.run(LinearRecurrence([[0.5]], [[1.0]]), torch.ones(10))
    with pytest.raises(ValueError, match=r"If time is the last axis then pass `inputs.mT`"):
        linrec.run(LinearRecurrence([[0.5]], [[1.0]]), torch.ones(3, 1, 10))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("m", [1, 2])
def test_an_input_of_one_step_that_does_not_fit(shape: tuple[int, ...], m: int) -> None:
    """(Time is not the last axis of a step.)"""
    recurrence = LinearRecurrence(torch.eye(4), torch.ones(4, m))
    with pytest.raises(ValueError, match=rf"`input` has shape .*: expected \(\*batch, {m}\)\.$"):
        linrec.step(recurrence, torch.ones(shape))


def test_inputs_on_another_device() -> None:
    with pytest.raises(ValueError, match="`inputs` is on meta and the recurrence on cpu"):
        linrec.run(LinearRecurrence([[0.5]]), torch.ones(5, 1, device="meta"))


def test_states_and_batches_that_do_not_fit() -> None:
    recurrence = LinearRecurrence(torch.eye(4), torch.ones(4, 1))
    with pytest.raises(ValueError, match=r"`initial_state` has shape \(3,\).*\(\*batch, 4\)"):
        linrec.run(recurrence, torch.ones(5, 1), torch.ones(3))
    with pytest.raises(ValueError, match=r"inputs \(2,\), initial_state \(3,\)"):
        linrec.run(recurrence, torch.ones(2, 5, 1), torch.ones(3, 4))


def test_varying_needs_as_many_matrices_as_steps() -> None:
    recurrence = LinearRecurrence(linrec.Varying(torch.ones(5, 1, 1)))
    with pytest.raises(ValueError, match=r"has 4 steps.*matrices for 5"):
        linrec.run(recurrence, torch.ones(4, 1))
    with pytest.raises(ValueError, match=r"has 1 steps.*matrices for 5"):
        linrec.step(recurrence, torch.ones(1))


def test_varying_is_a_way_to_write_a_flag() -> None:
    A = torch.rand(2, 5, 3)
    for written in (
        LinearRecurrence(linrec.Varying(linrec.Diagonal(A)), copies=2),
        LinearRecurrence(linrec.Diagonal(A), time_varying=True, copies=2),
    ):
        assert isinstance(written.A, linrec.Diagonal) and written.A.diagonal is A
        assert written.time_varying and (written.steps, written.batch_shape) == (5, (2,))


SHAPES = {"A": (3, 3), "B": (3, 2), "C": (2, 3), "D": (2, 2)}


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 0, 7])])
@pytest.mark.parametrize("executor", ["recurrent", "scan", "auto"])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("varying", ["A", "B", "C", "D", "BC", "ABCD"])
def test_any_of_the_matrices_may_vary(varying: str, copies: int, executor: str, lengths) -> None:
    """As where all four are written out for every step, in values and gradients."""
    given = {
        name: normal(*((7,) if name in varying else ()), *shape, seed=seed) / 3
        for seed, (name, shape) in enumerate(SHAPES.items())
    }
    given = {name: matrix.requires_grad_() for name, matrix in given.items()}
    recurrence = LinearRecurrence(**given, time_varying=True, copies=copies)
    assert (recurrence.steps, recurrence.batch_shape) == (7, ())
    every = {name: matrix.expand(7, *SHAPES[name]) for name, matrix in given.items()}
    whole = LinearRecurrence(linrec.Varying(every.pop("A")), **every, copies=copies)
    inputs, state = data(recurrence, 7, 3)
    runs = [
        linrec.run(each, inputs, state, lengths=lengths, executor=EXECUTORS[chosen])
        for each, chosen in ((recurrence, executor), (whole, "recurrent"))
    ]
    for got, expected in zip(*runs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
    last = linrec.final(recurrence, inputs, state, lengths=lengths, executor=EXECUTORS[executor])
    torch.testing.assert_close(last.final_state, runs[1].final_state, rtol=1e-13, atol=1e-13)
    gradients = [
        torch.autograd.grad(outputs.square().sum() + final.square().sum(), list(given.values()))
        for outputs, final in runs
    ]
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("varying", ["A", "B", "C", "D", "BC", "ABCD"])
def test_adjoint_of_what_varies_in_part(varying: str) -> None:
    given = {
        name: normal(*((7,) if name in varying else ()), *shape, seed=seed) / 3
        for seed, (name, shape) in enumerate(SHAPES.items())
    }
    recurrence = LinearRecurrence(**given, time_varying=True)
    u, v = normal(7, 2, seed=5), normal(7, 2, seed=6)
    back = linrec.run(linrec.adjoint(recurrence), v.flip(0)).outputs.flip(0)
    forward = linrec.run(recurrence, u).outputs
    torch.testing.assert_close((forward * v).sum(), (u * back).sum(), rtol=1e-13, atol=1e-13)


def test_one_step_of_what_varies() -> None:
    A, B = normal(2, 5, 3, 3), normal(5, 3, 1)
    recurrence = LinearRecurrence(A, B, normal(1, 3), time_varying=True, copies=2)
    now = recurrence.at(3)
    assert not now.time_varying and now.copies == 2 and now.batch_shape == (2,)
    assert now.A.to_dense().equal(A[:, 3]) and now.B.equal(B[3]) and now.C.equal(recurrence.C)
    for each, step in zip(each_step(recurrence.per_copy(), 5), range(5), strict=True):
        assert each.A.to_dense().equal(A[:, None, step])


def test_a_flag_without_an_axis_of_time_is_refused() -> None:
    for more in ({}, {"B": torch.ones(1, 1), "copies": 2}):
        with pytest.raises(ValueError, match=r"none of A, B, C and D has an axis of time: expect"):
            LinearRecurrence(torch.ones(1, 1), **more, time_varying=True)
    with pytest.raises(TypeError, match="`time_varying` is 5: expected True or False"):
        LinearRecurrence(torch.ones(5, 1, 1), time_varying=5)


@pytest.mark.parametrize("name", ["toeplitz", "fft", "chunked"])
def test_executors_that_cannot(name: str) -> None:
    recurrence = LinearRecurrence(linrec.Varying(torch.ones(5, 1, 1)))
    with pytest.raises(ValueError, match=r"its matrices change from step.*executor=Auto"):
        linrec.run(recurrence, torch.ones(5, 1), executor=EXECUTORS[name])


def test_leaves_rebuild_every_recurrence() -> None:
    for make in TRANSITIONS.values():
        recurrence = LinearRecurrence(make(), copies=2)
        again = recurrence.with_leaves(recurrence.leaves())
        assert again.copies == 2
        assert again.A.to_dense().equal(recurrence.A.to_dense())


@pytest.mark.parametrize("kind", [linrec.LinearRecurrence, linrec.StateSpace])
def test_casts_that_would_lose_numbers_are_refused(kind: Any) -> None:
    A = linrec.Diagonal(torch.tensor([0.5j]))
    turning, real = kind(A, torch.ones(1, 1)), kind([[0.5]], [[1.0]])
    for dtype in (torch.int64, torch.int32, torch.bool, torch.float8_e5m2):
        for each in (real, turning, A):
            with pytest.raises(TypeError, match=r"`to` got torch\..*: expected a floating-point"):
                each.to(dtype)
    for dtype, instead in (
        (torch.float64, "torch.complex128"),
        (torch.float32, "torch.complex64"),
        (torch.bfloat16, "torch.complex64"),
    ):
        for each in (turning, A):
            with pytest.raises(ValueError, match=rf"Type `\.to\({instead}\)`"):
                each.to(dtype)
    assert turning.to(torch.complex128).A.to_dense().item() == 0.5j
    assert real.to(torch.complex64).dtype == torch.complex64
    assert real.to(torch.float16).to("cpu").dtype == torch.float16
