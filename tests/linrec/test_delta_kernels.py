"""Kernels of chunks with feedback, run by Triton's interpreter, against the loop in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

import linrec
import linrec.nn.heads
from linrec.kernels.delta import delta_chunks, plain_delta
from tests.cases import normal

RULES = ("test_schema", "test_faketensor", "test_autograd_registration")

launching = pytest.importorskip("linrec.kernels.delta_launch", reason="Triton is not installed")


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks and programs at sizes that the interpreter bears."""
    for name, size in {"STEPS": 16, "VALUES": 16, "WIDTH": 16, "MANY": 2}.items():
        monkeypatch.setattr(f"linrec.kernels.gated_launch.{name}", size)


def given(
    T: int, N: int = 3, V: int = 2, started: bool = True, dtype: torch.dtype = torch.float32
) -> list[Any]:
    """Systems along two axes, of which one is strided; gates are of any sign, one is zero."""
    a = normal(2, 1, T, seed=1).tanh()
    a[0, 0, T // 2] = 0
    k, v = normal(2, 1, T, N, seed=2) / 2, normal(2, T, 1, V, seed=3).transpose(1, 2)
    q = normal(N, T, 2, 1, seed=4).permute(2, 3, 1, 0)
    left, right = (0.4 * normal(2, 1, T, N, seed=seed) / N**0.5 for seed in (8, 9))
    start = normal(2, N, V, seed=5).float() if started else None
    return [*(each.to(dtype) for each in (a, k, q, v, left, right)), start]


def both(mine: list[Any], tangents: list[Tensor]) -> list[Tensor]:
    """Run the loop in double precision and pull the tangents back."""
    wide: list[Any] = [None if each is None else each.double().requires_grad_() for each in mine]
    found = plain_delta(*wide)
    leaves = [each for each in wide if each is not None]
    pulled = torch.autograd.grad(found, leaves, [each.double() for each in tangents])
    return [*(each.detach() for each in found), *pulled]


def magnitudes(given: list[Any]) -> list[Any]:
    return [None if each is None else each.abs() for each in given]


@pytest.mark.parametrize(
    "T, N, V, started, dtype",
    [
        (1, 1, 1, False, torch.float32),
        (19, 3, 17, True, torch.float32),
        (13, 17, 2, False, torch.bfloat16),
    ],
    ids=str,
)
def test_values_and_gradients_are_the_loops(
    T: int, N: int, V: int, started: bool, dtype: torch.dtype
) -> None:
    mine = given(T, N, V, started, dtype)
    tangents = [normal(2, 1, T, V, seed=6).to(dtype), normal(2, N, V, seed=7).float()]
    outputs, last, states, fed, inverses = launching.launch_delta(*mine)
    pulled = launching.launch_delta_pull(*mine[:6], states, fed, inverses, *tangents)
    truth, most = both(mine, tangents), both(magnitudes(mine), magnitudes(tangents))
    # A term rounds once for each gate of it and each term of its sums, at each step that feeds it.
    roundings = (T + 1) * (N + 4) + 2 * V + 32
    # (The interpreter cuts bfloat16 off where a card rounds: a whole eps.)
    once = torch.finfo(dtype).eps if dtype != torch.float32 else 0.0
    for index, (got, right, size) in enumerate(
        zip((outputs, last, *pulled), truth, most, strict=False)
    ):
        stored = once * right.abs() if index == 0 else 0.0  # gradients are in float32 here
        error = (got - right).abs()
        assert (error <= roundings * torch.finfo(torch.float32).eps / 2 * size + stored).all()


def test_the_operation_keeps_the_rules_of_torch() -> None:
    for started in (False, True):
        mine = given(4, started=started, dtype=torch.float64)
        mine[6] = mine[6].double() if started else None
        leaves = [None if each is None else each.requires_grad_() for each in mine]
        check: Any = torch.autograd.gradcheck  # takes None, where there is no such tensor
        assert check(lambda *all: delta_chunks(*all)[:2], leaves, fast_mode=True)
        again: Any = torch.autograd.gradgradcheck
        assert again(lambda *all: delta_chunks(*all)[:2], leaves, fast_mode=True)
        torch.library.opcheck(delta_chunks, tuple(leaves), test_utils=RULES)
    for asked in (0, 1):  # a gradient in one of the results alone
        leaves = [each.detach().requires_grad_() for each in given(5)]
        pulled = torch.autograd.grad(delta_chunks(*leaves)[asked].sum(), leaves, allow_unused=True)
        right = torch.autograd.grad(plain_delta(*leaves)[asked].sum(), leaves, allow_unused=True)
        for mine, own in zip(pulled, right, strict=True):
            torch.testing.assert_close(mine, torch.zeros_like(mine) if own is None else own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_chunked_runs_delta_rules_in_kernels_with_gradients(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, beta = (normal(1, 2, 11, 1, seed=seed).sigmoid().to(dtype) for seed in (1, 2))
    keys = torch.nn.functional.normalize(normal(1, 2, 11, 4, seed=3), dim=-1).to(dtype)
    queries, values = (normal(1, 2, 11, size, seed=size).to(dtype) for size in (4, 5))
    state = normal(1, 2, 20, seed=6).float()
    leaves = [each.requires_grad_() for each in (alpha, beta, keys, queries, values, state)]

    def run(executor: linrec.Executor) -> list[Tensor]:
        given = (alpha, beta * keys, queries, values, -alpha * keys)
        memory, inputs = linrec.nn.heads.attention(*given)
        found = linrec.run(memory, inputs, state, executor=executor)
        loss = found.outputs.float().sum() + found.final_state.sin().sum()
        return [*found, *torch.autograd.grad(loss, leaves)]

    plain, seen = run(linrec.Recurrent()), []

    def watched(*given: Any) -> Any:
        seen.append(given[3].dtype)
        return delta_chunks(*given)

    for asked in ("_call.half_precision.serves", "kernels.gated.serves", "kernels.delta.launches"):
        monkeypatch.setattr(f"linrec.{asked}", lambda tensor: True)
    monkeypatch.setattr("linrec.executors.varying.device_kernel.delta_chunks", watched)
    mine = run(linrec.Chunked())
    assert seen == [dtype]
    # What is stored in the dtype is rounded once on each side (the interpreter cuts it off), and
    # so are the gradients in keys, in three places.
    for got, right in zip(mine, plain, strict=True):
        assert got.dtype == right.dtype and got.shape == right.shape
        stored = 8 * torch.finfo(got.dtype).eps if dtype != torch.float32 else 1e-4
        most = stored * float(right.detach().abs().max())
        torch.testing.assert_close(got, right, rtol=stored, atol=most)
