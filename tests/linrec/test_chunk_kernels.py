"""Kernels of chunks, run by Triton's interpreter, compared with torch's products and a loop."""

import itertools
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import linrec
from linrec.kernels import chunks
from linrec.kernels.chunks import chunk_product, matrix_scan, plain_product, plain_scan
from linrec.planner import costs
from tests.cases import normal

# What torch checks of an operation; compiled graphs of it take seconds each.
RULES = ("test_schema", "test_faketensor", "test_autograd_registration")

launching = pytest.importorskip("linrec.kernels.chunk_launch", reason="Triton is not installed")


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles and chunks at sizes that the interpreter bears."""
    sizes = {"HIGH": 16, "WIDE": 16, "WALKED": 2, "TILED": 16, "STEPS": 16}
    sizes |= {"MANY_PRODUCTS": 0, "MANY_COLUMNS": 0}
    for name, size in sizes.items():
        monkeypatch.setattr(launching, name, size)


def bound(inputs: Tensor, before: Tensor, block: Tensor) -> Tensor:
    """Bound a sum of K + n products in any order, whose factors have 22 bits."""
    sizes = plain_product(*(each.abs().double() for each in (inputs, before, block)))
    return sizes * (len(block) + 8) * 2.0**-24


@pytest.mark.parametrize("R, K, n, N", [(1, 16, 16, 1), (19, 5, 20, 33)])
def test_products_of_any_size_and_stride(R: int, K: int, n: int, N: int) -> None:
    inputs, before = normal(R, K, seed=1).float(), normal(n, R, seed=2).float().mT
    for block in (normal(K + n, N, seed=3).float(), normal(N, K + n, seed=3).float().mT):
        got = launching.launch_product(inputs, before, block)
        truth = plain_product(inputs.double(), before.double(), block.double())
        assert ((got - truth).abs() <= bound(inputs, before, block)).all()


def test_parts_have_11_bits_and_make_22_of_the_whole() -> None:
    """(Subnormal numbers, in which the rest of a tiny one is rounded once more, aside.)"""
    edges = [0.0, -0.0, 1.0, -1 / 3, 1 + 2**-11, 1 + 3 * 2**-11, 3.4028235e38, 2.0**127, 1e-30]
    numbers = torch.tensor([edges, normal(len(edges), seed=4).tolist()])
    for left in (True, False):
        parts = torch.empty(3, *numbers.shape)
        launching.call(
            launching.split, 2, numbers, numbers, parts, *numbers.shape, len(edges),
            *numbers.stride(), *numbers.stride(), *parts.stride()[1:], parts.stride(0),
            HIGH=16, WIDE=16, LEFT=left,
        )  # fmt: skip
        near, rest = parts[0], parts[1 if left else 2]
        assert torch.equal(parts[2 if left else 1], near)
        for part in (near, rest):
            assert not (part.view(torch.int32) & 0x1FFF).any()
        normal_ = numbers.abs() < 2.0**127
        assert ((near - numbers).abs() <= 2.0**-11 * numbers.abs())[normal_].all()
        assert ((near - numbers).abs() <= 2.0**-10 * numbers.abs()).all()
        assert ((near.double() + rest - numbers).abs() <= 2.0**-23 * numbers.abs()).all()
    odd = torch.tensor([[float("inf"), float("nan"), -float("inf")]])
    with_block = launching.launch_product(odd.mT, odd.mT[:, :0], torch.ones(1, 4))
    assert not with_block.isfinite().any()


def test_small_products_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, before, block = (torch.ones(*shape) for shape in ((64, 16), (64, 16), (32, 300)))
    assert launching.is_split(inputs, before, block)
    monkeypatch.setattr(launching, "MANY_COLUMNS", 301)
    assert not launching.is_split(inputs, before, block)
    monkeypatch.setattr(launching, "MANY_COLUMNS", 0)
    monkeypatch.setattr(launching, "MANY_PRODUCTS", 64 * 32 * 300 + 1)
    assert not launching.is_split(inputs, before, block)


def test_the_product_keeps_the_rules_of_torch() -> None:
    given = [normal(3, k, seed=k).requires_grad_() for k in (2, 4)]
    given.append(normal(6, 5, seed=6).requires_grad_())
    assert torch.autograd.gradcheck(chunk_product, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(chunk_product, given, fast_mode=True)
    torch.library.opcheck(chunk_product, tuple(given), test_utils=RULES)
    for axes in itertools.product((None, 0), repeat=3):
        if any(axis is not None for axis in axes):
            many = [
                each if axis is None else torch.stack([each, 2 * each])
                for axis, each in zip(axes, given, strict=True)
            ]
            mapped = torch.vmap(chunk_product, in_dims=axes)(*many)
            right = torch.vmap(plain_product, in_dims=axes)(*many)
            torch.testing.assert_close(mapped, right)


GIVEN = {
    "one gate": (1, False, True),
    "one gate, from nothing": (1, False, False),
    "a gate each": (3, False, True),
    "delta rule": (1, True, False),
    "a gate each, delta rule": (3, True, True),
}


def given(kind: str, T: int = 37, V: int = 3, dtype: torch.dtype = torch.float32) -> list[Any]:
    """Two systems of three states; gates are of any sign, one of them zero."""
    gates, low, started = GIVEN[kind]
    a = normal(2, T, gates, seed=1).tanh()
    a[0, T // 2] = 0
    k, q = normal(2, T, 3, seed=2) / 2, normal(3, T, 2, seed=3).movedim((2, 1), (0, 1))
    v = normal(2, T, V, seed=4)
    more = [normal(2, T, 3, seed=seed) / 3 if low else None for seed in (5, 6)]
    start = normal(2, 3, V, seed=7) if started else None
    every = [a, k, q, v, *more, start]
    return [None if each is None else each.to(dtype) for each in every]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", GIVEN)
def test_scans_of_matrices_are_the_loops(kind: str, dtype: torch.dtype) -> None:
    mine = given(kind, dtype=dtype)
    for T in (1, 37) if dtype == torch.float32 else (5,):
        cut = [None if e is None else e[:, :T] for e in mine[:6]] + mine[6:]
        exact: list[Any] = [None if each is None else each.double() for each in cut]
        sizes: list[Any] = [None if each is None else each.abs() for each in exact]
        got, truth, most = launching.launch_matrices(*cut), plain_scan(*exact), plain_scan(*sizes)
        # A step rounds n + 3 times, in chunks as often as they are long; n = 3.
        allowed = (8 * T + 16) * torch.finfo(dtype).eps
        for value, right, size in zip(got, truth, most, strict=True):
            assert value.dtype == dtype and ((value - right).abs() <= allowed * size).all()


def test_more_columns_than_a_program_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("one gate", "a gate each"):
        mine = given(kind, T=3, V=18)
        for value, right in zip(launching.launch_matrices(*mine), plain_scan(*mine), strict=True):
            torch.testing.assert_close(value, right)


def test_the_scan_keeps_the_rules_of_torch() -> None:
    for kind in ("one gate", "a gate each, delta rule"):
        mine = given(kind, T=2, V=2, dtype=torch.float64)
        leaves = [None if each is None else each.requires_grad_() for each in mine]
        check: Any = torch.autograd.gradcheck  # takes None, where there is no such tensor
        assert check(matrix_scan, leaves, fast_mode=True)
        torch.library.opcheck(matrix_scan, tuple(leaves), test_utils=RULES)


@pytest.mark.parametrize("kind", ["a gate each", "delta rule"])
def test_chunked_runs_matrices_in_a_kernel_where_it_serves(kind: str, monkeypatch) -> None:
    a, k, q, v, left, right, start = given(kind, 6, 3)
    B, C = k.unsqueeze(-1), q.unsqueeze(-2)
    D = normal(1, 1, seed=8).float()
    gates = a.expand(2, 6, 3)
    if left is None:
        A: linrec.Structure = linrec.Diagonal(gates)
    else:
        A = linrec.DiagonalPlusLowRank(gates, left.unsqueeze(-1), right.unsqueeze(-1))
    many = linrec.LinearRecurrence(A, B, C, D, time_varying=True).map_batched(
        lambda leaf, core: leaf.unsqueeze(0) if leaf.ndim > core else leaf
    )
    inputs = torch.stack([v.mT, v.mT.flip(0)]).movedim(2, 0).unsqueeze(-1)  # (columns, 2, 2, 6, 1)
    state = None if start is None else torch.stack([start.mT, start.mT]).movedim(2, 0)
    plain = linrec.run(many, inputs, state, executor=linrec.Recurrent())
    launched: list[str] = []
    own = launching.call

    def call(kernel, *rest, **options):  # type: ignore[no-untyped-def]
        launched.append(kernel.fn.__name__)
        own(kernel, *rest, **options)

    monkeypatch.setattr(chunks, "serves", lambda tensor: True)
    monkeypatch.setattr(launching, "call", call)
    got = linrec.run(many, inputs, state, executor=linrec.Chunked())
    assert launched == ["walk_matrices"]
    for mine, theirs in zip(got, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    linrec.run(many, inputs.requires_grad_(), state, executor=linrec.Chunked())
    assert len(launched) == 1  # with a gradient it is not


def test_kernels_for_matrices_are_counted_with(monkeypatch) -> None:
    monkeypatch.setattr(costs, "HAS_TRITON", True)
    A = linrec.Diagonal(torch.rand(100, 1).expand(100, 16))
    system = linrec.LinearRecurrence(
        A, torch.rand(100, 16, 1), torch.rand(100, 1, 16), time_varying=True
    )
    work = linrec.Workload.of(system, 100, 8)._replace(device="cuda")
    assert costs.has_matrix_kernel(work, 0)
    for other in ({"device": "cpu"}, {"outputs": 2}, {"states": 129}, {"itemsize": 8}):
        changed = work._replace(**other, gradient=True)
        assert not costs.has_matrix_kernel(changed, 0)
    assert costs.has_matrix_kernel(work._replace(gradient=True), 0)
    assert not costs.has_matrix_kernel(work._replace(gradient=True, one_gate=False), 0)
    assert costs.has_matrix_kernel(work._replace(gradient=True), 1)
    assert not costs.has_matrix_kernel(work, 2)
    chunked = costs.estimates_of(linrec.Chunked())
    assert chunked.cost(work).rounds < 10 < chunked.cost(work._replace(device="cpu")).rounds


def test_chunked_multiplies_in_the_kernel_where_it_serves(monkeypatch) -> None:
    recurrence = linrec.LinearRecurrence(
        normal(16, 16, seed=1).float() / 8, normal(16, 1).float(), copies=2
    )
    inputs = normal(2, 40, 2, seed=2).float().requires_grad_()
    launched: list[str] = []
    own = launching.call

    def call(kernel, *rest, **options):  # type: ignore[no-untyped-def]
        launched.append(kernel.fn.__name__)
        own(kernel, *rest, **options)

    found = []
    for serves in (False, True):
        monkeypatch.setattr(chunks, "serves", lambda tensor, serves=serves: serves)
        monkeypatch.setattr(launching, "call", call)
        outputs, state = linrec.run(recurrence, inputs, executor=linrec.Chunked(16))
        found.append([outputs, state, *torch.autograd.grad(outputs.square().sum(), [inputs])])
    assert launched == 4 * ["split"]  # two factors, and two for the gradient
    for mine, right in zip(*found, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_all_kernels_compile_for_a_card_that_is_not_there() -> None:
    """(In a process of its own, without the interpreter.)"""
    own = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.linrec.compiled_kernels"]
    done = subprocess.run(command, capture_output=True, text=True, env=own)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
