"""Execution as a convolution by the fast Fourier transform."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from linrec._tensors.annotated import fft, ifft, irfft, rfft
from linrec._tensors.dtypes import accumulation_dtype
from linrec._tensors.known_values import has_values
from linrec._tensors.open_sizes import is_open
from linrec.executors.base import Plan, Result
from linrec.executors.impulse_response import (
    KernelExecutor,
    add_free_motion,
    kernels,
    output_kernel_of,
)
from linrec.executors.prepare import Prepared, prepare
from linrec.executors.tiled_bilinear import BilinearOp, Tile, multiply, tiles
from linrec.kernels import convolutions_for, convolves
from linrec.kernels.cpu_loops import MANY
from linrec.systems import LinearRecurrence
from linrec.systems.checks import require_recurrence

# The transforms are limited by memory, not arithmetic. `CACHE` numbers of transformed inputs, and
# four times as many outputs, are held at a time. Products with the spectrum are transformed back in
# blocks of `BLOCK` numbers, which stay in the nearer of the large caches.
CACHE, BLOCK = 1 << 20, 1 << 17

# Each call of a transform first prepares its roots of unity, which takes as long as transforming 15
# to 45 rows. So a block has at least this many rows, unless they are too long for the caches
# anyway.
ROWS = 64

# Rows spaced by a multiple of this many numbers compete for a few places in the caches.
ALIASED = 256


@final
@dataclass(frozen=True)
class FFTConvolution(KernelExecutor):
    """An executor that convolves inputs with the impulse response, padded to twice the length.

        y = F⁻¹(F(h) · F(u))

    It takes about 2.5 T log2(2T) p operations per sequence, whatever the number of states: suited
    to long sequences with few outputs. Time-invariant systems only. On a CPU where Numba is
    installed (`pip install 'linrec[numba]'`) real sequences with many outputs are transformed by
    compiled loops in half the time.

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
        require_recurrence(recurrence)
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
        """Transform, multiply and transform back, in tiles of sequences that fit in cache."""
        spectrum = plan["spectrum"]
        if spectrum.ndim > 3:
            outputs = convolve(inputs, spectrum).mT
        else:
            outputs = convolve_copies(inputs, spectrum, plan.copies)
        return add_free_motion(recurrence, plan, outputs, inputs, state)


