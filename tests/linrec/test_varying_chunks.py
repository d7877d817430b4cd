"""Varying systems in chunks, against the exact recurrence, a loop, and other chunks."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import linrec
from linrec.executors.varying import tile_by_tile as varying_tiles
from linrec.planner import CPU
from linrec.testing import error_bound, exact_reference
from tests.cases import generator, normal

COMPLEX = torch.complex128
CHUNKED = linrec.Chunked()
STEPS = (1, 2, 15, 16, 17, 50)
GATES = ("A", "A_diagonal")  # the name of the gates, without and with U and V


def gates(kind: str, *shape: int) -> Tensor:
    if kind == "complex":
        return 0.9 * torch.tanh(normal(*shape, dtype=COMPLEX)).sgn()
    drawn = torch.sigmoid(normal(*shape))
    if kind == "0 and 1":
        drawn = torch.where(normal(*shape, seed=1) > 0.5, 0.0, drawn)
        return torch.where(normal(*shape, seed=2) > 0.5, 1.0, drawn)
    if kind == "signs":
        return 2 * drawn - 1
    if kind == "shared":  # one for all states
        return drawn[..., :1].expand(shape)
    if kind == "steady":  # the same at every step
        return drawn[..., :1, :]
    if kind == "one":  # for all states and steps
        return drawn[..., :1, :1].expand(*drawn.shape[:-2], 1, drawn.shape[-1])
    return drawn


KINDS = ("real", "complex", "0 and 1", "signs", "shared", "steady", "one")


def system(
    kind: str,
    steps: int,
    rank: int = 0,
    batch: tuple[int, ...] = (),
    n: int = 3,
    m: int = 1,
    p: int = 1,
    copies: int = 1,
    constant: tuple[str, ...] = (),
    absent: tuple[str, ...] = (),
    tied: bool = False,
) -> linrec.LinearRecurrence:
    diagonal = gates(kind, *batch, steps, n)
    dtype = diagonal.dtype
    A: linrec.Structure = linrec.Diagonal(diagonal)
    if rank:
        keys = normalize(normal(*batch, steps, n, rank, seed=3, dtype=dtype), dim=-2)
        A = linrec.DiagonalPlusLowRank(diagonal, -0.5 * keys, keys)
    shapes = {"B": (n, m), "C": (p, n), "D": (p, m)}
    given = {
        name: normal(*(() if name in constant else (*batch, steps)), *shape, seed=4, dtype=dtype)
        for name, shape in shapes.items()
        if name not in absent
    }
    if tied:
        feeds = normalize(normal(*batch, steps, n, m, seed=3, dtype=dtype), dim=-2)
        A = linrec.DiagonalPlusLowRank(diagonal, given["B"], -0.5 * feeds)
    return linrec.LinearRecurrence(A, **given, time_varying=True, copies=copies)


TABLE = {
    "plain": {},
    "rank 1": {"rank": 1},
    "rank 2": {"rank": 2},
    "copies": {"copies": 4},
    "rank 1, copies": {"rank": 1, "copies": 3},
    "batch": {"batch": (2, 3), "rank": 1},
    "several inputs and outputs": {"m": 2, "p": 3, "copies": 2, "rank": 2},
    "constant B and C": {"constant": ("B", "C"), "copies": 2},
    "no B": {"absent": ("B", "D"), "rank": 1},
    "no C": {"absent": ("C", "D"), "rank": 1, "copies": 2},
    "states": {"absent": ("B", "C", "D")},
    "U is B": {"tied": True},
    "U is B, copies": {"tied": True, "copies": 3, "batch": (2,)},
    "U is B of rank 2": {"tied": True, "m": 2, "p": 3},
    "U is B, no C": {"tied": True, "absent": ("C", "D"), "copies": 2},
}


def case(
    recurrence: linrec.LinearRecurrence, steps: int, beside: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    batch = (*beside, *recurrence.batch_shape)
    inputs = normal(*batch, steps, recurrence.input_size, seed=5, dtype=recurrence.dtype)
    return inputs, normal(*batch, recurrence.state_size, seed=6, dtype=recurrence.dtype)


def within_bound(
    recurrence: linrec.LinearRecurrence,
    inputs: Tensor,
    state: Tensor | None,
    lengths: Tensor | None = None,
    executor: linrec.Executor = CHUNKED,
) -> None:
    got = linrec.run(recurrence, inputs, state, lengths=lengths, executor=executor)
    last = linrec.final(recurrence, inputs, state, lengths=lengths, executor=executor)
    exact = exact_reference(recurrence, inputs, state, lengths)
    bound = error_bound(recurrence, inputs, executor, state, lengths)
    for found, true, allowed in (
        *zip(got, exact, bound, strict=True),
        (last[1], exact[1], bound[1]),
    ):
        assert found.shape == true.shape and allowed.isfinite().all()
        assert ((found.to(true.dtype) - true).abs() <= allowed).all()


# (Of steady gates and nothing else, nothing varies.)
STEADY = {("steady", "states"), ("one", "states")}
CROSSED = [pair for pair in itertools.product(KINDS, TABLE) if pair not in STEADY]


@pytest.mark.parametrize("kind, name", CROSSED)
@pytest.mark.sampled(2)
def test_exact_recurrence(kind: str, name: str) -> None:
    for steps in STEPS:
        recurrence = system(kind, steps, **TABLE[name])
        inputs, state = case(recurrence, steps)
        within_bound(recurrence, inputs, state)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 64, 1000])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_any_chunk(size: int, rank: int) -> None:
    recurrence = system("0 and 1", 50, rank=rank, copies=2)
    inputs, state = case(recurrence, 50)
    within_bound(recurrence, inputs, state, executor=linrec.Chunked(size=size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("rank", [0, 1])
def test_single_precision(dtype: torch.dtype, rank: int) -> None:
    recurrence = system("complex" if dtype.is_complex else "real", 200, rank=rank, copies=2)
    recurrence = recurrence.to(dtype)
    inputs, state = case(recurrence, 200)
    within_bound(recurrence, inputs, state)


@pytest.mark.parametrize("name", TABLE)
def test_lengths(name: str) -> None:
    recurrence = system("0 and 1", 17, **TABLE[name])
    inputs, state = case(recurrence, 17, beside=(3,))
    lengths = (
        torch.tensor([17, 5, 0]).reshape(3, *(1,) * (inputs.ndim - 3)).expand(inputs.shape[:-2])
    )
    within_bound(recurrence, inputs, state, lengths)


@pytest.mark.parametrize("name", ["copies", "rank 1, copies", "several inputs and outputs"])
def test_complex_systems_of_one_gate(name: str) -> None:
    for steps in STEPS:
        plain = system("complex", steps, **TABLE[name])
        recurrence = with_leaves(plain, of_one_gate(plain.leaves()))
        inputs, state = case(recurrence, steps)
        within_bound(recurrence, inputs, state)


@pytest.mark.parametrize("name", TABLE)
def test_sequences_that_share_a_system_and_those_that_do_not(name: str) -> None:
    recurrence = system("real", 17, **TABLE[name])
    inputs, state = case(recurrence, 17, beside=(2, 3))
    within_bound(recurrence, inputs, state)
    within_bound(recurrence, inputs[0, :1], None)


@pytest.mark.parametrize("tile", [1, 200, 1 << 18])
def test_tiles_make_no_difference(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varying_tiles, "CACHE", tile)
    recurrence = system("real", 100, rank=1, copies=2, batch=(2,))
    inputs, state = case(recurrence, 100)
    within_bound(recurrence, inputs, state, executor=linrec.Chunked(size=8))


def test_tiles_are_whole_systems_where_these_fit() -> None:
    """Tensors of a tile have about so many numbers, and steps of the carry enough of them."""
    rooms = {"CACHE": varying_tiles.CACHE, "WIDE": varying_tiles.WIDE}
    assert rooms == {"CACHE": 1 << 17, "WIDE": 1 << 14}
    sizes = {
        (8, 2048, 1, 64, 1, 64): (4, 512),  # a system has 2^17 numbers
        (8, 512, 1, 64, 1, 64): (2, 512),  # not all that fit: a quarter of what there is
        (1, 65536, 1, 64, 1, 64): (1, 2048),
        (64, 8192, 1, 16, 1, 16): (64, 64),  # so many that their states are worth an operation
        (64, 64, 1, 16, 1, 256): (8, 64),  # whole systems, whose states are many
        (3, 100, 2, 5, 3, 8): (3, 32),
        (0, 5, 1, 1, 1, 1): (1, 32),
    }
    for (G, steps, m, V, rows, n), expected in sizes.items():
        given = (32, G, steps, m, V, rows, n)
        assert varying_tiles.tile_size(*given, "cpu", True) == expected, (G, steps)
        systems, stride = varying_tiles.tile_size(*given, "cpu", False)
        assert systems * stride >= expected[0] * expected[1]  # without a gradient larger
    # On a device one tile has all that memory easily holds.
    systems, stride = varying_tiles.tile_size(32, 32, 4096, 1, 64, 1, 64, "cuda", True)
    assert systems == 32 and stride >= 4096
    # Whole chunks, and what is left over by itself.
    tiles = varying_tiles.Tiles.of(8, torch.zeros(1, 1067, 1, 50), 1, 60)
    assert tiles.lengths == (264, 264, 264, 264, 8, 3) and tiles.systems == 1


def test_tiles_of_a_gradient_that_is_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain operations over several tiles; the second derivative along a drawn direction."""
    monkeypatch.setattr(varying_tiles, "CACHE", 1)
    given, run = parts(1, "shared", 9)
    given = [each.clone().requires_grad_() for each in given]
    assert torch.autograd.gradgradcheck(run, given, fast_mode=True)


