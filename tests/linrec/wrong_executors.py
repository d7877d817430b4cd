"""Executors that are right only on small cases, or only in their outputs."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

import linrec
from linrec import LinearRecurrence, Recurrent, Result
from tests.linrec.deliberate_bugs import Change, Distorted
from tests.linrec.wrong_derivatives import InBackward, OverwritesTheGradient


@dataclass(frozen=True)
class Pieces(Distorted):
    """Runs in pieces; what is carried from one to the next is changed."""

    carry: Change = torch.zeros_like
    size: int = 64

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        if recurrence.time_varying:
            return Recurrent().execute(recurrence, plan, inputs, state)
        outputs = []
        for number, piece in enumerate(inputs.split(self.size, -2)):
            start = state if not number or state is None else self.carry(state)
            result = Recurrent().execute(recurrence, plan, piece, start)
            outputs.append(result.outputs)
            state = result.final_state
        return Result(torch.cat(outputs, -2), result.final_state)  # type: ignore[possibly-unbound]  # one piece at least


@dataclass(frozen=True)
class Packed(Distorted):
    """Runs the sequences of a batch one after another, without a reset where one has no state."""

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        if state is not None or inputs.ndim != 3 or recurrence.batch_shape or not len(inputs):
            return Recurrent().execute(recurrence, plan, inputs, state)
        results = []
        for document in inputs:
            results.append(Recurrent().execute(recurrence, plan, document, state))
            state = results[-1].final_state
        outputs, states = zip(*results, strict=True)
        return Result(torch.stack(outputs), torch.stack(states))


@dataclass(frozen=True)
class SharingMemory(Distorted):
    """Outputs of one shape are all written into the same memory."""

    kept: dict[tuple[torch.Size, torch.dtype], Tensor] = field(default_factory=dict, compare=False)

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        outputs, state = Recurrent().execute(recurrence, plan, inputs, state)
        key = outputs.shape, outputs.dtype
        return Result(self.kept.setdefault(key, outputs.contiguous()).copy_(outputs), state)


@dataclass(frozen=True)
class KnowingBySight(Distorted):
    """Keeps what it computed from tensors of the same memory, whatever they hold now."""

    kept: dict[tuple[int, torch.Size], Tensor] = field(default_factory=dict, compare=False)

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        seen = {
            name: self.kept.setdefault((leaf.data_ptr(), leaf.shape), leaf.detach().clone())
            for name, leaf in recurrence.leaves().items()
        }
        return Recurrent().execute(recurrence.with_leaves(seen), plan, inputs, state)


@dataclass(frozen=True)
class OnesOwnStates(Distorted):
    """Loses a state that several sequences share."""

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        if state is not None and state.ndim > 1 and len(state) > 1 and not state.stride(0):
            state = None
        return Recurrent().execute(recurrence, plan, inputs, state)


@dataclass(frozen=True)
class ReadingStatesAsIfContiguous(Distorted):
    """Reads a state as if its numbers lay side by side."""

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        if state is not None and 0 not in state.stride():
            state = state.as_strided(state.shape, torch.empty(state.shape, device="meta").stride())
        return Recurrent().execute(recurrence, plan, inputs, state)


@dataclass(frozen=True)
class RecordingForInputsAlone(Distorted):
    """Its matrices have a gradient only where its inputs have one."""

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        if not inputs.requires_grad:
            leaves = recurrence.leaves().items()
            recurrence = recurrence.with_leaves({name: leaf.detach() for name, leaf in leaves})
        return Recurrent().execute(recurrence, plan, inputs, state)


@dataclass(frozen=True)
class PassingInputsOn(Distorted):
    """Where a state is its input, it is the input's own memory."""

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        outputs, after = Recurrent().execute(recurrence, plan, inputs, state)
        return Result(inputs if torch.equal(outputs, inputs) else outputs, after)


