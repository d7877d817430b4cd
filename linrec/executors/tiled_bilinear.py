"""Bilinear products with a plan's tensors, tiled to fit the caches, and their common gradient."""

# pyright: reportIncompatibleMethodOverride=false
# (`vmap` has our arguments in place of torch's `*args`.)

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from linrec._tensors.annotated import apply
from linrec._tensors.autograd import is_unwatched, with_signature
from linrec._tensors.full_precision import full_precision
from linrec._tensors.huge_pages import empty
from linrec._tensors.known_values import has_values

Tile = tuple[slice, slice]


class BilinearOp(ABC):
    """A product that is linear in a constant and in its factors: a dataclass without tensors.

    Factors are `(units, copies, …)` and the product is `(units, copies, steps, p)`; units and
    copies do not mix.
    """

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """The steps and outputs of a unit."""

    @property
    @abstractmethod
    def tile_size(self) -> int:
        """Units per tile, so that intermediates of one copy fit in cache."""

    @abstractmethod
    def forward(self, constant: Tensor, *factors: Tensor) -> Tensor:
        """Multiply factors by the constant, in differentiable operations."""

    def forward_out(self, target: Tensor, constant: Tensor, *factors: Tensor) -> None:
        """Write the product into a part of a result, outside of autograd."""
        target.copy_(self.forward(constant, *factors))

    @abstractmethod
    def adjoint(self, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Multiply by the conjugate transpose, ⟨g, forward(x)⟩ = Σ ⟨adjoint(g), x⟩."""

    def adjoint_now(self, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Multiply as `adjoint` does, outside of autograd."""
        return self.adjoint(constant, gradient)

    @abstractmethod
    def grad_constant(self, gradient: Tensor, *factors: Tensor) -> Tensor:
        """Compute the gradient in the constant, summed over units and copies."""

    def grad_constant_now(self, gradient: Tensor, *factors: Tensor) -> Tensor:
        """Compute what `grad_constant` does, outside of autograd."""
        return self.grad_constant(gradient, *factors)


class Direction(Enum):
    """The three products of a bilinear map y = c x; the derivatives of each are the two others.

    Their two sides are (c; x), (c; ȳ) and (ȳ; x).
    """

    FORWARD = "c x"
    ADJOINT = "c* ȳ"
    CONSTANT = "ȳ x*"


def multiply(product: BilinearOp, constant: Tensor, *factors: Tensor) -> Tensor:
    """Compute a product, differentiable any number of times.

    Its memory has the order (units, steps, copies, p) in which outputs are returned.
    """
    if torch.compiler.is_compiling():
        return product.forward(constant, *factors)
    return compute(product, Direction.FORWARD, constant, *factors)


def compute(product: BilinearOp, way: Direction, *sides: Tensor) -> Any:
    """Compute one of the three products, differentiable any number of times."""
    if is_unwatched(*sides):
        return Multiply.forward(product, way, *sides)
    return apply(Multiply, product, way, *sides)


@with_signature
class Multiply(torch.autograd.Function):
    """A bilinear map, whose derivatives are its adjoints, whose derivatives are the map.

    Autograd cannot differentiate writing a part of a result. It would keep all parts to join them,
    and pass over the whole result once per part in the backward pass. The adjoints are products of
    the same kind, and are written in parts too.
    """

    @staticmethod
    def forward(product: BilinearOp, way: Direction, *sides: Tensor) -> Any:
        """Compute one of the three products; gradients too keep all their digits."""
        with full_precision(sides[0]):
            return RUN[way](product, *sides)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save the sides that derivatives need: all of them for a forward derivative."""
        ctx.product, ctx.way, first, *second = inputs
        _, _, needs_first, *needs_second = ctx.needs_input_grad
        kept = [side if needs_first else None for side in second]
        ctx.save_for_backward(first if any(needs_second) else None, *kept)
        ctx.save_for_forward(first, *second)

    @staticmethod
    def backward(ctx: Any, *moved: Tensor) -> tuple[Any, ...]:
        """Compute the gradients in both sides."""
        first, *second = ctx.saved_tensors
        _, _, needs_first, *needs_second = ctx.needs_input_grad
        to_first, to_second = None, [None] * len(needs_second)
        if ctx.way is Direction.FORWARD:
            if needs_first:
                to_first = compute(ctx.product, Direction.CONSTANT, moved[0], *second)
            if any(needs_second):
                to_second = compute(ctx.product, Direction.ADJOINT, first, moved[0])
        elif ctx.way is Direction.ADJOINT:
            if needs_first:
                to_first = compute(ctx.product, Direction.CONSTANT, second[0], *moved)
            if any(needs_second):
                to_second = [compute(ctx.product, Direction.FORWARD, first, *moved)]
        else:
            if needs_first:
                to_first = compute(ctx.product, Direction.FORWARD, moved[0], *second)
            if any(needs_second):
                to_second = compute(ctx.product, Direction.ADJOINT, moved[0], first)
        return None, None, to_first, *to_second

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Add the derivatives in each of the two sides."""
        first, *second = ctx.saved_tensors
        to_first, *to_second = tangents[2:]  # zeros, not None, for constant arguments
        moved = compute(ctx.product, ctx.way, first, *to_second)
        turned = compute(ctx.product, ctx.way, to_first, *second)
        if ctx.way is Direction.ADJOINT:
            return tuple(map(torch.add, moved, turned))
        return moved + turned

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], product: BilinearOp, way: Direction, *sides: Tensor
    ) -> tuple[Any, Any]:
        """Treat a mapped axis of factors as units; map over a constant by torch's own
        operations."""
        if in_dims[2] is not None or way is Direction.CONSTANT:
            mapped = torch.vmap(plain(product, way), in_dims=in_dims[2:])(*sides)
            return mapped, (0,) * len(mapped) if way is Direction.ADJOINT else 0
        constant, *factors = sides
        units = [
            factor.expand(info.batch_size, *factor.shape)
            if axis is None
            else factor.movedim(axis, 0)
            for factor, axis in zip(factors, in_dims[3:], strict=True)
        ]
        sizes = (info.batch_size, -1)
        results = compute(product, way, constant, *(factor.flatten(0, 1) for factor in units))
        if way is Direction.ADJOINT:
            return tuple(r.unflatten(0, sizes) for r in results), (0,) * len(results)
        return results.unflatten(0, sizes), 0


