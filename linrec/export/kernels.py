"""Recurrences as convolutions whose kernels are constants of a graph."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from linrec.executors import Result
from linrec.response import impulse_response
from linrec.structures import matvec
from linrec.systems import LinearRecurrence

Method = Literal["conv", "fft"]


@dataclass(frozen=True, eq=False)
class Kernel:
    """The impulse response of one copy of a recurrence, `length` steps long.

    Attributes:
        outputs (*heads, p, m, length): h, the latest step first, as `conv1d` takes it.
        states (*heads, length·m, n): the effect of the inputs of all steps on the last state, also
            latest step first.
        copies: the number of copies of the system.
    """

    outputs: Tensor
    states: Tensor
    copies: int

    @property
    def length(self) -> int:
        """The number of steps."""
        return self.outputs.shape[-1]

    @staticmethod
    def of(recurrence: LinearRecurrence, length: int, heads: Sequence[int] = ()) -> "Kernel":
        """Compute the impulse response in double precision, in accurate coordinates.

        Args:
            recurrence: the system.
            length: the number of steps.
            heads: the batch axes of a batch of systems, each with its own inputs.

        Raises:
            ValueError: the recurrence varies with time, is complex, or is a batch of systems.
        """
        if recurrence.time_varying:
            kind = "varies with time, so that no one kernel describes it"
        elif recurrence.dtype.is_complex:
            kind = "is complex"
        elif len(recurrence.batch_shape) > len(heads):
            kind = f"is a batch of systems, {tuple(recurrence.batch_shape)}"
        else:
            kind = None
        if kind is not None:
            mend = "Type the form `scan` or `step`."
            if recurrence.dtype.is_complex:
                mend = "Write it in real states: `linrec.real_part(recurrence)`."
            raise ValueError(
                f"A recurrence {kind}: expected one real system that is the same at every step. "
                f"{mend}"
            )
        with torch.no_grad():
            dtype, double = recurrence.dtype, recurrence.to(torch.float64)
            one = double.rebuilt(double.A, double.B, double.C, double.D, copies=1)
            states = one.rebuilt(one.A, one.B, None, None)
            outputs = impulse_response(one, length).to(dtype)  # (*heads, length, p, m)
            states = impulse_response(states, length).to(dtype)  # (*heads, length, n, m)
            outputs, states = (each.expand(*heads, -1, -1, -1) for each in (outputs, states))
        return Kernel(
            outputs.flip(-3).movedim(-3, -1).contiguous(),
            states.flip(-3).mT.flatten(-3, -2).contiguous(),
            recurrence.copies,
        )

    def convolved(self, inputs: Tensor, method: Method) -> Tensor:
        """Convolve `inputs (*batch, *heads, time, copies·m)`, of no more steps than the kernel has.

        It is one convolution, padded in front, with a group for each head; or Fourier transforms
        whose length is a power of two. ONNX's `DFT` transforms only real signals, so axes are added
        before the transform.
        """
        *heads, p, m, length = self.outputs.shape
        batch, steps = inputs.shape[: inputs.ndim - 2 - len(heads)], inputs.shape[-2]
        groups = math.prod(heads)
        rows = inputs.reshape(-1, groups, steps, self.copies, m).permute(0, 3, 1, 4, 2)
        rows, kernel = rows.flatten(0, 1), self.outputs.reshape(groups, p, m, length)
        if method == "conv":
            padded = pad(rows.flatten(1, 2), (length - 1, 0))
            outputs = conv1d(padded, kernel.flatten(0, 1), groups=groups)
            outputs = outputs.unflatten(1, (groups, p))
        else:
            points = 1 << (2 * length - 1).bit_length()
            spectrum = torch.fft.rfft(kernel.flip(-1), n=points)
            transformed = torch.fft.rfft(rows.unsqueeze(-3), n=points)
            outputs = torch.fft.irfft((transformed * spectrum).sum(-2), n=points)
            outputs = outputs[..., :steps]
        outputs = outputs.unflatten(0, (-1, self.copies)).permute(0, 2, 4, 1, 3).flatten(-2)
        return outputs.reshape(*batch, *heads, steps, self.copies * p)

    def last_state(self, inputs: Tensor) -> Tensor:
        """Compute the state after `inputs`, `(*batch, *heads, copies·n)`."""
        m = self.outputs.shape[-2]
        # (Inputs are padded to the kernel's length: slicing the kernel would fix a graph's length.)
        whole = pad(inputs, (0, 0, self.length - inputs.shape[-2], 0))
        apart = whole.unflatten(-1, (self.copies, m)).movedim(-2, -3).flatten(-2)
        return matvec(self.states.mT.unsqueeze(-3), apart).flatten(-2)  # the same for all copies


class Recorded:
    """A stand-in for a module's `PlanCache` that runs recurrences and records them.

    Args:
        keeper: the module's own cache.
    """

    def __init__(self, keeper: object) -> None:
        self.keeper = keeper
        self.recurrences: list[LinearRecurrence] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.keeper, name)

    def run(self, recurrence: LinearRecurrence, *given: object) -> Result:
        """Run all steps by the module's own cache."""
        self.recurrences.append(recurrence)
        return self.keeper.run(recurrence, *given)  # type: ignore[attr-defined]  # a PlanCache

    def final(self, recurrence: LinearRecurrence, *given: object) -> Result:
        """Compute the last step by the module's own cache."""
        self.recurrences.append(recurrence)
        return self.keeper.final(recurrence, *given)  # type: ignore[attr-defined]  # likewise


class Convolved:
    """A stand-in for a module's `PlanCache` that convolves from a zero state.

    Args:
        keeper: the module's own cache.
        kernel: the constant kernel of the recurrence that the module runs.
        method: how it is convolved.
    """

    def __init__(self, keeper: object, kernel: Kernel, method: Method) -> None:
        self.keeper, self.kernel = keeper, kernel
        self.method: Method = method

    def __getattr__(self, name: str) -> object:
        return getattr(self.keeper, name)

    def run(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Convolve, and return the state after the last step too."""
        self.check(initial_state, lengths)
        return Result(self.kernel.convolved(inputs, self.method), self.kernel.last_state(inputs))

    def final(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Return the last step; if outputs are the state, one product gives it."""
        self.check(initial_state, lengths)
        state = self.kernel.last_state(inputs)
        if recurrence.C is None and recurrence.D is None:
            return Result(state, state.clone())
        return Result(self.kernel.convolved(inputs, self.method)[..., -1, :], state)

    def check(self, initial_state: Tensor | None, lengths: Tensor | None) -> None:
        """Refuse initial states and lengths, which a convolution with a constant cannot use."""
        if initial_state is not None or lengths is not None:
            given = "an initial state" if initial_state is not None else "lengths"
            raise ValueError(
                f"A convolution begins at zero and ends at the last step, but the module passes "
                f"{given} on: expected neither. Type the form `scan` or `step`."
            )
