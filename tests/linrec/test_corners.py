"""Corner cases: empty systems, lists of tensors, broadcast time, odd structures."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import linrec
from linrec._tensors.shapes import broadcast_shapes
from linrec.testing import error_bound, exact_reference
from tests.cases import EXECUTORS, VARYING, contraction, data, legendre, normal
from tests.linrec.test_agreement import assert_within, check


def test_lists_of_tensors_keep_their_gradients() -> None:
    a = torch.tensor(0.5, requires_grad=True)
    recurrence = linrec.LinearRecurrence([[a, 0], [1, a]], [[1], [a]])
    linrec.run(recurrence, torch.ones(3, 1)).outputs.sum().backward()
    assert a.grad is not None and float(a.grad) != 0


@pytest.mark.parametrize("name", "BCD")
def test_matrices_without_rows_or_columns_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` has shape .*Pass `{name}=None`"):
        matrices: dict[str, Any] = {name: torch.ones(2, 0)}
        linrec.LinearRecurrence(torch.eye(2), **matrices)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_systems_at_all(executor: str) -> None:
    recurrence = linrec.LinearRecurrence(torch.zeros(0, 3, 3), torch.ones(3, 2))
    inputs = torch.ones(0, 30, 2)
    assert linrec.run(recurrence, inputs, executor=EXECUTORS[executor]).outputs.shape == (0, 30, 3)
    assert linrec.final(recurrence, inputs, executor=EXECUTORS[executor]).outputs.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float64])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_plans_of_no_systems(executor: str, dtype: torch.dtype) -> None:
    B = torch.zeros(0, 3, 1, dtype=dtype)
    for A in (torch.zeros(0, 3, 3, dtype=dtype), linrec.Diagonal(torch.zeros(0, 3, dtype=dtype))):
        recurrence = linrec.LinearRecurrence(A, B)
        for steps in (1, 5, 2_000):
            plan = EXECUTORS[executor].prepare(recurrence, steps)
            inputs = torch.zeros(2, 0, steps, 1, dtype=dtype)
            outputs = linrec.run(recurrence, inputs, plan=plan).outputs
            assert outputs.shape == (2, 0, steps, 3)


@pytest.mark.parametrize("executor", ["recurrent", "scan", "auto"])
def test_an_axis_of_time_of_one_means_every_step(executor: str) -> None:
    A = linrec.Varying(contraction(3, 1))
    recurrence = linrec.LinearRecurrence(A, normal(5, 3, 2), normal(1, 2, 3))
    assert recurrence.steps == 5
    inputs, state = data(recurrence, 5, 2)
    check(recurrence, EXECUTORS[executor], inputs, state)
    once = linrec.LinearRecurrence(VARYING["varying dense"](5), normal(1, 3, 2))
    inputs, state = data(once, 5, 2)
    check(once, EXECUTORS[executor], inputs, state)


def test_final_of_no_varying_steps() -> None:
    recurrence = linrec.LinearRecurrence(linrec.Varying(torch.ones(0, 2, 2)))
    result = linrec.final(recurrence, torch.ones(3, 0, 2), torch.ones(2))
    assert result.outputs.shape == (3, 2) and result.final_state.equal(torch.ones(3, 2))


def test_lengths_of_unstable_systems_take_no_longer_powers() -> None:
    recurrence = linrec.LinearRecurrence([[2.0]], [[1.0]], [[1.0]])
    lengths, state = torch.tensor([3, 0]), torch.ones(2, 1, requires_grad=True)
    result = linrec.run(
        recurrence, torch.ones(2, 300, 1), state, lengths=lengths, executor=linrec.Recurrent()
    )
    assert result.final_state.tolist() == [[15.0], [1.0]]
    result.final_state.sum().backward()
    assert state.grad is not None and state.grad.tolist() == [[8.0], [1.0]]


@dataclass(frozen=True, eq=False)
class ScaledShift(linrec.Structure):
    """x_i → scale · x_{i-1}, by the five methods alone, one leaf batched and one not."""

    scale: Tensor  # (*batch)
    mask: Tensor  # (n)
    core_axes: ClassVar[Mapping[str, int]] = {"scale": 0, "mask": 1}

    @property
    def state_size(self) -> int:
        return self.mask.shape[-1]

    def apply(self, states: Tensor) -> Tensor:
        return self.scale.unsqueeze(-1) * self.mask * states.roll(1, -1)

    def compose(self, earlier: linrec.Structure) -> linrec.Structure:
        return linrec.Dense(self.to_dense() @ earlier.to_dense())

    def adjoint(self) -> linrec.Structure:
        return linrec.Dense(self.to_dense().mH)

    def to_dense(self) -> Tensor:
        shifted = torch.eye(self.state_size, dtype=self.mask.dtype).roll(1, 0)
        return self.scale[..., None, None] * (self.mask.unsqueeze(-1) * shifted)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_structures_of_ones_own(batch: tuple[int, ...], executor: str) -> None:
    mask = torch.tensor([0.0, 1, 1, 0.5]).double()
    A = ScaledShift(torch.full(batch, 0.9).double(), mask)
    recurrence = linrec.LinearRecurrence(A, normal(4, 1), copies=2)
    inputs, state = data(recurrence, 12)
    check(recurrence, EXECUTORS[executor], inputs, state)


def test_forward_mode() -> None:
    """Directional derivatives of every executor, against differences of two runs."""
    for executor in EXECUTORS.values():
        for order, copies in ((3, 1), (32, 16)):
            recurrence = linrec.LinearRecurrence(
                legendre(order, 4.0 * order), normal(order, 1), copies=copies
            )
            inputs, tangent = normal(2, 20, copies, seed=1), normal(2, 20, copies, seed=2)
            got = torch.func.jvp(
                lambda u, r=recurrence, e=executor: linrec.run(r, u, executor=e).outputs,
                (inputs,),
                (tangent,),
            )[1]
            expected = exact_reference(recurrence, tangent).outputs
            bound = error_bound(recurrence, tangent, linrec.FFTConvolution()).outputs
            assert_within(got, expected, bound, executor)


def test_shapes_without_numbers() -> None:
    recurrence = linrec.LinearRecurrence(torch.eye(2), torch.ones(2, 1)).to("meta")
    outputs = linrec.run(recurrence, torch.ones(5, 1, device="meta")).outputs
    assert outputs.shape == (5, 2)


def test_systems_that_are_not_finite_are_explained() -> None:
    recurrence = linrec.LinearRecurrence([[float("nan")]])
    assert "not finite" in (linrec.explain(recurrence, 10).warning or "")
    assert linrec.Auto().select(recurrence, 0)


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_systems_that_are_not_finite_are_run(bad: float, executor: linrec.Executor) -> None:
    """What they give is not finite either, and no error."""
    recurrence = linrec.LinearRecurrence([[bad, 1.0], [0.0, 0.5]], [[0.0], [1.0]])
    for steps in (2, 40):
        outputs = linrec.run(recurrence, torch.ones(steps, 1), executor=executor).outputs
        assert outputs.shape == (steps, 2) and not outputs[-1].isfinite().all()


SHAPES = [(), (0,), (1,), (2,), (2, 1), (1, 3), (0, 3), (2, 3), (1, 1, 3)]


@pytest.mark.parametrize("first", SHAPES)
def test_shapes_broadcast_as_those_of_torch(first: tuple[int, ...]) -> None:
    for second, third in itertools.product(SHAPES, repeat=2):
        try:
            expected = torch.broadcast_shapes(first, second, third)
        except RuntimeError:
            with pytest.raises(RuntimeError, match="do not broadcast"):
                broadcast_shapes(first, second, third)
        else:
            assert broadcast_shapes(first, second, third) == expected
