"""States in float16 with stochastic rounding: right on average and within bounds, also in C."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import linrec
from linrec.export import quantize_weights, to_c
from linrec.export.quantize_weights import CHANCE, round_by_chance
from tests.linrec.test_c_source import needs_compiler
from tests.linrec.test_quantize import CASES, STEPS, exact, legendre
from tests.linrec.test_quantize_weights import MAIN, built, written_out

SEED = 2463534242  # of the C that is written


def test_random_roundings_serve_what_those_to_the_nearest_cannot() -> None:
    """A memory of order 64: roundings to the nearest could fill 0.72 of the range, random 0.04."""
    memory = legendre(64, 784.0)
    with pytest.raises(ValueError, match="stochastic=True"):
        quantize_weights(memory, steps=784)
    small = quantize_weights(memory, steps=784, stochastic=True)
    torch.manual_seed(0)
    noise = 2 * torch.rand(20, 784, 1) - 1
    inputs = torch.cat([noise, noise.cumsum(1).sin(), noise.sign(), torch.ones(20, 784, 1)])
    errors = (small.run(inputs).outputs - exact(memory, inputs)).abs()
    assert (errors <= small.bound).all()


def test_random_roundings_are_right_on_average() -> None:
    average = linrec.LinearRecurrence([[0.998]], [[0.002]])
    small = quantize_weights(average, steps=3000, weights=torch.int16, stochastic=True)
    torch.manual_seed(0)
    ones = torch.ones(300, 3000, 1)
    error = (small.run(ones).outputs - exact(average, ones[0])).abs()
    assert (error <= small.bound).all()
    # To the nearest it stops where a step is half a unit, an eighth of the range below its input.
    assert error[:, -1].mean() < 0.02
    assert error.max() > 0.3 * small.bound  # of a chance of 10^-9, and these are 10^6
    given = torch.tensor([1000.3, -1000.3, 7.00123, 2.0**-14, -(2.0**-20) * 1.7, 0.0, 2047.75])
    given = given.double().expand(400_000, -1)
    found = round_by_chance(given)
    below = found.double() - given.float().double()
    unit = torch.tensor([0.5, 0.5, 2.0**-8, 2.0**-24, 2.0**-25, 0.0, 1.0]).double()
    assert (below.abs() <= unit).all()
    assert (below.mean(0)[[0, 1, 2, 6]].abs() <= 5 * (unit / 2 / 400_000**0.5)[[0, 1, 2, 6]]).all()
    edges = torch.tensor([65504.0, 65519.0, 65520.0, float("inf"), float("nan")])
    expected = edges.to(torch.float16)
    assert torch.equal(round_by_chance(edges)[:4], expected[:4])
    assert round_by_chance(edges)[4].isnan()


def rounded_up_or_down(numbers: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Round to float16, up where 13 random bits are over the rest: in arithmetic of its own."""
    sizes = np.abs(numbers.astype(np.float64))
    unit = 2.0 ** (np.frexp(sizes)[1] - 11)  # 11 bits of each number
    below = np.floor(sizes / unit)
    up = (sizes / unit - below) * 2**13 + bits >= 2**13
    return (np.copysign((below + up) * unit, numbers)).astype(np.float16)


def drawn(seed: int, count: int) -> np.ndarray:
    """Return numbers of 32 bits (Marsaglia 2003, Xorshift RNGs, section 3.1)."""
    found, mask = [], 2**32 - 1
    for _ in range(count):
        seed ^= seed << 13 & mask
        seed ^= seed >> 17
        seed ^= seed << 5 & mask
        found.append(seed)
    return np.array(found, np.uint32)


