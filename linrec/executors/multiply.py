"""Products with what a plan holds: written a cacheful at a time, with one gradient for all."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from linrec._memory import empty

Tile = tuple[slice, slice]


class Product(ABC):
    """A product that is linear in its factors: a frozen dataclass without tensors.

    Factors are `(units, copies, …)` and the product is `(units, copies, steps, p)`; units and
    copies do not mix.
    """

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """The steps and outputs of a unit."""

    @property
    @abstractmethod
    def at_a_time(self) -> int:
        """How many units, of one copy, keep what is computed of them within the caches."""

    @abstractmethod
    def of(self, constant: Tensor, *factors: Tensor) -> Tensor:
        """Multiply factors by what the plan holds, in differentiable operations."""

    def into(self, target: Tensor, constant: Tensor, *factors: Tensor) -> None:
        """Write the product into a part of a result, outside of autograd."""
        target.copy_(self.of(constant, *factors))

    @abstractmethod
    def adjoint(self, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Multiply by the conjugate transpose, `⟨gradient, of(x)⟩ = Σ ⟨adjoint(gradient), x⟩`."""


def multiply(product: Product, constant: Tensor, *factors: Tensor) -> Tensor:
    """Compute a product, differentiable any number of times.

    Its memory lies in the order (units, steps, copies, p), in which outputs are handed back. Where
    `constant` is trained, or compiled, the derivatives are those of torch's own operations.
    """
    if torch.compiler.is_compiling() or constant.requires_grad:
        return product.of(constant, *factors)
    return Multiply.apply(product, False, constant, *factors)  # type: ignore[return-value]  # untyped


def multiply_adjoint(product: Product, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Compute the adjoint of a product, differentiable any number of times."""
    return Multiply.apply(product, True, constant, gradient)  # type: ignore[return-value]  # untyped


class Multiply(torch.autograd.Function):
    """A linear map whose gradient is its adjoint, whose gradient is the map.

    Autograd has no derivative of writing a part of a result. It would keep all parts to put them
    together, and walk through all of the result once for each of them on the way back. The adjoint
    is a product of the same kind, and is written in parts as well.
    """

    @staticmethod
    def forward(product: Product, adjoint: bool, constant: Tensor, *factors: Tensor) -> Any:
        """Run the map in one of its two directions."""
        if adjoint:
            return run_adjoint(product, constant, *factors)
        return run_forward(product, constant, factors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing with an axis of time, but for a forward derivative."""
        ctx.product, ctx.adjoint, *tensors = inputs
        ctx.save_for_backward(tensors[0])
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Run the map in the other direction."""
        (constant,) = ctx.saved_tensors
        if ctx.adjoint:
            return None, None, None, multiply(ctx.product, constant, *gradients)
        return None, None, None, *multiply_adjoint(ctx.product, constant, *gradients)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Move one of the two sides at a time."""
        constant, *factors = ctx.saved_tensors
        to_constant, *to_factors = tangents[2:]  # zeros, not None, where nothing moves
        way = multiply_adjoint if ctx.adjoint else multiply
        moved = way(ctx.product, constant, *to_factors)
        turned = way(ctx.product, to_constant, *factors)
        if not ctx.adjoint:
            return torch.add(moved, turned)  # type: ignore[arg-type]  # single tensors
        return tuple(first + second for first, second in zip(moved, turned, strict=True))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], product: Product, adjoint: bool, *tensors: Tensor
    ) -> tuple[Any, Any]:
        """Count the mapped axis of factors among their units; map a mapped constant plainly."""
        constant, *factors = tensors
        if in_dims[2] is not None:
            way: Any = product.adjoint if adjoint else product.of
            mapped = torch.vmap(way, in_dims=in_dims[2:])(*tensors)
            return mapped, (0,) * len(mapped) if adjoint else 0
        units = [
            factor.expand(info.batch_size, *factor.shape)
            if axis is None
            else factor.movedim(axis, 0)
            for factor, axis in zip(factors, in_dims[3:], strict=True)
        ]
        sizes = (info.batch_size, -1)
        way = multiply_adjoint if adjoint else multiply
        results = way(product, constant, *(factor.flatten(0, 1) for factor in units))
        if adjoint:
            return tuple(r.unflatten(0, sizes) for r in results), (0,) * len(results)
        return results.unflatten(0, sizes), 0  # type: ignore[union-attr]  # a single tensor


def run_forward(product: Product, constant: Tensor, factors: tuple[Tensor, ...]) -> Tensor:
    """Compute a product in tiles."""
    units, copies = factors[0].shape[:2]
    if factors[0].device.type != "cpu":  # the caches of other devices are theirs to manage
        return product.of(constant, *factors)
    steps, p = product.size
    result = empty(factors[0], units, steps, copies, p).transpose(1, 2)
    for tile in tiles(units, copies, product.at_a_time):
        product.into(result[tile], constant, *(factor[tile] for factor in factors))
    return result


def run_adjoint(product: Product, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Compute the adjoint of a product in tiles."""
    units, copies = gradient.shape[:2]
    if gradient.device.type != "cpu":
        return product.adjoint(constant, gradient)
    results = None
    for tile in tiles(units, copies, product.at_a_time):
        parts = product.adjoint(constant, gradient[tile])
        if results is None:
            shapes = [(units, copies, *part.shape[2:]) for part in parts]
            results = tuple(gradient.new_empty(shape) for shape in shapes)
        for result, part in zip(results, parts, strict=True):
            result[tile] = part
    assert results is not None, "there is one unit or more"
    return results


def tiles(units: int, copies: int, at_a_time: int) -> Iterator[Tile]:
    """Cut units and copies into parts of about a size: whole units if a unit is small."""
    wide, deep = max(at_a_time // copies, 1), min(at_a_time, copies)
    for unit in range(0, units, wide):
        for copy in range(0, copies, deep):
            yield slice(unit, unit + wide), slice(copy, copy + deep)
