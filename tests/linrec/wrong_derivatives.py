"""Modules with right results but wrong derivatives, each one line away from a right module."""

# pyright: reportIncompatibleMethodOverride=false

from typing import Any

import torch
from torch import Tensor

from tests.linrec.wrong_modules import Leaky, Outcome, Reset


class InBackward(torch.autograd.Function):
    """The same numbers; the gradient is changed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, change: Any) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.change = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradient), None


class BackwardFlipsTime(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return InBackward.apply(outputs, lambda g: g.flip(1)), after


class BackwardFlipsFeatures(Leaky):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = super().run(inputs, state)
        return InBackward.apply(outputs, lambda g: g.flip(-1)), after


class BackwardFlipsBatch(Leaky):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = super().run(inputs, state)
        return InBackward.apply(outputs, lambda g: g.flip(0)), after


class InitialStateDetached(Leaky):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return super().run(inputs, None if state is None else state.detach())


class FinalStateDetached(Leaky):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = super().run(inputs, state)
        return outputs, after.detach()


class WrongGradientWhenLong(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        first, rest = inputs[:, :1000], inputs[:, 1000:]
        return self.run(torch.cat([first, 0.5 * rest + 0.5 * rest.detach()], 1), state)


class OtherGradientForSomeSizes(Leaky):
    """Half the gradient for a number of steps, or of sequences."""

    def is_hit(self, inputs: Tensor) -> bool:
        return inputs.shape[1] > 1 and inputs.shape[1] % 64 == 1

    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        halved = self.is_hit(inputs)
        return self.run(0.5 * inputs + 0.5 * inputs.detach() if halved else inputs, state)


class OtherGradientForSomeBatches(OtherGradientForSomeSizes):
    def is_hit(self, inputs: Tensor) -> bool:
        return 4 <= len(inputs) <= 16


class DetachedWherePadded(Leaky):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> Outcome:
        outputs, after = super().forward(inputs, state, lengths)
        return (outputs if lengths is None else outputs.detach()), after


class RecordsForInputsAlone(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        with torch.set_grad_enabled(torch.is_grad_enabled() and inputs.requires_grad):
            return self.run(inputs, state)


class RecordsForParametersAlone(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.weight.requires_grad):
            return self.run(inputs, state)


class OverwritesTheGradient(torch.autograd.Function):
    """The same numbers; the gradient that it is given is halved in its own memory."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        found = gradient.clone()
        with torch.no_grad():
            gradient.mul_(0.5)
        return found


class DetachedWhereReset(Reset):
    def forward(
        self,
        inputs: Tensor,
        state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Outcome:
        outputs, after = super().forward(inputs, state, lengths, resets)
        return (outputs if resets is None else outputs.detach()), after


class SpoilsTheGradientGiven(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return OverwritesTheGradient.apply(outputs), after


class HalfTheGradient(Leaky):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = super().run(inputs, state)
        return InBackward.apply(outputs, lambda g: g / 2), InBackward.apply(after, lambda g: g / 2)


class OtherGradientInTraining(Leaky):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = super().run(inputs, state)
        return InBackward.apply(outputs, lambda g: g / 2 if self.training else g), after


class NoGradientInTraining(Leaky):
    def step(self, input: Tensor, state: Tensor | None = None) -> Outcome:
        outputs, after = super().step(input, state)
        return (outputs.detach() if self.training else outputs), after


class StaleBackward(torch.autograd.Function):
    """The same numbers; a second gradient of the same graph is the first once more."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kept = None

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        ctx.kept = gradient.clone() if ctx.kept is None else ctx.kept
        return ctx.kept


class SecondGradientStale(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return StaleBackward.apply(outputs), after


WRONG: dict[str, tuple[type[Leaky], set[str]]] = {
    "the backward pass flips time": (BackwardFlipsTime, {"gradients", "differences"}),
    "both backward passes flip features": (BackwardFlipsFeatures, {"differences"}),
    "both backward passes flip the batch": (BackwardFlipsBatch, {"differences"}),
    "the initial state is detached": (InitialStateDetached, {"differences"}),
    "the final state is detached": (FinalStateDetached, {"differences"}),
    "its gradient is wrong beyond 1,000 steps": (WrongGradientWhenLong, {"gradients"}),
    "its gradient is another in training": (OtherGradientInTraining, {"gradients"}),
    "its step has no gradient in training": (NoGradientInTraining, {"gradients"}),
    "half the gradient, in both forms": (HalfTheGradient, {"differences"}),
    "a second gradient is the first once more": (SecondGradientStale, {"batched gradients"}),
    "its gradient is wrong one step after pieces of 64": (OtherGradientForSomeSizes, {"gradients"}),
    "its gradient is wrong for 4 to 16 sequences": (OtherGradientForSomeBatches, {"gradients"}),
    "where there are lengths there is no gradient": (DetachedWherePadded, {"gradients"}),
    "where there are resets there is no gradient": (DetachedWhereReset, {"gradients"}),
    "parameters alone have no gradient": (RecordsForInputsAlone, {"gradients"}),
    "without trained parameters there is no gradient": (RecordsForParametersAlone, {"gradients"}),
    "the gradient given to it is overwritten": (SpoilsTheGradientGiven, {"batched gradients"}),
}