@needs_compiler
def test_c_rounds_up_as_often_as_its_bits_say(tmp_path: Path) -> None:
    """Bits are Marsaglia's, those of a seed of zero as well, and 13 of them decide."""
    small = quantize_weights(linrec.LinearRecurrence([[0.5]], [[0.5]]), steps=9, stochastic=True)
    main = """
        #include <stdio.h>
        #include "memory.h"
        int main(void)
        {
            float number;
            memory_t memory;
            memory_init(&memory);
            memory.random = 0;
            while (fread(&number, sizeof number, 1, stdin) == 1) {
                uint32_t random = memory_draw(&memory);
                uint16_t half = memory_narrow(number, random);
                fwrite(&random, sizeof random, 1, stdout);
                fwrite(&half, sizeof half, 1, stdout);
            }
            return 0;
        }
    """
    program = built(tmp_path, to_c(small, "memory"), main)
    draw = np.random.default_rng(0)
    exponents = draw.integers(-14, 15, 100_000)
    numbers = np.ldexp(draw.uniform(1, 2, 100_000), exponents).astype(np.float32)
    numbers *= draw.choice([-1, 1], 100_000).astype(np.float32)
    ran = subprocess.run([program], input=numbers.tobytes(), capture_output=True, check=True)
    found = np.frombuffer(ran.stdout, np.dtype([("random", np.uint32), ("half", np.float16)]))
    bits = drawn(SEED, len(numbers))
    assert np.array_equal(found["random"], bits)
    expected = rounded_up_or_down(numbers, bits >> 19)
    assert np.array_equal(found["half"], expected)
    # (And in Python, whose bits are torch's.)
    torch.manual_seed(0)
    ours = torch.randint(2**13, numbers.shape, dtype=torch.int32).numpy()
    torch.manual_seed(0)
    got = round_by_chance(torch.from_numpy(numbers))
    assert np.array_equal(got.numpy(), rounded_up_or_down(numbers, ours))


@needs_compiler
def test_c_draws_anew_in_each_step(tmp_path: Path) -> None:
    average = linrec.LinearRecurrence([[0.998]], [[0.002]])
    small = quantize_weights(average, steps=3000, weights=torch.int16, stochastic=True)
    source = to_c(small, "memory")
    assert "double of_states" in source  # whose last bits hardly show in one state
    main = built(tmp_path, source, MAIN)
    ones = np.ones(3000, np.float32)
    ran = subprocess.run([main], input=ones.tobytes(), capture_output=True, check=True)
    A, B, (a, b) = int(small.A), int(small.B), small.units.flatten().tolist()
    x, R, outputs = np.float16(0), np.float32(small.readout.item()), []
    for bits in drawn(SEED, 3000):
        moved = float(x) + (a * (A * float(x)) + b * B)
        x = rounded_up_or_down(np.array([moved], np.float32), bits[None] >> 19)[0]
        outputs.append(R * np.float32(x))
    found = np.frombuffer(ran.stdout[:-2], np.float32)
    assert np.array_equal(found, np.array(outputs, np.float32))


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_bound_is_what_its_derivation_says(name: str, stochastic: bool) -> None:
    """Σ |R Â^k| r, and by chance a root of squares beside it, of kernels that `linrec` computes."""
    small = quantize_weights(CASES[name](), steps=STEPS, stochastic=stochastic)
    written, n = written_out(small), len(small.A)
    eye = torch.eye(n, dtype=torch.float64)
    powers = linrec.impulse_response(
        linrec.LinearRecurrence(written.A, eye, small.readout), STEPS
    )  # R Â^k
    A, B = written.A.to_dense(), written.B
    assert B is not None
    kept = small.kept.double()
    moved, drive = (A - torch.diag(kept)).abs().sum(-1), B.abs().sum(-1)
    # (1.001 covers terms of second order.)
    sums = 1.001 * (n + B.shape[-1] + 4) * (2047 * (kept + moved) + small.largest_input * drive)
    sure = 1.001 * 2.0**-13 + 2.0**-53 * sums if stochastic else 0.5 + 2.0**-24 * sums
    expected = (powers.abs() @ sure).sum(0)
    if stochastic:
        count = STEPS * small.copies * (n + len(small.readout))
        farthest = (np.log(2 * count / CHANCE) / 2) ** 0.5
        expected = expected + farthest * powers.square().sum((0, -1)).sqrt()
    # (To the nearest, what sums in float32 add is counted for the range before it was enlarged.)
    near = 1e-9 if stochastic else 1e-3
    torch.testing.assert_close(small.rounding, expected, rtol=near, atol=1e-12)
