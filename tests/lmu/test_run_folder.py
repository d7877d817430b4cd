"""Run folders: one process at a time, whoever was killed before, on whatever disk."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from lmu.experiments.training import RunFolder, write
from lmu.experiments.training.run_folder import LAST
from tests import forked

CONFIGURATION = {"seed": 3}
HOLD = """
import sys
from lmu.experiments.training import RunFolder
folder = RunFolder(sys.argv[1], {"seed": 3}, resume=True)
print("held", flush=True)
sys.stdin.read()  # until the test has ended, however
"""


def holder(path: Path) -> forked.Forked:
    """Start a process that has the folder."""
    process = forked.Forked(HOLD, path)
    assert process.stdout.readline() == b"held\n"
    return process


def test_one_process_at_a_time_and_none_that_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with holder(path) as other:
        before = {file.name: file.read_bytes() for file in path.iterdir()}
        with pytest.raises(BlockingIOError, match=r"run` is in use: another process .*--output"):
            RunFolder(path, CONFIGURATION, resume=True)
        with pytest.raises(FileExistsError, match="--resume"):
            RunFolder(path, CONFIGURATION)
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before
        other.send_signal(signal.SIGKILL)
        assert other.wait() == -signal.SIGKILL
    RunFolder(path, CONFIGURATION, resume=True)


def test_a_process_takes_over_what_it_has(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, CONFIGURATION)
    second = RunFolder(tmp_path, CONFIGURATION, resume=True)
    del first
    second.write(LAST, b"")
    refused = forked.run(HOLD, tmp_path)
    assert "BlockingIOError" in refused.stderr
    del second
    with holder(tmp_path):
        pass


def test_parts_that_killed_processes_left_are_cleared(tmp_path: Path) -> None:
    RunFolder(tmp_path, CONFIGURATION)
    for name in (".17-0123.part", "config.json.part"):
        write(tmp_path / name, b"half of ")
    RunFolder(tmp_path, CONFIGURATION, resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "run.lock"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_said(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise OSError(code, os.strerror(code))

    folder = RunFolder(tmp_path / "run", CONFIGURATION)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(
            OSError, match=r"last\.safetensors` cannot be written .*(another|Free|Change)"
        ):
            folder.save(LAST, {})
        patch.setattr(Path, "open", refuse)
        with pytest.raises(OSError, match=r"metrics\.jsonl` cannot be written"):
            folder.log({})
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(OSError, match=r"other` cannot be written"):
            RunFolder(tmp_path / "other", CONFIGURATION)
    assert not (tmp_path / "run" / LAST).exists()


def test_two_processes_write_one_file_and_none_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    code = "import sys, pathlib; from lmu.experiments.training import write\nfor _ in range(20):\n"
    code += "    write(pathlib.Path(sys.argv[1]), sys.argv[2].encode() * 2**20)"
    whole = {b"a" * 2**20, b"b" * 2**20}
    with forked.Forked(code, path, "a") as one, forked.Forked(code, path, "b") as other:
        while one.process.is_alive() or other.process.is_alive():
            if path.exists():
                assert path.read_bytes() in whole
            time.sleep(0.001)
        assert one.wait() == other.wait() == 0
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]
