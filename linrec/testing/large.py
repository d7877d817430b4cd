"""Cases of a size at which executors go wrong that are right on small ones."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st

from linrec._tensors.dtypes import double_dtype
from linrec.structures import Dense, Diagonal, Structure
from linrec.systems import LinearRecurrence
from linrec.testing.case import Case
from linrec.testing.matrices import KINDS
from linrec.testing.strategies import DTYPES, normal

FEW, ONE = st.integers(2, 4), st.just(1)
WIDTHS = st.sampled_from((2, 2, 9))  # of inputs and of outputs


class Extent(NamedTuple):
    """How large a case is.

    Attributes:
        steps: draws T.
        sizes: draws n.
        batch: draws the number of sequences.
        scale: how large inputs are.
        is_varying: whether each step has a matrix of its own.
    """

    steps: st.SearchStrategy[int]
    sizes: st.SearchStrategy[int] = FEW
    batch: st.SearchStrategy[int] = ONE
    scale: float = 1.0
    is_varying: bool = False


# The most telling first: of a short search only those are tried. Powers of two each by itself, of
# steps and of states; what comes before and after one of steps is met where runs are joined.
EXTENTS: tuple[Extent, ...] = (
    Extent(st.integers(1100, 2500)),
    Extent(st.integers(5, 40), sizes=st.integers(17, 64)),
    Extent(st.integers(2, 12), batch=st.integers(70, 300)),
    Extent(st.just(256)),
    Extent(st.integers(5, 40), scale=2.0**20),
    Extent(st.integers(33, 300), is_varying=True),
    Extent(st.integers(2, 12), batch=st.integers(9, 63)),
    Extent(st.just(1024)),
    Extent(st.just(64)),
    Extent(st.integers(5, 20), sizes=st.integers(65, 140)),
    *(Extent(st.just(2**power)) for power in (7, 9)),
    *(Extent(st.just(1024 >> power), sizes=st.just(2**power)) for power in (5, 6, 7)),
    Extent(st.just(256), is_varying=True),
    *(Extent(st.just(2**power)) for power in (11, 12)),
    Extent(st.integers(40, 300), sizes=st.sampled_from((8, 16, 32)), batch=st.integers(2, 8)),
    Extent(st.integers(300, 1100)),
    Extent(st.integers(2, 12), batch=st.sampled_from((64, 128, 256))),
)


@st.composite
def large_cases(draw: st.DrawFn, extent: Extent) -> Case:
    """Draw a large case: normal numbers, and matrices whose powers stay small.

    Row sums of |A| are one at most, so that a bound is found in one pass: permutations, diagonals
    that forget slowly, contractions.
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
    """Make a transition of n states whose memory is long, or not."""
    numbers = normal((n, n), double_dtype(dtype), seed)
    if kind == "diagonal":
        sizes = 1 - torch.logspace(-5, 0, n + 1, dtype=torch.float64)[:n]
        return Diagonal((numbers[0].sgn() * sizes).to(dtype))
    return Dense(KINDS[kind](numbers).to(dtype))
