"""Keep the memory of large results for the next ones, instead of giving it back to Linux."""

import threading
import weakref
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.uint8]

# A block is handed out for results of half its size and more.
MOST = 2


class Pool:
    """Blocks of memory whose results are gone, and that wait for others.

    No more memory is held than results had at once: where those in use and the blocks that wait
    would take more, blocks are given back, the oldest first.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: deque[Block] = deque()  # oldest first
        self.returned: deque[Block] = deque()
        self.used = self.most = 0
        self.open = True

    def take(self, size: int) -> Block:
        """Take a block of some bytes or more, the smallest that waits; a new one if none does."""
        with self.lock:
            self.collect()
            fits = [each for each in self.waiting if size <= each.nbytes <= MOST * size]
            if fits:
                block = min(fits, key=len)
                # (By identity: arrays are compared number by number.)
                self.waiting = deque(each for each in self.waiting if each is not block)
            else:
                block = np.empty(size, np.uint8)
            self.used += block.nbytes
            self.most = max(self.most, self.used)
            held = self.used + sum(each.nbytes for each in self.waiting)
            while self.waiting and held > self.most:
                held -= self.waiting.popleft().nbytes
        return block

    def collect(self) -> None:
        """Let blocks that were given back wait for results."""
        while self.returned:
            block = self.returned.popleft()
            self.used -= block.nbytes
            self.waiting.append(block)

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
        self.returned.clear()
        self.waiting.clear()

    def take_memory(self, size: int) -> Block:
        """Take some bytes of a block, which comes back when this array is gone.

        (A view that numpy makes of it holds the block, and not it.)
        """
        block = self.take(size)
        memory = block[:size]
        weakref.finalize(memory, self.give_back, block).atexit = False
        return memory


_pools: list[Pool] = []


def pool() -> Pool | None:
    """Return the pool of the innermost `reuse_memory`; None outside of any."""
    return _pools[-1] if _pools else None


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
    No more is held than results had at once, and all of it is given back at the end; a result that
    outlives the context keeps its memory. Elsewhere than on Linux less may be gained. In graphs of
    `torch.compile` nothing changes.

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
