"""Run varying systems in chunks, one tile of chunks after the other."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from linrec._tensors.autograd import records_gradient
from linrec.executors.varying.tile_by_tile import Tiles, run_tiles
from linrec.scan import scan_states
from linrec.structures import matvec
from linrec.systems import LinearRecurrence


@dataclass(frozen=True)
class Layout:
    """The batch axes that count systems, and the axes of sequences that share one.

    Args:
        batch: the batch axes of the inputs.
        apart: those along which systems differ.
        shared: the others.
    """

    batch: tuple[int, ...]
    apart: tuple[int, ...]
    shared: tuple[int, ...]

    @staticmethod
    def of(recurrence: LinearRecurrence, batch: torch.Size) -> "Layout":
        """Look at the batch axes of a time-varying recurrence."""
        own = (1,) * len(batch) + tuple(recurrence.batch_shape)
        own = own[len(own) - len(batch) :]
        apart = tuple(axis for axis, size in enumerate(own) if size > 1)
        shared = tuple(axis for axis, size in enumerate(own) if size == 1)
        return Layout(tuple(batch), apart, shared)

    def sizes(self, axes: tuple[int, ...]) -> list[int]:
        """The sizes of some axes."""
        return [self.batch[axis] for axis in axes]

    def together(self, tensor: Tensor) -> Tensor:
        """Write `(*batch, …)` as `(G, …, V)`."""
        axes = range(len(self.batch), tensor.ndim)
        moved = tensor.permute(*self.apart, *axes, *self.shared)
        return moved.reshape(
            math.prod(self.sizes(self.apart)), *(tensor.shape[i] for i in axes), -1
        )

    def in_two(self, tensor: Tensor) -> Tensor:
        """Write `(*batch, time, 1)` as `(outer, inner, time, V)`; two axes need no copy."""
        moved = tensor.squeeze(-1).permute(*self.apart, len(self.batch), *self.shared)
        return moved.reshape(*self.two, tensor.shape[-2], -1)

    def matrices_in_two(self, leaf: Tensor, core: int, steps: int) -> Tensor:
        """Write a tensor of a varying system as `(outer, inner, time, …)`, and repeat it."""
        own = leaf.shape[leaf.ndim - core :]
        if leaf.ndim == core:
            return leaf.expand(*self.two, steps, *own)
        leaf = leaf.reshape(*(1,) * (len(self.batch) + core + 1 - leaf.ndim), *leaf.shape)
        leaf = leaf.permute(*self.apart, *self.shared, *range(len(self.batch), leaf.ndim))
        leaf = leaf.reshape(*leaf.shape[: len(self.apart)], *leaf.shape[len(self.batch) :])
        leaf = leaf.expand(*self.sizes(self.apart), steps, *own)
        return leaf.reshape(*self.two, steps, *own)

    @property
    def two(self) -> tuple[int, int]:
        """The sizes of the axes that systems differ along, as two."""
        sizes = self.sizes(self.apart)
        return math.prod(sizes[:-1]), sizes[-1] if sizes else 1

    def back(self, tensor: Tensor) -> Tensor:
        """Write `(G, …, V)` as `(*batch, …)`."""
        own = tensor.shape[1:-1]
        moved = tensor.reshape(*self.sizes(self.apart), *own, *self.sizes(self.shared))
        first = len(self.apart) + len(own)
        order = [0] * len(self.batch)
        for place, axis in enumerate(self.apart):
            order[axis] = place
        for place, axis in enumerate(self.shared):
            order[axis] = first + place
        return moved.permute(*order, *range(len(self.apart), first))

    def matrices(self, leaf: Tensor, core: int) -> Tensor:
        """Write a tensor of a varying system as `(G, time, …)`, with 1 where it does not vary."""
        if leaf.ndim == core:
            return leaf[None, None]
        own = leaf.shape[leaf.ndim - core - 1 :]
        leaf = leaf.reshape(*(1,) * (len(self.batch) + core + 1 - leaf.ndim), *leaf.shape)
        axes = range(len(self.batch), leaf.ndim)
        leaf = leaf.permute(*self.apart, *self.shared, *axes)
        apart = leaf.shape[: len(self.apart)]
        leaf = leaf.reshape(*apart, *own)
        if all(size == 1 for size in apart):
            return leaf.reshape(1, *own)
        return leaf.expand(*self.sizes(self.apart), *own).reshape(-1, *own)


def run_chunks(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    state: Tensor | None,
    size: int,
    last_only: bool = False,
) -> tuple[Tensor | None, Tensor]:
    """Run a varying recurrence that is diagonal, or diagonal plus low rank, in chunks.

    Args:
        recurrence: the system, of one copy.
        inputs (*batch, time, m): u.
        state (*batch, n): the state before the first step; None: zeros.
        size: L, a power of two.
        last_only: whether outputs are left out.

    Returns:
        Outputs `(*batch, time, p)`, or None, and the state after the last step.
    """
    parts = recurrence.A.as_diagonal_plus_low_rank()
    assert parts is not None, "what is neither was refused"
    n = recurrence.A.state_size
    layout = Layout.of(recurrence, inputs.shape[:-2])
    gates, left, right = parts
    rank, read = left.shape[-1], recurrence.C is not None and not last_only
    timed = recurrence.over_time()
    bare = recurrence.C is None and recurrence.D is None
    if not rank and not read and not last_only:  # the states follow elementwise
        states, end = scan_states(gates, timed.drive(inputs), state, handed_out=bare)
        return timed.read(states, inputs), end
    if gates.stride(-1) == 0:  # one number, expanded
        gates = gates[..., :1]
    B = torch.eye(n, dtype=inputs.dtype, device=inputs.device)
    B = B if recurrence.B is None else recurrence.B
    C = recurrence.C if read and recurrence.C is not None else inputs.new_zeros(0, n)
    tied = bool(rank) and left is recurrence.B
    right = right if rank else inputs.new_zeros(n, 0)
    left = left if rank and not tied else inputs.new_zeros(n, 0)
    cores = ((gates, 1), (B, 2), (C, 2), (left, 2), (right, 2))
    system = [layout.matrices(leaf, core) for leaf, core in cores]
    u = layout.together(inputs)
    x = u.new_zeros(len(u), n, u.shape[-1]) if state is None else layout.together(state)
    wanted = bool(rank) and not read and not last_only
    recorded = records_gradient(inputs, state, *recurrence.tensors())
    tiles = Tiles.of(size, u, C.shape[-2] + rank, n, wanted=wanted, tied=tied, recorded=recorded)
    outputs, fed, x = run_tiles(tiles, u, x, *system)
    if last_only:
        return None, layout.back(x)
    if read:
        outputs = layout.back(outputs)
        if timed.D is not None:
            outputs = outputs + matvec(timed.D, inputs)
        return outputs, layout.back(x)
    # The feedback is known now, and the states follow elementwise.
    drive = timed.drive(inputs) + matvec(parts[1], layout.back(fed))
    states, end = scan_states(parts[0], drive, state, handed_out=bare)
    return timed.read(states, inputs), end
