"""One tensor as both U and B of a delta rule: two matrices a chunk, and the same gradient."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import linrec
from linrec.executors.varying import chunks as varying_chunks
from linrec.executors.varying import tile_by_tile as varying_tiles
from tests.cases import normal

STEPS, STATES = 13, 4
DTYPES = (torch.float64, torch.complex128)
# Inputs, outputs and copies.
SIZES = {"one": (1, 1, 1), "copies": (1, 2, 3), "rank 2": (2, 1, 2)}

Leaves = list[Tensor]


def leaves(size: str, shared: bool, dtype: torch.dtype = torch.float64, batch: int = 2) -> Leaves:
    """Draw inputs, an initial state, gates, B, C and V."""
    m, p, copies = SIZES[size]
    shape, n = (batch, STEPS), STATES
    return [
        normal(*shape, m * copies, seed=1, dtype=dtype),
        normal(batch, n * copies, seed=2, dtype=dtype),
        torch.sigmoid(normal(*shape, 1 if shared else n)).to(dtype),
        normal(*shape, n, m, seed=3, dtype=dtype),
        normal(*shape, p, n, seed=4, dtype=dtype),
        -normalize(normal(*shape, n, m, seed=5, dtype=dtype), dim=-2),
    ]


def run(
    size: str, given: Leaves, executor: linrec.Executor, left: Callable[[Tensor], Tensor]
) -> linrec.Result:
    """Run the delta rule; `left` makes U of B."""
    inputs, state, gates, B, C, right = given
    A = linrec.DiagonalPlusLowRank(gates.expand(*gates.shape[:-1], STATES), left(B), right)
    recurrence = linrec.LinearRecurrence(A, B, C, time_varying=True, copies=SIZES[size][2])
    return linrec.run(recurrence, inputs, state, executor=executor)


def tie(B: Tensor) -> Tensor:
    """The same tensor."""
    return B


@contextmanager
def seen() -> Iterator[list[bool]]:
    """Note of each run in chunks whether U is B."""
    noted: list[bool] = []
    make = varying_tiles.Tiles.of

    def of(*given, **named):
        tiles = make(*given, **named)
        noted.append(tiles.tied)
        return tiles

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varying_chunks.Tiles, "of", staticmethod(of))
        yield noted


def backwards(result: linrec.Result, given: Leaves) -> tuple[Tensor, ...]:
    """Compute the gradients of a drawn combination of all results."""
    drawn = [each * normal(*each.shape, seed=9, dtype=each.dtype) for each in result]
    return torch.autograd.grad(torch.stack([each.real.sum() for each in drawn]).sum(), given)


# U of B: itself, cut off from gradients, with another gradient in the same memory, and a copy.
LEFTS = {
    "tied": tie,
    "detached": lambda B: B.detach(),
    "a view": lambda B: B.view_as(B),
    "a copy": lambda B: 1.0 * B,
}


@pytest.mark.parametrize("tile", [1, 1 << 17])
@pytest.mark.parametrize("left", LEFTS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.sampled(3)
def test_values_and_gradients_are_those_of_the_loop(
    dtype: torch.dtype, size: str, shared: bool, left: str, tile: int, monkeypatch
) -> None:
    """In double precision: sums of some hundred products of numbers of about 1."""
    monkeypatch.setattr(varying_tiles, "CACHE", tile)
    monkeypatch.setattr(varying_tiles, "WIDE", 1)
    monkeypatch.setattr(varying_tiles, "FEWEST", 1)
    given = [each.requires_grad_() for each in leaves(size, shared, dtype)]
    found = []
    for executor in (linrec.Chunked(4), linrec.Recurrent()):
        with seen() as noted:
            result = run(size, given, executor, LEFTS[left])
        assert noted == ([left == "tied"] if executor == linrec.Chunked(4) else [])
        found.append([*result, *backwards(result, given)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shared", [False, True])
def test_derivatives(shared: bool) -> None:
    given = [each.requires_grad_() for each in leaves("rank 2", shared, batch=1)]

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(run("rank 2", list(tensors), linrec.Chunked(4), tie))

    assert torch.autograd.gradcheck(
        outputs, given, check_forward_ad=True, check_batched_grad=True, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(outputs, given, fast_mode=True)
    many = [torch.stack([each, 2 * each]) for each in given]
    mapped = torch.vmap(outputs)(*many)
    apart = outputs(*given), outputs(*(2 * each for each in given))
    alone = [torch.stack(each) for each in zip(*apart, strict=True)]
    for mine, theirs in zip(mapped, alone, strict=True):
        torch.testing.assert_close(mine, theirs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        compiled = torch.compile(outputs, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*given), outputs(*given))


def test_what_a_call_does_to_its_arguments_keeps_them_one() -> None:
    """Casts, copies, resets, lengths, and inputs with more batch axes than the system."""
    inputs, state, gates, B, C, right = leaves("copies", True)
    A = linrec.DiagonalPlusLowRank(gates.expand(*gates.shape[:-1], STATES), B, right)
    recurrence = linrec.LinearRecurrence(A, B, C, time_varying=True, copies=3)
    chunked = linrec.Chunked(4)
    resets = torch.zeros(2, STEPS, dtype=torch.bool)
    resets[:, 5] = True
    lengths = torch.tensor([STEPS, 3])
    calls: dict[str, Callable[[], linrec.Result]] = {
        "plain": lambda: linrec.run(recurrence, inputs, state, executor=chunked),
        "resets": lambda: linrec.run(recurrence, inputs, state, resets=resets, executor=chunked),
        "lengths": lambda: linrec.run(recurrence, inputs, state, lengths=lengths, executor=chunked),
        "wider": lambda: linrec.run(recurrence.to(torch.float32), inputs, executor=chunked),
        "half": lambda: linrec.run(
            recurrence.to(torch.bfloat16), inputs.bfloat16(), executor=chunked
        ),
        "more sequences": lambda: linrec.run(
            recurrence, inputs.expand(3, *inputs.shape), executor=chunked
        ),
        "last": lambda: linrec.final(recurrence, inputs, state, executor=chunked),
    }
    for name, call in calls.items():
        with seen() as noted:
            call()
        assert noted == [True], name


@pytest.mark.parametrize("layer", [linrec.nn.DeltaNet, linrec.nn.GatedDeltaNet])
def test_layers_give_one_tensor(layer) -> None:
    made, inputs = layer(8, 2), torch.randn(2, STEPS, 8)
    recurrence, values = made.recurrence(inputs)
    with seen() as noted:
        linrec.run(recurrence, values, executor=linrec.Chunked())
    assert noted == [True]
