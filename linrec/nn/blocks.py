"""Building blocks of deep stacks: residual, highway and gated layers, feed-forward layers."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from linrec.executors import Result
from linrec.lengths import expand_lengths, zero_padding
from linrec.nn.checks import check_step, check_steps
from linrec.nn.layer import Layer, pass_resets
from linrec.nn.stack import Stack


class Pointwise(Layer):
    """A layer that maps each step by itself, without a state.

    Args:
        input_size: input features of a step.
        output_size: output features of a step.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.input_size, self.output_size, self.state_size = input_size, output_size, 0

    def apply_to(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of steps, each by itself, `(..., output_size)`."""
        raise NotImplementedError

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as in `Layer.forward`. There is no state."""
        check_steps(self, inputs)
        lengths = expand_lengths(lengths, inputs)
        inputs = zero_padding(inputs, lengths)
        outputs = zero_padding(self.apply_to(inputs), lengths)
        return Result(outputs, inputs.new_zeros(*inputs.shape[:-2], 0))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as in `Layer.step`."""
        check_step(self, input)
        return Result(self.apply_to(input), input.new_zeros(*input.shape[:-1], 0))


class FeedForward(Pointwise):
    """Two linear layers with a nonlinearity between, applied to each step by itself.

        y_t = W₂ gelu(W₁ x_t + b₁) + b₂

    Args:
        width: the size of x and of y.
        inner: the size between.

    Example:
        >>> import torch, linrec
        >>> linrec.nn.FeedForward(width=8, inner=32)(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 8])
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(width, width)
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)

    def apply_to(self, inputs: Tensor) -> Tensor:
        """Compute y of steps, each by itself."""
        return self.outer(nn.functional.gelu(self.inner(inputs)))


class _Wrapped(Layer):
    """A layer behind a norm, whose outputs are mixed with its inputs.

    Args:
        layer: has as many outputs as inputs.
        dropout: the share of its outputs that is dropped in training.
    """

    def __init__(self, layer: Layer, dropout: float) -> None:
        super().__init__()
        self.input_size = self.output_size = same_width(layer)
        self.state_size = layer.state_size
        self.norm = nn.LayerNorm(self.input_size)
        self.layer = layer
        self.dropout = nn.Dropout(dropout)

    def mix(self, inputs: Tensor, normed: Tensor, outputs: Tensor) -> Tensor:
        """Combine inputs and outputs of the layer, `(..., size)`."""
        raise NotImplementedError

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as in `Layer.forward`."""
        check_steps(self, inputs)
        inputs = zero_padding(inputs, expand_lengths(lengths, inputs))
        normed = self.norm(inputs)
        outputs, state = self.layer(normed, initial_state, lengths, **pass_resets(resets))
        return Result(self.mix(inputs, normed, outputs), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as in `Layer.step`."""
        check_step(self, input)
        normed = self.norm(input)
        outputs, state = self.layer.step(normed, state)
        return Result(self.mix(input, normed, outputs), state)


class Residual(_Wrapped):
    """A layer whose inputs are added to its outputs.

        y_t = x_t + dropout(layer(norm(x_t)))

    Args:
        layer: has as many outputs as inputs.
        dropout: the share of its outputs that is dropped in training.

    Raises:
        ValueError: the layer has different numbers of inputs and outputs.

    Example:
        >>> import torch, linrec
        >>> block = linrec.nn.Residual(linrec.nn.MinGRU(8, 8), dropout=0.1)
        >>> block(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 8])
    """

    def __init__(self, layer: Layer, dropout: float = 0.0) -> None:
        super().__init__(layer, dropout)

    def mix(self, inputs: Tensor, normed: Tensor, outputs: Tensor) -> Tensor:
        """Add the outputs to the inputs."""
        return inputs + self.dropout(outputs)


