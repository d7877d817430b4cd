"""Another distribution by the name of `lmu` is noticed."""

from pathlib import Path

from tests import forked


def imported(*paths: Path) -> str:
    """Import lmu in a process of its own, and return its warnings."""
    code = f"import sys, warnings; sys.path[:0] = {list(map(str, paths))}\n"
    done = forked.run(code + "warnings.simplefilter('always'); import lmu")
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_distribution_that_writes_into_our_folder_is_named(tmp_path: Path) -> None:
    assert "distribution `lmu`" not in imported()
    record = tmp_path / "lmu-0.4.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: lmu\nVersion: 0.4.0\n")
    said = imported(tmp_path)
    assert "The distribution `lmu` 0.4.0 is installed" in said
    assert "pip install --force-reinstall --no-deps linrec" in said
