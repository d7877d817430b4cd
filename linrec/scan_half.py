"""The elementwise scan of half-precision numbers on a CPU, with sums in float32.

Converting all numbers before the scan, and all states after it, takes several times as long as the
scan. The compiled loops convert as they go, with the same results.
"""

# pyright: reportIncompatibleMethodOverride=false
# (`forward` and `backward` have our arguments in place of torch's `*args`.)

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from linrec._tensors.autograd import is_plain, with_signature
from linrec._tensors.huge_pages import empty
from linrec._tensors.known_values import has_values
from linrec.kernels import halves_for

Scan = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


def loops_for_halves(decay: Tensor, drive: Tensor, state: Tensor) -> ModuleType | None:
    """Return the compiled loops if a scan has only half-precision numbers; None if not.

    Args:
        decay (*batch, time, features): a.
        drive (*batch, time, features): b.
        state: the initial state, in the precision of the sums.
    """
    same = decay.dtype == drive.dtype and decay.shape == drive.shape
    if not same or state.dtype != torch.float32 or (loops := halves_for(drive)) is None:
        return None
    return loops if is_plain() and has_values(decay, drive, state) else None


def scan_halves(
    loops: ModuleType, scan: Scan, decay: Tensor, drive: Tensor, state: Tensor
) -> Tensor:
    """Scan half-precision numbers.

    Args:
        loops: the compiled loops.
        scan: the scan of float32 numbers, for derivatives of derivatives.
        decay, drive (*batch, time, features): a and b, of one dtype.
        state (*batch, features): the state before the first step, in float32.

    Returns:
        The states, in the dtype of `drive`.
    """
    a, b = (each.reshape(-1, *each.shape[-2:]) for each in (decay, drive))
    function: Any = HalfScan
    return function.apply(loops, scan, a, b, state.reshape(-1, state.shape[-1])).view(drive.shape)


@with_signature
class HalfScan(torch.autograd.Function):
    """The scan in half precision, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, loops: ModuleType, scan: Scan, decay: Tensor, drive: Tensor, state: Tensor
    ) -> Tensor:
        """Compute all states, `(batch, time, features)`."""
        states = empty(drive, *drive.shape)
        ctx.marks = loops.fill_halves(decay, drive, state, states)
        ctx.loops, ctx.scan = loops, scan
        ctx.save_for_backward(decay, drive, state)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Scan the gradients against the direction of time."""
        decay, drive, state = ctx.saved_tensors
        if torch.is_grad_enabled() or not has_values(gradient):
            return None, None, *differentiate_plainly(ctx.scan, decay, drive, state, gradient)
        found = ctx.loops.differentiate_halves_on_cpu(decay, drive, ctx.marks, gradient)
        return None, None, *found


def differentiate_plainly(
    scan: Scan, decay: Tensor, drive: Tensor, state: Tensor, gradient: Tensor
) -> tuple[Tensor, ...]:
    """Differentiate the scan of float32 numbers in differentiable operations."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        given = [
            each if each.requires_grad else each.detach().requires_grad_()
            for each in (decay, drive, state)
        ]
        states = scan(given[0].float(), given[1].float(), given[2], False).to(drive.dtype)
        return torch.autograd.grad(states, given, gradient, create_graph=again)
