"""A lock on a folder, for writing by one process at a time."""

import weakref
from pathlib import Path

from filelock import FileLock, Timeout

from lmu.files.refusals import explain_os_errors

LOCK = "run.lock"


class FolderLock:
    """A lock on a folder, held until it is released, forgotten, or its process ends.

    The operating system keeps the lock, not the file `run.lock` on which it is taken: a leftover
    file blocks nobody. Within one process it may be taken any number of times.

    Args:
        folder: the folder to lock.

    Raises:
        BlockingIOError: another process has it.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        lock = FileLock(folder.resolve() / LOCK, timeout=0, thread_local=False, is_singleton=True)
        try:
            with explain_os_errors(folder / LOCK, "written"):
                lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"`{folder}` is in use: another process trains there. Expected one at a time. Wait "
                "until it has ended, or give another folder with `--output FOLDER`."
            ) from None
        self.release = weakref.finalize(self, lock.release)
