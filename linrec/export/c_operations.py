"""The operations of torch in C: a table of expressions, and functions for longer code."""

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from linrec.export.c_arrays import Array, Operand, Program

aten = torch.ops.aten

# Views have the same numbers in other places; applying the view to the places finds these.
VIEWS = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.expand.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.split_with_sizes.default,
    aten.split.Tensor,
    aten.unbind.int,
    aten.unfold.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.movedim.int,
}
FILLED = {aten.full_like.default, aten.zeros_like.default, aten.ones_like.default}
SAME = {aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}

# x is `{0}`; `F(…)` stands for a function of math.h.
ELEMENTWISE: dict[Any, str] = {
    aten.neg.default: "-{0}",
    aten.abs.default: "F(fabs)({0})",
    aten.relu.default: "{0} < 0 ? 0 : {0}",
    aten.sigmoid.default: "1 / (1 + F(exp)(-{0}))",
    aten.tanh.default: "F(tanh)({0})",
    aten.exp.default: "F(exp)({0})",
    aten.expm1.default: "F(expm1)({0})",
    aten.log.default: "F(log)({0})",
    aten.log1p.default: "F(log1p)({0})",
    aten.sqrt.default: "F(sqrt)({0})",
    aten.rsqrt.default: "1 / F(sqrt)({0})",
    aten.sin.default: "F(sin)({0})",
    aten.cos.default: "F(cos)({0})",
    aten.erf.default: "F(erf)({0})",
    aten.reciprocal.default: "1 / {0}",
    aten.silu.default: "{0} / (1 + F(exp)(-{0}))",
    aten.logical_not.default: "!{0}",
    aten.bitwise_not.default: "!{0}",
    aten.mul.Tensor: "{0} * {1}",
    aten.mul.Scalar: "{0} * {1}",
    aten.div.Tensor: "{0} / {1}",
    aten.div.Scalar: "{0} / {1}",
    aten.pow.Tensor_Scalar: "F(pow)({0}, {1})",
    aten.pow.Tensor_Tensor: "F(pow)({0}, {1})",
    aten.maximum.default: "{0} > {1} ? {0} : {1}",
    aten.minimum.default: "{0} < {1} ? {0} : {1}",
    aten.logical_and.default: "{0} && {1}",
    aten.bitwise_and.Tensor: "{0} && {1}",
    aten.logical_or.default: "{0} || {1}",
    aten.bitwise_or.Tensor: "{0} || {1}",
    aten.where.self: "{0} ? {1} : {2}",
}
for _name, _sign in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    for _overload in ("Tensor", "Scalar"):
        ELEMENTWISE[getattr(getattr(aten, _name), _overload)] = f"{{0}} {_sign} {{1}}"


def elementwise(written: Program, expression: str, arguments: Any, like: Tensor) -> Array:
    """Write an elementwise operation."""
    expression = re.sub(r"F\((\w+)\)", lambda found: written.function(found[1]), expression)
    operands: list[Operand] = []
    for each in arguments[: 1 + max(i for i in range(3) if f"{{{i}}}" in expression)]:
        if isinstance(each, Tensor):
            each = each.item() if each.ndim == 0 else written.constant(each)
        elif isinstance(each, bool | int) and like.dtype.is_floating_point:
            each = float(each)
        operands.append(each)
    return written.elementwise(expression, operands, like)


