"""The step of a recurrence as a C99 header that allocates no memory."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from linrec.systems import LinearRecurrence

# Words that cannot be names in C99.
KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while _Bool _Complex _Imaginary".split()
)

# The C types, with the suffix of their constants.
TYPES = {torch.float32: ("float", "f"), torch.float64: ("double", "")}

# The beginning of every header, after a comment: sizes, the state, and its initialisation.
BEGINNING = """
#ifndef {guard}_H
#define {guard}_H
{includes}
#define {guard}_STATES {states}
#define {guard}_INPUTS {inputs}
#define {guard}_OUTPUTS {outputs}

typedef struct {{
    {type} state[{room}];{fields}
}} {name}_t;

static inline void {name}_init({name}_t *self)
{{
    int i;
    for (i = 0; i < {guard}_STATES; i++)
        self->state[i] = {zero};{start}
}}
"""

COMMENT = """\
/* {name}.h: one step of a linear recurrence, written by linrec.

       x_t = A x_{{t-1}} + B u_t        y_t = C x_t + D u_t

   {states} states, {inputs} inputs, {outputs} outputs{copied}{pairs}.
   {multiplications} multiplications a step. Nothing is allocated, and nothing is global.
   The state is yours: {name}_init sets it to zero, {name}_step takes one input and gives one
   output, which must not overlap it.

       {name}_t memory;
       {name}_init(&memory);
       {name}_step(&memory, input, output); */
"""

STEP = """
static inline void {name}_step({name}_t *self, const {type} *input, {type} *output)
{{
{constants}
    {type} next[{n}];
    int i, copy;
    for (copy = 0; copy < {copies}; copy++) {{
        {type} *x = self->state + copy * {n};
        const {type} *u = input + copy * {m};
        {type} *y = output + copy * {p};
{body}
    }}
}}
"""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix as constants of C: all of its numbers, or its nonzero ones.

    Attributes:
        name: the name of the constants.
        values (rows, columns): its numbers.
    """

    name: str
    values: np.ndarray

    @property
    def sparse(self) -> bool:
        """Whether a third of its numbers or more are zero."""
        return bool(3 * np.count_nonzero(self.values) <= 2 * self.values.size)

    @property
    def multiplications(self) -> int:
        """The number of multiplications of a product."""
        return int(np.count_nonzero(self.values)) if self.sparse else self.values.size

    def constants(self, type_: str, ending: str) -> list[str]:
        """Write the numbers down exactly, in hexadecimal."""
        if not self.sparse:
            numbers = write_list([exact(value, ending) for value in self.values.flat])
            return [f"static const {type_} {self.name}[{self.values.size}] = {numbers};"]
        rows, columns = np.nonzero(self.values)
        starts = np.searchsorted(rows, np.arange(len(self.values) + 1))
        values = [exact(value, ending) for value in self.values[rows, columns]] or ["0"]
        places = [str(column) for column in columns] or ["0"]
        return [
            f"static const {type_} {self.name}[{len(values)}] = {write_list(values)};",
            f"static const int {self.name}_column[{len(places)}] = {write_list(places)};",
            f"static const int {self.name}_row[{len(starts)}] = {write_list(map(str, starts))};",
        ]

    def added(self, vector: str) -> str:
        """Write code that adds one row of the product with a vector to `sum`."""
        if self.sparse:
            return (
                f"for (j = {self.name}_row[i]; j < {self.name}_row[i + 1]; j++)\n"
                f"    sum += {self.name}[j] * {vector}[{self.name}_column[j]];"
            )
        columns = self.values.shape[1]
        return (
            f"for (j = 0; j < {columns}; j++)\n"
            f"    sum += {self.name}[i * {columns} + j] * {vector}[j];"
        )


def recurrence_to_c(
    recurrence: LinearRecurrence, name: str = "recurrence", *, dtype: torch.dtype | None = None
) -> str:
    """Write the step of a recurrence as a header of C99; arguments and result as in `to_c`."""
    check_name(name)
    if recurrence.time_varying or recurrence.batch_shape:
        kind = "varies with time" if recurrence.time_varying else "is a batch of systems"
        raise ValueError(
            f"The recurrence {kind}: expected one system that is the same at every step."
        )
    wide = real_dtype(recurrence.dtype)
    dtype = wide if dtype is None else dtype
    if dtype not in TYPES:
        raise ValueError(f"`dtype` is {dtype}: expected torch.float32 or torch.float64.")
    type_, ending = TYPES[dtype]
    pair = 2 if recurrence.dtype.is_complex else 1
    matrices = matrices_of(recurrence, dtype)
    for matrix in matrices.values():
        if not np.isfinite(matrix.values).all():
            raise ValueError(f"`{matrix.name}` has numbers that are not finite in {type_}.")
    n = recurrence.A.state_size * pair
    m, p = (
        size * pair // recurrence.copies for size in (recurrence.input_size, recurrence.output_size)
    )
    constants = [line for each in matrices.values() for line in each.constants(type_, ending)]
    copies = recurrence.copies
    return write_header(
        COMMENT,
        STEP,
        name,
        includes="",
        **sizes(n, m, p, copies),
        type=type_,
        zero=f"0.0{ending}",
        pairs=", complex numbers as pairs" if pair > 1 else "",
        multiplications=copies * sum(each.multiplications for each in matrices.values()),
        constants=indent("\n".join(constants), 1),
        body=indent(body_of(matrices, type_, n, p, ending), 2),
    )