def plain(product: BilinearOp, way: Direction) -> Callable[..., Any]:
    """Return a product in torch's own operations."""
    ways = {
        Direction.FORWARD: product.forward,
        Direction.ADJOINT: product.adjoint,
        Direction.CONSTANT: product.grad_constant,
    }
    return ways[way]


def run_forward(product: BilinearOp, constant: Tensor, *factors: Tensor) -> Tensor:
    """Compute a product in tiles."""
    if not has_values(constant, *factors):
        return product.forward(constant, *factors)
    units, copies = factors[0].shape[:2]
    if factors[0].device.type != "cpu":  # the caches of other devices are theirs to manage
        return as_base(product.forward(constant, *factors))
    steps, p = product.size
    result = empty(factors[0], units, steps, copies, p).transpose(1, 2)
    for tile in tiles(units, copies, product.tile_size):
        product.forward_out(result[tile], constant, *(factor[tile] for factor in factors))
    return as_base(result)


def as_base(result: Tensor) -> Tensor:
    """Make a tensor that is not a view from the memory of a view, in the same order.

    Autograd allows no writing into a view that was made inside a `Function`: an activation in place
    would fail.
    """
    if not result._is_view():
        return result
    return result.new_empty(0).set_(result)  # type: ignore[arg-type]  # torch's stub knows storages


def run_adjoint(product: BilinearOp, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Compute the adjoint of a product in tiles."""
    units, copies = gradient.shape[:2]
    if gradient.device.type != "cpu" or not has_values(constant, gradient):
        return product.adjoint(constant, gradient)
    constant = constant.conj().resolve_conj().conj()  # conjugated once, not in every tile
    results = None
    for tile in tiles(units, copies, product.tile_size):
        parts = product.adjoint_now(constant, gradient[tile])
        if results is None:
            shapes = [(units, copies, *part.shape[2:]) for part in parts]
            results = tuple(gradient.new_empty(shape) for shape in shapes)
        for result, part in zip(results, parts, strict=True):
            result[tile] = part
    assert results is not None, "there is one unit or more"
    return results


def run_constant(product: BilinearOp, gradient: Tensor, *factors: Tensor) -> Tensor:
    """Sum the tiles' gradients in the constant."""
    units, copies = gradient.shape[:2]
    if gradient.device.type != "cpu" or not has_values(gradient, *factors):
        return product.grad_constant(gradient, *factors)
    parts = (
        product.grad_constant_now(gradient[tile], *(factor[tile] for factor in factors))
        for tile in tiles(units, copies, product.tile_size)
    )
    total = next(parts)
    for part in parts:
        total += part
    return total


# (Batched gradients, `is_grads_batched`, arrive here as tensors without memory, whose parts cannot
# be written.)
RUN = {
    Direction.FORWARD: run_forward,
    Direction.ADJOINT: run_adjoint,
    Direction.CONSTANT: run_constant,
}


def tiles(units: int, copies: int, tile_size: int) -> Iterator[Tile]:
    """Cut units and copies into tiles of about `tile_size`: whole units if a unit is small."""
    wide, deep = max(tile_size // copies, 1), min(tile_size, copies)
    for unit in range(0, units, wide):
        for copy in range(0, copies, deep):
            yield slice(unit, unit + wide), slice(copy, copy + deep)
