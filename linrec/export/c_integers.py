"""The step of a recurrence in integers as a C99 header, for processors without floats."""

from typing import Any

import torch

from linrec.export.c_source import check_name, indent, sizes, write_header, write_list
from linrec.export.quantize import QuantizedRecurrence
from linrec.export.rounded import RoundedRecurrence

COMMENT = """\
/* {name}.h: one step of a linear recurrence in whole numbers, written by linrec.

       x_t = k x_{{t-1}} + round((a A x_{{t-1}} + b B u_t) / 2^s)

   {states} states and {inputs} inputs of 16 bits{copied}; weights of {bits} bits.
   An input of 1 stands for {unit!r}: pass inputs of at most 32767 / -32767, and no state
   overflows. Outputs are read from states by {name}_read, in floats; a layer that follows can
   take its weights times R instead. Nothing is allocated, and nothing is global.
   The largest error of an output, whatever the inputs: {bound:.3g} (within {steps} steps). */
"""

STEP = """
static inline void {name}_step({name}_t *self, const int16_t *input)
{{
{constants}
    int16_t next[{n}];
    int i, j, copy;
    for (copy = 0; copy < {copies}; copy++) {{
        int16_t *x = self->state + copy * {n};
        const int16_t *u = input + copy * {m};
        for (i = 0; i < {n}; i++) {{
            {sum} of_states = 0, of_inputs = 0;
            int64_t total, size;
            for (j = 0; j < {n}; j++)
                of_states += ({sum})A[i * {n} + j] * x[j];
            for (j = 0; j < {m}; j++)
                of_inputs += ({sum})B[i * {m} + j] * u[j];
            total = a[i] * (int64_t)of_states + b[i] * (int64_t)of_inputs;
            size = ((total < 0 ? -total : total) + (INT64_C(1) << (s[i] - 1))) >> s[i];
            next[i] = (int16_t)((k[i] ? x[i] : 0) + (total < 0 ? -size : size));
        }}
        for (i = 0; i < {n}; i++)
            x[i] = next[i];
    }}
}}

static inline void {name}_read(const {name}_t *self, const int16_t *input, float *output)
{{
{read_constants}
    int i, j, copy;
    for (copy = 0; copy < {copies}; copy++)
        for (i = 0; i < {p}; i++) {{
            float sum = 0.0f;
            for (j = 0; j < {n}; j++)
                sum += R[i * {n} + j] * (float)self->state[copy * {n} + j];
{direct}
            output[copy * {p} + i] = sum;
        }}
}}
"""

DIRECT = """\
            for (j = 0; j < {m}; j++)
                sum += D[i * {m} + j] * (float)input[copy * {m} + j];"""


def to_c_integers(small: QuantizedRecurrence, name: str = "recurrence") -> str:
    """Write the step of a recurrence in integers as a header of C99; see `to_c`."""
    check_name(name)
    (n, m), p = small.B.shape, len(small.readout)
    constants = [
        *weights_of(small),
        *whole("a", small.multipliers[:, 0].tolist(), "int32_t"),
        *whole("b", small.multipliers[:, 1].tolist(), "int32_t"),
        *whole("s", small.shift.tolist(), "uint8_t"),
    ]
    read = [f"static const float R[{p * n}] = {floats(small.readout.flatten().tolist())};"]
    direct = "            (void)input;"
    if small.D is not None:
        numbers = (small.D * small.input_unit).flatten().tolist()
        read.append(f"static const float D[{p * m}] = {floats(numbers)};")
        direct = DIRECT.format(m=m)
    return write_header(
        COMMENT,
        STEP,
        name,
        includes="#include <stdint.h>\n",
        **fields_of(small),
        type="int16_t",
        unit=small.input_unit,
        constants=indent("\n".join(constants), 1),
        read_constants=indent("\n".join(read), 1),
        direct=direct,
        sum="int32_t" if small.A.dtype == torch.int8 and max(n, m) <= 512 else "int64_t",
    )


def fields_of(small: RoundedRecurrence) -> dict[str, Any]:
    """Return the sizes of a rounded recurrence and its error bounds, by name."""
    (n, m), p = small.B.shape, len(small.readout)
    return {
        **sizes(n, m, p, small.copies),
        "bits": small.A.element_size() * 8,
        "bound": float(small.bound.max()),
        "steps": small.steps,
        "zero": "0",
    }


def weights_of(small: RoundedRecurrence) -> list[str]:
    """Write the whole numbers of A, B and k."""
    weight = f"int{small.A.element_size() * 8}_t"
    return [
        *whole("A", small.A.flatten().tolist(), weight),
        *whole("B", small.B.flatten().tolist(), weight),
        *whole("k", small.kept.tolist(), "uint8_t"),
    ]


def whole(name: str, numbers: list[int], type_: str) -> list[str]:
    """Write an array of whole numbers."""
    return [f"static const {type_} {name}[{len(numbers)}] = {write_list(map(str, numbers))};"]


def floats(numbers: list[float]) -> str:
    """Write numbers as constants of single precision, exactly."""
    return write_list(f"{number.hex()}f" for number in numbers)
