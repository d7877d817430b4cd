"""The recurrence as a convolution, by the fast Fourier transform."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from linrec._tensors.annotated import fft, ifft, irfft, rfft
from linrec._tensors.dtypes import accumulation_dtype
from linrec._tensors.known_values import has_values
from linrec._tensors.open_sizes import is_open
from linrec.executors.base import Plan, Result
from linrec.executors.kernel import (
    KernelExecutor,
    add_free_motion,
    kernels,
    output_kernel_of,
)
from linrec.executors.prepare import Prepared, prepare
from linrec.executors.tiled_bilinear import BilinearOp, multiply
from linrec.systems import LinearRecurrence

# The transforms are limited by memory, not arithmetic: as many sequences at a time as keep their
# products and transforms, of about this many numbers, within the caches.
CACHE = 1 << 20

# Rows that are a multiple of so many numbers apart share a few places of the caches.
ALIASED = 256


@final
@dataclass(frozen=True)
class FFTConvolution(KernelExecutor):
    """Convolve inputs with the impulse response, padded to twice the length.

        y = F⁻¹(F(h) · F(u))

    About 2.5 T log2(2T) p operations for each sequence, whatever the number of states: for long
    sequences and few outputs. Time-invariant systems.

    Numerical error: at every step about 4 log2(2T)·eps·‖h‖₂‖u‖₂, which does not shrink where the
    outputs do: small outputs before or among large ones keep fewer correct digits, and a kernel
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

    def prepare(self, recurrence: LinearRecurrence, length: int) -> Plan:
        """Compute the kernel of the last state, and the spectrum of the impulse response."""
        dtype, size = accumulation_dtype(recurrence.dtype), fast_length(2 * length - 1)

        def compute(*of_system: Any) -> Prepared:
            tensors = dict(kernels(*of_system, length=length).tensors)
            kernel = output_kernel_of(tensors, length).to(dtype)
            spectrum = transform(kernel.movedim(-3, -1), size)
            return Prepared({"last": tensors["last"], "spectrum": spectrum})

        return prepare(self, recurrence, length, compute)

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Transform, multiply and transform back, a cacheful of sequences at a time."""
        spectrum = plan["spectrum"]
        if spectrum.ndim > 3:
            outputs = convolve(inputs, spectrum).mT
        else:
            outputs = convolve_copies(inputs, spectrum, plan.copies)
        return add_free_motion(recurrence, plan, outputs, inputs, state)


def fast_length(least: int) -> int:
    """Find a length 2^a 3^b 5^c of `least` or more: the lengths that transforms like.

    Odd parts of up to 135 leave no gap wider than a ninth. A multiple of `ALIASED` is taken only
    where it saves more than a sixteenth. Of a length that a graph leaves open, only the next even
    one is known.
    """
    if is_open(least):
        return least + least % 2
    best = 0
    for odd in (1, 3, 5, 9, 15, 25, 27, 45, 75, 81, 125, 135):
        length = odd << max(-(-least // odd) - 1, 0).bit_length()
        if best == 0 or measure_length(length) < measure_length(best):
            best = length
    return best


def measure_length(length: int) -> int:
    """Measure a length; a multiple of `ALIASED` counts for more than it is."""
    return length * (17 if length % ALIASED == 0 else 16)


def is_aliased(size: int) -> bool:
    """Whether rows so far apart share a few places of the caches."""
    return not is_open(size) and size % ALIASED == 0


def transform(signals: Tensor, size: int) -> Tensor:
    """Transform the last axis, padded with zeros; real signals have half a spectrum."""
    if signals.is_complex():
        return fft(signals, size)
    return rfft(signals, size)


def invert(spectra: Tensor, size: int, complex_: bool) -> Tensor:
    """Transform the last axis back."""
    return (ifft if complex_ else irfft)(spectra, size)


def convolve(inputs: Tensor, spectrum: Tensor) -> Tensor:
    """Convolve `inputs (*batch, time, m)` with a kernel, to `(*batch, p, time)`."""
    steps = inputs.shape[-2]
    size = fast_length(2 * steps - 1)
    transformed = transform(inputs.mT, size)
    if spectrum.shape[-3] == 1:
        product = transformed * spectrum.squeeze(-3)
    else:
        product = torch.einsum("...mf,...mpf->...pf", transformed, spectrum)
    outputs = invert(product, size, inputs.is_complex()).narrow(-1, 0, steps)
    return pad_rows(outputs, steps) if is_aliased(size) else outputs


def pad_rows(signals: Tensor, size: int) -> Tensor:
    """Lengthen signals with zeros, and lay them where reading across them uses all of the caches.

    Rows that are a multiple of a large power of two apart would share a few places there.
    """
    apart = size + 8 if is_aliased(size) else size
    return torch.nn.functional.pad(signals, (0, apart - signals.shape[-1])).narrow(-1, 0, size)


@final
@dataclass(frozen=True)
class Convolution(BilinearOp):
    """Convolution of sequences with one kernel, given by its spectrum `(m, p, frequency)`.

    A unit is a sequence, `(units, copies, steps, m)`.

    Args:
        steps: T.
        inputs: m.
        outputs: p.
    """

    steps: int
    inputs: int
    outputs: int

    @property
    def size(self) -> tuple[int, int]:
        """The steps and outputs of a unit."""
        return self.steps, self.outputs

    @property
    def tile_size(self) -> int:
        """As many sequences as have their transforms in the caches."""
        return max(CACHE // (max(self.inputs, self.outputs) * fast_length(2 * self.steps - 1)), 1)

    def forward(self, constant: Tensor, *factors: Tensor) -> Tensor:
        """Convolve."""
        return convolve(factors[0], constant).mT

    def adjoint(self, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Correlate: Σ_t h*_{t-s} g_t has the spectrum H* G."""
        size, transformed = self.transformed(gradient)
        if not has_values(gradient):  # a batched gradient: torch has no einsum of those
            product = (transformed.unsqueeze(-3) * constant.conj()).sum(-2)
        elif self.inputs == 1:
            product = (transformed * constant.conj().squeeze(-3)).sum(-2, keepdim=True)
        else:
            product = torch.einsum("...pf,mpf->...mf", transformed, constant.conj())
        signals = invert(product, size, gradient.is_complex())
        return (signals.narrow(-1, 0, self.steps).mT,)

    def grad_constant(self, gradient: Tensor, *factors: Tensor) -> Tensor:
        """Multiply the spectra, U* G / size: twice that where one stands for its mirror image."""
        size, transformed = self.transformed(gradient)
        inputs = transform(factors[0].mT, size).conj() / size
        if not gradient.is_complex():
            mirrored = torch.arange(inputs.shape[-1], device=inputs.device)
            mirrored = (mirrored > 0) & (mirrored < (size + 1) // 2)
            inputs = torch.where(mirrored, 2 * inputs, inputs)
        if not has_values(gradient, inputs):
            return (inputs.unsqueeze(-2) * transformed.unsqueeze(-3)).sum((0, 1))
        if self.inputs == 1:
            return (inputs * transformed).sum((0, 1)).unsqueeze(0)
        return torch.einsum("ucmf,ucpf->mpf", inputs, transformed)

    def transformed(self, gradient: Tensor) -> tuple[int, Tensor]:
        """Transform gradients, to `(units, copies, p, frequency)`; and say at which length."""
        size = fast_length(2 * self.steps - 1)
        # Rows side by side.
        near = torch.nn.functional.pad(gradient, (0, 8)).narrow(-1, 0, self.outputs)
        return size, transform(pad_rows(near.mT, size), size)


def convolve_copies(inputs: Tensor, spectrum: Tensor, copies: int) -> Tensor:
    """Convolve sequences of time by m, their copies side by side."""
    steps, m = inputs.shape[-2:]
    p = spectrum.shape[-2]
    outputs = multiply(Convolution(steps, m, p), spectrum, inputs.reshape(-1, copies, steps, m))
    return outputs.reshape(*inputs.shape[:-2], steps, p)
