"""The two forms of a module, all steps at once and step by step, and their rounding errors."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from linrec._tensors.dtypes import double_dtype

MANY = 1000  # tensors with this many numbers are tried in fewer ways

State = Any  # a tensor, or tuples, lists and dicts of tensors; None before the first step


@dataclass(frozen=True, eq=False)
class Trial:
    """A module with its inputs.

    Attributes:
        module: the module, in evaluation mode.
        inputs (batch, time, features): its inputs.
        is_widened: whether the module is a copy converted to double precision.
    """

    module: nn.Module
    inputs: Tensor
    is_widened: bool = False

    @property
    def steps(self) -> int:
        """The number of steps."""
        return self.inputs.shape[1]

    @cached_property
    def allowed(self) -> float:
        """The allowed difference between two ways to compute the same outputs."""
        return sensitivity(self.module, self.inputs)

    @cached_property
    def training(self) -> nn.Module | None:
        """A copy of the module in training mode; None if it is random other than by dropout."""
        training = without_dropout(self.module)
        with torch.no_grad():
            torch.manual_seed(0)
            outputs, _ = whole(training, self.inputs)
            torch.manual_seed(1)
            again, _ = whole(training, self.inputs)
        return None if size_of(again - outputs) > self.allowed else training


def whole(module: nn.Module, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
    """Call a module on all steps."""
    outputs, state = module(inputs) if state is None else module(inputs, state)
    return outputs, state


def steps(module: nn.Module, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
    """Call a module step by step."""
    step = cast(Callable[..., tuple[Tensor, State]], module.step)
    outputs = []
    for now in inputs.unbind(1):
        output, state = step(now) if state is None else step(now, state)
        outputs.append(output)
    return (torch.stack(outputs, 1), state) if outputs else whole(module, inputs, state)


def without_dropout(module: nn.Module) -> nn.Module:
    """Copy a module into training mode, without dropout and with fixed batch statistics."""
    training = copy.deepcopy(module).train()
    for part in training.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        if isinstance(part, nn.RNNBase):
            part.dropout = 0.0
        if isinstance(part, nn.modules.batchnorm._NormBase):
            part.eval()
    return training


def sensitivity(module: nn.Module, inputs: Tensor) -> float:
    """Estimate how far rounding errors move outputs and states."""

    def run(own: Mapping[str, Tensor], inputs: Tensor) -> list[Tensor]:
        return [everything(torch.func.functional_call(module, dict(own), (inputs,)))]

    with torch.no_grad():
        return movement(run, module, inputs)[0]


def movement(
    function: Callable[[Mapping[str, Tensor], Tensor], list[Tensor]],
    module: nn.Module,
    inputs: Tensor,
) -> list[float]:
    """Measure how far a function's results move when a module's numbers and inputs are rounded.

    The rounding errors are random, drawn eight times (three for large tensors); the result is the
    largest movement times the roundings along the longest path.
    """
    generator, eps = torch.Generator().manual_seed(0), torch.finfo(dtype_of(module)).eps

    def moved(tensor: Tensor) -> Tensor:
        if not is_number(tensor):
            return tensor
        kind = tensor.real.dtype
        noise = torch.randint(-1, 2, tensor.shape, generator=generator).to(kind)
        return tensor * (1 + eps * noise)

    own = {name: tensor.detach() for name, tensor in own_tensors(module).items()}
    base = function(own, inputs)
    furthest = [eps * size_of(each) for each in base]
    for _ in range(8 if inputs.numel() < MANY else 3):
        outcome = function({name: moved(tensor) for name, tensor in own.items()}, moved(inputs))
        pairs = zip(furthest, outcome, base, strict=True)
        furthest = [max(far, size_of(now - before)) for far, now, before in pairs]
    return [operations(module, inputs) * far for far in furthest]


def size_of(tensor: Tensor) -> float:
    """Return the largest absolute value, 0 for an empty tensor."""
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0


def everything(outcome: State) -> Tensor:
    """Join all numbers of outputs and states into one vector."""
    parts = [tensor.flatten() for tensor in tensors_of(outcome)]
    dtype = torch.complex128 if any(part.is_complex() for part in parts) else torch.float64
    return torch.cat([part.to(dtype) for part in parts])


def operations(module: nn.Module, inputs: Tensor) -> int:
    """Count the roundings along the longest path: the steps and the widest sum."""
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


def map_state(change: Callable[[Tensor], Tensor], state: State) -> State:
    """Make a state of the same form with a function applied to every tensor."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):  # in the order of `tensors_of`
        return {name: map_state(change, state[name]) for name in sorted(state)}
    if isinstance(state, list | tuple):
        parts = [map_state(change, part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


def with_tensors(state: State, tensors: list[Tensor]) -> State:
    """Make a state of the same form from other tensors, in the order of `tensors_of`."""
    remaining = iter(tensors)
    return map_state(lambda _: next(remaining), state)


def is_number(tensor: Tensor) -> bool:
    """Return whether a tensor has derivatives, which counts and masks do not."""
    return tensor.is_floating_point() or tensor.is_complex()


def in_double(module: nn.Module) -> nn.Module:
    """Copy a module into double precision, real or complex."""

    def widen(tensor: Tensor) -> Tensor:
        return tensor.to(double_dtype(tensor.dtype)) if is_number(tensor) else tensor

    return copy.deepcopy(module)._apply(widen)


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of a module's numbers."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor.dtype
    return torch.get_default_dtype()


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """List a module's parameters and buffers by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def like_double(tensor: Tensor, seed: int) -> Tensor:
    """Draw normal numbers in double precision, in the shape of a tensor."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.complex128 if tensor.is_complex() else torch.float64
    return torch.randn(tensor.shape, generator=generator, dtype=kind)


def gradient(total: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
    """Return the gradient of a sum; None where a leaf has no influence."""
    if not total.requires_grad:
        return [None] * len(leaves)
    return list(torch.autograd.grad(total, leaves, allow_unused=True))


def fill_zeros(found: list[Tensor | None], leaves: list[Tensor]) -> list[Tensor]:
    """Replace missing gradients by zeros."""
    pairs = zip(found, leaves, strict=True)
    return [torch.zeros_like(leaf) if each is None else each for each, leaf in pairs]
