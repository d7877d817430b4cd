"""The step of a recurrence with a state in float16 as a C99 header that needs no half type."""

from linrec.export.c_integers import fields_of, floats, weights_of
from linrec.export.c_source import check_name, indent, write_header
from linrec.export.quantize_weights import CHANCE, HalfRecurrence

COMMENT = """\
/* {name}.h: one step of a linear recurrence, written by linrec.

       x_t = float16(k x_{{t-1}} + a A x_{{t-1}} + b B u_t)        y_t = R x_t + D u_t

   {states} states of 16 bits, those of IEEE 754's binary16, and {inputs} inputs{copied};
   weights of {bits} bits.
   Pass inputs of at most {largest!r}. Nothing is allocated, and nothing is global.
   The largest error of an output, whatever the inputs: {bound:.3g}
   (within {steps} steps){chance}. */
"""

CHANCE_COMMENT = """,
   but for a chance of {chance:.0e} a sequence. States are rounded up or down by chance: set
   `random` to another number after {name}_init, or all of them round alike"""

# Random numbers of 32 bits by shifts (Marsaglia 2003, Xorshift RNGs, section 3.1).
DRAW = """
static inline uint32_t {name}_draw({name}_t *self)
{{
    uint32_t bits = self->random ? self->random : 2463534242u; /* zero would stay zero */
    bits ^= bits << 13;
    bits ^= bits >> 17;
    bits ^= bits << 5;
    return self->random = bits;
}}
"""

DOUBLES = """#include <float.h>
#if DBL_MANT_DIG < 53
#error "the bound is of sums in doubles of 53 bits"
#endif
"""

STEP = """
static inline float {name}_widen(uint16_t half)
{{
    uint32_t exponent = (half >> 10) & 31u, fraction = half & 1023u, bits;
    float number;
    if (exponent == 0) {{ /* below 2^-14, in units of 2^-24 */
        number = (float)fraction * 0x1p-24f;
        return half & 0x8000u ? -number : number;
    }}
    bits = (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13;
    bits |= (uint32_t)(half & 0x8000u) << 16;
    memcpy(&number, &bits, sizeof number);
    return number;
}}

static inline uint16_t {name}_narrow(float number{drawn})
{{
    uint32_t bits, sign;
    memcpy(&bits, &number, sizeof bits);
    sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits >= 0x477ff000u) /* over the largest by half a unit or more; or no number */
        return (uint16_t)(sign | (bits > 0x7f800000u ? 0x7e00u : 0x7c00u));
    if (bits < 0x38800000u) {{ /* below 2^-14: beside 1/2 a unit is 2^-24 */
        memcpy(&number, &bits, sizeof number);
        number += 0.5f;
        memcpy(&bits, &number, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }}
    bits += {addition};
    return (uint16_t)(sign | (bits - 0x38000000u) >> 13);
}}

static inline void {name}_step({name}_t *self, const float *input, float *output)
{{
{constants}
    float x[{n}];
    int i, j, copy;
    for (copy = 0; copy < {copies}; copy++) {{
        uint16_t *state = self->state + copy * {n};
        const float *u = input + copy * {m};
        for (i = 0; i < {n}; i++)
            x[i] = {name}_widen(state[i]);
        for (i = 0; i < {n}; i++) {{
            {sum} of_states = 0, of_inputs = 0, moved;
            for (j = 0; j < {n}; j++)
                of_states += ({sum})A[i * {n} + j] * x[j];
            for (j = 0; j < {m}; j++)
                of_inputs += ({sum})B[i * {m} + j] * u[j];
            moved = a[i] * of_states + b[i] * of_inputs;
            moved = k[i] ? x[i] + moved : moved;
            state[i] = {name}_narrow({narrowed});
        }}
        for (i = 0; i < {n}; i++)
            x[i] = {name}_widen(state[i]);
        for (i = 0; i < {p}; i++) {{
            float sum = 0.0f;
            for (j = 0; j < {n}; j++)
                sum += R[i * {n} + j] * x[j];
{direct}
            output[copy * {p} + i] = sum;
        }}
    }}
}}
"""

DIRECT = """\
            for (j = 0; j < {m}; j++)
                sum += D[i * {m} + j] * u[j];"""


# The code that differs between rounding to nearest, ties to even, and stochastic rounding.
NEAREST = {
    "sum": "float",
    "drawn": "",
    "addition": "0xfffu + (bits >> 13 & 1u)",
    "narrowed": "moved",
    "chance": "",
}
BY_CHANCE = {
    "sum": "double",
    "drawn": ", uint32_t random",
    "addition": "random >> 19",
    "narrowed": "(float)moved, {name}_draw(self)",
    "chance": CHANCE_COMMENT,
    "fields": "\n    uint32_t random;",
    "start": "\n    self->random = 2463534242u;",
}


def to_c_halves(small: HalfRecurrence, name: str = "recurrence") -> str:
    """Write the step of a recurrence with a state in float16 as a header of C99; see `to_c`."""
    check_name(name)
    (n, m), p = small.B.shape, len(small.readout)
    constants = [
        *weights_of(small),
        f"static const float a[{n}] = {floats(small.units[:, 0].tolist())};",
        f"static const float b[{n}] = {floats(small.units[:, 1].tolist())};",
        f"static const float R[{p * n}] = {floats(small.readout.flatten().tolist())};",
    ]
    direct = ""
    if small.D is not None:
        constants.append(f"static const float D[{p * m}] = {floats(small.D.flatten().tolist())};")
        direct = DIRECT.format(m=m)
    includes, step, parts = "#include <stdint.h>\n#include <string.h>\n", STEP, NEAREST
    if small.stochastic:
        includes, step, parts = DOUBLES + includes, DRAW + STEP, BY_CHANCE
    return write_header(
        COMMENT,
        step,
        name,
        includes=includes,
        **fields_of(small),
        **{part: text.format(name=name, chance=CHANCE) for part, text in parts.items()},
        type="uint16_t",
        largest=small.largest_input,
        constants=indent("\n".join(constants), 1),
        direct=direct,
    )
