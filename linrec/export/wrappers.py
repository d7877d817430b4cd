"""Wrappers that give a module the arguments and results of a form, as plain tensors."""

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Step(nn.Module):
    """One step, from input and state to output and next state."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run one step."""
        outputs, after = self.module.step(input, state)  # type: ignore[operator]  # a method
        return outputs, after


class Steps(nn.Module):
    """All steps, from inputs and initial state to outputs and final state."""

    def __init__(self, module: nn.Module, method: str = "forward") -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run all steps."""
        outputs, after = getattr(self.module, self.method)(inputs, state)
        return outputs, after


class StepLoop(nn.Module):
    """All steps, as one loop over the module's `step`, and the state before and after them.

    Args:
        module: a module with a `step`.
        time: which axis of the inputs is time.
        at_end: whether to return outputs of the last step only.
    """

    def __init__(self, module: nn.Module, time: int, *, at_end: bool) -> None:
        super().__init__()
        self.step, self.time, self.at_end = Step(module), time, at_end

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run all steps."""
        tensors = {**dict(self.step.named_parameters()), **dict(self.step.named_buffers())}

        def body(state: Tensor, input: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
            own = dict(zip(tensors, given, strict=True))
            outputs, after = functional_call(self.step, own, (input, state))
            # Results may not share memory.
            return in_order(after), in_order(outputs)

        last, outputs = torch.ops.higher_order.scan(
            body, [in_order(state)], [in_order(inputs.movedim(self.time, 0))], (*tensors.values(),)
        )
        return (outputs[-1] if self.at_end else outputs.movedim(0, self.time)), last


class Sequences(nn.Module):
    """All steps from a zero state, with outputs only."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        """Run all steps."""
        found = self.module(inputs)
        return found if isinstance(found, Tensor) else found[0]


def in_order(tensor: Tensor) -> Tensor:
    """Copy a tensor into contiguous memory.

    Code compiled by AOTInductor reads later inputs by the strides of the example, unchecked. The
    strides of a step that was cut out of a sequence are the sequence's, with which it would read
    beyond the input. (`contiguous` would keep the stride of an axis of size one.)
    """
    return tensor.clone(memory_format=torch.contiguous_format)
