"""Loops over time as one node of a graph whose number of steps is left open."""

from collections.abc import Callable

from torch import Tensor

from linrec._tensors.open_sizes import loop
from linrec.structures import Structure


def take_apart(A: Structure) -> tuple[list[Tensor], Callable[..., Structure]]:
    """Return the tensors of a structure, and a function that rebuilds it from other tensors."""
    leaves: list[Tensor] = []

    def collect(leaf: Tensor, core: int) -> Tensor:
        leaves.append(leaf)
        return leaf

    A.map(collect)

    def rebuilt(*others: Tensor) -> Structure:
        remaining = iter(others)
        return A.map(lambda _leaf, _core: next(remaining))

    return leaves, rebuilt


def loop_over_matrices(
    A: Structure, drive: Tensor, state: Tensor, *, before: bool = False
) -> tuple[Tensor, Tensor]:
    """Run x_t = A_t x_{t-1} + b_t.

    Args:
        A: a structure whose last batch axis, if it has any, is time; of length 1 if A is the same
            at every step.
        drive (*batch, time, n): b.
        state (*batch, n): the state before the first step.
        before: whether to return the states before each step instead of those after it.

    Returns:
        The states, `(*batch, time, n)`, and the one after the last step.
    """
    leaves, rebuilt = take_apart(A)
    cores = list(A.core_axes.values())
    timed = [
        leaf.ndim > core and leaf.shape[-core - 1] != 1
        for leaf, core in zip(leaves, cores, strict=True)
    ]
    changing: list[Tensor] = []
    same: list[Tensor] = []
    for leaf, core, varies in zip(leaves, cores, timed, strict=True):
        if varies:
            changing.append(leaf.movedim(-core - 1, 0))
        else:
            same.append(leaf.select(-core - 1, 0) if leaf.ndim > core else leaf)

    def step(state: Tensor, now: Tensor, *given: Tensor) -> Tensor:
        of_step, of_all = iter(given[: len(changing)]), iter(given[len(changing) :])
        parts = [next(of_step) if varies else next(of_all) for varies in timed]
        return rebuilt(*parts).apply(state) + now

    sequences = [drive.movedim(-2, 0), *changing]
    states, last = loop(step, state, sequences, same, before=before)
    return states.movedim(0, -2), last
