"""Products in tiles: equal to the whole product, and differentiable in all of torch's ways."""

import dataclasses
import os
from functools import partial

import pytest
import torch
from torch import Tensor

from linrec.executors import chunked, fft
from linrec.executors import tiled_bilinear as multiply_file
from linrec.executors.chunked import ChunkProduct
from linrec.executors.fft import Convolution
from linrec.executors.tiled_bilinear import BilinearOp, Direction, compute, multiply, tiles
from tests.cases import normal

STEPS, M, P, N = 5, 2, 3, 4


def convolution(dtype: torch.dtype, m: int = M) -> tuple[BilinearOp, tuple[Tensor, ...]]:
    kernel = normal(m, P, STEPS, seed=1, dtype=dtype)
    spectrum = fft.transform(kernel, fft.fast_length(2 * STEPS - 1))
    return Convolution(STEPS, m, P), (spectrum, normal(3, 2, STEPS, m, seed=2, dtype=dtype))


def chunks(dtype: torch.dtype, steps: int, *axes: int) -> tuple[BilinearOp, tuple[Tensor, ...]]:
    block = normal(2 * M + N, 2 * P, seed=1, dtype=dtype)
    rows = normal(3, 2, *axes, 2 * M, seed=2, dtype=dtype)
    return ChunkProduct(steps, 2, 2 * M, P), (block, rows, normal(3, 2, *axes, N, dtype=dtype))


PRODUCTS = {
    "convolution": convolution,
    "convolution of one input": lambda dtype: convolution(dtype, 1),
    "chunks": lambda dtype: chunks(dtype, 2),
    "chunks cut short": lambda dtype: chunks(dtype, 5, 3),
}
both = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
each = pytest.mark.parametrize("name", PRODUCTS)


@pytest.fixture(params=[1, 4, 1 << 20], ids=["one", "few", "all"])
def cache(request, monkeypatch) -> None:
    """Caches that hold one tile's numbers, a few, or all."""
    for module in (chunked, fft):
        monkeypatch.setattr(module, "CACHE", request.param * 12)
    monkeypatch.setattr(fft, "BLOCK", request.param * 12)
    monkeypatch.setattr(chunked, "FEW_ROWS", request.param)


@each
@both
def test_tiles_are_the_whole(name: str, dtype: torch.dtype, cache: None) -> None:
    product, (constant, *factors) = PRODUCTS[name](dtype)
    got, expected = multiply(product, constant, *factors), product.forward(constant, *factors)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
    assert got.transpose(1, 2).is_contiguous()
    back = compute(product, Direction.ADJOINT, constant, got)
    for mine, theirs, factor in zip(back, product.adjoint(constant, got), factors, strict=True):
        assert mine.shape == factor.shape
        torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)
    mine = compute(product, Direction.CONSTANT, got, *factors)
    assert mine.shape == constant.shape
    torch.testing.assert_close(mine, product.grad_constant(got, *factors), rtol=1e-13, atol=1e-12)


@each
@both
def test_the_adjoint_is_the_adjoint(name: str, dtype: torch.dtype) -> None:
    product, (constant, *factors) = PRODUCTS[name](dtype)
    outputs = product.forward(constant, *factors)
    other = normal(*outputs.shape, seed=9, dtype=dtype)
    back = product.adjoint(constant, other)
    there = torch.vdot(other.flatten(), outputs.flatten())
    here = sum(torch.vdot(b.flatten(), f.flatten()) for b, f in zip(back, factors, strict=True))
    torch.testing.assert_close(here, there, rtol=1e-12, atol=1e-12)


def with_rest(call, rest: tuple[Tensor, ...], constant: Tensor) -> Tensor:
    return call(constant, *rest)


@each
@both
@pytest.mark.sampled(2)
def test_derivatives(name: str, dtype: torch.dtype, monkeypatch) -> None:
    monkeypatch.setattr(fft, "CACHE", 60)
    monkeypatch.setattr(fft, "BLOCK", 20)
    product, (constant, *factors) = PRODUCTS[name](dtype)
    factors = [factor[:2] for factor in factors]
    gradient = normal(*product.forward(constant, *factors).shape, seed=9, dtype=dtype)
    sides = {
        Direction.FORWARD: (constant, *factors),
        Direction.ADJOINT: (constant, gradient),
        Direction.CONSTANT: (gradient, *factors),
    }
    for way, tensors in sides.items():
        inputs = tuple(tensor.clone().requires_grad_() for tensor in tensors)
        call = partial(compute, product, way)
        # Along drawn directions: one number at a time, second derivatives would take a minute.
        fast = dtype.is_complex or "LINREC_FULL" not in os.environ
        assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True, fast_mode=fast)
        assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)
        alone = partial(with_rest, call, inputs[1:])
        assert torch.autograd.gradgradcheck(alone, inputs[:1], fast_mode=True)


