"""Blocks of LMUs with small windows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from linrec import Result
from linrec.nn import FeedForward, Highway, Layer, Residual, Stack
from linrec.nn.blocks import Pointwise
from lmu.layers.padding import without_padding
from lmu.layers.parallel_lmu import ParallelLMU


class Encoder(Pointwise):
    """A linear layer and a rectifier at each step, which encode the input of an LMU.

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
        super().__init__(input_size, output_size)
        self.encoder = nn.Linear(input_size, output_size)

    def apply_to(self, inputs: Tensor) -> Tensor:
        """Compute u, each step by itself."""
        return torch.relu(self.encoder(inputs))


class MemoryFeedForward(Layer):
    """A feed-forward layer that reads both a memory and its input: two layers in one.

        u_t = U x_t + b_u      m_t = Ā m_{t-1} + B̄ u_t
        y_t = W₂ f(W_m m_t + W_x x_t + b₁) + b₂

    An LMU followed by a feed-forward layer, each with a norm, a nonlinearity and a residual
    connection, does the same in twice as many passes over the data, which on a processor take as
    long as the arithmetic. With a gate, h = W_m m + W_x x + b₁ has two halves that are multiplied:

        y_t = W₂ (f(h_{t,1}) ∘ h_{t,2}) + b₂

    Args:
        width: the size of x and of y.
        inner: the size between them, of each half.
        channels: the size of u, how many signals are remembered.
        order: how many polynomials, d, per channel.
        theta: the length of the window, in steps.
        activation: f. None: GELU, or SiLU with a gate. A rectifier takes a third of their time.
        gated: whether there is a gate.

    Example:
        >>> import torch, lmu
        >>> layer = lmu.layers.MemoryFeedForward(width=8, inner=16, channels=4)
        >>> layer(torch.randn(2, 7, 8)).outputs.shape
        torch.Size([2, 7, 8])

    References:
        Chilkuri and Eliasmith 2021, eqs 18-20 (of the hidden layer). Shazeer 2020, GLU Variants
        Improve Transformer, eq. 6 (of the gate).
    """

    def __init__(
        self,
        width: int,
        inner: int,
        channels: int,
        order: int = 5,
        theta: float = 10.0,
        activation: Callable[[Tensor], Tensor] | None = None,
        gated: bool = False,
    ) -> None:
        super().__init__()
        if activation is None:
            activation = nn.SiLU() if gated else nn.GELU()
        self.gate = activation if gated else None
        self.lmu = ParallelLMU(
            width,
            2 * inner if gated else inner,
            channels,
            order,
            theta,
            activation=nn.Identity() if gated else activation,
        )
        self.outer = nn.Linear(inner, width)
        self.input_size = self.output_size = width
        self.state_size = self.lmu.state_size

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        hidden, state = self.lmu(inputs, initial_state, lengths, resets=resets)
        return Result(without_padding(self.read(hidden), lengths), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        hidden, state = self.lmu.step(input, state)
        return Result(self.read(hidden), state)

    def read(self, hidden: Tensor) -> Tensor:
        """Compute y `(*batch, width)` from the outputs of the unit."""
        if self.gate is not None:
            # (An activation may work in place, and could not write into a view made by `chunk`.)
            first, second = hidden.unsafe_chunk(2, -1)
            hidden = self.gate(first) * second
        return self.outer(hidden)


def memory_blocks(
    width: int,
    thetas: Sequence[float],
    *,
    order: int = 5,
    channels: int | None = None,
    expansion: float = 2,
    dropout: float = 0.0,
    activation: Callable[[Tensor], Tensor] | None = None,
    gated: bool = False,
) -> Stack:
    """Stack feed-forward layers that read memories, each with a residual connection.

    The topmost block sees back about as many steps as all windows have together.

    Args:
        width: numbers a step, everywhere in the stack.
        thetas: the length of each block's window, in steps.
        order: how many polynomials, d, for each channel.
        channels: how many signals each block remembers. None: `width`.
        expansion: how many times wider the layers are inside.
        dropout: the share of each block's outputs that are dropped in training.
        activation: the nonlinearity of all layers. None: GELU, or SiLU with gates.
        gated: whether the layers have gates; `expansion` is then the width of each half.

    Returns:
        The stack, with a layer for each window.

    Example:
        >>> import torch, lmu
        >>> stack = lmu.layers.memory_blocks(width=8, thetas=[5.0, 10.0, 20.0])
        >>> stack(torch.randn(2, 50, 8)).outputs.shape
        torch.Size([2, 50, 8])

    References:
        Chilkuri and Eliasmith 2021, section 4.
    """
    size, inner = channels or width, round(expansion * width)
    layers = (
        MemoryFeedForward(width, inner, size, order, theta, activation, gated) for theta in thetas
    )
    return Stack(Residual(layer, dropout) for layer in layers)


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
    """Stack blocks with small windows: LMUs and feed-forward layers, each with a way around.

    The topmost block sees back about depth·theta steps.

    Args:
        width: numbers a step, everywhere in the stack.
        depth: how many LMUs.
        order: how many polynomials, d, for each channel.
        theta: the length of each window, in steps.
        channels: how many signals each LMU remembers. None: `width`.
        expansion: how many times wider the feed-forward layers are inside; 0: there are none.
        dropout: the share of each layer's outputs that are dropped in training.
        block: the kind of way around a layer, `Highway` or `Residual`.

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
