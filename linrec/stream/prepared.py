"""A step of a recurrence with everything looked up in advance, and plans for blocks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from linrec._call import prepare_call
from linrec._tensors.annotated import unflatten
from linrec.executors import Executor, Plan, Result
from linrec.systems import LinearRecurrence

Advance = Callable[[Tensor, Tensor], Tensor]


def advance_of(recurrence: LinearRecurrence) -> Advance:
    """Make the function that computes A x + B u for `x (*batch, n)` and `u (*batch, m)`.

    Small products take as long to dispatch as to compute. A dense matrix adds B u while it
    multiplies, and one input needs no product with B. The function returns a new tensor.
    """
    A, B = recurrence.A, recurrence.B
    leaves = list(A.leaves().values())
    diagonal = A.as_diagonal()
    if diagonal is not None:
        return lambda x, u: torch.addcmul(recurrence.drive(u), diagonal, x)
    dense = A.to_dense() if len(leaves) == 1 and leaves[0].ndim == 2 else None
    batched = any(
        matrix is not None and matrix.ndim > 2 for matrix in (B, recurrence.C, recurrence.D)
    )
    if dense is None or dense is not leaves[0] or batched:
        return lambda x, u: A.apply(x) + recurrence.drive(u)
    transposed = dense.mT
    column = B[:, 0].contiguous() if B is not None and B.shape[-1] == 1 else None

    def advance(x: Tensor, u: Tensor) -> Tensor:
        if x.ndim > 2:
            return x @ transposed + recurrence.drive(u)
        if B is None:
            return torch.addmv(u, dense, x) if x.ndim == 1 else torch.addmm(u, x, transposed)
        driven = column * u if column is not None else recurrence.drive(u)
        return driven.addmv_(dense, x) if x.ndim == 1 else driven.addmm_(x, transposed)

    return advance


class PreparedStep:
    """One step of a recurrence that does not change, without checks of its arguments.

    Args:
        recurrence: the system, in the dtype of its states.
    """

    def __init__(self, recurrence: LinearRecurrence) -> None:
        self.copies = recurrence.copies
        batched = self.copies > 1 and bool(recurrence.batch_shape)
        self.system = recurrence.per_copy() if batched else recurrence
        self.advance = advance_of(self.system)
        self.reads = recurrence.C is not None or recurrence.D is not None

    def __call__(self, sample: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Compute outputs `(*batch, p)` and the next state, which share no memory.

        Args:
            sample (*batch, m): u.
            state (*batch, n): x, which is not modified.
        """
        copies = self.copies
        if copies > 1:
            sample = unflatten(sample, -1, (copies, -1))
            state = unflatten(state, -1, (copies, -1))
        after = self.advance(state, sample)
        outputs = self.system.read(after, sample) if self.reads else after.clone()
        if copies > 1:
            return outputs.flatten(-2), after.flatten(-2)
        return outputs, after


@dataclass(eq=False)
class KeptPlan:
    """A plan, with the batch it was chosen for.

    Attributes:
        plan: the plan.
        batch: the batch axes of the call.
    """

    plan: Plan
    batch: torch.Size


class BlockPlans:
    """The plans of the last lengths of blocks, for a recurrence that does not change.

    Every length is prepared as if it came forever. Otherwise its first blocks might be run by one
    executor and later ones by another, and a stream loaded from a file would round differently from
    one that was never interrupted.

    Args:
        recurrence: the system, in the dtype of its states.
        executor: how it runs.
    """

    capacity = 8

    def __init__(self, recurrence: LinearRecurrence, executor: Executor) -> None:
        self.recurrence, self.executor = recurrence, executor
        self.kept: dict[int, KeptPlan] = {}

    def run(self, inputs: Tensor, state: Tensor, lengths: Tensor | None) -> Result:
        """Run one step or more, as `linrec.run` does."""
        plan = self.plan(inputs.shape[-2], inputs.shape[:-2])
        call = prepare_call(self.recurrence, inputs, state, lengths)
        return call.run(self.executor, plan, compared=True)

    def plan(self, length: int, batch: torch.Size) -> Plan:
        """Find or make a plan, and drop the plan of the least recently used length."""
        kept = self.kept.pop(length, None)
        if kept is None or kept.batch != batch:
            kept = self.chosen(length, batch, kept)
        for oldest in list(self.kept)[: 1 - self.capacity]:
            del self.kept[oldest]
        self.kept[length] = kept
        return kept.plan

    def chosen(self, length: int, batch: torch.Size, before: KeptPlan | None) -> KeptPlan:
        """Choose an executor, and reuse its plan if it already has one."""
        executor = self.executor.select(self.recurrence, length, batch, prepared=True)
        if before is not None and before.plan.executor == executor:
            return KeptPlan(before.plan, batch)
        reason = executor.why_not(self.recurrence, length)
        if reason is not None:
            raise ValueError(
                f"{executor} cannot run this recurrence in blocks of {length}: {reason}. Make the "
                "stream with `executor=linrec.Auto()`."
            )
        # Tensors made in inference mode could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad():
            return KeptPlan(executor.prepare(self.recurrence, length), batch)
