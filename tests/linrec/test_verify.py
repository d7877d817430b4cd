"""The command `linrec verify`: tables, exit statuses, programs to reproduce failures, refusals."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from linrec.commands import app
from tests import forked

MINE = """
from dataclasses import dataclass
import torch, linrec

swing = linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], [[1.0], [0.0]], [[0.0, 1.0]])
system = linrec.StateSpace([[-1.0]], [[1.0]])
structure = linrec.Diagonal(torch.tensor([0.5, -0.9]))
turning = linrec.LinearRecurrence([[0.9j]], [[1.0]])
turner = linrec.nn.Recurrence(turning)
turns = linrec.Diagonal(torch.tensor([0.9j]))
module = linrec.nn.Recurrence(swing)

class Plain(torch.nn.Module):
    def step(self, input, state=None):
        return input, state

plain = Plain()
number = 3

class Forgetful(torch.nn.Module):
    input_size = 2

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Linear(2, 3)

    def forward(self, inputs, state=None):
        outputs = self.weights(inputs).cumsum(1)
        start = outputs.new_zeros(len(inputs), 3)
        return outputs, outputs[:, -1] if inputs.shape[1] else start

    def step(self, input, state=None):
        output = self.weights(input) + (0 if state is None else state)
        return output, output

def make():
    return swing

@dataclass(frozen=True)
class Loop(linrec.Executor):
    factor: float = 1.0

    def execute(self, recurrence, plan, inputs, state):
        result = linrec.Recurrent().execute(recurrence, plan, inputs, state)
        return linrec.Result(self.factor * result.outputs, result.final_state)

    def cost(self, work):
        return linrec.Cost(1, 1, 1)

right, wrong = Loop(), Loop(1.001)
"""

GOOD: dict[str, list[str]] = {
    "a recurrence": ["mine.py:swing"],
    "by its module": ["mine:swing"],
    "a function": ["mine.py:make", "--dtype", "float64"],
    "a system": ["mine.py:system", "--dt", "0.1"],
    "a structure": ["mine.py:structure", "--dtype", "complex64"],
    "an executor": ["mine.py:right"],
    "in half precision": ["mine.py:swing", "--dtype", "float16"],
    "the library in half precision": ["--dtype", "bfloat16"],
    "a module": ["mine.py:module"],
}

BAD: dict[str, tuple[list[str], str]] = {
    "no name": (["mine.py"], "expected MODULE:NAME or FILE.py:NAME"),
    "no file": (["other.py:swing"], "there is no file `other.py`"),
    "no module": (["other:swing"], "there is no module `other`"),
    "no such name": (["mine.py:swings"], "has no `swings`: it has"),
    "not to be verified": (["mine.py:number"], "is a int: expected a `LinearRecurrence`"),
    "no such dtype": (["mine.py:swing", "--dtype", "float8"], "expected one of float64"),
    "a function of something": (["lmu:delay_system"], "needs order, theta"),
    "no imaginary part": (["mine.py:turning", "--dtype", "float32"], "expected complex128 or"),
    "nor of a module": (["mine.py:turner", "--dtype", "float32"], "expected complex128 or"),
    "nor of a structure": (["mine.py:turns", "--dtype", "float64"], "expected complex128 or"),
    "no time step": (["mine.py:system", "--dt", "0"], "`dt` is 0.0"),
    "no size": (["mine.py:plain"], "--input-size"),
    "a time step of no use": (["mine.py:swing", "--dt", "1"], "leave it out"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's file, and nothing of it left behind."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def typed(*words: str) -> tuple[int, str]:
    """Type `linrec verify …`; give the exit status and what was printed, in one line."""
    result = CliRunner().invoke(app, ["verify", *words], env={"COLUMNS": "200"})
    sys.modules.pop("mine", None)
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_passes(name: str) -> None:
    examples = 3 if name == "a recurrence" else 2 if "precision" in name else 1
    status, printed = typed(*GOOD[name], "--examples", str(examples))
    assert status == 0, printed
    assert "as a share of its bound" in printed and "fails" not in printed


def test_operations_of_a_structure_are_verified_too() -> None:
    printed = typed("mine.py:structure", "--examples", "2")[1]
    assert "compose" in printed and "agreement" in printed


def test_the_library_itself_passes_and_a_seed_repeats_its_table() -> None:
    first, second, other = (
        typed("--examples", "2", "--dtype", "float64", "--seed", seed) for seed in "778"
    )
    assert first[0] == 0 and first == second
    assert other[0] == 0 and other[1] != first[1]
    assert "tolerance" not in first[1]  # columns say what is not as by default
    for column in ("Recurrent", "Toeplitz", "Chunked", "Auto"):
        assert column in first[1]


def test_what_is_wrong_fails_with_a_program_that_shows_it(folder: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "mine.py:wrong", "--examples", "10"])
    assert result.exit_code == 1 and "fails" in result.output
    _, _, printed = result.output.partition("To see it again:\n\n")
    program = printed.partition("\n)\n")[0] + "\n)\n"
    again = forked.run(program)
    assert again.returncode == 1
    assert "Disagreement: agreement does not hold for Loop(factor=1.001)" in again.stderr


def test_a_wrong_module_fails_with_a_program_that_makes_it_again(folder: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "mine.py:Forgetful", "--examples", "4"])
    assert result.exit_code == 1
    _, _, printed = result.output.partition("To see it again:\n\n")
    before, call, after = printed.partition("linrec.testing.check_module(")
    again = forked.run(before + call + after.partition("\n")[0] + "\n")
    assert again.returncode == 1 and "does not hold for Forgetful" in again.stderr


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_verified_is_refused(name: str) -> None:
    words, message = BAD[name]
    status, printed = typed(*words)
    assert status == 2 and message in printed
