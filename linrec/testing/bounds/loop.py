"""Error bounds of a loop over the steps, which rounds each state."""

from typing import NamedTuple

import torch
from torch import Tensor

from linrec._tensors.shapes import broadcast_shapes
from linrec.structures import BlockDiagonal, Companion, Dense, Diagonal
from linrec.testing.plain_loops import goes_astray
from linrec.testing.run_sizes import RunSizes


class LoopErrors(NamedTuple):
    """Bounds on the rounding errors of a loop; states and sizes `(*batch, time + 1, n, 1)`.

    Attributes:
        states: the errors of the states.
        sizes: the sizes of the states, with their errors.
        outputs: the outputs' errors from the errors of the states, without the readout's own,
            `(*batch, time, p, 1)`. None: there is no C.
    """

    states: Tensor
    sizes: Tensor
    outputs: Tensor | None


def loop_errors(run: RunSizes) -> LoopErrors:
    """Bound the rounding errors of all steps, each carried on by the exact system.

    The rounding error of a step depends on the computed states, which differ from the exact ones
    by the errors of earlier steps.
    """
    local, states = rounding_of_steps(run, None)
    sizes = run.states.expand_as(states).cummax(-3).values
    if not bool((states <= sizes.amax(-2, keepdim=True)).all()):
        local, states = rounding_of_steps(run, sizes)
        astray = goes_astray(
            run.recurrence,
            run.signed_inputs,
            run.signed_start,
            run.signed_states,
            run.dtype,
        )
        states = torch.where(astray.unsqueeze(-1), torch.inf, states)
    sizes = run.states + states
    carried = None if run.system.C is None else read_errors(run, local, states)
    states = states + run.lost
    if carried is not None and run.system.C is not None:
        lost = torch.where(states.isfinite(), run.lost, torch.inf)
        carried = carried + run.system.C @ lost[..., 1:, :, :]
    return LoopErrors(states, sizes, carried)


def rounding_of_steps(run: RunSizes, most: Tensor | None) -> tuple[Tensor, Tensor]:
    """Bound each step's rounding errors and the states' errors; `most` caps those carried on."""
    unit = run.unit * step_roundings(run).unsqueeze(-1)  # (*batch, time or 1, n, 1)
    limit = torch.finfo(run.dtype).max / 4
    exact = (run.system.A @ run.states[..., :-1, :, :] + run.drive).unbind(-3)
    each_A, units = run.system.A.unbind(-3), unit.unbind(-3)
    local = torch.zeros_like(run.sources)
    errors, locals_ = [local[..., 0, :, :]], local.unbind(-3)
    for t in range(run.steps):
        off = errors[-1] if most is None else torch.minimum(errors[-1], most[..., t, :, :])
        made = exact[t] + each_A[min(t, len(each_A) - 1)] @ off
        made = made.masked_fill_(made > limit, torch.inf)
        locals_[t + 1].copy_(units[min(t, len(units) - 1)] * made)
        errors.append(run.arrived(local, errors[-1], t + 1))
    return local, torch.stack(torch.broadcast_tensors(*errors), -3)


def read_errors(run: RunSizes, local: Tensor, states: Tensor) -> Tensor:
    """Sum |C A^{t-r}| times the errors of step r; where not known, |C| times the states' errors."""
    assert run.system.C is not None
    read = run.output_products
    if read is None:
        return run.system.C @ states[..., 1:, :, :]
    return run.system.convolved(read.flip(-3), local)[..., 1:, :, :]


def step_roundings(run: RunSizes) -> Tensor:
    """Count the roundings of each state in a step, `(*batch, time or 1, n)`.

    They are one more than the entries in its row of [A B], or none if there is at most one entry
    and its products are exact. Structures that are not applied row by row count the most.
    """
    A, B = run.system.A, run.system.B
    if run.kind not in (Dense, Diagonal, BlockDiagonal, Companion):
        return A.new_full((1, run.n), run.roundings)
    B = torch.eye(run.n, dtype=A.dtype) if B is None else B
    batch = broadcast_shapes(A.shape[:-2], B.shape[:-2])
    row = torch.cat([A.expand(*batch, -1, -1), B.expand(*batch, -1, -1)], -1)
    entries = (row != 0).sum(-1)
    if run.dtype.is_complex:  # an absolute value of 1 need not be 1 or i
        return entries + 1.0
    powers_of_two = (row == 0) | (torch.frexp(row).mantissa == 0.5)
    exact = (entries <= 1) & powers_of_two.all(-1)
    return torch.where(exact, 0.0, entries + 1.0)
