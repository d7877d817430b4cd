"""The elementwise scan x_t = a_t x_{t-1} + b_t as one torch operation, in Triton on CUDA.

`torch.ops.linrec.elementwise_scan` has a fake implementation, gradients of any order and a rule for
vmap. Without Triton, and on the CPU, a loop over time takes its place.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

# (Importing Triton takes a second, so it is deferred to the first use.)
HAS_TRITON = find_spec("triton") is not None


def serves(tensor: Tensor) -> bool:
    """Return whether there is a kernel for a tensor's device, not only a loop."""
    return HAS_TRITON and tensor.device.type == "cuda"


@torch.library.custom_op("linrec::elementwise_scan", mutates_args=())
def elementwise_scan(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Scan elementwise, in the direction of time or against it.

        x_t = a_t x_{t-1} + b_t        t = 0 … T-1, or t = T-1 … 0 and x_{t+1}

    A step with a_t = 0 forgets the state before it (a reset); a step with a_t = 1 and b_t = 0 keeps
    it (a sequence that has ended). Half-precision numbers are summed in float32.

    Args:
        decay (batch, time, features): a, of any strides; with stride 0, a number is read once.
        drive (batch, time, features): b.
        state (batch, features): the state before the first step.
        reverse: whether to scan from the last step to the first.

    Returns:
        The states (batch, time, features), in the dtype of `drive`.

    Example:
        >>> import torch, linrec.kernels
        >>> half = torch.full((1, 4, 1), 0.5)
        >>> linrec.kernels.elementwise_scan(half, torch.ones(1, 4, 1), torch.zeros(1, 1), False).mT
        tensor([[[1.0000, 1.5000, 1.7500, 1.8750]]])
    """
    return scan_now(decay, drive, state, reverse)


def scan_now(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Scan as `elementwise_scan` does, outside of autograd, transforms and graphs.

    (Torch's overhead around a custom operation takes as long as a short scan.)
    """
    if launches(drive):
        from linrec.kernels.launch import launch

        return launch(decay, drive, state, reverse=reverse, states=room(decay, drive))[0]
    return room(decay, drive).copy_(loop(decay, drive, state, reverse))


@torch.library.custom_op("linrec::elementwise_gradients", mutates_args=())
def elementwise_gradients(
    decay: Tensor, state: Tensor, states: Tensor, gradient: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate the scan by one in the opposite direction, which also gives the gradient in a.

        λ_t = g_t + a*_{t+1} λ_{t+1}        ga_t = λ_t x*_{t-1}        gx_{-1} = a*_0 λ_0

    Args:
        decay (batch, time, features): a.
        state (batch, features): the state before the first step.
        states (batch, time, features): x.
        gradient (batch, time, features): g, the gradient in the states.
        reverse: whether the scan began at the last step.

    Returns:
        The gradients in a, in b and in the state.
    """
    return differentiate_now(decay, state, states, gradient, reverse)


def differentiate_now(
    decay: Tensor, state: Tensor, states: Tensor, gradient: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate as `elementwise_gradients` does, outside of autograd and graphs."""
    first = decay.shape[1] - 1 if reverse else 0
    if launches(gradient):
        from linrec.kernels.launch import launch

        to_drive, to_decay = launch(
            decay,
            gradient,
            None,
            reverse=not reverse,
            shift=True,
            before=states,
            first=state,
            states=room(decay, gradient, states),
        )
        assert to_decay is not None
    else:
        found = loop(shift_decays(decay, reverse), gradient, torch.zeros_like(state), not reverse)
        to_drive, to_decay = (room(decay, gradient, states) for _ in range(2))
        to_drive.copy_(found)
        torch.mul(to_drive, previous(states, state, reverse).conj_physical(), out=to_decay)
    to_state = decay[:, first].conj_physical() * to_drive[:, first]
    return to_decay, to_drive, to_state.to(gradient.dtype).contiguous()


def launches(tensor: Tensor) -> bool:
    """Return whether a kernel runs: on CUDA, and on the CPU with Triton's interpreter."""
    if not HAS_TRITON or tensor.device.type not in ("cpu", "cuda"):
        return False
    from linrec.kernels.launch import INTERPRETED

    return INTERPRETED == (tensor.device.type == "cpu")


def room(decay: Tensor, *others: Tensor) -> Tensor:
    """Allocate states, with time last in memory if it is last in all inputs."""
    drive = others[0]
    B, T, F = drive.shape
    if lies_in_time(decay, *others):
        return torch.empty((B, F, T), dtype=drive.dtype, device=drive.device).mT
    return torch.empty((B, T, F), dtype=drive.dtype, device=drive.device)


def lies_in_time(*tensors: Tensor) -> bool:
    """Return whether the steps of a feature lie side by side, not the features of a step."""
    for tensor in tensors:
        if tensor.shape[2] > 1 and tensor.stride(1) >= tensor.stride(2):
            return False
    return True


def loop(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Scan in a loop over time: the fallback, and the reference for the kernels."""
    half = drive.dtype in (torch.float16, torch.bfloat16)
    sums = torch.float32 if half else drive.dtype
    state, states = state.to(sums), []
    order = range(drive.shape[1])
    for step in reversed(order) if reverse else order:
        state = decay[:, step].to(sums) * state + drive[:, step].to(sums)
        states.append(state)
    return torch.stack(states[::-1] if reverse else states, 1).to(drive.dtype)


def shift_decays(decay: Tensor, reverse: bool) -> Tensor:
    """Return the conjugated decays of the backward scan: a*_{t+1}, and 0 where there is none."""
    nothing = torch.zeros_like(decay[:, :1])
    # (Inside a custom operation, lazy conjugation must not be used.)
    conjugate = decay.conj_physical()
    parts = (nothing, conjugate[:, :-1]) if reverse else (conjugate[:, 1:], nothing)
    return torch.cat(parts, 1)


def previous(states: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Return the state before each step, in the direction of the scan."""
    state = state.to(states.dtype).unsqueeze(1)
    parts = (states[:, 1:], state) if reverse else (state, states[:, :-1])
    return torch.cat(parts, 1)


@elementwise_scan.register_fake
def _(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    return room(decay, drive)


@elementwise_gradients.register_fake
def _(
    decay: Tensor, state: Tensor, states: Tensor, gradient: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    to_decay, to_drive = (room(decay, gradient, states) for _ in range(2))
    return to_decay, to_drive, gradient.new_empty(state.shape)


def setup_context(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor, Tensor, Tensor, bool],
    output: Tensor,
) -> None:
    """Save the tensors of the gradient."""
    decay, _, state, ctx.reverse = inputs  # type: ignore[attr-defined]  # as torch has it
    ctx.save_for_backward(decay, state, output)


def backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor, None]:
    """Scan the gradients back, differentiably if second gradients are needed."""
    decay, state, states = ctx.saved_tensors  # type: ignore[attr-defined]  # as torch has it
    reverse: bool = ctx.reverse  # type: ignore[attr-defined]  # kept above
    if not torch.is_grad_enabled():
        found = elementwise_gradients(decay, state, states, gradient, reverse)
    else:
        nothing = torch.zeros_like(state)
        to_drive = elementwise_scan(shift_decays(decay, reverse), gradient, nothing, not reverse)
        first = decay.shape[1] - 1 if reverse else 0
        to_decay = to_drive * previous(states, state, reverse).conj()
        found = to_decay, to_drive, decay[:, first].conj() * to_drive[:, first]
    to_decay, to_drive, to_state = found
    return to_decay.to(decay.dtype), to_drive, to_state.to(state.dtype), None


elementwise_scan.register_autograd(backward, setup_context=setup_context)


def merge_mapped(tensor: Tensor, axis: int | None, size: int) -> Tensor:
    """Merge a mapped axis into the sequences."""
    moved = tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
    return moved.flatten(0, 1)


@elementwise_scan.register_vmap
def _(info, in_dims, decay, drive, state, reverse):  # type: ignore[no-untyped-def]  # as torch calls it
    size = info.batch_size
    given = (merge_mapped(t, a, size) for t, a in zip((decay, drive, state), in_dims, strict=False))
    return elementwise_scan(*given, reverse).unflatten(0, (size, -1)), 0


@elementwise_gradients.register_vmap
def _(info, in_dims, decay, state, states, gradient, reverse):  # type: ignore[no-untyped-def]
    size, tensors = info.batch_size, (decay, state, states, gradient)
    given = (merge_mapped(t, a, size) for t, a in zip(tensors, in_dims, strict=False))
    found = elementwise_gradients(*given, reverse)
    return tuple(each.unflatten(0, (size, -1)) for each in found), (0, 0, 0)
