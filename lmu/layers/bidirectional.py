"""A layer that reads a sequence from both ends."""

import torch
from torch import Tensor

from linrec import Result
from linrec.lengths import expand_lengths, length_mask, reverse_steps
from linrec.nn import Layer, Pretrained
from linrec.nn.checks import check_size
from linrec.nn.packed import TakesPacked
from linrec.nn.segments import check_resets, pass_resets


class Bidirectional(Pretrained, TakesPacked):
    """One layer forwards and another backwards in time, their outputs side by side.

        y_t = [forward(x_0 … x_t), backward(x_{T-1} … x_t)]

    Each sequence is reversed within its own length, so that the backward layer begins at the
    sequence's last step, not in the padding. The state is `[forward, backward]`. The initial state
    holds the forward layer's state before the first step and the backward layer's after the last;
    the final state holds theirs after the last step and before the first.

    There is no `step`, because it would have to know the later steps. There is no `final` either,
    because the backward layer's output at the last step depends on that step alone. A summary of
    all steps, from both layers, is in the final state.

    Args:
        forward_layer: any layer.
        backward_layer: another layer, of the same input size.

    Raises:
        ValueError: the two are the same object, or have different input sizes.

    Example:
        >>> import torch, lmu
        >>> both = lmu.Bidirectional(*(lmu.ParallelLMU(3, 8, 1, 4, theta=9) for _ in range(2)))
        >>> both(torch.randn(2, 7, 3), lengths=torch.tensor([7, 5])).outputs.shape
        torch.Size([2, 7, 16])
    """

    def __init__(self, forward_layer: Layer, backward_layer: Layer) -> None:
        super().__init__()
        if forward_layer is backward_layer:
            raise ValueError(
                "`forward_layer` and `backward_layer` are one object: expected two, or they "
                "would share their weights. Pass `copy.deepcopy(layer)` for the second."
            )
        if forward_layer.input_size != backward_layer.input_size:
            raise ValueError(
                f"`forward_layer` takes {forward_layer.input_size} numbers and `backward_layer` "
                f"{backward_layer.input_size}: expected the same."
            )
        self.forward_layer, self.backward_layer = forward_layer, backward_layer
        self.input_size = forward_layer.input_size
        self.output_size = forward_layer.output_size + backward_layer.output_size
        self.state_size = forward_layer.state_size + backward_layer.state_size

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps, both ways.

        Args:
            inputs (*batch, time, input_size): x; or a `PackedSequence`, for packed outputs.
            initial_state (*batch, state_size): forward, then backward. None: zeros.
            lengths (*batch): the steps of each right-padded sequence.
            resets (*batch, time): True where a sequence starts anew: neither layer reads across
                the boundary before that step. None: nowhere.

        Returns:
            `outputs (*batch, time, output_size)` and `final_state (*batch, state_size)`.
        """
        first = last = None
        if initial_state is not None:
            check_size("initial_state", initial_state, self.state_size)
            sizes = [self.forward_layer.state_size, self.backward_layer.state_size]
            first, last = initial_state.split(sizes, -1)
        lengths = expand_lengths(lengths, inputs)
        back = None
        if resets is not None:
            resets = check_resets(resets, inputs).expand(inputs.shape[:-1])
            if lengths is not None:
                resets = resets & length_mask(lengths, inputs.shape[-2])
            # Backwards, a step is the first of its segment if the next step starts anew.
            ends = torch.cat([resets[..., 1:], torch.zeros_like(resets[..., :1])], -1)
            back = reverse_steps(ends.unsqueeze(-1), lengths).squeeze(-1)
        onwards, end = self.forward_layer(inputs, first, lengths, **pass_resets(resets))
        turned, start = self.backward_layer(
            reverse_steps(inputs, lengths), last, lengths, **pass_resets(back)
        )
        outputs = torch.cat([onwards, reverse_steps(turned, lengths)], -1)
        return Result(outputs, torch.cat([end, start], -1))
