"""Layers on top of each other, and all of them read at once."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from linrec import Result
from lmu._checks import check_size
from lmu.layers.layer import Layer, check_steps, without_padding


class Stack(Layer):
    """Layers on top of each other: the outputs of each are the inputs of the next.

    The state is the layers' states, one after the other.

    Args:
        layers: the layers, from below.

    Raises:
        ValueError: no layers, or sizes that do not fit together.

    Example:
        >>> import torch, lmu
        >>> hybrid = lmu.layers.Stack([lmu.ParallelLMU(1, 8, 1, 4, theta=9), lmu.layers.LSTM(8, 5)])
        >>> outputs, state = hybrid(torch.randn(2, 7, 1))
        >>> outputs.shape, state.shape
        (torch.Size([2, 7, 5]), torch.Size([2, 14]))
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        if not len(self.layers):
            raise ValueError("`layers` is empty: expected at least one layer.")
        ordered = list(self)
        self.input_size, self.output_size = ordered[0].input_size, ordered[-1].output_size
        self.state_sizes = [layer.state_size for layer in self]
        self.state_size = sum(self.state_sizes)
        for place, (below, above) in enumerate(pairwise(self)):
            if below.output_size != above.input_size:
                raise ValueError(
                    f"Layer {place} gives {below.output_size} numbers, and layer {place + 1} takes "
                    f"{above.input_size}: expected the same."
                )

    def __iter__(self) -> Iterator[Layer]:
        """Go through the layers, from below."""
        return (cast(Layer, layer) for layer in self.layers)

    def states(self, state: Tensor | None) -> list[Tensor | None]:
        """Take a state apart into those of the layers."""
        if state is None:
            return [None] * len(self.state_sizes)
        check_size("state", state, self.state_size)
        return list(state.split(self.state_sizes, -1))

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        outputs, state = self.all_layers(inputs, initial_state, lengths)
        return Result(outputs[-1], state)

    def all_layers(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Run all steps, and return the outputs of every layer, from below, and the state."""
        outputs, ends = [], []
        for layer, start in zip(self, self.states(initial_state), strict=True):
            inputs, end = layer(inputs, start, lengths)
            outputs.append(inputs)
            ends.append(end)
        return outputs, torch.cat(ends, -1)

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Compute the last step only, of the topmost layer; as `Layer.final`."""
        ends = []
        *below, top = zip(self, self.states(initial_state), strict=True)
        for layer, start in below:
            inputs, end = layer(inputs, start, lengths)
            ends.append(end)
        outputs, end = top[0].final(inputs, top[1], lengths)
        return Result(outputs, torch.cat([*ends, end], -1))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        outputs, state = self.step_of_all_layers(input, state)
        return Result(outputs[-1], state)

    def step_of_all_layers(
        self, input: Tensor, state: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Run one step, and return the outputs of every layer, from below, and the state."""
        outputs, ends = [], []
        for layer, start in zip(self, self.states(state), strict=True):
            input, end = layer.step(input, start)
            outputs.append(input)
            ends.append(end)
        return outputs, torch.cat(ends, -1)


class DeepRepresentation(Layer):
    """A learned weighted sum of what every layer of a stack says, its inputs among them.

        y_t = γ Σ_j s_j h_{j,t}        s = softmax(w),   h_0 = x, h_j the outputs of layer j

    All weights s_j are equal at first, and the scale γ is 1.

    Args:
        stack: layers that all give as many numbers as they take.

    Raises:
        ValueError: layers of different sizes.

    Example:
        >>> import torch, lmu
        >>> stack = lmu.layers.window_blocks(width=8, depth=2)
        >>> deep = lmu.layers.DeepRepresentation(stack)
        >>> deep(torch.randn(2, 7, 8)).outputs.shape, deep.shares.tolist()
        (torch.Size([2, 7, 8]), [0.20..., 0.20..., 0.20..., 0.20..., 0.20...])

    References:
        Peters et al. 2018, Deep Contextualized Word Representations, eq. 1.
    """

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        widths = [stack.input_size, *(layer.output_size for layer in stack)]
        if len(set(widths)) > 1:
            raise ValueError(
                f"The layers have outputs of sizes {widths[1:]} and inputs of {widths[0]}: "
                "expected the same size everywhere, so that they can be added."
            )
        self.stack = stack
        self.input_size = self.output_size = stack.input_size
        self.state_size = stack.state_size
        self.weights = nn.Parameter(torch.zeros(len(widths)))
        self.scale = nn.Parameter(torch.ones(()))

    @property
    def shares(self) -> Tensor:
        """The share of each layer, `(layers + 1,)`: that of the inputs first."""
        return self.weights.softmax(-1)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        check_steps(self, inputs)
        inputs = without_padding(inputs, lengths)
        outputs, state = self.stack.all_layers(inputs, initial_state, lengths)
        return Result(self.sum([inputs, *outputs]), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        outputs, state = self.stack.step_of_all_layers(input, state)
        return Result(self.sum([input, *outputs]), state)

    def sum(self, outputs: list[Tensor]) -> Tensor:
        """Add what the layers say, each with its share."""
        return self.scale * torch.stack(outputs, -1) @ self.shares
