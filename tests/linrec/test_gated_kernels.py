"""Kernels of gated chunks, run by Triton's interpreter, against the loop in double precision."""

from typing import Any

import pytest
import torch
from torch import Tensor

import linrec
import linrec.nn.heads
from linrec.kernels import gated
from linrec.kernels.gated import gated_chunks, plain_gated
from tests.cases import normal

RULES = ("test_schema", "test_faketensor", "test_autograd_registration")

launching = pytest.importorskip("linrec.kernels.gated_launch", reason="Triton is not installed")


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks and programs at sizes that the interpreter bears."""
    for name, size in {"STEPS": 16, "VALUES": 16, "WIDTH": 16, "MANY": 2}.items():
        monkeypatch.setattr(launching, name, size)


def given(
    T: int, N: int = 3, V: int = 2, started: bool = True, dtype: torch.dtype = torch.float32
) -> list[Any]:
    """Systems along two axes, of which one is strided; gates are of any sign, one is zero."""
    a = normal(2, 1, T, seed=1).tanh()
    a[0, 0, T // 2] = 0
    k, v = normal(2, 1, T, N, seed=2) / 2, normal(2, T, 1, V, seed=3).transpose(1, 2)
    q = normal(N, T, 2, 1, seed=4).permute(2, 3, 1, 0)
    start = normal(2, N, V, seed=5).float() if started else None
    return [*(each.to(dtype) for each in (a, k, q, v)), start]


def both(mine: list[Any], tangents: list[Tensor]) -> list[Tensor]:
    """Run the loop in double precision and pull the tangents back."""
    wide: list[Any] = [None if each is None else each.double().requires_grad_() for each in mine]
    found = plain_gated(*wide)
    leaves = [each for each in wide if each is not None]
    pulled = torch.autograd.grad(found, leaves, [each.double() for each in tangents])
    return [*(each.detach() for each in found), *pulled]


def magnitudes(given: list[Any]) -> list[Any]:
    return [None if each is None else each.abs() for each in given]


@pytest.mark.parametrize(
    "T, N, V, started, dtype",
    [
        (1, 1, 1, False, torch.float32),
        (35, 3, 17, True, torch.float32),
        (17, 17, 2, False, torch.bfloat16),
        (16, 3, 2, True, torch.float16),
    ],
    ids=str,
)
def test_values_and_gradients_are_the_loops(
    T: int, N: int, V: int, started: bool, dtype: torch.dtype
) -> None:
    mine = given(T, N, V, started, dtype)
    tangents = [normal(2, 1, T, V, seed=6).to(dtype), normal(2, N, V, seed=7).float()]
    outputs, last, states, tables = launching.launch_gated(*mine)
    pulled = launching.launch_pull(*mine[1:4], states, tables, *tangents)
    truth, most = both(mine, tangents), both(magnitudes(mine), magnitudes(tangents))
    # A term rounds once for each gate of it and each term of its sums: n, V, and steps.
    roundings = (4 * T + N + V + 16) * torch.finfo(torch.float32).eps / 2
    # (The interpreter cuts bfloat16 off where a card rounds: a whole eps.)
    once = torch.finfo(dtype).eps if dtype != torch.float32 else 0.0
    for index, (got, right, size) in enumerate(
        zip((outputs, last, *pulled), truth, most, strict=False)
    ):
        stored = once if index in (0, 3, 4, 5) else 0.0  # in the dtype of what was given
        assert ((got - right).abs() <= roundings * size + stored * right.abs()).all()


def test_parts_of_halves_have_as_many_bits_as_they_are_said_to(monkeypatch) -> None:
    mine = given(16, 3, 2, True, torch.bfloat16)
    right, most = plain_gated(*(each.double() for each in mine)), plain_gated(*magnitudes(mine))
    errors = []
    for parts in (1, 2, 3):
        monkeypatch.setattr(launching, "PARTS", parts)
        last = launching.launch_gated(*mine)[1]
        errors.append(float(((last - right[1]).abs() / most[1]).max()))
    # (Cut off, as the interpreter does it, a part errs by 2^-7; and the sums round.)
    rounded = 64 * 2.0**-24
    for parts, error in enumerate(errors, 1):
        assert error <= 2.0 ** (-7 * parts) + rounded
    assert errors[0] > 8 * errors[1] > 8 * errors[2]


def test_tables_multiply_the_gates_in_blocks_of_every_size() -> None:
    gates = normal(1, 2, 21, seed=1).float()
    tables = launching.launch_tables(gates).view(2, 2, 2, 5, 16)
    for system, chunk, level in torch.cartesian_prod(*map(torch.arange, (2, 2, 5))).tolist():
        block = 1 << level
        own = torch.ones(16, dtype=torch.float64)
        part = gates[0, system, 16 * chunk : 16 * chunk + 16].double()
        own[: len(part)] = part
        for lane in range(16):
            start = lane - lane % block
            upto = own[start : lane + 1].prod()
            after = own[lane + 1 : start + block].prod()
            found = tables[system, chunk, :, level, lane].double()
            assert abs(found[0] - upto) <= 16 * 2.0**-24 * abs(upto)
            assert level == 0 or abs(found[1] - after) <= 16 * 2.0**-24 * abs(after)


def test_the_operation_keeps_the_rules_of_torch() -> None:
    for started in (False, True):
        mine = given(5, started=started, dtype=torch.float64)
        mine[4] = mine[4].double() if started else None
        leaves = [None if each is None else each.requires_grad_() for each in mine]
        check: Any = torch.autograd.gradcheck  # takes None, where there is no such tensor
        assert check(lambda *all: gated_chunks(*all)[:2], leaves, fast_mode=True)
        again: Any = torch.autograd.gradgradcheck
        assert again(lambda *all: gated_chunks(*all)[:2], leaves, fast_mode=True)
        torch.library.opcheck(gated_chunks, tuple(leaves), test_utils=RULES)
    for asked in (0, 1):  # a gradient in one of the results alone
        leaves = [each.detach().requires_grad_() for each in given(5)]
        pulled = torch.autograd.grad(gated_chunks(*leaves)[asked].sum(), leaves, allow_unused=True)
        right = torch.autograd.grad(plain_gated(*leaves)[asked].sum(), leaves, allow_unused=True)
        for mine, own in zip(pulled, right, strict=True):
            torch.testing.assert_close(mine, torch.zeros_like(mine) if own is None else own)


@pytest.mark.parametrize("interpreted", [False, True])
def test_chunked_runs_one_gate_in_kernels_with_gradients(interpreted: bool, monkeypatch) -> None:
    gates = normal(2, 1, 37, 1, seed=1).float().tanh()
    keys, queries = (normal(2, 3, 37, 4, seed=seed).float() for seed in (2, 3))
    values, state = normal(2, 37, 3, 5, seed=4).float(), normal(2, 3, 20, seed=5).float()
    leaves = [each.requires_grad_() for each in (gates, keys, queries, values, state)]

    def run(executor: linrec.Executor) -> list[Tensor]:
        memory, inputs = linrec.nn.heads.attention(gates, keys, queries, values.transpose(1, 2))
        found = linrec.run(memory, inputs, state, executor=executor, resets=resets)
        weighed = (found.outputs * found.outputs).sum() + found.final_state.sin().sum()
        return [*found, *torch.autograd.grad(weighed, leaves)]

    resets = torch.zeros(2, 3, 37, dtype=torch.bool)
    resets[1, :, 20] = True
    plain = run(linrec.Recurrent())
    called: list[int] = []
    own = gated.gated_chunks

    def counted(*given: Any) -> Any:
        called.append(1)
        return own(*given)

    monkeypatch.setattr(gated, "serves", lambda tensor: True)
    monkeypatch.setattr(gated, "launches", lambda tensor: interpreted)
    monkeypatch.setattr("linrec.executors.varying.device_kernel.gated_chunks", counted)
    for mine, theirs in zip(run(linrec.Chunked()), plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert called == [1]
    # Under a transform of torch.func there is no kernel.
    torch.func.grad(
        lambda inputs: linrec.run(
            linrec.nn.heads.attention(gates, keys, queries, inputs)[0],
            inputs,
            executor=linrec.Chunked(),
        ).outputs.sum()
    )(values.transpose(1, 2))
    assert called == [1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves_reach_the_kernels_as_they_are(dtype: torch.dtype, monkeypatch) -> None:
    gates = normal(1, 1, 17, 1, seed=1).tanh().to(dtype)
    keys, queries = (normal(1, 2, 17, 4, seed=seed).to(dtype) for seed in (2, 3))
    values, state = normal(1, 2, 17, 5, seed=4).to(dtype), normal(1, 2, 20, seed=5).float()
    leaves = [each.requires_grad_() for each in (gates, keys, queries, values, state)]

    def run(executor: linrec.Executor) -> list[Tensor]:
        memory, inputs = linrec.nn.heads.attention(gates, keys, queries, values)
        found = linrec.run(memory, inputs, state, executor=executor)
        loss = found.outputs.float().sum() + found.final_state.sum()
        return [*found, *torch.autograd.grad(loss, leaves)]

    plain, seen = run(linrec.Recurrent()), []
    own = gated.gated_chunks

    def watched(*given: Any) -> Any:
        seen.extend(None if each is None else each.dtype for each in given)
        return own(*given)

    for asked in ("_call.half_precision.serves", "kernels.gated.serves", "kernels.gated.launches"):
        monkeypatch.setattr(f"linrec.{asked}", lambda tensor: True)
    monkeypatch.setattr("linrec.executors.varying.device_kernel.gated_chunks", watched)
    mine = run(linrec.Chunked())
    assert seen == [dtype] * 4 + [torch.float32]
    # What is stored in the dtype is rounded once (the interpreter cuts bfloat16 off) on each side.
    for got, right in zip(mine, plain, strict=True):
        assert got.dtype == right.dtype and got.shape == right.shape
        stored = 2 * torch.finfo(got.dtype).eps
        torch.testing.assert_close(
            got, right, rtol=stored, atol=stored * float(right.detach().abs().max())
        )
    # What no kernel serves is run in float32: with D, in float32 inputs, along lengths.
    seen.clear()
    memory, inputs = linrec.nn.heads.attention(gates, keys, queries, values)
    linrec.run(memory, inputs, executor=linrec.Recurrent())
    linrec.run(memory, inputs, lengths=torch.tensor([[3]]), executor=linrec.Chunked())
    assert torch.bfloat16 not in seen and torch.float16 not in seen
    double = linrec.run(memory, inputs, state.double(), executor=linrec.Chunked())
    assert double.final_state.dtype == torch.float64
