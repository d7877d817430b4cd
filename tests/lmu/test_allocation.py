"""Memory that training gives back stays with the process."""

import ctypes
import os
import subprocess
import sys

import pytest

from lmu.experiments.training import allocation

# A process of its own, since what glibc is told holds for the life of the process. Pages that are
# touched anew are no measure of it: whether a freed piece fits again depends on its neighbours.
PROGRAM = """
import ctypes, runpy, sys

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]

class Mallinfo2(ctypes.Structure):  # malloc.h
    NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES.split()]

libc.mallinfo2.restype = Mallinfo2
if "keep" in sys.argv:
    assert runpy.run_path(sys.argv[1])["keep_memory"]()
before = libc.mallinfo2()
piece = libc.malloc(20 << 20)
held = libc.mallinfo2()
libc.free(piece)
after = libc.mallinfo2()
print(held.hblkhd - before.hblkhd, after.fordblks - before.fordblks)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_memory_that_is_kept_is_not_mapped_anew() -> None:
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("needs glibc 2.33")

    others = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")  # settings or mallocs of the user's own
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}

    def mapped_and_free(*options: str) -> tuple[int, int]:
        """Return the bytes mapped for a piece of 20 MiB, and those free in the heap after it."""
        command = [sys.executable, "-c", PROGRAM, allocation.__file__, *options]
        said = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout
        mapped, free = map(int, said.split())
        return mapped, free

    mapped, free = mapped_and_free("keep")
    assert mapped == 0 and free >= 20 << 20
    mapped, free = mapped_and_free()  # as glibc does by itself
    assert mapped >= 20 << 20 and free < 1 << 20
