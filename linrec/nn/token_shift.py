"""Mixing each step with the step before it, which lets gates see two inputs."""

import torch
from torch import Tensor, nn

from linrec._tensors.shapes import broadcast
from linrec.executors import Result
from linrec.lengths import expand_lengths, last_step, zero_padding
from linrec.nn.checks import check_size, check_step, check_steps
from linrec.nn.layer import Layer, pass_resets
from linrec.nn.recurrent import widen
from linrec.resets import check_resets


class TokenShift(Layer):
    """A layer whose inputs are mixed with the inputs of the step before.

        y = layer(z)        z_t = (1 - s) ∘ x_t + s ∘ x_{t-1}        x_{-1} = 0

    The gates and candidates of a minGRU and of its kin see one step alone. Here they see two, for
    the price of one product per number. The shares s are trained, without limits; initially they
    rise from 0 for the first feature to 0.6 for the last, so that some features are of this step,
    and others of both. (The share of a single feature begins at 0.)

    The state is the last x, followed by the layer's own state. A reset forgets both.

    Args:
        layer: the layer, of any sizes.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.TokenShift(linrec.nn.MinGRU(3, 4))
        >>> outputs, state = layer(torch.randn(2, 7, 3))
        >>> outputs.shape, state.shape
        (torch.Size([2, 7, 4]), torch.Size([2, 7]))

    References:
        Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era, eqs 11-13 (there μ = 1 - s
        differs between the gates of a layer).
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.input_size, self.output_size = layer.input_size, layer.output_size
        self.state_size = layer.input_size + layer.state_size
        self.layer = layer
        self.share = nn.Parameter(torch.linspace(0.0, 0.6, layer.input_size))

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as in `Layer.forward`."""
        mixed, seen, start = self.mix_steps(inputs, initial_state, lengths, resets)
        outputs, end = self.layer(mixed, start, lengths, **pass_resets(resets))
        return Result(outputs, torch.cat([seen, end], -1))

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Compute the last step only; arguments as in `forward`, result as in `Layer.final`."""
        mixed, seen, start = self.mix_steps(inputs, initial_state, lengths, resets)
        outputs, end = self.layer.final(mixed, start, lengths, **pass_resets(resets))
        return Result(outputs, torch.cat([seen, end], -1))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as in `Layer.step`."""
        check_step(self, input)
        before, start = self.split_state("state", state, input)
        outputs, end = self.layer.step(self.mix(input, before), start)
        return Result(outputs, torch.cat([widen(input).expand(before.shape), end], -1))

    def mix_steps(
        self,
        inputs: Tensor,
        initial_state: Tensor | None,
        lengths: Tensor | None,
        resets: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compute z of all steps; return it, the last x, and the layer's own initial state."""
        check_steps(self, inputs)
        lengths = expand_lengths(lengths, inputs)
        inputs = zero_padding(inputs, lengths)
        first, start = self.split_state("initial_state", initial_state, inputs[..., :0, :].sum(-2))
        inputs = inputs.expand(*first.shape[:-1], *inputs.shape[-2:])
        before = torch.cat([first.to(inputs.dtype).unsqueeze(-2), inputs], -2)[..., :-1, :]
        if resets is not None:
            before = torch.where(check_resets(resets, inputs).unsqueeze(-1), 0, before)
        return self.mix(inputs, before), last_step(widen(inputs), lengths, first), start

    def mix(self, inputs: Tensor, before: Tensor) -> Tensor:
        """Compute z `(..., input_size)` from x_t and x_{t-1}."""
        return inputs + self.share * (before.to(inputs.dtype) - inputs)

    def split_state(
        self, name: str, state: Tensor | None, input: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Split a state into the last x, one for each sequence of either, and the layer's own."""
        if state is None:
            return widen(torch.zeros_like(input)), None
        check_size(name, state, self.state_size)
        before, own = state.split([self.input_size, self.layer.state_size], -1)
        batch = broadcast(inputs=input.shape[:-1], **{name: state.shape[:-1]})
        return widen(before.to(input.dtype)).expand(*batch, self.input_size), own
