"""A pool of additional threads for compiled loops."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

# Created when first needed.
THREADS: list[ThreadPoolExecutor] = []

# A forked process inherits the pool but not its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=THREADS.clear)


def share(work: Callable[[int, int], None], pieces: int, threads: int) -> None:
    """Run `work(begin, end)` over all pieces, shared among threads."""
    bounds = [pieces * thread // threads for thread in range(threads + 1)]
    if threads > 1 and not THREADS:
        THREADS.append(ThreadPoolExecutor(thread_name_prefix="linrec"))
    parts = [THREADS[0].submit(work, begin, end) for begin, end in pairwise(bounds[1:])]
    work(bounds[0], bounds[1])
    for part in parts:
        part.result()
