"""Modules whose results share memory with each other, with the arguments, or with the module."""

import torch
from torch import Tensor

from tests.linrec.wrong_modules import Leaky, Outcome


class StateIsAView(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return outputs, outputs[:, -1] if inputs.shape[1] else after


class StepGivesOneTensorTwice(Leaky):
    def step(self, input: Tensor, state: Tensor | None = None) -> Outcome:
        _, after = super().step(input, state)
        return after, after


class StateIsItsBuffer(Leaky):
    """The state is written into a buffer of its own, and handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(0, 3), persistent=False)

    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, self.last = self.run(inputs, state)
        return outputs, self.last


class OutputsAreWrittenAnew(Leaky):
    """Outputs of one shape are all written into the same memory."""

    kept: Tensor | None = None

    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        if outputs.requires_grad or not outputs.numel():
            return outputs, after
        if self.kept is None or self.kept.shape != outputs.shape:
            self.kept = torch.empty_like(outputs)
        return self.kept.copy_(outputs), after


class ResultsAreItsInputs(Leaky):
    """The last inputs are its state, as they were given."""

    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return inputs, inputs[:, -1] if inputs.shape[1] else inputs.new_zeros(len(inputs), 2)

    def step(self, input: Tensor, state: Tensor | None = None) -> Outcome:
        return input, input


WRONG: dict[str, tuple[type[Leaky], set[str]]] = {
    "its state is a view of its outputs": (StateIsAView, {"own memory"}),
    "its step gives one tensor twice": (StepGivesOneTensorTwice, {"own memory"}),
    "its state is a buffer of its own": (StateIsItsBuffer, {"own memory"}),
    "its outputs are written into the same memory": (OutputsAreWrittenAnew, {"own memory"}),
    "its results are views of its inputs": (ResultsAreItsInputs, {"own memory"}),
}
