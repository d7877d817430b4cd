"""Gradients keep their digits where the program allows less precise products."""

from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import linrec
from linrec._tensors.full_precision import MKLDNN
from tests.cases import normal

PRODUCTS = {"mm", "bmm", "mv", "addmm", "baddbmm", "dot", "matmul"}


class Precisions(TorchDispatchMode):
    """Lists the precision in which each product is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.__name__.split(".")[0] in PRODUCTS and args[0].dtype == torch.float32:
            self.seen.append(MKLDNN.fp32_precision)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def coarse() -> Iterator[str]:
    """Allow products in bfloat16; the setting that has to come back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield MKLDNN.fp32_precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    "executor",
    [linrec.Recurrent(), linrec.Chunked(4), linrec.FFTConvolution(), linrec.AssociativeScan()],
    ids=lambda executor: type(executor).__name__,
)
def test_gradients_of_executors_are_of_full_precision(
    executor: linrec.Executor, coarse: str
) -> None:
    A = (normal(3, 3, seed=1) / 4).float().requires_grad_()
    leaf = normal(2, 20, 4, seed=2).float().requires_grad_()
    weight = normal(4, 1, seed=3).float().requires_grad_()
    state = normal(2, 3, seed=4).float().requires_grad_()
    with Precisions() as forward:
        outputs, last = linrec.run(
            linrec.LinearRecurrence(A, torch.ones(3, 1), torch.ones(2, 3)),
            leaf @ weight,
            state,
            executor=executor,
        )
        loss = (outputs @ torch.ones(2, 2)).sum() + last.sum()
    with Precisions() as back:
        loss.backward()
    # The program's own products, before and after ours, are as the program wants them.
    assert (forward.seen[0], forward.seen[-1]) == (coarse, coarse)
    assert (back.seen[0], back.seen[-1]) == (coarse, coarse)
    assert set(forward.seen[1:-1]) <= {"ieee"}
    assert set(back.seen[1:-2]) <= {"ieee"}, "the last two are the program's: leaf and weight"
    assert MKLDNN.fp32_precision == coarse


def test_gradients_of_last_outputs_and_of_steps_too(coarse: str) -> None:
    system = linrec.LinearRecurrence(normal(3, 3, seed=1).float() / 4, torch.ones(3, 1))
    inputs = normal(2, 20, 1, seed=2).float().requires_grad_()
    for result in (
        linrec.final(system, inputs, executor=linrec.Recurrent()).outputs,
        linrec.step(system, inputs[:, 0], torch.ones(2, 3)).outputs,
    ):
        with Precisions() as back:
            torch.autograd.grad(result.sum(), [inputs])
        assert back.seen and set(back.seen) == {"ieee"}
    assert MKLDNN.fp32_precision == coarse


def test_nothing_is_done_where_all_digits_count() -> None:
    inputs = normal(2, 5, 1).float().requires_grad_()
    outputs = linrec.run(linrec.LinearRecurrence([[0.5]], [[1.0]]), inputs).outputs
    with Precisions() as back:
        outputs.sum().backward()
    assert set(back.seen) <= {"none", "ieee"}


@pytest.mark.parametrize("made", ["A", "inputs", "state"])
def test_products_behind_what_was_given_are_the_programs(made: str, coarse: str) -> None:
    shapes = {"A": (3, 3), "inputs": (20, 1), "state": (1, 3)}
    given = {name: normal(*shape, seed=1).float() / 4 for name, shape in shapes.items()}
    rows, columns = shapes[made]
    left, right = (normal(*shape, seed=2).float() / 4 for shape in ((rows, 2), (2, columns)))
    leaves = [left.requires_grad_(), right.requires_grad_()]
    given[made] = left @ right
    system = linrec.LinearRecurrence(given["A"], torch.ones(3, 1))
    state = given["state"][0]
    outputs = linrec.run(system, given["inputs"], state, executor=linrec.Recurrent()).outputs
    with Precisions() as back:
        torch.autograd.grad(outputs.sum(), leaves)
    assert back.seen[-2:] == [coarse, coarse] and set(back.seen[:-2]) == {"ieee"}