@each
def test_only_what_a_derivative_needs_is_kept(name: str) -> None:
    """Of a frozen product nothing that has an axis of time."""
    product, (constant, *factors) = PRODUCTS[name](torch.float64)
    for trained in (0, 1):
        kept: list[Tensor] = []
        given = [side.clone() for side in (constant, *factors)]
        for side in given[:1] if trained else given[1:]:
            side.requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t, k=kept: k.append(t), lambda t: t):
            multiply(product, given[0], *given[1:])
        expected = given[1:] if trained else given[:1]
        assert len(kept) == len(expected)
        assert all(map(torch.equal, kept, expected))


@each
def test_maps_over_either_side(name: str) -> None:
    product, (constant, *factors) = PRODUCTS[name](torch.float64)
    constants = torch.stack([constant, 2 * constant], -1)
    one = product.forward(constant, *factors)

    def loss(constant: Tensor, *factors: Tensor) -> Tensor:
        return multiply(product, constant, *factors).square().sum()

    over_constants = torch.vmap(lambda c: multiply(product, c, *factors), in_dims=-1)(constants)
    torch.testing.assert_close(over_constants[1], 2 * one)
    doubled = [torch.stack([factor, 3 * factor], 1) for factor in factors]
    over_factors = torch.vmap(lambda *f: multiply(product, constant, *f), in_dims=1)(*doubled)  # type: ignore[arg-type]  # tensors
    torch.testing.assert_close(over_factors[1], 3 * one)
    # Gradients of each sample, in the constant and in a factor.
    for argument in (0, 1):
        gradient = torch.func.grad(loss, argnums=argument)
        mapped = torch.vmap(lambda c, g=gradient: g(c, *factors), in_dims=-1)(constants)
        alone = [gradient(c, *factors) for c in constants.unbind(-1)]
        torch.testing.assert_close(mapped, torch.stack(alone))


@each
def test_forward_derivatives_in_the_constant(name: str) -> None:
    product, (constant, *factors) = PRODUCTS[name](torch.float64)
    way = lambda c: multiply(product, c, *factors)  # noqa: E731  # one argument of it
    tangent = torch.func.jvp(way, (constant,), (3 * constant,))[1]
    torch.testing.assert_close(tangent, 3 * product.forward(constant, *factors))


@each
def test_forward_derivatives_of_the_adjoint(name: str) -> None:
    """It is linear in either side, and so is its derivative."""
    product, (constant, *factors) = PRODUCTS[name](torch.float64)
    gradient = normal(*product.forward(constant, *factors).shape, seed=9)
    way = lambda c, g: compute(product, Direction.ADJOINT, c, g)  # noqa: E731  # said once for all three
    once = way(constant, gradient)
    both = torch.func.jvp(way, (constant, gradient), (3 * constant, 2 * gradient))[1]
    left = torch.func.jvp(lambda c: way(c, gradient), (constant,), (3 * constant,))[1]
    right = torch.func.jvp(lambda g: way(constant, g), (gradient,), (2 * gradient,))[1]
    for times, moved in ((5, both), (3, left), (2, right)):
        for mine, theirs in zip(moved, once, strict=True):
            torch.testing.assert_close(mine, times * theirs)


@each
def test_maps_over_the_adjoint(name: str) -> None:
    product, (constant, *factors) = PRODUCTS[name](torch.float64)
    gradient = normal(*product.forward(constant, *factors).shape, seed=9)
    once = product.adjoint(constant, gradient)
    gradients = torch.stack([gradient, 3 * gradient], 1)
    over = torch.vmap(lambda g: compute(product, Direction.ADJOINT, constant, g), in_dims=1)(
        gradients
    )
    constants = torch.stack([constant, 2 * constant], -1)
    across = torch.vmap(lambda c: compute(product, Direction.ADJOINT, c, gradient), in_dims=-1)(
        constants
    )
    for times, mapped in ((3, over), (2, across)):
        for mine, theirs in zip(mapped, once, strict=True):
            assert mine.shape == (2, *theirs.shape)
            torch.testing.assert_close(mine[1], times * theirs)


@each
def test_maps_over_what_comes_back_to_the_constant(name: str) -> None:
    product, (constant, *factors) = PRODUCTS[name](torch.float64)
    gradient = normal(*product.forward(constant, *factors).shape, seed=9)
    once = product.grad_constant(gradient, *factors)
    way = lambda g: compute(product, Direction.CONSTANT, g, *factors)  # noqa: E731  # said once for both
    mapped = torch.vmap(way, in_dims=1)(torch.stack([gradient, 3 * gradient], 1))
    torch.testing.assert_close(mapped, torch.stack([once, 3 * once]))
    tangent = torch.func.jvp(way, (gradient,), (2 * gradient,))[1]
    torch.testing.assert_close(tangent, 2 * once)


@pytest.mark.parametrize("moved", [0, 1])
def test_one_of_two_factors_is_mapped_or_moved(moved: int) -> None:
    product, (constant, *factors) = PRODUCTS["chunks"](torch.float64)

    def call(factor: Tensor) -> Tensor:
        given = [factor if place == moved else each for place, each in enumerate(factors)]
        return multiply(product, constant, *given)

    alone = [each if place == moved else 0 * each for place, each in enumerate(factors)]
    expected = product.forward(constant, *alone)
    tangent = torch.func.jvp(call, (factors[moved],), (3 * factors[moved],))[1]
    torch.testing.assert_close(tangent, 3 * expected)
    mapped = torch.vmap(call)(torch.stack([factors[moved], 3 * factors[moved]]))
    torch.testing.assert_close(mapped[1], call(factors[moved]) + 2 * expected)


