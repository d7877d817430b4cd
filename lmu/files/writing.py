"""Write a file whole or not at all, also while others write it."""

from pathlib import Path

from linrec.reporting import PART as PART
from linrec.reporting import write as write_whole
from lmu.files.refusals import explain_os_errors


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the process is killed meanwhile.

    What is written lies next to its place first, under a name of its own, and is then moved there.
    Of two processes that write one file the last wins, and whoever reads it sees one whole content.

    Args:
        path: where; the folders above it are made.
        content: what.

    Raises:
        OSError: the disk is full, the folder cannot be written, or the like; what was there before
            is there still.
    """
    with explain_os_errors(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)


def append(path: Path, line: str) -> None:
    """Add a line to a file.

    Raises:
        OSError: the disk is full, or the like.
    """
    with explain_os_errors(path, "written"), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
