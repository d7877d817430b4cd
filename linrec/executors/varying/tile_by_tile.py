"""Chunks of varying systems a tile at a time, with a gradient that holds one tile at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from linrec._tensors.autograd import with_signature
from linrec._tensors.devices import is_launched
from linrec._tensors.huge_pages import empty
from linrec._tensors.known_values import has_values
from linrec.executors.varying.chunk_algebra import Tile
from linrec.executors.varying.own_gates_gradient import pull_gated
from linrec.executors.varying.shared_gate_gradient import pull_shared

# The numbers of a tensor that many of which fit into the caches, ...
CACHE = 1 << 17

# ... and of the states that are worth an operation.
WIDE = 1 << 14

# What is small is cut into so many tiles all the same, so that less is held at once. A forward pass
# alone holds half as many such tensors: they are four times as large, and as few as can be.
FEWEST = 4

# On devices, where each operation waits to be launched, a tile is as large as memory easily holds.
LARGE = 1 << 24


@dataclass(frozen=True)
class Tiles:
    """How systems and time are cut.

    Args:
        size: L, the steps of a chunk, a power of two.
        systems: so many of them are run at a time.
        lengths: the steps that are run at a time.
        wanted: whether the feedback is.
        tied: whether U is B, and not given again.
    """

    size: int
    systems: int
    lengths: tuple[int, ...]
    wanted: bool
    tied: bool = False

    @staticmethod
    def of(
        size: int,
        u: Tensor,
        rows: int,
        n: int,
        *,
        wanted: bool = False,
        tied: bool = False,
        recorded: bool = True,
    ) -> "Tiles":
        """Cut as the caches are large: whole systems, as long as their states are many.

        Args:
            size: L.
            u (G, time, m, V): the inputs.
            rows: p + r.
            n: the states of a system.
            wanted: whether the feedback is.
            tied: whether U is B, and not given again.
            recorded: whether a gradient is recorded.
        """
        G, steps, m, V = u.shape
        systems, stride = tile_size(size, G, steps, m, V, rows, n, u.device.type, recorded)
        whole = steps - steps % size
        lengths = [min(stride, whole - start) for start in range(0, whole, stride)]
        lengths += [steps - whole] * (whole < steps)
        return Tiles(size, systems, tuple(lengths), wanted, tied)

    @property
    def tile(self) -> Tile:
        """What runs one."""
        return Tile(self.size, self.tied)

    def rows(self, count: int) -> list[slice]:
        """Cut `count` systems."""
        return [slice(first, first + self.systems) for first in range(0, count, self.systems)]

    def spans(self) -> list[slice]:
        """Cut time."""
        ends = list(accumulate(self.lengths))
        return [slice(end - own, end) for end, own in zip(ends, self.lengths, strict=True)]

    def run(self, u: Tensor, x: Tensor, *system: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run all steps of all systems, in differentiable operations; arguments as of `Tile.run`.

        Matrices `(G or 1, time or 1, …)` stand for as many as there are.
        """
        outputs, fed = [], []
        cuts = (cut(leaf, self.lengths) for leaf in (u, *system))
        for now, *leaves in zip(*cuts, strict=True):
            varying = [leaf.expand(len(u), now.shape[1], *leaf.shape[2:]) for leaf in leaves]
            y, w, x = self.tile.run(now, x, *varying)  # type: ignore[call-arg]  # seven of them
            outputs.append(y)
            fed.append(w if self.wanted else w[:, :, :0])
        return torch.cat(outputs, 1), torch.cat(fed, 1), x