def write_header(comment: str, step: str, name: str, *, includes: str, **values: object) -> str:
    """Write a header of a comment, sizes and state, and the functions of a step.

    `fields` are the struct's members besides the state, and `start` sets their initial values.
    """
    page = comment + BEGINNING + step + "\n#endif\n"
    includes = f"\n{includes}" if includes else ""
    # (C has no arrays of no numbers.)
    room = f"{name.upper()}_STATES" if values["states"] else "1"
    values = {"fields": "", "start": "", "room": room, **values}
    return page.format(name=name, guard=name.upper(), includes=includes, **values)


def sizes(n: int, m: int, p: int, copies: int) -> dict[str, object]:
    """Return the sizes of a step by name: n, m and p of one copy, and of all copies."""
    return {
        "n": n,
        "m": m,
        "p": p,
        "copies": copies,
        "states": n * copies,
        "inputs": m * copies,
        "outputs": p * copies,
        "copied": f" ({copies} copies of one system)" if copies > 1 else "",
    }


def check_name(name: str) -> None:
    """Refuse a name that is not an identifier of C."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in KEYWORDS:
        raise ValueError(f"`name` is {name!r}: expected an identifier of C, such as `memory`.")


def body_of(matrices: dict[str, Matrix], type_: str, n: int, p: int, ending: str) -> str:
    """Write the products of one copy."""
    lines = []
    if "V" in matrices:
        rank = len(matrices["V"].values)
        lines += [
            f"{type_} w[{rank}];",
            row_loop(rank, matrices["V"].added("x"), "w[i]", type_, ending),
        ]
    terms = [matrices["A"].added("x")]
    if "U" in matrices:
        terms.append(matrices["U"].added("w"))
    plain = "" if "B" in matrices else "u[i]"
    if "B" in matrices:
        terms.append(matrices["B"].added("u"))
    lines.append(row_loop(n, "\n".join(terms), "next[i]", type_, ending, plain))
    lines.append(f"for (i = 0; i < {n}; i++)\n    x[i] = next[i];")
    terms, plain = [], ""
    if "C" in matrices:
        terms.append(matrices["C"].added("x"))
    else:
        plain = "x[i]"
    if "D" in matrices:
        terms.append(matrices["D"].added("u"))
    lines.append(row_loop(p, "\n".join(terms), "y[i]", type_, ending, plain))
    return "\n".join(lines)


def row_loop(rows: int, terms: str, target: str, type_: str, ending: str, plain: str = "") -> str:
    """Sum up one row after the other."""
    if not terms:
        return f"for (i = 0; i < {rows}; i++)\n    {target} = {plain};"
    start = f"0.0{ending}"
    inner = (
        f"{type_} sum = {start};\nint j;\n{terms}\n{target} = sum{f' + {plain}' if plain else ''};"
    )
    return f"for (i = 0; i < {rows}; i++) {{\n{indent(inner, 1)}\n}}"


def matrices_of(recurrence: LinearRecurrence, dtype: torch.dtype) -> dict[str, Matrix]:
    """List the matrices of the step, as real numbers of a dtype."""
    parts, n = recurrence.A.as_diagonal_plus_low_rank(), recurrence.A.state_size
    # (Widened first: a sum of two small numbers may not fit their dtype.)
    wide = torch.promote_types(recurrence.dtype, torch.float64)
    dense = recurrence.A.to(wide).to_dense()
    found: dict[str, Tensor | None] = {"A": dense}
    if parts is not None and parts[1].shape[-1]:
        diagonal, left, right = parts
        thin = n * (1 + 2 * left.shape[-1])
        if thin < min(int(dense.count_nonzero()), n * n):
            found = {"A": torch.diag(diagonal), "U": left, "V": right.mH}
    found |= {"B": recurrence.B, "C": recurrence.C, "D": recurrence.D}
    return {
        name: Matrix(name, in_reals(matrix, dtype))
        for name, matrix in found.items()
        if matrix is not None
    }


def in_reals(matrix: Tensor, dtype: torch.dtype) -> np.ndarray:
    """Write a complex matrix as a real one, each a + bi as [[a, -b], [b, a]]."""
    matrix = matrix.detach().cpu().resolve_conj()
    if matrix.is_complex():
        real, imaginary = matrix.real, matrix.imag
        rows = [
            torch.stack(pair, -1).flatten(-2) for pair in ((real, -imaginary), (imaginary, real))
        ]
        matrix = torch.stack(rows, -2).flatten(-3, -2)
    return matrix.to(dtype).double().numpy()


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of real and imaginary parts, of 32 bits or more."""
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


def exact(value: float, ending: str) -> str:
    """Write a number as a hexadecimal constant, without rounding."""
    return f"{float(value).hex()}{ending}"


def write_list(numbers: Iterable[str]) -> str:
    """Write an initializer, a few numbers per line."""
    every = list(numbers)
    lines = [", ".join(every[start : start + 4]) for start in range(0, len(every), 4)]
    return "{\n    " + ",\n    ".join(lines) + "\n}"


def indent(text: str, depth: int) -> str:
    """Indent lines."""
    return "\n".join("    " * depth + line if line else line for line in text.splitlines())
