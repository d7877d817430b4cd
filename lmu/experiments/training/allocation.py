"""Keeping the memory that training frees in the process, for reuse."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGEST_MAPPED = 1 << 25  # bytes: the largest threshold that glibc accepts
KEPT = 1 << 30  # bytes


def keep_memory() -> bool:
    """Make glibc keep freed memory, for the life of the process.

    Each training step frees the memory that it took. If that goes back to Linux, each page faults
    when the next step first touches it, which for outputs of a megabyte takes longer than computing
    them.

    Returns:
        Whether the C library has this setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_MAPPED) and mallopt(M_TRIM_THRESHOLD, KEPT))
