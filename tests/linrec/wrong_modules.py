"""Modules with realistic bugs, each one line away from a right module."""

# The state that a module keeps between calls is any attribute.
# pyright: reportIncompatibleMethodOverride=false

import torch
from torch import Tensor, nn

Outcome = tuple[Tensor, Tensor]


class Leaky(nn.Module):
    """Leaky integrators: h_t = a h_{t-1} + W u_t, read as they are. This one is right."""

    input_size = 2

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.decay = nn.Parameter(torch.tensor([0.999, -0.9, 0.5]))
        self.weight = nn.Parameter(torch.randn(3, 2, generator=generator))

    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        """Run all steps, as every form of it does unless it is wrong."""
        h = inputs.new_zeros(len(inputs), 3) if state is None else state
        rows = []
        for drive in (inputs @ self.weight.mT).unbind(1):
            h = self.decay * h + drive
            rows.append(h)
        return torch.stack(rows, 1) if rows else inputs.new_zeros(len(inputs), 0, 3), h

    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> Outcome:
        """All steps; of padded sequences each to its own end."""
        if lengths is None:
            return self.all_steps(inputs, state)
        own = (torch.arange(inputs.shape[1]) < lengths.unsqueeze(-1)).unsqueeze(-1)
        outputs, _ = self.run(torch.where(own, inputs, 0), state)
        first = outputs.new_zeros(len(inputs), 1, 3) if state is None else state.unsqueeze(1)
        ends = lengths[:, None, None].expand(-1, 1, 3)
        return outputs, torch.cat([first, outputs], 1).gather(1, ends).squeeze(1)

    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        """All steps of whole sequences: what wrong ones do otherwise."""
        return self.run(inputs, state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Outcome:
        """One step."""
        outputs, state = self.run(input.unsqueeze(1), state)
        return outputs.squeeze(1), state


class OverwritesItsInputs(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        result = self.run(inputs, state)
        with torch.no_grad():
            inputs.mul_(0.5)
        return result


class OverwritesTheState(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        if state is not None:
            with torch.no_grad():
                state.copy_(after)
        return outputs, after


class OtherwiseInTraining(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return self.run(inputs, None if self.training else state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Outcome:
        outputs, after = super().step(input, state)
        return (outputs.half().float() if self.training else outputs), after


class ForgetsWithoutSteps(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return self.run(inputs, state if inputs.shape[1] else None)


class OneForNoSequences(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return self.run(inputs if len(inputs) else inputs.new_zeros(1, *inputs.shape[1:]), state)


class DropsTheCarry(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs = []
        for piece in inputs.split(16, 1) if inputs.shape[1] else [inputs]:
            rows, after = self.run(piece, state)
            outputs.append(rows)
            state = None
        return torch.cat(outputs, 1), after  # type: ignore[possibly-unbound]  # one piece at least


class WithoutHistory(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return self.run(inputs, state if inputs.shape[1] <= 1 else None)


class KeepsTheStateOfTheFirst(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return outputs, after if state is None or not inputs.shape[1] else outputs[:, 0]


class WrongAt256(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return (outputs.roll(1, 1) if inputs.shape[1] == 256 else outputs), after


class WrongWhenLong(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return torch.cat([outputs[:, :1000], 1.01 * outputs[:, 1000:]], 1), after


class LastOfAPieceLeftOut(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        alone = inputs.shape[1] > 32 and inputs.shape[1] % 32 == 1
        return (torch.cat([outputs[:, :-1], 0 * outputs[:, -1:]], 1) if alone else outputs), after


class ForgetsInSilence(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return self.run(inputs, state if inputs.any() else None)


class WrongWhenWide(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return torch.cat([outputs[:64], outputs[64:].flip(0)]), after


class WrongForSomeBatches(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return (outputs.flip(0) if 17 <= len(inputs) <= 63 else outputs), after


class WrongAt513(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return (outputs.roll(1, 1) if inputs.shape[1] == 513 else outputs), after


class LosesTheStateOfPadded(Leaky):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> Outcome:
        return super().forward(inputs, state if lengths is None else None, lengths)


class LosesTheStateOfNoSteps(Leaky):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> Outcome:
        outputs, after = super().forward(inputs, state, lengths)
        none = torch.zeros(len(inputs)) if lengths is None else lengths == 0
        return outputs, torch.where(none.bool().unsqueeze(-1), 0, after)


class SwallowsNaN(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return self.run(inputs.nan_to_num(0.0, torch.inf, -torch.inf), state)


class ClampsInfinity(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return self.run(inputs.clamp(-1e30, 1e30), state)


class OtherwiseInInferenceMode(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return (1.01 * outputs if torch.is_inference_mode_enabled() else outputs), after


class StateInDouble(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return outputs.to(inputs.dtype), after.double()

    def step(self, input: Tensor, state: Tensor | None = None) -> Outcome:
        return super().step(input, None if state is None else state.to(input.dtype))


class Clamped(Leaky):
    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        outputs, after = self.run(inputs, state)
        return outputs.clamp(-1e4, 1e4), after


class RoundsItsInputs(Leaky):
    def __init__(self) -> None:
        super().__init__()
        self.double()

    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        return super().run(inputs.float().to(inputs.dtype), state)


class SumsInSinglePrecision(RoundsItsInputs):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        h = inputs.new_zeros(len(inputs), 3) if state is None else state
        rows = []
        for drive in (inputs @ self.weight.mT).unbind(1):
            h = (self.decay.float() * h.float() + drive.float()).double()
            rows.append(h)
        return torch.stack(rows, 1) if rows else inputs.new_zeros(len(inputs), 0, 3), h


class StepIsLate(Leaky):
    def step(self, input: Tensor, state: Tensor | None = None) -> Outcome:
        _, after = super().step(input, state)
        return torch.zeros_like(after) if state is None else state, after


class KeepsTheState(Leaky):
    kept: Tensor | None = None

    def all_steps(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        if state is None and self.kept is not None and len(self.kept) == len(inputs):
            state = self.kept
        outputs, after = self.run(inputs, state)
        self.kept = after.detach()
        return outputs, after


class ReadsTheStateAsIfContiguous(Leaky):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        if state is not None and not state.is_contiguous():
            state = state.as_strided(state.shape, (state.shape[1], 1))
        return super().run(inputs, state)


class OtherwiseWhileRecording(Leaky):
    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        recorded = torch.is_grad_enabled() and inputs.requires_grad
        return super().run(1.01 * inputs if recorded else inputs, state)


class CountsItsCalls(Leaky):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def run(self, inputs: Tensor, state: Tensor | None) -> Outcome:
        self.calls += 1
        return super().run(inputs, state)


class Reset(Leaky):
    """Forgets before every step that `resets` marks; `kept` are marks that are overlooked."""

    def kept(self, resets: Tensor) -> Tensor:
        return torch.zeros_like(resets)

    def forward(
        self,
        inputs: Tensor,
        state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Outcome:
        if resets is None:
            return super().forward(inputs, state, lengths)
        h = inputs.new_zeros(len(inputs), 3) if state is None else state
        rows, forgets = [], resets & ~self.kept(resets)
        ends = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths
        for t in range(inputs.shape[1]):
            own = (t < ends).unsqueeze(-1)
            start = torch.where(forgets[:, t : t + 1], 0, h)
            output, after = self.run(torch.where(own, inputs[:, t], 0).unsqueeze(1), start)
            rows.append(output)
            h = torch.where(own, after, h)
        return torch.cat(rows, 1), h


class ResetOfTheFirstStepIgnored(Reset):
    def kept(self, resets: Tensor) -> Tensor:
        return torch.arange(resets.shape[1]) == 0


class ResetOfTheLastStepIgnored(Reset):
    def kept(self, resets: Tensor) -> Tensor:
        return torch.arange(resets.shape[1]) == resets.shape[1] - 1


class ResetsOnce(Reset):
    def kept(self, resets: Tensor) -> Tensor:
        return resets.cumsum(1) > 1


class ResetOfEverySixteenthStepIgnored(Reset):
    def kept(self, resets: Tensor) -> Tensor:
        at = torch.arange(resets.shape[1])
        return (at > 0) & (at % 16 == 0)


class ResetsOrLengths(Reset):
    def forward(
        self,
        inputs: Tensor,
        state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Outcome:
        own = lengths if resets is None else None
        return super().forward(inputs, state, own, resets)


class ResetsLikeTheFirstSequence(Reset):
    def forward(
        self,
        inputs: Tensor,
        state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Outcome:
        same = None if resets is None else resets[:1].expand_as(resets)
        return super().forward(inputs, state, lengths, same)


WRONG: dict[str, tuple[type[Leaky], set[str]]] = {
    "the inputs are overwritten": (OverwritesItsInputs, {"untouched"}),
    "the caller's state is overwritten": (OverwritesTheState, {"untouched"}),
    "it is another in training": (OtherwiseInTraining, {"training mode"}),
    "without steps it forgets": (ForgetsWithoutSteps, {"no steps"}),
    "of no sequences it makes one": (OneForNoSequences, {"no steps"}),
    "the carry is dropped between pieces of 16": (DropsTheCarry, {"streaming"}),
    "several steps after a state run without it": (WithoutHistory, {"continuation"}),
    "of several steps after a state the first is kept": (
        KeepsTheStateOfTheFirst,
        {"continuation"},
    ),
    "it is wrong at 256 steps": (WrongAt256, {"streaming"}),
    "it is wrong beyond 1,000 steps": (WrongWhenLong, {"streaming"}),
    "the one step of a last piece is left out": (LastOfAPieceLeftOut, {"continuation"}),
    "where all inputs are zero it forgets": (ForgetsInSilence, {"continuation"}),
    "it is wrong beyond 64 sequences": (WrongWhenWide, {"streaming"}),
    "it is wrong for 17 to 63 sequences": (WrongForSomeBatches, {"streaming"}),
    "in double precision it rounds its inputs to single": (RoundsItsInputs, {"precision"}),
    "in double precision it sums in single": (SumsInSinglePrecision, {"precision"}),
    "its outputs are clamped at 10,000": (Clamped, {"streaming"}),
    "the step is one late": (StepIsLate, {"streaming"}),
    "it keeps the state between calls": (KeepsTheState, {"untouched"}),
    "it reads a state as if it were contiguous": (ReadsTheStateAsIfContiguous, {"continuation"}),
    "it is another while gradients are recorded": (OtherwiseWhileRecording, {"recording"}),
    "it counts its calls": (CountsItsCalls, {"untouched"}),
    "a reset at the first step is ignored": (ResetOfTheFirstStepIgnored, {"resets"}),
    "a reset at the last step is ignored": (ResetOfTheLastStepIgnored, {"resets"}),
    "a second reset is ignored": (ResetsOnce, {"resets"}),
    "a reset of every sixteenth step is ignored": (ResetOfEverySixteenthStepIgnored, {"resets"}),
    "where there are resets lengths are ignored": (ResetsOrLengths, {"resets"}),
    "sequences are reset like the first": (ResetsLikeTheFirstSequence, {"resets"}),
    "it is wrong at 513 steps": (WrongAt513, {"streaming"}),
    "where there are lengths a state is lost": (LosesTheStateOfPadded, {"padding"}),
    "of no steps beside others the state is lost": (LosesTheStateOfNoSteps, {"padding"}),
    "all at once NaN becomes a number": (SwallowsNaN, {"not a number"}),
    "all at once infinity becomes a number": (ClampsInfinity, {"not a number"}),
    "it is another in inference mode": (OtherwiseInInferenceMode, {"recording"}),
    "all at once the state is in double precision": (StateInDouble, {"streaming"}),
}
