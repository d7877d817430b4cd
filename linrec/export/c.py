"""`to_c`, the one function that writes C99 for every kind of target."""

import torch
from torch import Tensor, nn

from linrec._tensors.devices import on_cpu
from linrec.export.c_halves import to_c_halves
from linrec.export.c_integers import to_c_integers
from linrec.export.c_network import network_to_c
from linrec.export.c_source import real_dtype, recurrence_to_c
from linrec.export.forms import dtype_of
from linrec.export.quantize import QuantizedRecurrence
from linrec.export.quantize_weights import HalfRecurrence
from linrec.stream.frozen_copy import is_recurrence, recurrence_of
from linrec.systems import LinearRecurrence


@on_cpu
def to_c(
    target: LinearRecurrence | nn.Module | QuantizedRecurrence | HalfRecurrence,
    name: str | None = None,
    *,
    example: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Write one step as a header of C99 that allocates no memory.

    The header has a struct with the state, `NAME_init(&state)` and
    `NAME_step(&state, input, output)`. Numbers are written exactly, as hexadecimal constants.

    For a recurrence, matrices with a third or more zeros (diagonal, companion, banded) are
    multiplied without the zeros, and diagonal plus low rank by thin products where these take fewer
    multiplications. A complex recurrence has pairs, real part first, in state, input and output.

    For a module, with any layers, the step is traced for one sequence. A module that is one
    recurrence is written as that recurrence. The header includes math.h; words are read as `int`.

    For a result of `quantize`, `NAME_step(&state, input)` uses integers only, and
    `NAME_read(&state, input, output)` writes floats; states equal those of
    `QuantizedRecurrence.step` bit for bit. For a result of `quantize_weights`, states are kept in
    16 bits and widened by shifts, so that compilers need not know the type; with stochastic
    rounding, the struct also has the state of the random generator.

    Args:
        target: a time-invariant recurrence; a module with `step(input, state)`, whose state is one
            tensor, initially zeros; or a result of `quantize` or `quantize_weights`.
        name: the prefix of all names and the header's name, an identifier of C. None: `recurrence`,
            or `network` for a module.
        example (batch, time, m): inputs of the module, or (batch, time) of words. None: made from
            `module.input_size`.
        dtype: float32 or float64. None: the target's own.

    Returns:
        The header.

    Raises:
        TypeError: the target is none of these; or a dtype is given for a rounded recurrence.
        ValueError: a recurrence varies with time, is a batch of systems, or has numbers that are
            not finite; a module has no such step, or uses an operation that cannot be written in
            C; the name is not an identifier of C.

    Numerical error: for a recurrence that of `Recurrent`, which has the same sums; for a module
    that of the same sums in another order, with functions of the system's math library; for a
    rounded recurrence its `bound`, and the outputs' sums of n products in float32. (Compilers must
    not be allowed to reassociate: no -ffast-math.)

    Example:
        >>> import linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> "average_step" in linrec.export.to_c(average, "average")
        True
        >>> "unit_step" in linrec.export.to_c(linrec.nn.MinGRU(2, 3), "unit")
        True
        >>> small = linrec.export.quantize(average, steps=100)
        >>> "int16_t state" in linrec.export.to_c(small, "average")
        True
    """
    found = find_recurrence(target)
    if name is None:
        name = "network" if found is None and isinstance(target, nn.Module) else "recurrence"
    if isinstance(target, QuantizedRecurrence | HalfRecurrence):
        if dtype is not None:
            raise TypeError(
                f"`dtype` is {dtype}, but a {type(target).__name__} has numbers of its own: leave "
                "`dtype` out."
            )
        if isinstance(target, QuantizedRecurrence):
            return to_c_integers(target, name)
        return to_c_halves(target, name)
    if found is not None:
        return recurrence_to_c(found, name, dtype=dtype)
    if isinstance(target, nn.Module):
        dtype = real_dtype(dtype_of(target)) if dtype is None else dtype
        return network_to_c(target, name, example=example, dtype=dtype)
    raise TypeError(
        f"`target` is a {type(target).__name__}: expected a LinearRecurrence, an `nn.Module`, or "
        "what `quantize` or `quantize_weights` returned."
    )


def find_recurrence(target: object) -> LinearRecurrence | None:
    """Return the recurrence if a target is nothing but a recurrence, else None."""
    if isinstance(target, nn.Module) and is_recurrence(target):
        return recurrence_of(target)
    return target if isinstance(target, LinearRecurrence) else None