@dataclasses.dataclass(frozen=True)
class Noted(Convolution):  # type: ignore[misc]  # final, but not for this test
    """Notes which tiles are computed."""

    tiles: list = dataclasses.field(default_factory=list, compare=False)

    def forward_out(self, target: Tensor, constant: Tensor, *factors: Tensor) -> None:
        self.tiles.append(factors[0].shape[:2])
        super().forward_out(target, constant, *factors)

    def adjoint_now(self, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        self.tiles.append(gradient.shape[:2])
        return super().adjoint_now(constant, gradient)

    def grad_constant_now(self, gradient: Tensor, *factors: Tensor) -> Tensor:
        self.tiles.append(gradient.shape[:2])
        return super().grad_constant_now(gradient, *factors)


def test_a_cacheful_is_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sequences of 10 numbers by three outputs to a cache of 60."""
    monkeypatch.setattr(fft, "CACHE", 60)
    product, (constant, inputs) = Noted(STEPS, M, P), convolution(torch.float64)[1]
    outputs = multiply(product, constant, inputs)
    assert product.tiles == [(1, 2)] * 3
    compute(product, Direction.ADJOINT, constant, outputs)
    assert product.tiles[3:] == [(1, 2)] * 3
    compute(product, Direction.CONSTANT, outputs, inputs)
    assert product.tiles[6:] == [(1, 2)] * 3
    torch.vmap(lambda u: multiply(product, constant, u))(torch.stack([inputs, inputs]))
    assert product.tiles[9:] == [(1, 2)] * 6


@pytest.mark.parametrize("rows", [0, 2, 4, 1000])
@pytest.mark.parametrize("p, most", [(3, 60), (3, 20), (7, 30), (4, 1), (1, 60), (468, 1 << 17)])
def test_blocks_are_all_outputs_once(
    p: int, most: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks have a number of rows that is worth a call, and fit a cache all the same."""
    cache, size = 60, fft.fast_length(2 * STEPS - 1)
    monkeypatch.setattr(fft, "BLOCK", most)
    monkeypatch.setattr(fft, "ROWS", rows)
    monkeypatch.setattr(fft, "CACHE", cache)
    counted, largest = torch.zeros(3, 2, p), max(most // size, min(rows, cache // size), 1)
    for some, tile in Convolution(STEPS, M, p).blocks(3, 2):
        counted[tile][..., some] += 1
        assert counted[tile][..., some].numel() <= largest
    assert (counted == 1).all()


def test_a_cacheful_of_chunks() -> None:
    product = ChunkProduct(steps=4, chunk=4, inputs=8, outputs=16)
    assert product.tile_size == chunked.CACHE // 64
    assert dataclasses.replace(product, outputs=1 << 20).tile_size == chunked.FEW_ROWS
    assert dataclasses.replace(product, steps=12).tile_size == chunked.CACHE // 64 * 4 // 12
    assert dataclasses.replace(product, steps=1 << 30).tile_size == 1


@each
def test_other_devices_take_everything_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiply_file, "tiles", None)
    product, sides = PRODUCTS[name](torch.float32)
    constant, *factors = (side.to("meta") for side in sides)
    outputs = multiply(product, constant, *factors)
    assert outputs.shape == product.forward(*sides).shape
    back = compute(product, Direction.ADJOINT, constant, outputs)
    assert [each.shape for each in back] == [factor.shape for factor in factors]
    assert compute(product, Direction.CONSTANT, outputs, *factors).shape == constant.shape


@pytest.mark.parametrize("size", [100, 256, 300, 512])
def test_rows_are_not_a_power_of_two_apart(size: int) -> None:
    """Else reading across them would use few places of the caches."""
    signals = normal(3, size - 10)
    longer = fft.pad_rows(signals, size)
    torch.testing.assert_close(longer[:, : size - 10], signals, rtol=0, atol=0)
    assert longer.shape == (3, size) and not longer[:, size - 10 :].any()
    assert longer.stride(0) == (size if size % 256 else size + 8)


@pytest.mark.parametrize("units, copies, size", [(1, 1, 1), (7, 1, 3), (3, 5, 2), (3, 5, 11)])
def test_tiles_cover_everything_once(units: int, copies: int, size: int) -> None:
    covered = torch.zeros(units, copies)
    for tile in tiles(units, copies, size):
        assert 0 < covered[tile].numel() <= size
        covered[tile] += 1
    assert bool((covered == 1).all())


@each
def test_products_are_values(name: str) -> None:
    product, (constant, *_) = PRODUCTS[name](torch.float64)
    assert product == dataclasses.replace(product)  # type: ignore[type-var]  # all are dataclasses
    assert hash(product) == hash(dataclasses.replace(product))  # type: ignore[type-var]  # as above
    assert constant.numel()
