"""The recurrence as a convolution, by the fast Fourier transform."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from linrec.executors.base import (
    Cost,
    Executor,
    Plan,
    Result,
    has_copies_inside,
    invariant_only,
    kernel_cost,
    write_each,
)
from linrec.executors.kernel import add_free_motion, kernels, last_state, states_of
from linrec.systems import LinearRecurrence

# The transforms are limited by memory, not arithmetic: as many sequences at a time as keep their
# products and transforms, of about this many numbers, within the caches.
BLOCK = 1 << 18

# An operation of a transform takes as long as so many of a matrix product.
SLOWNESS = 6


@final
@dataclass(frozen=True)
class FFTConvolution(Executor):
    """Convolve inputs with the impulse response, padded to twice the length.

        y = F⁻¹(F(h) · F(u))

    About 2.5 T log2(2T) p operations for each sequence, whatever the number of states: for long
    sequences and few outputs. Time-invariant systems.

    Numerical error: at every step about 4 log2(2T)·eps·‖h‖₂‖u‖₂, which does not shrink where the
    outputs do: small outputs before or beside large ones keep fewer correct digits, and a kernel
    that overflows spoils every step.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.run(average, torch.ones(3, 1), executor=linrec.FFTConvolution()).outputs.mT
        tensor([[0.5000, 0.7500, 0.8750]])

    References:
        Chilkuri and Eliasmith 2021, eq. 26. Higham 2002, Accuracy and Stability of Numerical
        Algorithms, theorem 24.2.
    """

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Only time-invariant systems have an impulse response."""
        return invariant_only(recurrence)

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Compute the kernel of the last state, and the spectrum of the impulse response."""
        tensors = kernels(recurrence, length)
        made = Plan(self, recurrence, length, tensors)
        kernel = tensors.pop("outputs") if "outputs" in tensors else states_of(made)
        tensors["spectrum"] = transform(kernel.movedim(-3, -1), fast_length(2 * length - 1))
        return made

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Transform, multiply and transform back, a cacheful of sequences at a time."""
        spectrum = plan["spectrum"]
        if spectrum.ndim > 3:
            outputs = convolve(inputs, spectrum).mT
        else:
            outputs = convolve_in_blocks(inputs, spectrum)
        return add_free_motion(recurrence, plan, outputs, inputs, state)

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Multiply all inputs by the kernel: one step needs no transform."""
        return last_state(recurrence, plan, inputs, state)

    def cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """Transforms of m inputs and p outputs, their product, and each passing through memory."""
        m = recurrence.input_size // recurrence.copies
        p = recurrence.output_size // recurrence.copies
        size = fast_length(2 * length - 1)
        transforms = SLOWNESS * 2.5 * size * math.log2(max(size, 2)) * (m + p)
        products = SLOWNESS * 4.0 * size * m * p
        bytes_ = recurrence.dtype.itemsize * length * (4 * p + 2 * m)
        blocks = math.ceil(batch * p * size / BLOCK)
        own = Cost(batch * (transforms + products), batch * bytes_, 6 * blocks)
        return own + self.final_cost(recurrence, length, batch)

    def final_cost(self, recurrence: LinearRecurrence, length: int, batch: int) -> Cost:
        """One product of T·m by n for each sequence."""
        n, m = recurrence.A.state_size, recurrence.input_size // recurrence.copies
        kernel = recurrence.dtype.itemsize * length * m * n
        return Cost(2.0 * batch * length * m * n, kernel, 3)

    def preparation_cost(self, recurrence: LinearRecurrence, length: int) -> Cost:
        """The state kernel by doubling, and the transforms of the impulse response."""
        m = recurrence.input_size // recurrence.copies
        p = recurrence.output_size // recurrence.copies
        size = fast_length(2 * length - 1)
        spectrum = SLOWNESS * 2.5 * size * math.log2(max(size, 2)) * m * p
        traffic = 6 * recurrence.dtype.itemsize * size * m * p
        return Cost(spectrum, traffic, 6) + kernel_cost(recurrence, length)


def fast_length(least: int) -> int:
    """Find the smallest 2^a 3^b 5^c of `least` or more: the lengths that transforms like."""
    best = 1 << max(least - 1, 0).bit_length()
    five = 1
    while five < best:
        odd = five
        while odd < best:
            candidate = odd << max(-(-least // odd) - 1, 0).bit_length()
            best = min(best, candidate)
            odd *= 3
        five *= 5
    return best


def transform(signals: Tensor, size: int) -> Tensor:
    """Transform the last axis, padded with zeros; real signals have half a spectrum."""
    if signals.is_complex():
        return torch.fft.fft(signals, size)
    return torch.fft.rfft(signals, size)


def convolve(inputs: Tensor, spectrum: Tensor) -> Tensor:
    """Convolve `inputs (*batch, time, m)` with a kernel, to `(*batch, p, time)`."""
    steps = inputs.shape[-2]
    size = fast_length(2 * steps - 1)
    transformed = transform(inputs.mT, size)
    if spectrum.shape[-3] == 1:
        product = transformed * spectrum.squeeze(-3)
    else:
        product = torch.einsum("...mf,...mpf->...pf", transformed, spectrum)
    inverse = torch.fft.ifft if inputs.is_complex() else torch.fft.irfft
    return inverse(product, size)[..., :steps]


def convolve_in_blocks(inputs: Tensor, spectrum: Tensor) -> Tensor:
    """Convolve a cacheful of sequences at a time, and write them time first.

    The copies of a sequence stay together, so that they can be written side by side.
    """
    steps, m = inputs.shape[-2:]
    batch, p = inputs.shape[:-2], spectrum.shape[-2]
    copies = inputs.shape[-3] if has_copies_inside(inputs) else 1
    units = inputs.reshape(-1, copies, steps, m)
    at_a_time = max(BLOCK // (copies * p * fast_length(2 * steps - 1)), 1)
    parts = (convolve(part, spectrum).flatten(1, 2).mT for part in units.split(at_a_time))
    trained = torch.is_grad_enabled() and (units.requires_grad or spectrum.requires_grad)
    outputs = torch.cat(list(parts)) if trained else write_each(parts, units.shape[0])
    outputs = outputs.unflatten(-1, (copies, p)).transpose(1, 2)
    return outputs.reshape(*batch, steps, p)
