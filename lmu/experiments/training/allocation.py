"""Memory that training gives back is kept by the process, to be taken again."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGEST_MAPPED = 1 << 25  # bytes: the largest that glibc takes
KEPT = 1 << 30  # bytes


def keep_memory() -> bool:
    """Let glibc keep memory that is freed, for the life of the process.

    Each step of training frees what it took. Where that goes back to Linux, the next step's first
    touch of each page is a fault, and for outputs of a megabyte takes longer than to compute them.

    Returns:
        Whether the C library is one that can be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_MAPPED) and mallopt(M_TRIM_THRESHOLD, KEPT))
