"""The checks before a commit pass: what `pre-commit run --all-files` says, the tests say too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    "ruff": ["ruff", "check", "--no-cache", "."],
    "ruff format": ["ruff", "format", "--no-cache", "--check", "."],
    # A rule of ruff's previews: without `encoding=` a file is read as the machine's owner likes.
    "encoding": ["ruff", "check", "--no-cache", "--preview", "--select", "PLW1514", "."],
    "codespell": ["codespell", "."],
    "pyright": ["pyright"],
}
SLOW = {"pyright"}  # minutes; the workflow's `lint` runs it


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CHECKS]
)
def test_a_check_passes(name: str) -> None:
    program, *arguments = CHECKS[name]
    beside = Path(sys.executable).parent
    found = shutil.which(program, path=str(beside)) or shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_check_is_made_before_a_commit() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    for command in CHECKS.values():
        kept = " ".join(part for part in command if part not in ("--no-cache", ".", "--check"))
        assert f"entry: {kept}" in hooks, f"no hook runs `{kept}`"


RUN = """
recurrence = linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], [[1.0], [0.0]], [[0.0, 1.0]])
linrec.run(recurrence, torch.randn(3, 20, 1, requires_grad=True)).outputs.sum().backward()
linrec.step(recurrence, torch.randn(3, 1))
layer = linrec.nn.MinGRU(3, 4)
layer(torch.randn(2, 9, 3))[0].sum().backward()
"""
DISCRETIZED = """
layer = lmu.ParallelLMU(2, 5, channels=2, order=4, theta=10)
layer(torch.randn(2, 9, 2)).outputs.sum().backward()
"""


@pytest.mark.parametrize(
    ("what", "program", "needed"),
    [
        ("import", "", set()),
        ("run", RUN, set()),
        ("discretize", DISCRETIZED, {"scipy"}),
        ("commands", "import linrec.commands", {"hypothesis", "rich", "typer"}),
    ],
)
def test_what_a_program_does_loads_torch_alone(what: str, program: str, needed: set[str]) -> None:
    """(sympy and the compiler are a second each, before the first number is there.)

    As where Numba is not installed: with it a scan loads Numba, and scipy with it.
    """
    heavy = {"scipy", "sympy", "hypothesis", "matplotlib", "rich", "typer", "h5py", "onnx"}
    program = (
        "import sys, torch, linrec, lmu, linrec.kernels.cpu_loops as loops\n"
        f"loops.HAS_NUMBA = False\n{program}\n"
        f"print(*sorted({heavy | {'torch._dynamo'}} & set(sys.modules)))"
    )
    done = forked.run(program)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= needed, f"{what} loads {done.stdout}"
