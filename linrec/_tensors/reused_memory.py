"""Keep the memory of large results for the next ones, instead of giving it back to Linux."""

import threading
import weakref
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.uint8]

# Blocks are at most so many times as large as what they are handed out for.
MOST = 1.25


class Pool:
    """Blocks of memory whose results are gone, and that wait for others.

    No more blocks are held than results had at once: where those in use and the blocks that wait
    would take more, blocks are given back, the oldest first.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: deque[Block] = deque()  # oldest first
        self.returned: deque[Block] = deque()
        self.used = self.most = 0
        self.open = True

    def take_memory(self, size: int) -> Block:
        """Take some bytes of a block, which comes back when this array is gone.

        (A view that numpy makes of it holds the block, and not it.)
        """
        # Not waited for: what holds the lock may stand below on this stack, where a handler of
        # signals or a finalizer asks for memory, or be in a process that this one was forked from.
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
        """Take a block of some bytes or more, the smallest that waits; a new one if none does."""
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
        """Allocate a block; waiting ones that would be too many beside it go first."""
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

        A result may go at any moment, in any thread, and so while this thread holds the lock:
        nothing is done here but what needs none.
        """
        if self.open:
            self.returned.append(block)

    def close(self) -> None:
        """Give all blocks back; a block whose result is still there goes with it."""
        self.open = False
        if self.lock.acquire(timeout=1.0):  # (after a fork it may be held for ever)
            self.waiting.clear()
            self.returned.clear()
            self.lock.release()


_pools: list[Pool] = []


def pool() -> Pool | None:
    """Return the pool of the innermost `reuse_memory`; None outside of any."""
    innermost = _pools[-1:]  # (at once: other threads leave contexts)
    return innermost[0] if innermost else None


@contextmanager
def using(own: Pool) -> Generator[None]:
    """Take the memory of large results from a pool within a `with`."""
    _pools.append(own)
    try:
        yield
    finally:
        _pools.remove(own)


@contextmanager
def reuse_memory() -> Generator[None]:
    """Keep the memory of large results within a `with`, and hand it out for the next ones.

    Linux clears memory page by page as a process first writes into it, and takes it back with each
    large result that is dropped; so each step of a training pays for it anew. Within this context
    the results of 4 MiB and more that recurrences compute on a CPU come from blocks of memory which
    earlier results have left, a graph's or a gradient's included. What results are is the same.
    No more blocks are held than results had at once, a block being up to a quarter larger than its
    result, and all are given back at the end; a result that outlives the context keeps its block.
    Elsewhere than on Linux less may be gained. In graphs of `torch.compile` nothing changes; enter
    the context outside of a function that is compiled.

    It applies to all threads. (Other ways to the same end are allocators that keep memory, such as
    jemalloc, for a whole process and for torch's own results too.)

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
