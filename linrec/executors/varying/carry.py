"""Carry states from chunk to chunk in place: the additions of a chunk become the state after it.

That memory has one place more than there are chunks. What chunk i adds stands one place on, and
becomes the state after it there; so the states before the chunks are all places but the last, and
nothing is copied. Only where one system follows on another, the place between them is filled anew.
Gradients are carried the other way through memory whose additional place is the last.

All of this is outside of autograd. Products are `bmm`: `@` takes a few views more to come to it,
which cost as much as a small product.
"""

from torch import Tensor, bmm

from linrec.executors.varying.matrices import Split


def held_after(split: Split, driven: Tensor) -> Tensor:
    """Compute what inputs `(N, L·m, V)` leave in the states, `(N + 1, n, V)`, the first unset."""
    N, _, n = split.from_inputs.shape
    held = driven.new_empty(N + 1, n, driven.shape[2])
    bmm(split.from_inputs.mT, driven, out=held[1:])
    return held


def carry_held(held: Tensor, total: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Find the states before each chunk, `(G·chunks, n, V)`, and after the last.

    Args:
        held (G·chunks + 1, n, V): as of `held_after`; it is written over.
        total (G, chunks, n, 1): the gates of a chunk together.
        state (G, n, V): the state before the first.
    """
    places, now = held[1:].unflatten(0, total.shape[:2]), state
    for gate, own in zip(total.unbind(1), places.unbind(1), strict=True):
        now = own.addcmul_(gate, now)
    return states_before(held, places, state)


def solve_held(
    held: Tensor, split: Split, solve: Tensor, driven: Tensor, total: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve for the feedback w while the state is carried from chunk to chunk.

    Args:
        held, total, state: as of `carry_held`.
        split: the chunks.
        solve (G·chunks, L·r, L·r): (I - G)⁻¹.
        driven (G·chunks, L·m, V): their inputs.

    Returns:
        w `(G·chunks, L·r, V)`, the states before each chunk, and the state after the last.
    """
    fed, through = bmm(solve, bmm(split.feed, driven)), bmm(solve, split.reach)
    places, now = held[1:].unflatten(0, total.shape[:2]), state
    parts = (places, fed, through, split.from_fed.mT)
    for gate, own, found, by_state, back in zip(
        total.unbind(1),
        *(part.view(*places.shape[:2], *part.shape[-2:]).unbind(1) for part in parts),
        strict=True,
    ):
        found += bmm(by_state, now)  # (`baddbmm_` takes matrices that lie apart one by one)
        now = own.addcmul_(gate, now).add_(bmm(back, found))
    return fed, *states_before(held, places, state)


def states_before(held: Tensor, places: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Put first states where systems begin; return the states before the chunks, and the last."""
    end = places[:, -1].clone()
    held[0], places[:-1, -1] = state[0], state[1:]
    return held[:-1], end


def held_before(split: Split, to_outputs: Tensor) -> Tensor:
    """Compute what `to_outputs (N, L·p, V)` gives to states, `(N + 1, n, V)`, the last unset."""
    N, _, n = split.read.shape
    held = to_outputs.new_empty(N + 1, n, to_outputs.shape[2])
    bmm(split.read.mH, to_outputs, out=held[:-1])
    return held


def pull_held(held: Tensor, total: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Carry the gradient in the last state back to the first.

    Args:
        held (G·chunks + 1, n, V): as of `held_before`; it is written over.
        total (G, chunks, n, 1): the gates of a chunk together.
        gradient (G, n, V): that in the state after the last.

    Returns:
        The gradients in the states after each chunk, `(G·chunks, n, V)`, and before the first.
    """
    places, now = held[:-1].unflatten(0, total.shape[:2]), gradient
    turned = (reversed(each.unbind(1)) for each in (total.conj(), places))
    for gate, own in zip(*turned, strict=True):
        now = own.addcmul_(gate, now)
    return gradients_after(held, places, gradient)


def pull_feedback(
    held: Tensor, split: Split, solve: Tensor, to_fed: Tensor, total: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Carry the gradient in the last state back to the first, through the feedback.

    Args:
        held, total, gradient: as of `pull_held`.
        split: the chunks.
        solve (G·chunks, L·r, L·r): (I - G)⁻¹.
        to_fed (G·chunks, L·r, V): what goes to w from what is read in the chunk; it is written
            over.

    Returns:
        The gradients in what feeds w, `(G·chunks, L·r, V)`, and as of `pull_held`.
    """
    through = bmm(solve.mH, split.from_fed.conj())
    places, now = held[:-1].unflatten(0, total.shape[:2]), gradient
    parts = (places, to_fed, through, split.reach.mH)
    turned = (reversed(part.view(*places.shape[:2], *part.shape[-2:]).unbind(1)) for part in parts)
    for gate, own, start, back, reach in zip(
        reversed(total.conj().unbind(1)), *turned, strict=True
    ):
        start += bmm(back, now)
        now = own.addcmul_(gate, now).add_(bmm(reach, start))
    return to_fed, *gradients_after(held, places, gradient)


def gradients_after(held: Tensor, places: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Put last gradients where systems end; return those after the chunks, and the first."""
    first = places[:, 0].clone()
    held[-1], places[1:, 0] = gradient[-1], gradient[:-1]
    return held[1:], first
