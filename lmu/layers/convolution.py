"""A convolution over the last few steps, as a layer with a state."""

import torch
from torch import Tensor, nn

from linrec import Result
from linrec.lengths import expand_lengths
from linrec.nn import Layer
from linrec.nn.checks import check_step, check_steps
from linrec.nn.segments import check_resets
from lmu.layers.padding import own_steps, without_padding


class CausalConvolution(Layer):
    """A convolution over the current step and the steps just before it.

        y_t = Σ_j W_j x_{t-k+1+j} + b        j = 0 … k-1

    The state is the last k - 1 inputs, the oldest first; before the first step they are zeros.
    The weights are those of a `torch.nn.Conv1d`, and begin in the same way.

    Args:
        input_size: the size of x.
        output_size: the size of y.
        kernel_size: k, the number of steps in each sum.
        bias: whether there is b.

    Example:
        >>> import torch, lmu
        >>> layer = lmu.layers.CausalConvolution(input_size=3, output_size=4, kernel_size=3)
        >>> outputs, state = layer(torch.randn(2, 7, 3))
        >>> outputs.shape, state.shape
        (torch.Size([2, 7, 4]), torch.Size([2, 6]))
    """

    def __init__(
        self, input_size: int, output_size: int, kernel_size: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_size, output_size, kernel_size, bias=bias)
        self.input_size, self.output_size, self.before = input_size, output_size, kernel_size - 1
        self.state_size = self.before * input_size

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        check_steps(self, inputs)
        inputs = without_padding(inputs, lengths)
        batch, steps = inputs.shape[:-2], inputs.shape[-2]
        if initial_state is None:
            initial_state = inputs.new_zeros(*batch, self.state_size)
        earlier = initial_state.unflatten(-1, (self.before, self.input_size))
        earlier = earlier.expand(*batch, *earlier.shape[-2:]).to(inputs.dtype)
        seen = torch.cat([earlier, inputs], -2)
        last, part = self.as_state(last_rows(seen, lengths, self.before)), None
        if resets is not None:
            part = segments(resets, inputs, self.before)
            ends = last_rows(part, lengths, self.before)
            last = torch.where(ends == ends[..., -1:, :], last, 0)
        if not inputs.numel():  # torch cannot convolve an empty sequence
            return Result(inputs.new_zeros(*batch, steps, self.output_size), last.flatten(-2))
        if part is None:
            rows = seen.reshape(-1, *seen.shape[-2:]).mT
            outputs = self.convolution(rows).mT.reshape(*batch, steps, self.output_size)
        else:  # each step sees only its own segment
            seen, part = (each.unfold(-2, self.before + 1, 1) for each in (seen, part))
            seen = torch.where(part == part[..., -1:], seen, 0).flatten(-2)
            weight = self.convolution.weight.flatten(1)
            outputs = nn.functional.linear(seen, weight, self.convolution.bias)
        return Result(without_padding(outputs, lengths), last.flatten(-2))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        if state is None:
            state = input.new_zeros(*input.shape[:-1], self.state_size)
        state = state.expand(*input.shape[:-1], self.state_size).to(input.dtype)
        seen = torch.cat([state, input], -1)
        weight = self.convolution.weight.mT.flatten(1)  # (output_size, kernel_size · input_size)
        outputs = nn.functional.linear(seen, weight, self.convolution.bias)
        return Result(outputs, self.as_state(seen[..., self.input_size :]))

    def as_state(self, inputs: Tensor) -> Tensor:
        """Return inputs as a state, which in half precision is in float32, as of all layers."""
        return inputs.to(torch.promote_types(inputs.dtype, torch.float32))


def last_rows(seen: Tensor, lengths: Tensor | None, count: int) -> Tensor:
    """Take the last `count` rows of each sequence in `seen (*batch, count + time, size)`."""
    if lengths is None:
        return seen[..., seen.shape[-2] - count :, :]
    place = expand_lengths(lengths, seen).unsqueeze(-1) + torch.arange(count, device=seen.device)
    return seen.gather(-2, place.unsqueeze(-1).expand(*place.shape, seen.shape[-1]))


def segments(resets: Tensor, inputs: Tensor, before: int) -> Tensor:
    """Number each row's segments, `(*batch, before + time, 1)`; earlier steps are in segment 0."""
    numbers = check_resets(resets, inputs).expand(inputs.shape[:-1]).cumsum(-1)
    return nn.functional.pad(numbers, (before, 0)).unsqueeze(-1)


class StepNorm(nn.BatchNorm1d):
    """Batch normalisation of every step, which ignores padding."""

    def forward(self, input: Tensor, own: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            input (*batch, features): any number of steps.
            own (*batch): True in rows that are not padding. None: no row is padding.
        """
        if own is None or not self.training:
            rows = super().forward(input.reshape(-1, input.shape[-1]))
            return rows.reshape(input.shape)
        normal = super().forward(input[own])
        return torch.zeros_like(input, dtype=normal.dtype).masked_scatter(own.unsqueeze(-1), normal)


def own_rows(inputs: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Return True where a step is not padding, `(*batch, time)`; None if there is no padding."""
    return None if lengths is None else own_steps(inputs, lengths).squeeze(-1)
