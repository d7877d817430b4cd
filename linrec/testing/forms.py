"""The two forms of a module, all steps at once and one by one, and how exact they can be."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

State = Any  # a tensor, or tuples, lists and dicts of such; None before the first step


class Trial(NamedTuple):
    """A module with inputs for it.

    Attributes:
        module: the module, in evaluation mode.
        inputs (batch, time, features): what it is fed.
        allowed: how far two ways to compute the same outputs may lie apart.
    """

    module: nn.Module
    inputs: Tensor
    allowed: float

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.inputs.shape[1]


def whole(module: nn.Module, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
    """Call a module on all steps."""
    outputs, state = module(inputs) if state is None else module(inputs, state)
    return outputs, state


def steps(module: nn.Module, inputs: Tensor) -> tuple[Tensor, State]:
    """Call a module step by step."""
    step = cast(Callable[..., tuple[Tensor, State]], module.step)
    state, outputs = None, []
    for now in inputs.unbind(1):
        output, state = step(now) if state is None else step(now, state)
        outputs.append(output)
    return torch.stack(outputs, 1), state


def sensitivity(module: nn.Module, inputs: Tensor) -> float:
    """How far outputs and states move under rounding errors, times how many there may be."""

    def run(own: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return everything(torch.func.functional_call(module, dict(own), (inputs,)))

    with torch.no_grad():
        return movement(run, module, inputs)


def movement(
    function: Callable[[Mapping[str, Tensor], Tensor], Tensor], module: nn.Module, inputs: Tensor
) -> float:
    """How far a function moves with a module's numbers and its inputs, each by a rounding error.

    At random, eight times; multiplied by the roundings along the longest path.
    """
    generator, eps = torch.Generator().manual_seed(0), torch.finfo(dtype_of(module)).eps

    def moved(tensor: Tensor) -> Tensor:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        kind = tensor.real.dtype
        noise = torch.randint(-1, 2, tensor.shape, generator=generator).to(kind)
        return tensor * (1 + eps * noise)

    own = dict(module.named_parameters()) | dict(module.named_buffers())
    own = {name: tensor.detach() for name, tensor in own.items()}
    base = function(own, inputs)
    furthest = eps * float(base.abs().max())
    for _ in range(8):
        outcome = function({name: moved(tensor) for name, tensor in own.items()}, moved(inputs))
        furthest = max(furthest, float((outcome - base).abs().max()))
    return operations(module, inputs) * furthest


def everything(outcome: State) -> Tensor:
    """Put all numbers of outputs and states side by side."""
    parts = [tensor.flatten() for tensor in tensors_of(outcome)]
    dtype = torch.complex128 if any(part.is_complex() for part in parts) else torch.float64
    return torch.cat([part.to(dtype) for part in parts])


def operations(module: nn.Module, inputs: Tensor) -> int:
    """Count the roundings along the longest path: the steps, and the widest sum."""
    widths = [max(tensor.shape, default=1) for tensor in module.state_dict().values()]
    return inputs.shape[1] + max(widths, default=1) + 8


def tensors_of(state: State) -> list[Tensor]:
    """List the tensors of a state, in order."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for name in sorted(state) for tensor in tensors_of(state[name])]
    if isinstance(state, list | tuple):
        return [tensor for part in state for tensor in tensors_of(part)]
    return []


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype of a module's numbers."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor.dtype
    return torch.get_default_dtype()
