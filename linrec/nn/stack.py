"""Layers on top of each other."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from linrec.executors import Result
from linrec.nn.checks import check_size
from linrec.nn.layer import Layer, pass_resets


class Stack(Layer):
    """Layers on top of each other: the outputs of each are the inputs of the next.

    The state is the layers' states, one after the other.

    Args:
        layers: the layers, first to last.

    Raises:
        ValueError: no layers, or sizes that do not match.

    Example:
        >>> import torch, linrec
        >>> hybrid = linrec.nn.Stack([linrec.nn.MinGRU(1, 9), linrec.nn.MinLSTM(9, 5)])
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

    def arguments(self) -> dict[str, object]:
        """Return the constructor arguments of a stack of the same form."""
        return {"layers": list(self)}

    def __iter__(self) -> Iterator[Layer]:
        """Iterate over the layers, first to last."""
        return (cast(Layer, layer) for layer in self.layers)

    def states(self, state: Tensor | None) -> list[Tensor | None]:
        """Split a state into the layers' states."""
        if state is None:
            return [None] * len(self.state_sizes)
        check_size("state", state, self.state_size)
        return list(state.split(self.state_sizes, -1))

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as in `Layer.forward`."""
        outputs, state = self.all_layers(inputs, initial_state, lengths, resets)
        return Result(outputs[-1], state)

    def all_layers(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Run all steps, and return the outputs of every layer, first to last, and the state."""
        outputs, ends = [], []
        for layer, start in zip(self, self.states(initial_state), strict=True):
            inputs, end = layer(inputs, start, lengths, **pass_resets(resets))
            outputs.append(inputs)
            ends.append(end)
        return outputs, torch.cat(ends, -1)

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Compute only the last step of the last layer; see `Layer.final`."""
        ends = []
        *below, top = zip(self, self.states(initial_state), strict=True)
        for layer, start in below:
            inputs, end = layer(inputs, start, lengths, **pass_resets(resets))
            ends.append(end)
        outputs, end = top[0].final(inputs, top[1], lengths, **pass_resets(resets))
        return Result(outputs, torch.cat([*ends, end], -1))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as in `Layer.step`."""
        outputs, state = self.step_of_all_layers(input, state)
        return Result(outputs[-1], state)

    def step_of_all_layers(
        self, input: Tensor, state: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Run one step, and return the outputs of every layer, first to last, and the state."""
        outputs, ends = [], []
        for layer, start in zip(self, self.states(state), strict=True):
            input, end = layer.step(input, start)
            outputs.append(input)
            ends.append(end)
        return outputs, torch.cat(ends, -1)
