"""Write a file whole or not at all, even while other processes write it."""

from pathlib import Path

from linrec.reporting import PART as PART
from linrec.reporting import write as write_whole
from lmu.files.refusals import explain_os_errors


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the process is killed meanwhile.

    The content is first written next to its place, under a name of its own, and then moved there.
    If two processes write the same file, the last wins, and readers see one content or the other.

    Args:
        path: the file; missing folders above it are made.
        content: the new content.

    Raises:
        OSError: the disk is full, the folder cannot be written, or the like; the file is then
            unchanged.
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
