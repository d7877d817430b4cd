"""Errors of files: they name the file, the fault and the remedy."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

AnyPath = str | os.PathLike[str]

# Remedies for errors of the operating system.
_FULL = "Free some space there, or name a folder on another disk."
_FORBIDDEN = "Change its permissions or those of the folder, or name another place."
_NO_FOLDER = "A part of the path is a file where a folder was expected: name another place."
MENDS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "The file is larger than may be written there: name a folder on another disk.",
    errno.EROFS: "The disk is there to be read only: name a folder on another one.",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EISDIR: "It is a folder where a file was expected: move it away, or name another place.",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOENT: "It does not exist: correct the name.",
    errno.EMFILE: "Too many files are open: close some.",
    errno.ELOOP: "It is a link that leads to itself: replace it.",
    errno.EIO: "The disk may be failing: name a folder on another one.",
}


class DamagedFile(ValueError):
    """A file is damaged or of another kind; the message names it and the remedy."""


@contextmanager
def explain_os_errors(path: AnyPath, verb: str) -> Iterator[None]:
    """Explain an error of the operating system in a sentence: which file, why, and what to do.

    Args:
        path: the file.
        verb: what was tried: "read" or "written".

    Raises:
        OSError: an error raised within, of the same type and with the same `errno`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno == errno.EINVAL:
            raise
        reason = error.strerror or os.strerror(error.errno)
        mend = MENDS.get(error.errno, "Name another place.")
        told = type(error)(f"`{os.fspath(path)}` cannot be {verb} ({reason}). {mend}")
        told.errno = error.errno
        raise told from None


def refuse_devices(path: AnyPath) -> None:
    """Refuse a pipe or a device, which may have no end.

    Raises:
        FileNotFoundError: the path is a pipe or a device.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise FileNotFoundError(
            f"`{os.fspath(path)}` is a pipe or a device: expected a file. Replace it."
        )


@contextmanager
def explain_parser_errors(
    path: AnyPath, expected: str, mend: str = "Replace it.", verb: str = "read"
) -> Iterator[None]:
    """Turn any failure of a parser into an error that names the file.

    The parsers of archives, checkpoints and the like belong to other libraries, and damaged files
    make them fail in many ways: with zlib's errors, `EOFError`, `NotImplementedError`,
    `RecursionError` and others. The `with` should contain nothing but the parser.

    Args:
        path: the file.
        expected: what it should have been.
        mend: what to do.
        verb: what was tried.

    Raises:
        DamagedFile: the parser failed.
        OSError: the operating system refused to read.
    """
    try:
        with explain_os_errors(path, "read"):
            yield
    except DamagedFile:
        raise
    except OSError as error:
        if error.errno in MENDS:
            raise
        # errno is None in gzip's own errors, and EINVAL if an archive points before the file.
        failure: Exception = error
    except Exception as error:
        failure = error
    else:
        return
    reason = (str(failure).splitlines() or [""])[0][:200] or type(failure).__name__
    raise DamagedFile(
        f"`{os.fspath(path)}` cannot be {verb} ({reason}): expected {expected}. {mend}"
    ) from None
