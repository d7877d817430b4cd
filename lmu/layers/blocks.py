"""Blocks that a deep stack is made of: a way around each layer."""

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.layers.layer import Layer, check_step, check_steps, without_padding
from lmu.layers.parallel import ParallelLMU
from lmu.layers.stack import Stack


class FeedForward(Layer):
    """Two linear layers with a nonlinearity between, at each step by itself.

        y_t = W₂ gelu(W₁ x_t + b₁) + b₂

    Args:
        width: the size of x and of y.
        inner: the size between.

    Example:
        >>> import torch, lmu
        >>> lmu.layers.FeedForward(width=8, inner=32)(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 8])
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.input_size = self.output_size = width
        self.state_size = 0
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`. There is no state."""
        check_steps(self, inputs)
        inputs = without_padding(inputs, lengths)
        outputs = self.outer(nn.functional.gelu(self.inner(inputs)))
        return Result(without_padding(outputs, lengths), inputs.new_zeros(*inputs.shape[:-2], 0))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        outputs = self.outer(nn.functional.gelu(self.inner(input)))
        return Result(outputs, input.new_zeros(*input.shape[:-1], 0))


class Encoder(Layer):
    """One linear layer and a rectifier, at each step by itself: what an LMU is to remember.

        u_t = relu(U_x x_t + b_u)

    Args:
        input_size: the size of x.
        output_size: the size of u.

    Example:
        >>> import torch, lmu
        >>> lmu.layers.Encoder(8, 3)(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 3])

    References:
        Chilkuri and Eliasmith 2021, eq. 18.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.input_size, self.output_size, self.state_size = input_size, output_size, 0
        self.encoder = nn.Linear(input_size, output_size)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`. There is no state."""
        check_steps(self, inputs)
        outputs = torch.relu(self.encoder(without_padding(inputs, lengths)))
        return Result(without_padding(outputs, lengths), inputs.new_zeros(*inputs.shape[:-2], 0))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        outputs = torch.relu(self.encoder(input))
        return Result(outputs, input.new_zeros(*input.shape[:-1], 0))


class Residual(Layer):
    """A layer of which the inputs are added to the outputs.

        y_t = x_t + dropout(layer(norm(x_t)))

    Args:
        layer: gives as many numbers as it takes.
        dropout: the share of its outputs that are dropped in training.

    Raises:
        ValueError: a layer that does not.

    Example:
        >>> import torch, lmu
        >>> block = lmu.layers.Residual(lmu.layers.LSTM(8, 8), dropout=0.1)
        >>> block(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 8])
    """

    def __init__(self, layer: Layer, dropout: float = 0.0) -> None:
        super().__init__()
        self.input_size = self.output_size = same_width(layer)
        self.state_size = layer.state_size
        self.norm = nn.LayerNorm(self.input_size)
        self.layer = layer
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        check_steps(self, inputs)
        inputs = without_padding(inputs, lengths)
        outputs, state = self.layer(self.norm(inputs), initial_state, lengths)
        return Result(inputs + self.dropout(outputs), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        outputs, state = self.layer.step(self.norm(input), state)
        return Result(input + self.dropout(outputs), state)


class Highway(Layer):
    """A layer with a gate that says how much of it passes, and how much of its inputs.

        y_t = g_t · dropout(layer(z_t)) + (1 - g_t) · x_t
        g_t = σ(W z_t + b)                                        z_t = norm(x_t)

    The gate's bias begins at -1: at first the inputs pass more than the layer.

    Args:
        layer: gives as many numbers as it takes.
        dropout: the share of its outputs that are dropped in training.

    Raises:
        ValueError: a layer that does not.

    Example:
        >>> import torch, lmu
        >>> block = lmu.layers.Highway(lmu.ParallelLMU(8, 8, 8, 5, theta=10))
        >>> block(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 8])

    References:
        Srivastava, Greff and Schmidhuber 2015, Highway Networks, eq. 3.
    """

    def __init__(self, layer: Layer, dropout: float = 0.0) -> None:
        super().__init__()
        self.input_size = self.output_size = same_width(layer)
        self.state_size = layer.state_size
        self.norm = nn.LayerNorm(self.input_size)
        self.layer = layer
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Linear(self.input_size, self.input_size)
        nn.init.constant_(self.gate.bias, -1.0)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        check_steps(self, inputs)
        inputs = without_padding(inputs, lengths)
        normed = self.norm(inputs)
        outputs, state = self.layer(normed, initial_state, lengths)
        return Result(self.mixed(inputs, normed, outputs), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        normed = self.norm(input)
        outputs, state = self.layer.step(normed, state)
        return Result(self.mixed(input, normed, outputs), state)

    def mixed(self, inputs: Tensor, normed: Tensor, outputs: Tensor) -> Tensor:
        """Let the gate choose between inputs and outputs."""
        return torch.lerp(inputs, self.dropout(outputs), torch.sigmoid(self.gate(normed)))


def window_blocks(
    width: int,
    depth: int,
    *,
    order: int = 5,
    theta: float = 10.0,
    channels: int | None = None,
    expansion: int = 2,
    dropout: float = 0.0,
    block: type[Residual] | type[Highway] = Highway,
) -> Stack:
    """Stack blocks with small windows, each an LMU and a feed-forward layer with a way around.

    What the topmost block knows of goes back about depth·theta steps.

    Args:
        width: numbers a step, everywhere in the stack.
        depth: how many LMUs.
        order: how many polynomials, d, for each channel.
        theta: the length of each window, in steps.
        channels: how many signals each LMU remembers. None: `width`.
        expansion: how many times wider the feed-forward layers are inside; 0: there are none.
        dropout: the share of each layer's outputs that are dropped in training.
        block: the way around, `Highway` or `Residual`.

    Returns:
        The stack, of 2·depth layers (depth without feed-forward layers).

    Example:
        >>> import torch, lmu
        >>> stack = lmu.layers.window_blocks(width=8, depth=3)
        >>> stack(torch.randn(2, 50, 8)).outputs.shape
        torch.Size([2, 50, 8])

    References:
        Chilkuri and Eliasmith 2021, section 4.
    """
    layers: list[Layer] = []
    for _ in range(depth):
        lmu = ParallelLMU(width, width, channels or width, order, theta, activation=nn.GELU())
        layers.append(block(lmu, dropout))
        if expansion:
            layers.append(block(FeedForward(width, expansion * width), dropout))
    return Stack(layers)


def same_width(layer: Layer) -> int:
    """See that there can be a way around a layer."""
    if layer.input_size != layer.output_size:
        raise ValueError(
            f"`layer` takes {layer.input_size} numbers and gives {layer.output_size}: expected the "
            "same, so that its inputs can go around it."
        )
    return layer.input_size
