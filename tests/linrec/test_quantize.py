"""Recurrences in integers: within bounds that some inputs attain, and the same in C."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import linrec
import lmu
from linrec.export import QuantizedRecurrence, quantize, to_c
from tests.cases import SYSTEMS, TRANSITIONS
from tests.linrec.test_c_source import COMPILER, FLAGS, needs_compiler

STEPS = 300

MAIN = """\
#include <stdio.h>
#include "memory.h"

int main(void)
{
    memory_t memory;
    int16_t input[MEMORY_INPUTS];
    float output[MEMORY_OUTPUTS];
    memory_init(&memory);
    while (fread(input, sizeof input, 1, stdin) == 1) {
        memory_step(&memory, input);
        memory_read(&memory, input, output);
        if (fwrite(memory.state, sizeof memory.state, 1, stdout) != 1
            || fwrite(output, sizeof output, 1, stdout) != 1)
            return 1;
    }
    return 0;
}
"""


def legendre(order: int, theta: float, copies: int = 1) -> linrec.LinearRecurrence:
    return lmu.LegendreMemory(copies, order, theta).recurrence


CASES = {
    "dense": lambda: SYSTEMS["ABCD"](TRANSITIONS["dense"]()),
    "diagonal": lambda: SYSTEMS["AD"](TRANSITIONS["diagonal"]()),
    "companion": lambda: SYSTEMS["ABCD, 2 copies"](TRANSITIONS["companion"]()),
    "nilpotent": lambda: SYSTEMS["AC, 2 copies"](TRANSITIONS["nilpotent"]()),
    "zero": lambda: SYSTEMS["ABC"](TRANSITIONS["zero"]()),
    "legendre": lambda: legendre(6, 50.0, copies=3),
    "slow legendre": lambda: legendre(24, 250.0),
    "slow average": lambda: linrec.LinearRecurrence([[0.999]], [[0.001]]),
}
WEIGHTS = (torch.int8, torch.int16)


def exact(recurrence: linrec.LinearRecurrence, inputs: Tensor) -> Tensor:
    wide = recurrence.to(torch.float64)
    return linrec.run(wide, inputs.double(), executor=linrec.Recurrent()).outputs


def written_out(small: QuantizedRecurrence) -> linrec.LinearRecurrence:
    """Return one copy of what the whole numbers stand for, before states are rounded."""
    over = 2.0 ** -small.shift.double().unsqueeze(-1) * small.multipliers
    A = over[:, :1] * small.A.double() + torch.diag(small.kept.double())
    B = over[:, 1:] * small.B.double() / small.input_unit
    return linrec.LinearRecurrence(A, B, small.readout, small.D)


def hardest(recurrence: linrec.LinearRecurrence, small: QuantizedRecurrence, place: int) -> Tensor:
    """Return the inputs of one copy that move an output farthest from what it should be."""
    one = recurrence.to(torch.float64)
    one = one.rebuilt(one.A, one.B, one.C, one.D, copies=1)
    responses = [linrec.impulse_response(each, STEPS) for each in (written_out(small), one)]
    return (responses[0] - responses[1])[:, place].sign().flip(0)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", CASES)
def test_errors_are_within_the_bound_and_inputs_attain_it(name: str, weights: torch.dtype) -> None:
    recurrence = CASES[name]()
    small = quantize(recurrence, steps=STEPS, weights=weights)
    width, copies = recurrence.input_size, recurrence.copies
    torch.manual_seed(0)
    waves = torch.sin(torch.arange(STEPS) / 20).sign().unsqueeze(-1).expand(-1, width)
    place = int(small.perturbation.argmax())
    worst = hardest(recurrence, small, place).repeat(1, copies)
    inputs = torch.stack([torch.rand(STEPS, width) * 2 - 1, torch.ones(STEPS, width), waves, worst])
    found = small.run(inputs)
    errors = (found.outputs - exact(recurrence, inputs)).abs()
    assert (errors <= small.bound.repeat(copies)).all()
    assert found.final_state.abs().max() <= 32767
    # The perturbation is attained, but for what roundings may take from it.
    at_end = errors[-1, -1, place]
    assert at_end >= small.perturbation[place] * (1 - 1e-9) - small.rounding[place]
    if weights == torch.int8 and name in ("dense", "legendre"):
        assert at_end >= small.bound[place] / 2


def test_roundings_attain_their_part_of_the_bound() -> None:
    """A slow average does not come down to zero: it stops where a step is half a unit."""
    average = linrec.LinearRecurrence([[0.99]], [[0.01]])
    inputs = torch.zeros(1800, 1)
    inputs[:600] = 1.0
    small = quantize(average, steps=1800)
    error = (small.run(inputs).outputs - exact(average, inputs))[-1].abs()
    assert 0.9 * small.bound <= error <= small.bound


def test_differences_from_the_identity_are_what_is_rounded() -> None:
    """As it is, A of 8 bits is 40 times as far off for a slow memory."""
    memory = legendre(32, 784.0)
    small = quantize(memory, steps=784)
    A = memory.A.to_dense().double()
    step = A.abs().amax(-1, keepdim=True) / 127
    assert memory.B is not None
    plain = linrec.LinearRecurrence((A / step).round() * step, memory.B.double())
    responses = [linrec.impulse_response(each, 784) for each in (plain, memory.to(torch.float64))]
    assert small.kept.all()
    assert (responses[0] - responses[1]).abs().sum((0, 2)).max() > 8 * small.perturbation.max()


@pytest.mark.parametrize("largest", [1e-3, 40.0])
def test_the_range_is_that_of_the_inputs(largest: float) -> None:
    memory = legendre(6, 50.0)
    small = quantize(memory, steps=STEPS, largest_input=largest)
    inputs = largest * torch.ones(1, STEPS, 1)
    errors = (small.run(inputs).outputs - exact(memory, inputs)).abs()
    assert (errors <= small.bound).all()
    with pytest.raises(ValueError, match="larger `largest_input`"):
        small.run(1.1 * inputs)
    with pytest.raises(ValueError, match="expected numbers of at most"):
        small.run(torch.full((1, 2, 1), float("nan")))


def test_what_cannot_be_rounded_is_refused() -> None:
    average = linrec.LinearRecurrence([[0.5]], [[0.5]])
    spinning = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.5 + 0.5j])))
    growing = linrec.LinearRecurrence([[1.1]], [[0.5]])
    varying = linrec.LinearRecurrence(torch.rand(5, 2, 2), time_varying=True)
    refusals = [
        (spinning, {}, "is complex"),
        (varying, {}, "varies with time"),
        (linrec.LinearRecurrence(torch.rand(5, 2, 2)), {}, "batch of systems"),
        (average, {"weights": torch.int32}, "torch.int8 or torch.int16"),
        (average, {"steps": 0}, "expected 1 or more"),
        (average, {"largest_input": -1.0}, "positive"),
        (linrec.LinearRecurrence([[float("inf")]]), {}, "not finite"),
        (growing, {"steps": 400}, "could fill the range"),
    ]
    for recurrence, options, message in refusals:
        with pytest.raises(ValueError, match=message):
            quantize(recurrence, **{"steps": 10, **options})


@needs_compiler
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", CASES)
def test_c_has_the_same_states_bit_by_bit(name: str, weights: torch.dtype, tmp_path: Path) -> None:
    recurrence = CASES[name]()
    small = quantize(recurrence, steps=STEPS, weights=weights)
    torch.manual_seed(1)
    inputs = torch.rand(STEPS, recurrence.input_size) * 2 - 1
    (tmp_path / "memory.h").write_text(to_c(small, "memory"))
    (tmp_path / "main.c").write_text(MAIN)
    built = [str(COMPILER), *FLAGS, "main.c", "-o", "main"]
    subprocess.run(built, cwd=tmp_path, check=True, timeout=60)
    given = small.whole(inputs).numpy().astype(np.int16).tobytes()
    ran = subprocess.run([tmp_path / "main"], input=given, capture_output=True, check=True)
    n, p = recurrence.state_size, recurrence.output_size
    rows = np.frombuffer(ran.stdout, np.dtype([("x", np.int16, (n,)), ("y", np.float32, (p,))]))
    expected = small.run(inputs)
    assert rows["x"][-1].tolist() == expected.final_state.tolist()
    outputs = torch.from_numpy(rows["y"].copy()).double()
    # n + m products and sums of float32 with R in float32 (Higham 2002, equation 3.7).
    eye = small.readout.abs().sum(-1) * 32767
    eye = eye + (0 if small.D is None else small.D.abs().sum(-1))
    allowed = (len(small.A) + recurrence.input_size + 2) * 2.0**-23 * eye.repeat(small.copies)
    assert ((outputs - expected.outputs).abs() <= allowed).all()