def fast_length(least: int) -> int:
    """Find a length 2^a 3^b 5^c of `least` or more, which transforms quickly.

    Odd parts of up to 135 leave no gap wider than a ninth. A multiple of `ALIASED` is taken only
    where it saves more than a sixteenth. For a length that a graph leaves open, this is the next
    even one.
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
    """Rate a length; a multiple of `ALIASED` counts for more than it is."""
    return length * (17 if length % ALIASED == 0 else 16)


def is_aliased(size: int) -> bool:
    """Whether rows spaced by `size` numbers compete for a few places in the caches."""
    return not is_open(size) and size % ALIASED == 0


def transform(signals: Tensor, size: int) -> Tensor:
    """Transform the last axis, padded with zeros; real signals have half a spectrum."""
    if 0 in signals.shape[:-1]:  # no signals: some transforms of MKL refuse these
        spectra = torch.nn.functional.pad(signals, (0, size - signals.shape[-1]))
        if not signals.is_complex():
            spectra = torch.complex(spectra, spectra)[..., : size // 2 + 1]
        return spectra
    return fft(signals, size) if signals.is_complex() else rfft(signals, size)


def invert(spectra: Tensor, size: int, complex_: bool) -> Tensor:
    """Transform the last axis back."""
    return (ifft if complex_ else irfft)(spectra, size)


def convolve(inputs: Tensor, spectrum: Tensor) -> Tensor:
    """Convolve `inputs (*batch, time, m)` with a kernel, to `(*batch, p, time)`."""
    steps = inputs.shape[-2]
    size = fast_length(2 * steps - 1)
    return respond(transform(inputs.mT, size), spectrum, steps, size, inputs.is_complex())


def respond(inputs: Tensor, spectrum: Tensor, steps: int, size: int, complex_: bool) -> Tensor:
    """Multiply transformed inputs `(*batch, m, frequency)` by a spectrum, and transform back."""
    if spectrum.shape[-3] == 1:
        product = inputs * spectrum.squeeze(-3)
    else:
        product = torch.einsum("...mf,...mpf->...pf", inputs, spectrum)
    outputs = invert(product, size, complex_).narrow(-1, 0, steps)
    return pad_rows(outputs, steps) if is_aliased(size) else outputs


def pad_rows(signals: Tensor, size: int) -> Tensor:
    """Pad signals with zeros, spaced so that reading across them uses all of the caches.

    Rows spaced by a multiple of a large power of two would compete for a few places there.
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
        """Take as many sequences as can share parts of the spectrum within the caches.

        Compiled loops take more, since they rearrange the spectrum for each tile.
        """
        size = fast_length(2 * self.steps - 1)
        if convolves("cpu", 4, self.steps, self.outputs, MANY):
            return max(4 * CACHE // (self.inputs * size), 1)
        width = max(self.inputs, self.outputs / 4)
        return max(int(CACHE / (width * size)), 1)

    def blocks(self, units: int, copies: int) -> Iterator[tuple[slice, Tile]]:
        """Cut the outputs of a tile into blocks of some outputs of some sequences."""
        size = fast_length(2 * self.steps - 1)
        rows = max(BLOCK // size, min(ROWS, CACHE // size), 1)
        parts = math.ceil(self.outputs / rows)
        width = math.ceil(self.outputs / parts)
        for first in range(0, self.outputs, width):
            for tile in tiles(units, copies, max(rows // width, 1)):
                yield slice(first, first + width), tile

    def forward(self, constant: Tensor, *factors: Tensor) -> Tensor:
        """Convolve."""
        return convolve(factors[0], constant).mT

    def forward_out(self, target: Tensor, constant: Tensor, *factors: Tensor) -> None:
        """Convolve block by block."""
        steps, complex_ = self.steps, target.is_complex()
        size = fast_length(2 * steps - 1)
        inputs = transform(factors[0].mT, size)
        loops = convolutions_for(target)
        if loops and loops.convolve_on_cpu(inputs, constant, target, size):
            return
        for some, tile in self.blocks(*target.shape[:2]):
            outputs = respond(inputs[tile], constant[:, some], steps, size, complex_)
            target[tile][..., some].copy_(outputs.mT)

    def adjoint(self, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Correlate: Σ_t h*_{t-s} g_t has the spectrum H* G."""
        size, transformed = self.transformed(gradient)
        if not has_values(gradient):  # a batched gradient: torch has no einsum for it
            product = (transformed.unsqueeze(-3) * constant.conj()).sum(-2)
        elif self.inputs == 1:
            product = (transformed * constant.conj().squeeze(-3)).sum(-2, keepdim=True)
        else:
            product = torch.einsum("...pf,mpf->...mf", transformed, constant.conj())
        signals = invert(product, size, gradient.is_complex())
        return (signals.narrow(-1, 0, self.steps).mT,)

    def adjoint_now(self, constant: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Correlate block by block."""
        size = fast_length(2 * self.steps - 1)
        loops = convolutions_for(gradient)
        if loops and (found := loops.correlate_on_cpu(constant, gradient, size)) is not None:
            return (invert(found, size, False).narrow(-1, 0, self.steps).mT,)
        constant = constant.conj()
        frequencies = constant.shape[-1]
        sums = constant.new_zeros(*gradient.shape[:2], self.inputs, frequencies)
        for some, tile, block in self.transformed_blocks(gradient):
            if self.inputs == 1:
                sums[tile] += block.mul_(constant[0, some]).sum(-2, keepdim=True)
            else:
                sums[tile] += torch.einsum("...pf,mpf->...mf", block, constant[:, some])
        signals = invert(sums, size, gradient.is_complex())
        return (signals.narrow(-1, 0, self.steps).mT,)

    def grad_constant(self, gradient: Tensor, *factors: Tensor) -> Tensor:
        """Multiply the spectra, U* G / size, twice where a frequency also stands for its mirror
        image."""
        size, transformed = self.transformed(gradient)
        inputs = self.mirrored(factors[0], size)
        if not has_values(gradient, inputs):
            return (inputs.unsqueeze(-2) * transformed.unsqueeze(-3)).sum((0, 1))
        if self.inputs == 1:
            return (inputs * transformed).sum((0, 1)).unsqueeze(0)
        return torch.einsum("ucmf,ucpf->mpf", inputs, transformed)

    def grad_constant_now(self, gradient: Tensor, *factors: Tensor) -> Tensor:
        """Multiply the spectra block by block."""
        size = fast_length(2 * self.steps - 1)
        if loops := convolutions_for(gradient):
            transformed = transform(factors[0].mT, size)
            if (found := loops.correlate_inputs_on_cpu(transformed, gradient, size)) is not None:
                return found * weights(gradient, size)
        inputs = self.mirrored(factors[0], size)
        sums = inputs.new_zeros(self.inputs, self.outputs, inputs.shape[-1])
        for some, tile, block in self.transformed_blocks(gradient):
            if self.inputs == 1:
                sums[0, some] += block.mul_(inputs[tile]).sum((0, 1))
            else:
                sums[:, some] += torch.einsum("ucmf,ucpf->mpf", inputs[tile], block)
        return sums

    def mirrored(self, inputs: Tensor, size: int) -> Tensor:
        """Compute U* / size, twice that where a frequency also stands for its mirror image."""
        transformed = transform(inputs.mT, size).conj()
        if inputs.is_complex():
            return transformed / size
        return transformed * weights(inputs, size)

    def transformed_blocks(self, gradient: Tensor) -> Iterator[tuple[slice, Tile, Tensor]]:
        """Transform gradients block by block, in the same memory, which is overwritten."""
        size = fast_length(2 * self.steps - 1)
        apart = size + 8 if is_aliased(size) else size
        room = gradient.new_zeros(0)
        for some, tile in self.blocks(*gradient.shape[:2]):
            block = gradient[tile][..., some]
            if is_aliased(block.stride(-2)):
                block = torch.nn.functional.pad(block, (0, 8)).narrow(-1, 0, block.shape[-1])
            shape = *block.shape[:2], block.shape[-1], apart
            if room.shape != shape:
                room = gradient.new_zeros(shape)
            room.narrow(-1, 0, self.steps).copy_(block.mT)
            yield some, tile, transform(room.narrow(-1, 0, size), size)

    def transformed(self, gradient: Tensor) -> tuple[int, Tensor]:
        """Transform gradients to `(units, copies, p, frequency)`, and return the length used."""
        size = fast_length(2 * self.steps - 1)
        # Rows side by side.
        near = torch.nn.functional.pad(gradient, (0, 8)).narrow(-1, 0, self.outputs)
        return size, transform(pad_rows(near.mT, size), size)


def weights(signals: Tensor, size: int) -> Tensor:
    """Return the weights of a half spectrum's frequencies: 1 / size at the ends, twice that
    between."""
    places = torch.arange(size // 2 + 1, device=signals.device)
    between = (places > 0) & (places < (size + 1) // 2)
    return (1 + between.to(signals.dtype)) / size


def convolve_copies(inputs: Tensor, spectrum: Tensor, copies: int) -> Tensor:
    """Convolve sequences `(time, m)` with their copies side by side."""
    steps, m = inputs.shape[-2:]
    p = spectrum.shape[-2]
    outputs = multiply(Convolution(steps, m, p), spectrum, inputs.reshape(-1, copies, steps, m))
    return outputs.reshape(*inputs.shape[:-2], steps, p)
