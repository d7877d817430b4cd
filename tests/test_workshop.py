"""The checks before a commit pass: what `pre-commit run --all-files` says, the tests say too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_import_linrec_loads_torch_alone() -> None:
    program = (
        "import sys, torch, linrec, lmu\n"
        "heavy = {'scipy', 'sympy', 'hypothesis', 'matplotlib', 'rich', 'typer', 'h5py', 'onnx'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), f"`import linrec` loads {done.stdout}"
