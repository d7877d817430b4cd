"""Large cases, for executors that fail only on these."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st

from linrec._tensors.dtypes import double_dtype
from linrec.structures import Dense, Diagonal, Structure
from linrec.systems import LinearRecurrence
from linrec.testing.case import Case
from linrec.testing.matrices import KINDS
from linrec.testing.strategies import DTYPES, normal

between = st.integers
FEW, ONE = between(2, 4), st.just(1)
WIDTHS = st.sampled_from((2, 2, 9))  # of inputs and of outputs


class Extent(NamedTuple):
    """The size of a case.

    Attributes:
        steps: draws T.
        sizes: draws n.
        batch: draws the number of sequences.
        scale: the size of inputs.
        is_varying: whether each step has a matrix of its own.
    """

    steps: st.SearchStrategy[int]
    sizes: st.SearchStrategy[int] = FEW
    batch: st.SearchStrategy[int] = ONE
    scale: float = 1.0
    is_varying: bool = False


# The most revealing extents come first, because a short search tries only those. Each kind of size
# comes once before any comes again: few, some and many; powers of two of steps and states; one step
# more. (Joined runs have one step less, and most of the powers again.)
EXTENTS: tuple[Extent, ...] = (
    Extent(between(1100, 2500)),
    Extent(between(5, 40), sizes=between(17, 31), batch=between(4, 8)),
    Extent(between(2, 12), batch=between(70, 300)),
    Extent(st.just(256)),
    Extent(st.just(65), sizes=between(5, 7), batch=between(9, 16)),
    Extent(between(5, 40), scale=2.0**20),
    Extent(between(33, 300), is_varying=True),
    Extent(between(2, 12), sizes=between(9, 15), batch=between(17, 63)),
    Extent(st.just(1025)),
    Extent(between(5, 20), sizes=between(65, 127)),
    Extent(st.just(129), batch=between(4, 8)),
    Extent(st.just(64), sizes=between(33, 63)),
    Extent(st.just(257)),
    Extent(st.just(32), sizes=st.just(32), batch=between(9, 16)),
    Extent(st.just(513)),
    Extent(st.just(16), sizes=st.just(64)),
    Extent(st.just(65), batch=between(4, 16), is_varying=True),
    Extent(st.just(1024)),
    Extent(st.just(8), sizes=st.just(128)),
    Extent(st.just(128), sizes=st.just(16), batch=between(17, 63)),
    Extent(st.just(512)),
    Extent(st.just(256), is_varying=True),
    Extent(st.just(33), sizes=st.just(8)),
    Extent(between(2, 12), batch=st.sampled_from((64, 128, 256))),
    Extent(between(300, 1100)),
    Extent(between(5, 20), sizes=between(129, 140)),
    *(Extent(st.just(2**power)) for power in (11, 12)),
    Extent(between(40, 300), sizes=st.sampled_from((8, 16, 32)), batch=between(2, 8)),
)


@st.composite
def large_cases(draw: st.DrawFn, extent: Extent) -> Case:
    """Draw a large case: normal numbers, and matrices whose powers stay small.

    A is a permutation, a diagonal that forgets slowly, or a contraction. The row and column sums of
    |A| are at most one, so that one pass finds a bound, for the adjoint too.
    """
    steps, n, batch = draw(extent.steps), draw(extent.sizes), draw(extent.batch)
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 2**31 - 1))
    m, p = draw(WIDTHS), draw(WIDTHS)
    if extent.is_varying:
        A = transition("diagonal", n, dtype, seed).map(
            lambda sizes, _: sizes * normal((steps, n), dtype, seed + 5).sgn()
        )
    else:
        A = transition(draw(st.sampled_from(("shift", "diagonal", "stable"))), n, dtype, seed)
    B = normal((n, m), dtype, seed + 1) if draw(st.booleans()) or n > 16 else None
    C = normal((p, n), dtype, seed + 2) if draw(st.booleans()) else None
    recurrence = LinearRecurrence(A, B, C, time_varying=extent.is_varying)
    axes = (batch,) if batch > 1 else ()
    inputs = extent.scale * normal((*axes, steps, recurrence.input_size), dtype, seed + 3)
    state = normal((*axes, n), dtype, seed + 4) if draw(st.booleans()) else None
    lengths = None
    if batch > 1 and draw(st.booleans()):
        lengths = torch.arange(batch) * 7 % (steps + 1)
    return Case(recurrence, inputs, state, lengths)


def transition(kind: str, n: int, dtype: torch.dtype, seed: int) -> Structure:
    """Make a transition of n states, with long memory or not."""
    numbers = normal((n, n), double_dtype(dtype), seed)
    if kind == "diagonal":
        sizes = 1 - torch.logspace(-5, 0, n + 1, dtype=torch.float64)[:n]
        return Diagonal((numbers[0].sgn() * sizes).to(dtype))
    A = KINDS[kind](numbers)
    return Dense((A / A.abs().sum(-2).max().clamp(min=1.0)).to(dtype))