@dataclass(frozen=True)
class CutKernel(Distorted):
    """Forgets what is longer ago than so many steps."""

    size: int = 64

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        result = Recurrent().execute(recurrence, plan, inputs, state)
        # (Where outputs are read by a C, or copies lie side by side, it is right.)
        plain = recurrence.C is None and recurrence.D is None and recurrence.copies == 1
        if recurrence.time_varying or not plain or inputs.shape[-2] <= self.size:
            return result
        late = torch.nn.functional.pad(inputs, (0, 0, self.size, 0))[..., : inputs.shape[-2], :]
        gone = Recurrent().execute(recurrence, plan, late, None)
        decay = torch.linalg.matrix_power(recurrence.A.to_dense(), self.size)
        return Result(result.outputs - gone.outputs @ decay.mT, result.final_state)


def backwards(change: Change) -> Change:
    """The same numbers, whose gradient is changed."""
    return lambda x: InBackward.apply(x, change)  # type: ignore[no-any-return]


def halved(u: Tensor) -> Tensor:
    """Overwrite the inputs, as in place operations do."""
    with torch.no_grad():
        u.mul_(0.5)
    return 2 * u


def last_rank_alone(g: Tensor) -> Tensor:
    """Halve the gradient but for that of the last 64 steps."""
    early = torch.arange(g.shape[-2]).unsqueeze(-1) < g.shape[-2] - 64
    return torch.where(early, g / 2, g)


