"""The peak memory of a call, as the system counts it."""

from collections.abc import Callable
from pathlib import Path

from linrec.benchmark.timing import give_back

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(way: Callable[[], object]) -> int | None:
    """Measure the peak memory that a call adds to the process, in bytes.

    Freed memory that the allocator keeps is first returned to the system; otherwise the call would
    reuse it uncounted.

    Args:
        way: the function. It should have been called before, so that memory kept from the first
            call (plans, the threads' own memory) already exists.

    Returns:
        The bytes; None where the system does not count them (all but Linux).
    """
    try:
        give_back()
        RESET.write_text("5", encoding="ascii")  # resets the peak: proc(5)
        before = read_memory("VmRSS")
        result = way()
        peak = read_memory("VmHWM")
        del result
    except OSError:
        return None
    return max(peak - before, 0)


def read_memory(name: str) -> int:
    """Read one of the process's counts of memory, in bytes."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise OSError(f"there is no {name} in {STATUS}")