def parts(rank: int, kind: str, steps: int) -> tuple[list[Tensor], Callable[..., Any]]:
    recurrence = system(kind, steps, rank=rank, copies=2, n=2)
    inputs, state = case(recurrence, steps)
    given = of_one_gate(recurrence.leaves()) if kind == "shared" else recurrence.leaves()

    def run(inputs: Tensor, state: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        changed = with_leaves(recurrence, dict(zip(given, leaves, strict=True)))
        return tuple(linrec.run(changed, inputs, state, executor=linrec.Chunked(size=4)))

    return [inputs, state, *given.values()], run


def of_one_gate(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take one gate for all states, `(*batch, time, 1)`."""
    return {name: leaf[..., :1] if name in GATES else leaf for name, leaf in leaves.items()}


def with_leaves(
    recurrence: linrec.LinearRecurrence, leaves: dict[str, Tensor]
) -> linrec.LinearRecurrence:
    """Put tensors into a recurrence; one gate is expanded."""
    name = next(name for name in GATES if name in leaves)
    gates, n = leaves[name], recurrence.A.state_size
    return recurrence.with_leaves(leaves | {name: gates.expand(*gates.shape[:-1], n)})


@pytest.mark.parametrize("kind", ["real", "complex", "0 and 1", "shared"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.sampled(4)
def test_derivatives(rank: int, kind: str) -> None:
    given, run = parts(rank, kind, 5)  # a chunk, and one step of the next
    given = [each.clone().requires_grad_() for each in given]
    assert torch.autograd.gradcheck(run, given, check_forward_ad=True, check_batched_grad=True)
    if kind != "complex":  # the second derivatives along drawn directions
        assert torch.autograd.gradgradcheck(run, given, fast_mode=True)


@pytest.mark.parametrize("tile", [200, 1 << 18])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "kind, name",
    [("0 and 1", each) for each in TABLE]
    + [("complex", "rank 2"), ("one", "copies"), ("one", "batch")],
)
def test_gradients_are_those_of_the_loop(
    kind: str, name: str, shared: bool, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one tile, and in many of them, in systems and in time; memory that is new is not zero."""
    monkeypatch.setattr(varying_tiles, "CACHE", tile)
    monkeypatch.setattr(varying_tiles, "WIDE", 1)
    monkeypatch.setattr(varying_tiles, "FEWEST", 1)
    recurrence = system(kind, 50, **TABLE[name])
    inputs, state = case(recurrence, 50, beside=(2,))
    kept = of_one_gate(recurrence.leaves()) if shared else recurrence.leaves()
    found = []
    for executor in (linrec.Chunked(8), linrec.Recurrent()):
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in kept.items()}
        given = [each.clone().requires_grad_() for each in (inputs, state)]
        result = linrec.run(with_leaves(recurrence, leaves), *given, executor=executor)
        total = result.outputs.abs().square().sum() + result.final_state.abs().square().sum()
        torch.use_deterministic_algorithms(True)  # fills it with NaN
        try:
            found.append(torch.autograd.grad(total, [*given, *leaves.values()]))
        finally:
            torch.use_deterministic_algorithms(False)
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("systems", [1, 3])
@pytest.mark.parametrize("constant", ["A", "B", "C", "none"])
@pytest.mark.parametrize("size, steps", [(1, 2), (1, 5), (2, 5), (4, 9)])
def test_a_matrix_that_stands_for_many_has_the_gradient_of_all(
    size: int, steps: int, constant: str, systems: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all steps and systems, though a tile may have one of each."""
    monkeypatch.setattr(varying_tiles, "CACHE", 1)
    monkeypatch.setattr(varying_tiles, "WIDE", 1)
    shapes = {"A": (4,), "B": (4, 2), "C": (3, 4)}
    given = [
        torch.rand(*([] if name == constant else [steps]), *shape, generator=generator(seed))
        for seed, (name, shape) in enumerate(shapes.items())
    ]
    inputs = torch.rand(systems, steps, 2, generator=generator(7))
    found = []
    for executor in (linrec.Chunked(size), linrec.Recurrent()):
        leaves = [each.double().requires_grad_() for each in given]
        gates = leaves[0].expand(steps, 4)
        recurrence = linrec.LinearRecurrence(
            linrec.Diagonal(gates), leaves[1], leaves[2], time_varying=True
        )
        result = linrec.run(recurrence, inputs.double(), executor=executor)
        total = result.outputs.square().sum() + result.final_state.square().sum()
        found.append(torch.autograd.grad(total, leaves))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [0, 1])
def test_vmap(rank: int) -> None:
    given, run = parts(rank, "real", 9)
    many = torch.stack([given[0], 2 * given[0]])
    for axes in ((0, *[None] * (len(given) - 1)), (0,) * len(given)):
        stacked = [many if i == 0 else torch.stack([each] * 2) for i, each in enumerate(given)]
        mapped = [
            each if axis == 0 else one for each, axis, one in zip(stacked, axes, given, strict=True)
        ]
        got = torch.vmap(run, in_dims=axes)(*mapped)[0]
        alone = torch.stack([run(each, *given[1:])[0] for each in many])
        torch.testing.assert_close(got, alone)
        grads = torch.vmap(torch.func.grad(lambda *x: run(*x)[0].square().sum()), in_dims=axes)(
            *mapped
        )
        one = torch.func.grad(lambda *x: run(*x)[0].square().sum())
        torch.testing.assert_close(grads, torch.stack([one(each, *given[1:]) for each in many]))


@pytest.mark.parametrize("rank", [0, 1])
def test_compiled_graph(rank: int) -> None:
    given, run = parts(rank, "real", 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(run, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*given), run(*given))


def test_states_between_chunks_alone_are_kept_for_a_gradient() -> None:
    recurrence = system("real", 512, n=16, copies=16)
    inputs = case(recurrence, 512)[0].requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        linrec.run(recurrence, inputs, executor=linrec.Chunked())
    unique = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in kept}
    given = [inputs, *recurrence.leaves().values()]
    assert sum(unique.values()) <= 2 * sum(each.untyped_storage().nbytes() for each in given)


def test_what_is_neither_is_refused() -> None:
    recurrence = linrec.LinearRecurrence(normal(4, 3, 3), time_varying=True)
    with pytest.raises(ValueError, match="diagonal plus low rank"):
        linrec.run(recurrence, normal(4, 3), executor=linrec.Chunked())


def plain_attention(a: Tensor, k: Tensor, q: Tensor, v: Tensor) -> Tensor:
    state, outputs = torch.zeros(*k.shape[:-2], k.shape[-1], v.shape[-1], dtype=v.dtype), []
    for now, key, query, value in zip(*(x.unbind(-2) for x in (a, k, q, v)), strict=True):
        state = state * now.unsqueeze(-1) + key.unsqueeze(-1) * value.unsqueeze(-2)
        outputs.append(query.unsqueeze(-2) @ state)
    return torch.cat(outputs, -2)


def test_gated_linear_attention_agrees_with_its_loop() -> None:
    """Of 2 sequences and 4 heads, 512 steps, 32 by 32 states."""
    a = torch.rand(2, 4, 512, 32, generator=torch.Generator().manual_seed(0))
    k, q, v = (normal(2, 4, 512, 32, seed=seed, dtype=torch.float32) for seed in (1, 2, 3))
    recurrence = linrec.LinearRecurrence(
        linrec.Diagonal(a), k.unsqueeze(-1), q.unsqueeze(-2), time_varying=True, copies=32
    )
    assert linrec.Auto(rates=CPU).select(recurrence, 512, (2, 4)) == linrec.Chunked()
    got = linrec.run(recurrence, v).outputs
    true = plain_attention(*(each.double() for each in (a, k, q, v)))
    torch.testing.assert_close(got.double(), true, rtol=0, atol=1e-4)