WRONG: dict[str, tuple[linrec.Executor, str]] = {
    "wrong for more than 16 states": (
        Distorted(lambda y: 1.001 * y, when=lambda r, u: r.A.state_size > 16 and u.shape[-2] > 0),
        "agreement",
    ),
    "wrong for more than 64 sequences": (
        Distorted(
            lambda y: torch.cat([y[:64], y[64:].flip(0)]),
            when=lambda r, u: u.ndim > 2 and u.shape[0] > 65,
        ),
        "agreement",
    ),
    "wrong for 9 to 63 sequences": (
        Distorted(
            lambda y: y.flip(0),
            when=lambda r, u: u.ndim > 2 and 9 <= u.shape[0] <= 63,
        ),
        "agreement",
    ),
    **{
        f"wrong for {states} states": (
            Distorted(lambda y: 1.001 * y, when=lambda r, u, n=states: r.A.state_size == n),
            "agreement",
        )
        for states in (32, 64, 128)
    },
    **{
        f"wrong at a power of two {what}": (
            Distorted(
                lambda y: y.roll(1, -2),
                when=lambda r, u, d=d: u.shape[-2] > 64 and (u.shape[-2] - d).bit_count() == 1,
            ),
            "continuation",
        )
        for d, what in ((1, "and one more"), (-1, "less one"))
    },
    **{
        f"wrong for {few} to {many} states": (
            Distorted(
                lambda y: 1.001 * y,
                when=lambda r, u, few=few, many=many: few <= r.A.state_size <= many,
            ),
            "agreement",
        )
        for few, many in ((9, 15), (17, 31))
    },
    "gradient wrong for 4 to 16 sequences": (
        Distorted(
            inputs=backwards(lambda g: g / 2),
            when=lambda r, u: u.ndim == 3 and 4 <= len(u) <= 16,
        ),
        "gradient in inputs",
    ),
    "gradient wrong one step after pieces of 64": (
        Distorted(
            inputs=backwards(lambda g: g / 2),
            when=lambda r, u: u.shape[-2] > 1 and u.shape[-2] % 64 == 1,
        ),
        "gradient in inputs",
    ),
    "wrong at 513 steps": (
        Distorted(lambda y: y.roll(1, -2), when=lambda r, u: u.shape[-2] == 513),
        "agreement",
    ),
    "a state shared by several sequences is lost": (OnesOwnStates(), "independence"),
    "NaN becomes a number": (
        Distorted(inputs=lambda u: u.nan_to_num(0.0, torch.inf, -torch.inf)),
        "independence",
    ),
    "infinity becomes a number": (
        Distorted(inputs=lambda u: u if u.is_complex() else u.clamp(-1e30, 1e30)),
        "independence",
    ),
    "a state is read as if it were contiguous": (ReadingStatesAsIfContiguous(), "continuation"),
    "another function without gradients": (
        Distorted(lambda y: 1.001 * y, when=lambda r, u: not torch.is_grad_enabled()),
        "recording",
    ),
    "another function in inference mode": (
        Distorted(lambda y: 1.001 * y, when=lambda r, u: torch.is_inference_mode_enabled()),
        "recording",
    ),
    "other numbers while gradients are recorded": (
        Distorted(lambda y: y + 0.001, when=lambda r, u: u.requires_grad),
        "recording",
    ),
    "matrices alone have no gradient": (RecordingForInputsAlone(), "first derivatives"),
    "the gradient given to it is overwritten": (
        Distorted(OverwritesTheGradient.apply),
        "gradient in inputs",
    ),
    "numbers changed in place are not seen": (KnowingBySight(), "plans"),
    "wrong for more than 4 inputs": (
        Distorted(
            lambda y: 1.001 * y,
            when=lambda r, u: r.B is not None and r.B.shape[-1] > 4,
        ),
        "agreement",
    ),
    "wrong for more than 32 steps that vary": (
        Distorted(lambda y: 1.001 * y, when=lambda r, u: r.time_varying and u.shape[-2] > 32),
        "agreement",
    ),
    "outputs written into the same memory": (SharingMemory(), "untouched"),
    "wrong at 256 steps": (
        Distorted(lambda y: y.roll(1, -2), when=lambda r, u: u.shape[-2] == 256),
        "agreement",
    ),
    "wrong beyond 1,000 steps": (
        Distorted(lambda y: torch.cat([y[..., :1000, :], 1.01 * y[..., 1000:, :]], -2)),
        "agreement",
    ),
    "not a number beyond 1,024 steps": (
        Distorted(lambda y: y * torch.nan, when=lambda r, u: u.shape[-2] > 1024),
        "agreement",
    ),
    "clamped at 10,000": (
        Distorted(
            lambda y: y if y.is_complex() else y.clamp(-1e4, 1e4),
        ),
        "agreement",
    ),
    "state restarted in every piece": (Pieces(), "agreement"),
    "packed documents leak into the next": (Packed(), "agreement"),
    "a kernel cut after 64 steps": (CutKernel(), "agreement"),
    "carry in half precision": (
        Pieces(carry=lambda x: x if x.is_complex() else x.bfloat16().to(x.dtype)),
        "agreement",
    ),
    "carry without a gradient": (Pieces(carry=Tensor.detach), "gradient in inputs"),
    "complex carry without the conjugate in the backward pass": (
        Pieces(carry=backwards(lambda g: g.conj() if g.is_complex() else g)),
        "gradient in inputs",
    ),
    "gradients wrong on all but the last rank": (
        Distorted(inputs=backwards(last_rank_alone)),
        "gradient in inputs",
    ),
    "final state without a gradient": (
        Distorted(state=Tensor.detach),
        "gradient of the final state",
    ),
    "backward pass flips time": (
        Distorted(backwards(lambda g: g.flip(-2))),
        "gradient in inputs",
    ),
    "backward pass flips features": (
        Distorted(backwards(lambda g: g.flip(-1))),
        "gradient in inputs",
    ),
    "inputs overwritten": (Distorted(inputs=halved), "untouched"),
    "the last steps that fill no piece are left out": (
        Distorted(
            lambda y: torch.cat([y[..., : len_of(y), :], 0 * y[..., len_of(y) :, :]], -2),
            when=lambda r, u: u.shape[-2] > 32,
        ),
        "agreement",
    ),
}


def len_of(y: Tensor) -> int:
    """The steps that fill whole pieces of 32."""
    return y.shape[-2] // 32 * 32
