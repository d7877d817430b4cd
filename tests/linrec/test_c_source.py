"""The step in C: it compiles without a warning and equals the step in torch."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import linrec
from linrec.export import to_c
from linrec.testing import error_bound
from tests.cases import SYSTEMS, TRANSITIONS, data

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no compiler of C")
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"]
STEPS = 1000

MAIN = """\
#include <stdio.h>
#include "memory.h"

int main(void)
{
    memory_t memory;
    INPUT input[MEMORY_INPUTS];
    TYPE output[MEMORY_OUTPUTS];
    memory_init(&memory);
    while (fread(input, sizeof input, 1, stdin) == 1) {
        memory_step(&memory, input, output);
        if (fwrite(output, sizeof output, 1, stdout) != 1)
            return 1;
    }
    return fwrite(memory.state, sizeof *memory.state, MEMORY_STATES, stdout) != MEMORY_STATES;
}
"""

CASES = [
    ("dense", "ABCD", torch.float64),
    ("dense", "ABCD", torch.float32),
    ("legendre", "AB, 3 copies", torch.float32),
    ("nilpotent", "AC, 2 copies", torch.float64),
    ("diagonal", "AD", torch.float64),
    ("diagonal complex", "ABCD", torch.float64),
    ("dense complex", "ABC", torch.float32),
    ("blocks", "A", torch.float64),
    ("companion", "ABCD, 2 copies", torch.float64),
    ("low rank", "ABCD", torch.float64),
    ("low rank complex", "AB", torch.float64),
    ("zero", "ABC", torch.float32),
]


C_TYPES = {np.dtype("f4"): "float", np.dtype("f8"): "double", np.dtype("i4"): "int"}


def run_in_c(
    source: str, inputs: np.ndarray, folder: Path, numbers: str | None = None
) -> np.ndarray:
    """Compile a header with a program around it, and run it over inputs; outputs are `numbers`."""
    assert COMPILER is not None
    (folder / "memory.h").write_text(source)
    kind = C_TYPES[inputs.dtype if numbers is None else np.dtype(numbers)]
    main = MAIN.replace("INPUT ", C_TYPES[inputs.dtype] + " ").replace("TYPE", kind)
    (folder / "main.c").write_text(main)
    built = [COMPILER, *FLAGS, "main.c", "-o", "main", "-lm"]
    subprocess.run(built, cwd=folder, check=True, timeout=60)
    ran = subprocess.run(
        [folder / "main"], input=inputs.tobytes(), capture_output=True, check=True, timeout=60
    )
    return np.frombuffer(ran.stdout, inputs.dtype if numbers is None else numbers)


@needs_compiler
@pytest.mark.parametrize("transition, system, dtype", CASES)
@pytest.mark.sampled(2)
def test_a_thousand_steps_in_c_are_those_in_torch(transition, system, dtype, tmp_path) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    complex_ = recurrence.dtype.is_complex
    wanted = {torch.float32: torch.complex64, torch.float64: torch.complex128}[dtype]
    recurrence = recurrence.to(wanted if complex_ else dtype)
    inputs, _ = data(recurrence, STEPS)
    numbers = (torch.view_as_real(inputs).flatten(-2) if complex_ else inputs).numpy()
    found = run_in_c(to_c(recurrence, "memory"), numbers, tmp_path)
    p, state, outputs = recurrence.output_size, None, []
    for vector in inputs:
        output, state = linrec.step(recurrence, vector, state)
        outputs.append(output)
    assert state is not None
    if complex_:
        found = found.view(np.complex128 if dtype == torch.float64 else np.complex64)
    got = torch.tensor(found[: STEPS * p]).reshape(STEPS, p)
    bound = error_bound(recurrence, inputs, linrec.Recurrent())
    # Both sides err, each by no more than the loop.
    assert ((got - torch.stack(outputs)).abs() <= 2 * bound.outputs).all()
    last = torch.tensor(found[STEPS * p :])
    assert ((last - state).abs() <= 2 * bound.final_state).all()


def test_numbers_are_written_exactly() -> None:
    A = torch.tensor([[0.1, -1 / 3], [1e-40, 3.0e38]], dtype=torch.float64)
    source = to_c(linrec.LinearRecurrence(A))
    assert all(float(value).hex() in source for value in A.flatten())
    narrow = to_c(linrec.LinearRecurrence(A[:, :1].expand(2, 2).float()))
    assert float(torch.tensor(0.1).double()).hex() + "f" in narrow


@pytest.mark.parametrize(
    "structure, count",
    [
        (linrec.Diagonal(torch.rand(8)), 8),
        (linrec.Companion(torch.rand(8)), 15),
        (linrec.DiagonalPlusLowRank(torch.rand(8), torch.rand(8, 1), torch.rand(8, 1)), 24),
        (linrec.BlockDiagonal(torch.rand(4, 2, 2)), 16),
        (linrec.Dense(torch.rand(8, 8)), 64),
    ],
)
def test_structures_save_multiplications(structure: linrec.Structure, count: int) -> None:
    assert f"{count} multiplications" in to_c(linrec.LinearRecurrence(structure))


@pytest.mark.parametrize("name", ["", "1st", "a b", "while", "x;", "a-b"])
def test_names_that_c_does_not_take_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="identifier of C"):
        to_c(linrec.LinearRecurrence([[0.5]]), name)


def test_what_is_no_one_system_is_refused() -> None:
    varying = linrec.LinearRecurrence(torch.rand(5, 2, 2), time_varying=True)
    with pytest.raises(ValueError, match="varies with time"):
        to_c(varying)
    with pytest.raises(ValueError, match="batch of systems"):
        to_c(linrec.LinearRecurrence(torch.rand(5, 2, 2)))
    with pytest.raises(ValueError, match="not finite in float"):
        to_c(linrec.LinearRecurrence(torch.tensor([[1e39]]).double()), dtype=torch.float32)
    with pytest.raises(ValueError, match="float32 or"):
        to_c(linrec.LinearRecurrence([[0.5]]), dtype=torch.int8)
