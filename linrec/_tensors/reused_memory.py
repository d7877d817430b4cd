"""Reuse of the memory of large results, instead of giving it back to Linux."""

import threading
import weakref
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.uint8]

# Blocks are at most this many times as large as the memory asked for.
MOST = 1.25


class Pool:
    """A pool of memory blocks whose results are gone, waiting for reuse.

    The pool never holds more memory than results used at once: where blocks in use and waiting
    blocks would exceed that, waiting blocks are freed, the oldest first.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: deque[Block] = deque()  # oldest first
        self.returned: deque[Block] = deque()
        self.used = self.most = 0
        self.open = True

    def take_memory(self, size: int) -> Block:
        """Return `size` bytes of a block, which comes back when this array is gone.

        (Numpy's views of the array hold the block, not the array.)
        """
        # Not waited for: the lock may be held further down this stack, when a signal handler or a
        # finalizer asks for memory, or by the process from which this one was forked.
        if not self.lock.acquire(blocking=False):
            return np.empty(size, np.uint8)
        try:
            block = self.take(size)
        finally:
            self.lock.release()
        memory = block[:size]
        weakref.finalize(memory, self.give_back, block).atexit = False
        return memory

    def take(self, size: int) -> Block:
        """Take the smallest waiting block of `size` bytes or more; allocate one if none fits."""
        while self.returned:
            block = self.returned.popleft()
            self.used -= block.nbytes
            self.waiting.append(block)
        fits = [each for each in self.waiting if size <= each.nbytes <= MOST * size]
        if fits:
            block = min(fits, key=len)
            # (By identity: arrays are compared number by number.)
            self.waiting = deque(each for each in self.waiting if each is not block)
        else:
            block = self.allocate(size)
        self.used += block.nbytes
        return block

    def allocate(self, size: int) -> Block:
        """Allocate a block, after freeing waiting blocks that would be too many beside it."""
        self.most = max(self.most, self.used + size)
        held = self.used + size + sum(each.nbytes for each in self.waiting)
        while self.waiting and held > self.most:
            held -= self.waiting.popleft().nbytes
        try:
            return np.empty(size, np.uint8)
        except MemoryError:
            self.waiting.clear()
            return np.empty(size, np.uint8)

    def give_back(self, block: Block) -> None:
        """Take back a block whose result is gone.

        A result may be freed at any moment, in any thread, even while this thread holds the lock:
        so this method does nothing that needs the lock.
        """
        if self.open:
            self.returned.append(block)

    def close(self) -> None:
        """Free all blocks; a block still in use is freed with its result."""
        self.open = False
        if self.lock.acquire(timeout=1.0):  # (after a fork it may be held forever)
            self.waiting.clear()
            self.returned.clear()
            self.lock.release()


_pools: list[Pool] = []


def pool() -> Pool | None:
    """Return the pool of the innermost `reuse_memory`; None outside one."""
    innermost = _pools[-1:]  # (at once: other threads leave contexts)
    return innermost[0] if innermost else None


@contextmanager
def using(own: Pool) -> Generator[None]:
    """Take the memory of large results from a pool, within a `with`."""
    _pools.append(own)
    try:
        yield
    finally:
        _pools.remove(own)


@contextmanager
def reuse_memory() -> Generator[None]:
    """Reuse the memory of large results for later ones, within a `with`.

    Linux clears memory page by page as a process first writes into it, and takes it back whenever a
    large result is dropped, so each training step pays for it again. Within this context, results
    of 4 MiB or more that recurrences compute on a CPU, also for a graph or a gradient, take memory
    left by earlier results. Their values are the same. The memory held never exceeds what results
    used at once (a block being up to a quarter larger than its result), and all of it is freed at
    the end; a result that outlives the context keeps its block. Outside Linux the gain may be
    smaller. Graphs of `torch.compile` are unaffected; enter the context outside compiled functions.

    It applies to all threads. (Allocators that keep memory, such as jemalloc, do the same for a
    whole process, including torch's own results.)

    Returns:
        A context for `with`, which may be nested.

    Example:
        >>> import torch, linrec
        >>> memory = linrec.discretize(linrec.memories.legendre(order=32, theta=100.0))
        >>> layer = linrec.nn.Recurrence(memory)
        >>> with linrec.reuse_memory():
        ...     for _ in range(3):
        ...         states = layer(torch.randn(64, 1024, 1)).outputs
        >>> states.shape
        torch.Size([64, 1024, 32])
    """
    own = Pool()
    try:
        with using(own):
            yield
    finally:
        own.close()
