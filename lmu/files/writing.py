"""Write a file whole or not at all, also beside other writers."""

import os
import secrets
from pathlib import Path

from lmu.files.refusals import said

PART = ".part"  # of a file that is being written, or was when the process was killed


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the process is killed meanwhile.

    What is written lies beside its place first, under a name of its own, and is then moved there.
    Of two processes that write one file the last wins, and whoever reads it sees one whole content.

    Args:
        path: where; the folders above it are made.
        content: what.

    Raises:
        OSError: the disk is full, the folder cannot be written, or the like; what was there before
            is there still.
    """
    with said(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}{PART}")
        try:
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def append(path: Path, line: str) -> None:
    """Add a line to a file.

    Raises:
        OSError: the disk is full, or the like.
    """
    with said(path, "written"), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