def write_sum(sign: str) -> Callable[..., Array]:
    """Write x + αy, or x - αy."""

    def write(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
        alpha = options.get("alpha", 1)
        scaled = "{1}" if alpha == 1 else f"{written.number(float(alpha))} * {{1}}"
        return elementwise(written, f"{{0}} {sign} {scaled}", given, like)

    return write


def write_clamp(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write a number between two bounds."""
    found: Array = given[0]
    for bound, sign in zip(given[1:], "<>", strict=False):
        if bound is not None:
            limit = written.number(float(bound))
            expression = f"{{0}} {sign} {limit} ? {limit} : {{0}}"
            found = elementwise(written, expression, [found], like)
    return found


def write_gelu(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write x Φ(x)."""
    half, root = written.number(0.5), written.number(0.5**0.5)
    if options.get("approximate", "none") != "none":
        inner, cubic = written.number((2 / torch.pi) ** 0.5), written.number(0.044715)
        tanh = f"F(tanh)({inner} * ({{0}} + {cubic} * {{0}} * {{0}} * {{0}}))"
        return elementwise(written, f"{half} * {{0}} * (1 + {tanh})", given, like)
    return elementwise(written, f"{half} * {{0}} * (1 + F(erf)({{0}} * {root}))", given, like)


def write_cat(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write arrays one after the other."""
    parts, axis = given[0], (given[1] if len(given) > 1 else options.get("dim", 0))
    target, start = written.new(like.shape, like.dtype), 0
    for part in parts:
        part = written.constant(part) if isinstance(part, Tensor) else part
        size = part.shape[axis]
        written.copy(part, Array(target.name, target.places.narrow(axis, start, size), like.dtype))
        start += size
    return target


def write_product(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write a product of matrices."""
    return written.product(given[0], given[1], None, like)


def write_affine(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write a product of matrices and a sum."""
    if options.get("alpha", 1) != 1 or options.get("beta", 1) != 1:
        raise ValueError("A product with factors beside it is not written in C.")
    return written.product(given[1], given[2], given[0], like)


def write_reduction(start: float, step: str, divided: bool = False) -> Callable[..., Array]:
    """Write a sum, a mean or a maximum over axes."""

    def write(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
        source: Array = given[0]
        axes = given[1] if len(given) > 1 and given[1] else range(len(source.shape))
        found = written.reduce(source, list(axes), written.number(start), step, like)
        if not divided:
            return found
        count = 1
        for axis in axes:
            count *= source.shape[axis]
        return written.elementwise("{0} / {1}", [found, float(count)], like)

    return write


ADD = write_reduction(0.0, "sum += {0};")
MEAN = write_reduction(0.0, "sum += {0};", divided=True)
MAXIMUM = write_reduction(-math.inf, "sum = {0} > sum ? {0} : sum;")


def write_softmax(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write a softmax, without overflow."""
    source, axis = given[0], [given[1]]
    one = like.sum(given[1], keepdim=True)
    most = MAXIMUM(written, [source, axis], {}, one)
    powers = elementwise(written, "F(exp)({0} - {1})", [source, most], like)
    return elementwise(written, "{0} / {1}", [powers, ADD(written, [powers, axis], {}, one)], like)


def write_norm(written: Program, given: Any, options: dict[str, Any], like: Any) -> list[Array]:
    """Write (x - mean) / √(variance + ε), scaled and shifted."""
    source, shape, weight, bias, epsilon = given
    axes = list(range(-len(shape), 0))
    one = like[0].sum(axes, keepdim=True)
    mean = MEAN(written, [source, axes], {}, one)
    centred = elementwise(written, "{0} - {1}", [source, mean], like[0])
    squares = elementwise(written, "{0} * {0}", [centred], like[0])
    variance = MEAN(written, [squares, axes], {}, one)
    root = elementwise(written, "1 / F(sqrt)({0} + {1})", [variance, float(epsilon)], one)
    found = elementwise(written, "{0} * {1}", [centred, root], like[0])
    if weight is not None:
        found = elementwise(written, "{0} * {1}", [found, weight], like[0])
    if bias is not None:
        found = elementwise(written, "{0} + {1}", [found, bias], like[0])
    return [found, mean, root]


def write_batch_norm(
    written: Program, given: Any, options: dict[str, Any], like: Any
) -> list[Array]:
    """Write (x - mean) / √(variance + ε) with constant means and variances."""
    source, weight, bias, mean, variance, _, epsilon = given
    found, shape = source, [1, -1, *[1] * (len(source.shape) - 2)]
    root = elementwise(
        written, "1 / F(sqrt)({0} + {1})", [variance, float(epsilon)], torch.empty(mean.shape)
    )
    for sign, each in (("-", mean), ("*", root), ("*", weight), ("+", bias)):
        if each is not None:
            moved = Array(each.name, each.places.reshape(shape), each.dtype)
            found = elementwise(written, f"{{0}} {sign} {{1}}", [found, moved], like[0])
    return [found]


def write_embedding(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write the rows of a table that an array of indices selects."""
    table, places = given[:2]
    target = written.new(like.shape, like.dtype)
    names = [f"i{axis}" for axis in range(len(like.shape))]
    row = places.at(names[:-1])
    body = f"{target.at(names)} = {table.name}[{row} * {table.shape[-1]} + {names[-1]}];"
    written.loop(like.shape, names, body)
    return target


def write_choice(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write the rows, columns, … of an array that a list of indices selects."""
    source, axis, indices = given
    target, names = written.new(like.shape, like.dtype), [f"i{each}" for each in range(like.ndim)]
    axis %= like.ndim
    chosen = [*names]
    chosen[axis] = indices.at([names[axis]])
    written.loop(like.shape, names, f"{target.at(names)} = {source.at(chosen)};")
    return target


def write_cast(written: Program, given: Any, options: dict[str, Any], like: Tensor) -> Array:
    """Write numbers in another type."""
    return written.elementwise(f"({written.type_of(like.dtype)}){{0}}", [given[0]], like)


OPERATIONS: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: write_sum("+"),
    aten.add.Scalar: write_sum("+"),
    aten.sub.Tensor: write_sum("-"),
    aten.sub.Scalar: write_sum("-"),
    aten.clamp.default: write_clamp,
    aten.gelu.default: write_gelu,
    aten.cat.default: write_cat,
    aten.mm.default: write_product,
    aten.bmm.default: write_product,
    aten.addmm.default: write_affine,
    aten.baddbmm.default: write_affine,
    aten.sum.dim_IntList: ADD,
    aten.mean.dim: MEAN,
    aten.amax.default: MAXIMUM,
    aten._softmax.default: write_softmax,
    aten.native_layer_norm.default: write_norm,
    aten._native_batch_norm_legit_no_training.default: write_batch_norm,
    aten.embedding.default: write_embedding,
    aten.index_select.default: write_choice,
    aten._to_copy.default: write_cast,
}
