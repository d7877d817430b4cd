"""Hypothesis strategies for structures, recurrences and their inputs.

Simple values come first, so that a failure shrinks to them: few states, few steps, whole numbers.
"""

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from linrec._tensors.devices import on_cpu
from linrec._tensors.dtypes import accumulation_dtype
from linrec.structures import (
    BlockDiagonal,
    Companion,
    Dense,
    Diagonal,
    DiagonalPlusLowRank,
    Structure,
)
from linrec.systems import LinearRecurrence, Varying
from linrec.testing.matrices import KINDS

DTYPES = (torch.float64, torch.float32, torch.complex128, torch.complex64)
FORMS = (Dense, Diagonal, BlockDiagonal, Companion, DiagonalPlusLowRank)
BATCHES = ((), (), (2,), (1,), (2, 1), (3, 2))

# Most systems are small; some are as large as practical memories.
SIZES = st.sampled_from((1, 2, 3, 4, 5) * 5 + (8, 16, 40))

# Most sequences are short; `MANY_STEPS` is for executors that cut time into pieces.
STEPS = st.one_of(st.integers(0, 7), st.integers(0, 24))
MANY_STEPS = st.one_of(STEPS, st.integers(0, 300))

# Larger tensors are normal: drawing each number by itself would take too long.
FEW = 24


def tensors(shape: tuple[int, ...], dtype: torch.dtype) -> st.SearchStrategy[Tensor]:
    """Draw tensors of a shape: with one number throughout, a few simple numbers, or normal numbers.

    Args:
        shape: their shape.
        dtype: their dtype, real or complex.

    Returns:
        A strategy.

    Example:
        >>> from hypothesis import given
        >>> import torch
        >>> from linrec.testing import tensors
        >>> @given(tensors((2, 3), torch.float32))
        ... def test_shape(drawn):
        ...     assert drawn.shape == (2, 3)
        >>> test_shape()
    """
    # A failure shrinks to fewer choices first. One number throughout is one choice for any shape,
    # and so is a seed of normal numbers: shapes can shrink without more choices.
    same = st.sampled_from((1.0, 2.0, -0.5)).map(
        lambda x: torch.full(shape, x, dtype=dtype, device="cpu")
    )
    random = st.integers(0, 2**31 - 1).map(lambda seed: normal(shape, dtype, seed))
    if int(np.prod(shape)) > FEW:
        return st.one_of(same, random)
    # Numbers whose products could be subnormal would only test the underflow.
    numbers = st.one_of(
        st.integers(-3, 3).map(float),
        st.floats(-2, 2).map(lambda x: x if abs(x) > 1e-3 else 0.0),
    )
    parts = (2, *shape) if dtype.is_complex else shape
    drawn = arrays(np.float64, parts, elements=numbers, fill=st.nothing())
    return st.one_of(same, drawn.map(lambda array: from_parts(array, dtype)), random)


def normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Draw normal numbers."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype, device="cpu")


