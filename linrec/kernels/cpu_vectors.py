"""Processor vectors in code compiled by Numba.

A vector holds 64 bytes: 16 numbers in float32 or 8 in float64. It is read from memory, added,
subtracted, multiplied and written as one value, so the compiler need not recognise a loop over
vectors. A product and a sum may be fused, which rounds once instead of twice. Processors with
narrower vectors take two or four instructions for each operation.

Imported only where Numba is installed.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUntypedFunctionDecorator=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUnknownArgumentType=false
# (Neither Numba nor llvmlite has types.)

import operator
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core.imputils import lower_builtin
from numba.core.typing import templates

BYTES = 64

intrinsic: Any = extending.intrinsic  # (its functions are called without the first argument)
infer_global: Any = templates.infer_global


class Vector(types.Type):
    """The Numba type of `count` numbers of a dtype as one value."""

    def __init__(self, dtype):
        self.dtype, self.count = dtype, BYTES // (dtype.bitwidth // 8)
        super().__init__(name=f"Vector({dtype}, {self.count})")


@extending.register_model(Vector)
class VectorModel(extending.models.PrimitiveModel):
    """The data model of a vector: one LLVM value."""

    def __init__(self, manager, vector):
        number = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(number, vector.count))


def address(context, builder, kind, memory, place, vector):
    """Compute the address of a vector, which need not be aligned to its size."""
    data = context.make_array(kind)(context, builder, memory).data
    return builder.bitcast(builder.gep(data, [place]), vector.as_pointer())


@intrinsic
def width(typing, memory):
    """Count the numbers in a vector of the dtype of `memory`: a constant of the compiled code."""
    count = Vector(memory.dtype).count

    def write_code(context, builder, signature, values):
        return context.get_constant(types.intp, count)

    return types.intp(memory), write_code


@intrinsic
def load(typing, memory, place):
    """Read the vector whose first number is `memory[place]`."""
    kind = Vector(memory.dtype)

    def write_code(context, builder, signature, values):
        vector = context.get_value_type(kind)
        found = builder.load(
            address(context, builder, signature.args[0], values[0], values[1], vector)
        )
        found.align = memory.dtype.bitwidth // 8
        return found

    return kind(memory, types.intp), write_code


@intrinsic
def store(typing, memory, place, vector):
    """Write a vector, starting at `memory[place]`."""

    def write_code(context, builder, signature, values):
        where, at, what = values
        into = address(context, builder, signature.args[0], where, at, what.type)
        builder.store(what, into).align = memory.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(memory, types.intp, vector), write_code


@intrinsic
def spread(typing, memory, number):
    """Fill a vector of `memory`'s dtype with one number."""
    kind = Vector(memory.dtype)

    def write_code(context, builder, signature, values):
        vector, none = context.get_value_type(kind), ir.Constant(ir.IntType(32), 0)
        rounded = context.cast(builder, values[1], number, memory.dtype)
        empty = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(empty, rounded, none)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
        return builder.shuffle_vector(one, empty, mask)

    return kind(memory, number), write_code


def define(operation, instruction):
    """Define an arithmetic operation on vectors."""

    @infer_global(operation)
    class OfVectors(templates.AbstractTemplate):  # pyright: ignore[reportUnusedClass]  # Numba keeps it
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return templates.signature(args[0], *args)
            return None

    @lower_builtin(operation, Vector, Vector)
    def write_code(context, builder, signature, values):  # pyright: ignore[reportUnusedFunction]
        return getattr(builder, instruction)(*values, flags=("contract",))


define(operator.add, "fadd")
define(operator.sub, "fsub")
define(operator.mul, "fmul")
