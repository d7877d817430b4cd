"""A learned mixture of all layers of a stack."""

import torch
from torch import Tensor, nn

from linrec import Result
from linrec.nn import Layer, Stack
from linrec.nn.checks import check_steps
from lmu.layers.padding import without_padding


class ScalarMix(Layer):
    """A learned weighted sum of the outputs of all layers of a stack, and of its inputs.

        y_t = γ Σ_j s_j h_{j,t}        s = softmax(w),   h_0 = x, h_j the outputs of layer j

    All weights s_j are equal at first, and the scale γ is 1.

    Args:
        stack: layers whose outputs all have the size of the inputs.

    Raises:
        ValueError: layers of different sizes.

    Example:
        >>> import torch, lmu
        >>> stack = lmu.layers.window_blocks(width=8, depth=2)
        >>> deep = lmu.layers.ScalarMix(stack)
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
        """The weight of each layer, `(layers + 1,)`, the inputs first."""
        return self.weights.softmax(-1)

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
        outputs, state = self.stack.all_layers(inputs, initial_state, lengths, resets)
        return Result(self.sum([inputs, *outputs]), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        outputs, state = self.stack.step_of_all_layers(input, state)
        return Result(self.sum([input, *outputs]), state)

    def sum(self, outputs: list[Tensor]) -> Tensor:
        """Add up the layers' outputs, weighted."""
        return self.scale * torch.stack(outputs, -1) @ self.shares
