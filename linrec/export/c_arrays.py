"""Operations of torch on arrays of C, as loops with strides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from linrec.export.c_source import TYPES, exact, indent, write_list


@dataclass(frozen=True, eq=False)
class Array:
    """A tensor in C: a buffer, and the place of each number in it.

    Attributes:
        name: the name of the buffer.
        places: a view of the numbers' places in the buffer, with the tensor's strides.
        dtype: the dtype of the tensor; integers and booleans are `int`.
    """

    name: str
    places: Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor."""
        return self.places.shape

    def expanded(self, shape: Sequence[int]) -> "Array":
        """The same numbers, repeated along axes of size 1."""
        return Array(self.name, self.places.expand(*shape), self.dtype)

    def at(self, indices: Sequence[str]) -> str:
        """The number at some indices, as an expression of C."""
        strides = zip(indices, self.places.stride(), self.shape, strict=True)
        terms = [f"{i} * {s}" if s > 1 else i for i, s, size in strides if s and size > 1]
        offset = self.places.storage_offset()
        terms += [str(offset)] if offset or not terms else []
        return f"{self.name}[{' + '.join(terms)}]"


Operand = Array | float | int | bool


class Program:
    """Statements of C, written one after the other, and the constants that they use.

    Args:
        dtype: the dtype of the numbers, float32 or float64.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.type, self.ending = TYPES[dtype]
        self.constants: list[str] = []
        self.statements: list[str] = []
        self.buffers = 0

    def type_of(self, dtype: torch.dtype) -> str:
        """Name the type of a tensor's numbers."""
        if dtype.is_complex:
            raise ValueError(
                "The step computes with complex numbers, and C is written for real ones: type the "
                "format `torch`."
            )
        return self.type if dtype.is_floating_point else "int"

    def number(self, value: float | int | bool, dtype: torch.dtype | None = None) -> str:
        """Write a number."""
        if dtype is not None and not dtype.is_floating_point:
            return str(int(value))
        if math.isinf(value):
            return "INFINITY" if value > 0 else "-INFINITY"
        return "NAN" if math.isnan(value) else exact(float(value), self.ending)

    def function(self, name: str) -> str:
        """Name a function of math.h for the type of the numbers."""
        return name + self.ending

    def new(self, shape: Sequence[int], dtype: torch.dtype) -> Array:
        """Declare a buffer."""
        name, count = f"t{self.buffers}", math.prod(shape)
        self.buffers += 1
        self.statements.append(f"{self.type_of(dtype)} {name}[{max(count, 1)}];")
        return Array(name, torch.arange(count).reshape(tuple(shape)), dtype)

    def constant(self, value: Tensor) -> Array:
        """Write a tensor down as a constant."""
        name, kind = f"c{len(self.constants)}", self.type_of(value.dtype)
        value = value.detach().cpu()
        if not value.numel():  # nothing reads it, and C has no arrays of no numbers
            return Array(name, torch.arange(0).reshape(value.shape), value.dtype)
        numbers = value.to(self.dtype) if value.is_floating_point() else value
        written = [self.number(x, value.dtype) for x in np.ravel(numbers.numpy()).tolist()]
        self.constants.append(
            f"static const {kind} {name}[{len(written)}] = {write_list(written)};"
        )
        return Array(name, torch.arange(value.numel()).reshape(value.shape), value.dtype)

    def assign(self, target: Array, expression: str, operands: Sequence[Operand]) -> None:
        """Compute each number of an array from the operands at its place, `{0}`, `{1}`, …."""
        names = [f"i{axis}" for axis in range(len(target.shape))]
        found = []
        for operand in operands:
            if isinstance(operand, Array):
                found.append(operand.expanded(target.shape).at(names))
            else:
                found.append(
                    self.number(operand, None if isinstance(operand, float) else torch.int)
                )
        self.loop(target.shape, names, f"{target.at(names)} = {expression.format(*found)};")

    def loop(self, shape: Sequence[int], names: Sequence[str], body: str) -> None:
        """Loop over all indices of a shape."""
        if 0 in shape:
            return
        used = [(n, size) for n, size in zip(names, shape, strict=True) if size > 1]
        for name, size in reversed(used):
            body = f"for ({name} = 0; {name} < {size}; {name}++) {{\n{indent(body, 1)}\n}}"
        declared = f"int {', '.join(name for name, _ in used)};\n" if used else ""
        self.statements.append(f"{{\n{indent(declared + body, 1)}\n}}")

    def elementwise(self, expression: str, operands: Sequence[Operand], like: Tensor) -> Array:
        """Compute an array of the shape and dtype of a tensor, number by number."""
        target = self.new(like.shape, like.dtype)
        self.assign(target, expression, operands)
        return target

    def copy(self, source: Array, target: Array) -> None:
        """Copy the numbers of one array into another."""
        self.assign(target, "{0}", [source])

    def product(self, left: Array, right: Array, added: Array | None, like: Tensor) -> Array:
        """Multiply matrices `(*batch, rows, inner)` and `(*batch, inner, columns)`, and add."""
        target = self.new(like.shape, like.dtype)
        names = [f"i{axis}" for axis in range(len(like.shape))]
        row, column = [*names[:-1], "k"], [*names[:-2], "k", names[-1]]
        start = self.number(0.0) if added is None else added.expanded(like.shape).at(names)
        body = (
            f"{self.type} sum = {start};\nint k;\n"
            f"for (k = 0; k < {left.shape[-1]}; k++)\n"
            f"    sum += {left.at(row)} * {right.at(column)};\n"
            f"{target.at(names)} = sum;"
        )
        self.loop(like.shape, names, body)
        return target

    def reduce(
        self, source: Array, axes: Sequence[int], start: str, step: str, like: Tensor
    ) -> Array:
        """Reduce over axes: from `start`, for each number x, `step` of `sum` and x as `{0}`."""
        axes = [axis % len(source.shape) for axis in axes]
        order = [axis for axis in range(len(source.shape)) if axis not in axes]
        moved = Array(source.name, source.places.permute(*order, *axes), source.dtype)
        kept = self.new([source.shape[axis] for axis in order], like.dtype)
        names = [f"i{axis}" for axis in range(len(order))]
        inner = [f"k{axis}" for axis in range(len(axes))]
        body = step.format(moved.at([*names, *inner]))
        sizes = [source.shape[axis] for axis in axes]
        for name, size in zip(reversed(inner), reversed(sizes), strict=True):
            body = f"for ({name} = 0; {name} < {size}; {name}++) {{\n{indent(body, 1)}\n}}"
        body = (
            f"{self.type} sum = {start};\nint {', '.join(inner)};\n{body}\n{kept.at(names)} = sum;"
        )
        self.loop(kept.shape, names, body)
        return Array(kept.name, kept.places.reshape(like.shape), like.dtype)