class Highway(_Wrapped):
    """A layer with a gate that mixes its outputs with its inputs.

        y_t = g_t · dropout(layer(z_t)) + (1 - g_t) · x_t
        g_t = σ(W z_t + b)                                        z_t = norm(x_t)

    The gate's bias begins at -1, so that initially the inputs count for more than the layer.

    Args:
        layer: has as many outputs as inputs.
        dropout: the share of its outputs that is dropped in training.

    Raises:
        ValueError: the layer has different numbers of inputs and outputs.

    Example:
        >>> import torch, linrec
        >>> block = linrec.nn.Highway(linrec.nn.MinGRU(8, 8))
        >>> block(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 8])

    References:
        Srivastava, Greff and Schmidhuber 2015, Highway Networks, eq. 3.
    """

    def __init__(self, layer: Layer, dropout: float = 0.0) -> None:
        super().__init__(layer, dropout)
        self.gate = nn.Linear(self.input_size, self.input_size)
        nn.init.constant_(self.gate.bias, -1.0)

    def mix(self, inputs: Tensor, normed: Tensor, outputs: Tensor) -> Tensor:
        """Mix inputs and outputs by the gate."""
        # (Under autocast the gate is in half precision, which `lerp` does not mix with others.)
        gate = torch.sigmoid(self.gate(normed)).to(inputs.dtype)
        return torch.lerp(inputs, self.dropout(outputs).to(inputs.dtype), gate)


class Gated(Layer):
    """A layer whose outputs are multiplied by a gate, and mapped back to the size of its inputs.

        y_t = W (silu(G x_t + g) ∘ layer(x)_t) + b                          silu(z) = z σ(z)

    A recurrence and a feed-forward layer in one: with a layer that widens, such as a minGRU, this
    is a complete block of a deep network.

    Args:
        layer: the layer, of any sizes.

    Example:
        >>> import torch, linrec
        >>> wide = linrec.nn.MinGRU(8, 16, activation=torch.nn.Identity())
        >>> block = linrec.nn.Residual(linrec.nn.Gated(wide))
        >>> block(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 8])

    References:
        Mehta, Gupta, Cutkosky and Neyshabur 2022, Long Range Language Modeling via Gated State
        Spaces. Qin, Yang and Zhong 2023, Hierarchically Gated Recurrent Neural Network for
        Sequence Modeling, section 3.2.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.input_size = self.output_size = layer.input_size
        self.state_size = layer.state_size
        self.layer = layer
        self.gate = nn.Linear(layer.input_size, layer.output_size)
        self.outer = nn.Linear(layer.output_size, layer.input_size)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as in `Layer.forward`."""
        check_steps(self, inputs)
        lengths = expand_lengths(lengths, inputs)
        inputs = zero_padding(inputs, lengths)
        outputs, state = self.layer(inputs, initial_state, lengths, **pass_resets(resets))
        return Result(zero_padding(self.read(outputs, inputs), lengths), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as in `Layer.step`."""
        check_step(self, input)
        outputs, state = self.layer.step(input, state)
        return Result(self.read(outputs, input), state)

    def read(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Compute y `(..., input_size)` from the layer's outputs, each step by itself."""
        return self.outer(nn.functional.silu(self.gate(inputs)) * outputs)


def residual_blocks(layers: Iterable[Layer], *, expansion: int = 4, dropout: float = 0.0) -> Stack:
    """Stack layers of one width, each followed by a feed-forward layer, with residual connections.

        z = x + dropout(layer(norm(x)))        y = z + dropout(W₂ gelu(W₁ norm(z) + b₁) + b₂)

    Args:
        layers: the layers, first to last; each has as many outputs as inputs.
        expansion: how many times wider the feed-forward layers are inside; 0 for none.
        dropout: the share of each layer's outputs that is dropped in training.

    Returns:
        The stack, with two layers for each given one (one layer without feed-forward layers).

    Raises:
        ValueError: no layers, or layers of different widths.

    Example:
        >>> import torch, linrec
        >>> layers = [linrec.nn.GatedDeltaNet(8, heads=2) for _ in range(3)]
        >>> stack = linrec.nn.residual_blocks(layers)
        >>> outputs, state = stack(torch.randn(2, 7, 8))
        >>> outputs.shape, stack.step(torch.randn(2, 8), state).outputs.shape
        (torch.Size([2, 7, 8]), torch.Size([2, 8]))
    """
    parts: list[Layer] = []
    for layer in layers:
        parts.append(Residual(layer, dropout))
        if expansion:
            width = layer.output_size
            parts.append(Residual(FeedForward(width, expansion * width), dropout))
    return Stack(parts)


def same_width(layer: Layer) -> int:
    """Check that a layer has as many outputs as inputs, and return the number."""
    if layer.input_size != layer.output_size:
        raise ValueError(
            f"`layer` takes {layer.input_size} numbers and gives {layer.output_size}: expected the "
            "same, so that its inputs can go around it."
        )
    return layer.input_size
