"""Words are spelt as English spells them."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_no_word_is_misspelt(tmp_path: Path) -> None:
    command = shutil.which("codespell")
    if command is None:
        pytest.skip("codespell is not installed: `pip install -e '.[test]'`")
    wrong = tmp_path / "wrong.md"
    wrong.write_text("A rec" + "ieved word.\n", encoding="utf-8")
    assert subprocess.run([command, str(wrong)], capture_output=True).returncode  # it does look
    done = subprocess.run([command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
