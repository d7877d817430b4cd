"""Recurrences with 8-bit weights and states in float16: within bounds, in Python and in C."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import linrec
from linrec.export import HalfRecurrence, exported, quantize, quantize_weights, to_c
from tests.linrec.test_c_source import COMPILER, FLAGS, needs_compiler
from tests.linrec.test_c_source import MAIN as STREAM
from tests.linrec.test_quantize import CASES, STEPS, WEIGHTS, exact, legendre

MAIN = STREAM.replace("INPUT ", "float ").replace("TYPE", "float")


def written_out(small: HalfRecurrence) -> linrec.LinearRecurrence:
    """Return one copy of what the numbers stand for, before states are rounded."""
    a, b = small.units.double().unsqueeze(-1).unbind(1)
    A = a * small.A.double() + torch.diag(small.kept.double())
    return linrec.LinearRecurrence(A, b * small.B.double(), small.readout, small.D)


def hardest(recurrence: linrec.LinearRecurrence, small: HalfRecurrence, place: int) -> Tensor:
    """Return the inputs of one copy that move an output farthest from what it should be."""
    one = recurrence.to(torch.float64)
    one = one.rebuilt(one.A, one.B, one.C, one.D, copies=1)
    responses = [linrec.impulse_response(each, STEPS) for each in (written_out(small), one)]
    return (responses[0] - responses[1])[:, place].sign().flip(0)


def some_inputs(recurrence: linrec.LinearRecurrence, small: HalfRecurrence, place: int) -> Tensor:
    width = recurrence.input_size
    torch.manual_seed(0)
    waves = torch.sin(torch.arange(STEPS) / 20).sign().unsqueeze(-1).expand(-1, width)
    worst = hardest(recurrence, small, place).repeat(1, recurrence.copies).float()
    return torch.stack([torch.rand(STEPS, width) * 2 - 1, torch.ones(STEPS, width), waves, worst])


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", CASES)
def test_errors_are_within_the_bound_and_inputs_attain_it(name: str, weights: torch.dtype) -> None:
    recurrence = CASES[name]()
    small = quantize_weights(recurrence, steps=STEPS, weights=weights)
    place = int(small.perturbation.argmax())
    inputs = some_inputs(recurrence, small, place)
    found = small.run(inputs)
    errors = (found.outputs - exact(recurrence, inputs)).abs()
    assert (errors <= small.bound.repeat(recurrence.copies)).all()
    assert found.final_state.dtype == torch.float16 and found.final_state.abs().max() <= 2048
    # The perturbation is attained, but for what roundings may take from it.
    at_end = errors[-1, -1, place]
    assert at_end >= small.perturbation[place] * (1 - 1e-9) - small.rounding[place]
    if weights == torch.int8 and name == "dense":
        assert at_end >= small.bound[place] / 2


def test_roundings_attain_their_part_of_the_bound() -> None:
    """A slow average does not come up to its input: it stops where a step is half a unit."""
    average = linrec.LinearRecurrence([[0.99]], [[0.01]])
    inputs = torch.ones(1800, 1)
    small = quantize_weights(average, steps=1800, weights=torch.int16)
    error = (small.run(inputs).outputs - exact(average, inputs))[-1].abs()
    assert 0.9 * small.bound <= error <= small.bound


def test_whole_states_are_finer_and_floats_are_finer_near_zero() -> None:
    memory = legendre(12, 100.0)
    whole = quantize(memory, steps=STEPS, weights=torch.int16)
    half = quantize_weights(memory, steps=STEPS, weights=torch.int16)
    assert (8 * whole.rounding < half.rounding).all()
    quiet = 1e-3 * torch.sin(torch.arange(STEPS) / 9.0).unsqueeze(-1)
    errors = [
        (each.run(quiet).outputs - exact(memory, quiet)).abs().max() for each in (whole, half)
    ]
    assert 3 * errors[1] < errors[0]


def test_what_cannot_be_is_refused() -> None:
    average = linrec.LinearRecurrence([[0.5]], [[0.5]])
    slow = linrec.LinearRecurrence([[0.9998]], [[0.0002]])
    growing = linrec.LinearRecurrence([[1.01]], [[0.5]])
    with pytest.raises(ValueError, match=r"Take `stochastic=True`.*; `quantize`"):
        quantize_weights(slow, steps=10_000)
    with pytest.raises(ValueError, match="larger `largest_input`"):
        quantize_weights(average, steps=10).run(torch.full((3, 1), 1.5))
    with pytest.raises(ValueError, match="expected numbers of at most"):
        quantize_weights(average, steps=10).run(torch.full((3, 1), float("nan")))
    with pytest.raises(ValueError, match="varies with time"):
        quantize_weights(linrec.LinearRecurrence(torch.rand(5, 2, 2), time_varying=True), steps=5)
    with pytest.raises(ValueError, match="go with whole weights"):
        exported(average, "step", "c", states="float16")
    with pytest.raises(ValueError, match="expected one of int16, float16"):
        exported(average, "step", "c", weights="int8", states="float8", length=9)
    with pytest.raises(ValueError, match="States of float16 are what"):
        exported(average, "step", "c", weights="int8", length=9, stochastic=True)
    with pytest.raises(ValueError, match="Take `quantize`"):
        quantize_weights(growing, steps=1000, stochastic=True)
    options = {"weights": "int8", "states": "float16", "length": 9}
    assert b"uint32_t random" in exported(average, "step", "c", stochastic=True, **options)
    source = exported(average, "step", "c", weights="int8", states="float16", length=9)
    assert b"uint16_t state" in source


def built(folder: Path, header: str, main: str) -> Path:
    (folder / "memory.h").write_text(header)
    (folder / "main.c").write_text(main)
    words = [str(COMPILER), *FLAGS, "main.c", "-o", "main"]
    subprocess.run(words, cwd=folder, check=True, timeout=60)
    return folder / "main"


@needs_compiler
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_c_is_within_the_bound(name: str, stochastic: bool, tmp_path: Path) -> None:
    recurrence = CASES[name]()
    small = quantize_weights(recurrence, steps=STEPS, stochastic=stochastic)
    inputs = some_inputs(recurrence, small, int(small.perturbation.argmax()))
    main = built(tmp_path, to_c(small, "memory"), MAIN)
    for one in inputs:
        ran = subprocess.run(
            [main], input=one.numpy().tobytes(), capture_output=True, check=True, timeout=60
        )
        count = STEPS * recurrence.output_size
        outputs = torch.from_numpy(np.frombuffer(ran.stdout, np.float32, count).copy())
        outputs = outputs.view(STEPS, -1).double()
        state = np.frombuffer(ran.stdout, np.float16, offset=4 * count)
        assert np.abs(state.astype(float)).max() <= 2048
        # n + m products and sums of float32 with R and D in float32 (Higham 2002, equation 3.7).
        read = small.readout.abs().sum(-1) * 2048
        read = read + (0 if small.D is None else small.D.abs().sum(-1))
        sums = (len(small.A) + recurrence.input_size + 2) * 2.0**-23 * read
        allowed = (small.bound + sums).repeat(small.copies)
        assert ((outputs - exact(recurrence, one)).abs() <= allowed).all()


@needs_compiler
def test_c_converts_as_ieee_754_says(tmp_path: Path) -> None:
    """Every number of 16 bits is widened and narrowed again; floats are rounded as numpy's are."""
    small = quantize_weights(linrec.LinearRecurrence([[0.5]], [[0.5]]), steps=9)
    main = """
        #include <stdio.h>
        #include "memory.h"
        int main(void)
        {
            float number;
            while (fread(&number, sizeof number, 1, stdin) == 1) {
                uint16_t half = memory_narrow(number);
                float wide = memory_widen(half);
                fwrite(&half, sizeof half, 1, stdout);
                fwrite(&wide, sizeof wide, 1, stdout);
            }
            return 0;
        }
    """
    program = built(tmp_path, to_c(small, "memory"), main)
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    draw = np.random.default_rng(0)
    bits = draw.integers(0x32000000, 0x47900000, 200_000, dtype=np.uint32)
    between = (every[1:0x7C00] + every[: 0x7C00 - 1]) / 2  # ties
    numbers = np.concatenate([every, bits.view(np.float32), -bits.view(np.float32), between])
    ran = subprocess.run([program], input=numbers.tobytes(), capture_output=True, check=True)
    found = np.frombuffer(ran.stdout, np.dtype([("half", np.float16), ("wide", np.float32)]))
    with np.errstate(over="ignore"):
        expected = numbers.astype(np.float16)
    assert np.array_equal(found["half"], expected, equal_nan=True)
    assert np.array_equal(found["wide"], expected.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(found["wide"]), np.signbit(expected))