def from_parts(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Make a tensor; a complex one from real and imaginary parts."""
    whole = array[0] + 1j * array[1] if dtype.is_complex else array
    return torch.as_tensor(whole, device="cpu").to(dtype)


@st.composite
@on_cpu
def structures(
    draw: st.DrawFn,
    *,
    sizes: st.SearchStrategy[int] = SIZES,
    dtypes: st.SearchStrategy[torch.dtype] = st.sampled_from(DTYPES),  # noqa: B008  # strategies are constants
    batch_shapes: st.SearchStrategy[tuple[int, ...]] = st.sampled_from(BATCHES),  # noqa: B008
) -> Structure:
    """Draw a transition matrix in any structure.

    Dense matrices and blocks are stable, marginal (identities, rotations, permutations), unstable,
    nilpotent, defective (Jordan blocks), singular, badly scaled, or far from normal (Legendre).

    Args:
        sizes: the number of states (rounded to a multiple of the number of blocks).
        dtypes: real and complex dtypes.
        batch_shapes: the batch axes.

    Returns:
        A strategy.

    Example:
        >>> from hypothesis import given
        >>> from linrec.testing import structures
        >>> @given(structures())
        ... def test_twice_adjoint(A):
        ...     assert (A.adjoint().adjoint().to_dense() == A.to_dense()).all()
        >>> test_twice_adjoint()
    """
    batch, dtype, n = draw(batch_shapes), draw(dtypes), draw(sizes)
    form = draw(st.sampled_from(FORMS))
    if form is Dense:
        return Dense(draw(matrices(batch, dtype, n)))
    if form is Diagonal:
        return Diagonal(draw(decays((*batch, n), dtype)))
    if form is Companion:
        # Coefficients with a sum below 1 belong to a stable matrix, others mostly do not.
        scale = draw(st.sampled_from((1 / n, 1.0)))
        return Companion(scale * draw(decays((*batch, n), dtype)), draw(st.booleans()))
    if form is BlockDiagonal:
        blocks = draw(st.integers(1, 3))
        size = max(n // blocks, 1)
        return BlockDiagonal(draw(matrices((*batch, blocks), dtype, size)))
    rank = draw(st.integers(1, min(n, 2)))
    factors = (draw(tensors((*batch, n, rank), dtype)) / (2 * n) for _ in range(2))
    return DiagonalPlusLowRank(draw(decays((*batch, n), dtype)) / 2, *factors)


@st.composite
@on_cpu
def transitions(
    draw: st.DrawFn,
    *,
    sizes: st.SearchStrategy[int] = SIZES,
    dtypes: st.SearchStrategy[torch.dtype] = st.sampled_from(DTYPES),  # noqa: B008  # as above
    batch_shapes: st.SearchStrategy[tuple[int, ...]] = st.sampled_from(BATCHES),  # noqa: B008
) -> Structure | Varying:
    """Draw an A: a structure for all steps, or a `Varying` with one for each step.

    Args:
        sizes: as in `structures`.
        dtypes: as in `structures`.
        batch_shapes: the batch axes; a `Varying` has an axis of time after them.

    Returns:
        A strategy.

    Example:
        >>> from hypothesis import given
        >>> import linrec
        >>> from linrec.testing import transitions
        >>> @given(transitions())
        ... def test_steps(A):
        ...     assert linrec.LinearRecurrence(A).time_varying == isinstance(A, linrec.Varying)
        >>> test_steps()
    """
    if not draw(st.booleans()):
        return draw(structures(sizes=sizes, dtypes=dtypes, batch_shapes=batch_shapes))
    shape = (*draw(batch_shapes), draw(st.integers(1, 6)))
    return Varying(draw(structures(sizes=sizes, dtypes=dtypes, batch_shapes=st.just(shape))))


@st.composite
def decays(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw diagonals with some entries of 0, 1 or just beyond."""
    values = draw(tensors(shape, dtype))
    most = draw(st.sampled_from((0.9, 1.0, 1.25)))
    return torch.where(values.abs() > most, values.sgn() * most, values)


@st.composite
def matrices(draw: st.DrawFn, batch: tuple[int, ...], dtype: torch.dtype, n: int) -> Tensor:
    """Draw square matrices of one of the hard kinds."""
    kind = draw(st.sampled_from(list(KINDS)))
    wide = accumulation_dtype(dtype)  # torch factorises nothing in half precision
    made = KINDS[kind](draw(tensors((*batch, n, n), wide)))
    if dtype == wide:
        return made
    most = (torch.finfo(dtype).max / 64) ** 0.5  # float16 lacks the range for a product of two
    return made.clamp(-most, most).to(dtype)


@st.composite
@on_cpu
def recurrences(
    draw: st.DrawFn,
    transitions: st.SearchStrategy[Structure | Varying] = transitions(),  # noqa: B008  # as above
) -> LinearRecurrence:
    """Draw a recurrence: a transition with or without B, C and D, copies, and batch axes.

    In a time-varying recurrence, either A varies or some of B, C and D.

    Args:
        transitions: the strategy that draws A.

    Returns:
        A strategy.

    Example:
        >>> from hypothesis import given
        >>> from linrec.testing import recurrences, structures
        >>> @given(recurrences(structures()))
        ... def test_sizes(recurrence):
        ...     assert recurrence.state_size % recurrence.copies == 0
        >>> test_sizes()
    """
    drawn = LinearRecurrence(draw(transitions))
    A, batch, time_varying = drawn.A, tuple(drawn.A.batch_shape), drawn.time_varying
    n = A.state_size
    few = st.integers(1, 3)
    m, p = (draw(few) if draw(st.booleans()) else None for _ in range(2))
    low_rank = A.as_diagonal_plus_low_rank() if time_varying else None
    rank = 0 if low_rank is None else low_rank[1].shape[-1]
    tied = rank > 0 and draw(st.booleans())  # U is B, as in a delta rule
    m = rank if tied else m
    shapes = {
        "B": None if m is None else (n, m),
        "C": None if p is None else (p, n),
        "D": (p or n, m or n) if draw(st.booleans()) else None,
    }
    # Any of the four may be shared by all systems and steps, or A by all steps alone.
    shared = draw(st.sampled_from(("no", "no", "everywhere", "in time"))) if batch else "no"
    if shared == "everywhere":
        A = A[(0,) * len(batch)]
    elif shared == "in time" and time_varying:
        A = A[..., :1]
    given = {}
    for name, shape in shapes.items():
        if shape is not None:
            own = batch if batch and draw(st.booleans()) else ()
            given[name] = draw(tensors((*own, *shape), A.dtype))
    low_rank = A.as_diagonal_plus_low_rank() if tied else None
    if low_rank is not None:
        given["B"] = low_rank[1]
    time_varying = time_varying and any((A.batch_shape, *(m.ndim > 2 for m in given.values())))
    copies = draw(st.sampled_from((1, 1, 2, 3)))
    return LinearRecurrence(A, **given, time_varying=time_varying, copies=copies)


@st.composite
def inputs_for(
    draw: st.DrawFn,
    recurrence: LinearRecurrence,
    steps: st.SearchStrategy[int] = STEPS,
    sequences: st.SearchStrategy[int] | None = None,
) -> Tensor:
    """Draw inputs `(*batch, time, m)` for a recurrence, in its dtype, sometimes without steps.

    Args:
        recurrence: the recurrence; a time-varying one determines the number of steps.
        steps: the number of steps otherwise.
        sequences: the number of sequences, in addition to the system's axes. None: one or two.

    Returns:
        A strategy.

    Example:
        >>> from hypothesis import given
        >>> import linrec
        >>> from linrec.testing import inputs_for
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> @given(inputs_for(average))
        ... def test_mean(inputs):
        ...     assert linrec.run(average, inputs).outputs.abs().sum() <= inputs.abs().sum() + 1e-3
        >>> test_mean()
    """
    time = draw(steps) if recurrence.steps is None else recurrence.steps
    few = st.sampled_from(((), (), (2,), (1,)))
    beside = draw(few if sequences is None else sequences.map(lambda count: (count,)))
    batch = (*beside, *recurrence.batch_shape)
    return draw(tensors((*batch, time, recurrence.input_size), recurrence.dtype))


@st.composite
def initial_states_for(
    draw: st.DrawFn, recurrence: LinearRecurrence, batch: tuple[int, ...] | None = None
) -> Tensor | None:
    """Draw an initial state `(*batch, n)`, or none.

    Args:
        recurrence: the recurrence.
        batch: the batch axes of the state. None: the batch axes of the recurrence.

    Returns:
        A strategy.

    Example:
        >>> from hypothesis import given
        >>> import linrec
        >>> from linrec.testing import initial_states_for
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> @given(initial_states_for(average))
        ... def test_size(state):
        ...     assert state is None or state.shape == (1,)
        >>> test_size()
    """
    if not draw(st.booleans()):
        return None
    batch = tuple(recurrence.batch_shape) if batch is None else batch
    return draw(tensors((*batch, recurrence.state_size), recurrence.dtype))


@st.composite
def lengths(draw: st.DrawFn, inputs: Tensor) -> Tensor | None:
    """Draw the number of steps of each sequence, or None.

    Args:
        inputs (*batch, time, m): the sequences.

    Returns:
        A strategy.

    Example:
        >>> from hypothesis import given
        >>> import torch
        >>> from linrec.testing import lengths
        >>> @given(lengths(torch.zeros(2, 5, 1)))
        ... def test_range(drawn):
        ...     assert drawn is None or 0 <= int(drawn.min()) <= int(drawn.max()) <= 5
        >>> test_range()
    """
    if not draw(st.booleans()):
        return None
    own = arrays(np.int64, tuple(inputs.shape[:-2]), elements=st.integers(0, inputs.shape[-2]))
    return torch.as_tensor(draw(own), device="cpu")