def tile_size(
    size: int, G: int, steps: int, m: int, V: int, rows: int, n: int, device: str, recorded: bool
) -> tuple[int, int]:
    """Find the systems and steps of a tile; sizes as of `Tiles.of`."""
    per_step = max(n * rows, n * m, rows * m * size, m * V, rows * V, 1)
    if is_launched(device):
        room = LARGE
    else:
        least = G * steps * per_step // FEWEST
        room = max(min(CACHE, least), 1) if recorded else 4 * CACHE
    # (Where little is held, few systems over much time: what is cut in time has to be copied.)
    wide = WIDE // 4 if room < CACHE else WIDE
    systems = max(room // (steps * per_step), wide // max(n * V, 1), 1)
    systems = min(systems, max(G, 1))
    return systems, size * max(room // (systems * size * per_step), 1)


def cut(leaf: Tensor, lengths: Sequence[int]) -> Sequence[Tensor]:
    """Cut `(G, time, …)`; matrices that never change are repeated.

    (At once: the gradient of each slice would be as long as the whole.)
    """
    return [leaf] * len(lengths) if leaf.shape[1] == 1 else leaf.split(list(lengths), 1)


def part(leaf: Tensor, some: slice, span: slice) -> Tensor:
    """Take some systems and steps; what there is one of stands for all."""
    count, steps = leaf.shape[:2]
    leaf = leaf if count == 1 or count <= some.stop - some.start else leaf[some]
    return leaf if steps == 1 or steps <= span.stop - span.start else leaf[:, span]


def run_tiles(tiles: Tiles, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run all steps of all systems, and keep little for a gradient; as `Tiles.run`."""
    if torch.compiler.is_compiling():
        return tiles.run(*given)
    return RunTiles.apply(tiles, *given)[:3]  # type: ignore[index]  # untyped


@with_signature
class RunTiles(torch.autograd.Function):
    """All tiles; saved are the arguments, and the states before the tiles.

    The gradient is computed tile by tile, and written where it belongs. Where it is to be
    differentiated itself, it is that of `Tiles.run`.
    """

    @staticmethod
    def forward(tiles: Tiles, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run all steps."""
        u, x, *system = given
        (G, steps, _, V), p, r = u.shape, system[2].shape[2], system[4].shape[3]
        outputs, end = empty(u, G, steps, p, V), torch.empty_like(x)
        fed = empty(u, G, steps, r if tiles.wanted else 0, V)
        spans = tiles.spans()
        starts = u.new_empty(len(spans), *x.shape)
        for some in tiles.rows(G):
            state = x[some]
            for place, span in enumerate(spans):
                starts[place, some] = state
                now, *leaves = cut_matrices(u, system, some, span)
                w = fed[some, span] if tiles.wanted else None
                state = tiles.tile.write(outputs[some, span], w, now, state, *leaves)
            end[some] = state
        return outputs, fed, end, starts

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save the arguments and the states before the tiles."""
        ctx.tiles, *given = inputs
        ctx.mark_non_differentiable(output[3])
        ctx.save_for_backward(*given, output[3])
        ctx.save_for_forward(*given)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Run again, and back."""
        *given, starts = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or not has_values(*given, *gradients[:3]):
            moved = [index for index, asked in enumerate(needed) if asked]

            def run(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                for index, tensor in zip(moved, tensors, strict=True):
                    given[index] = tensor
                return ctx.tiles.run(*given)

            pull = torch.func.vjp(run, *(given[index] for index in moved))[1]
            found = dict(zip(moved, pull(tuple(gradients[:3])), strict=True))
            return None, *(found.get(index) for index in range(len(needed)))
        return None, *pull_tiles(ctx.tiles, given, starts, gradients[:3], needed)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], tiles: Tiles, *given: Tensor) -> Any:
        """Count the mapped axis among the systems."""
        G = max(
            tensor.movedim(axis, 0).shape[1] if axis is not None else len(tensor)
            for tensor, axis in zip(given, in_dims[1:], strict=True)
        )
        flat = []
        for tensor, axis in zip(given, in_dims[1:], strict=True):
            many = tensor.unsqueeze(0) if axis is None else tensor.movedim(axis, 0)
            flat.append(many.expand(info.batch_size, G, *many.shape[2:]).flatten(0, 1))
        *results, starts = RunTiles.apply(tiles, *flat)  # type: ignore[misc]  # untyped
        whole = [each.unflatten(0, (info.batch_size, -1)) for each in results]
        return (*whole, starts.unflatten(1, (info.batch_size, -1))), (0, 0, 0, 1)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor) -> Any:
        """Move all that is given at once: forwards is backwards, transposed.

        (A forward derivative within one cannot be had of torch; that of the gradient, which is
        linear in what comes back, can.)
        """
        found = torch.func.vjp(ctx.tiles.run, *ctx.saved_tensors)
        zeros = [torch.zeros_like(each) for each in found[0]]
        moved = torch.func.vjp(lambda *moved: found[1](moved), *zeros)[1](tangents)
        return *moved, None


def cut_matrices(u: Tensor, system: Sequence[Tensor], some: slice, span: slice) -> list[Tensor]:
    """Cut a tile out of the inputs and the matrices, one for each system and step."""
    now = part(u, some, span)
    cuts = (part(leaf, some, span) for leaf in system)
    return [now, *(cut.expand(*now.shape[:2], *cut.shape[2:]) for cut in cuts)]


def pull_tiles(
    tiles: Tiles,
    given: list[Tensor],
    starts: Tensor,
    gradients: tuple[Tensor, ...],
    needed: Sequence[bool],
) -> Iterator[Tensor | None]:
    """Compute the gradients in inputs, state and matrices, tile by tile, outside of autograd.

    Args:
        tiles: how it was cut.
        given: inputs, state, gates, B, C, left and right.
        starts (tiles of time, G, n, V): the states before the tiles.
        gradients: those in outputs, feedback and last state.
        needed: which are asked for.
    """
    u, _, *system = given
    # One matrix may stand for many systems or steps. (The state, of one axis less, does not.)
    stand_for_many = [
        index != 1 and (each.shape[0] < len(u) or each.shape[1] < u.shape[1])
        for index, each in enumerate(given)
    ]
    found = [
        (torch.zeros_like(each) if many else empty(each, *each.shape)) if asked else None
        for each, many, asked in zip(given, stand_for_many, needed, strict=True)
    ]
    for some in tiles.rows(len(u)):
        gradient = gradients[2][some]
        for place, span in reversed(list(enumerate(tiles.spans()))):
            now, *matrices = cut_matrices(u, system, some, span)
            leaves = (now, starts[place, some], *matrices)
            to_outputs, to_fed = (each[some, span] for each in gradients[:2])
            if not tiles.wanted:
                to_fed = to_fed.new_zeros(()).expand(
                    *to_fed.shape[:2], leaves[6].shape[3], u.shape[3]
                )
            tangents = to_outputs, to_fed, gradient
            pull = pull_shared if leaves[2].shape[-1] == 1 else pull_gated
            pulled = pull(tiles.size, tiles.tied, leaves, tangents)
            gradient = pulled[1]
            for index, (whole, own) in enumerate(zip(found, pulled, strict=True)):
                if whole is not None and index != 1:
                    here = part(whole, some, span)
                    if stand_for_many[index]:  # (a tile of one step has the same shape)
                        here += own.sum_to_size(here.shape)
                    else:
                        here.copy_(own)
            del pulled, own  # before the next tile is taken up
        if found[1] is not None:
            found[1][some] = gradient
    return iter(found)
