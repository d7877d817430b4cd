"""The interface of all layers: all steps, the last step, one step."""

from abc import ABC, abstractmethod

from torch import Tensor

from linrec.executors import Result
from linrec.lengths import expand_lengths, last_step
from linrec.nn.packed import TakesPacked
from linrec.nn.pretrained import Pretrained
from linrec.nn.segments import pass_resets as pass_resets


class Layer(Pretrained, TakesPacked, ABC):
    """A causal map from sequences to sequences.

    The state of every layer is one tensor of real numbers, which holds all that it keeps from step
    to step. It can be sliced, reordered and passed on in the same way for all layers.

    Attributes:
        input_size: input features of a step.
        output_size: output features of a step.
        state_size: numbers kept from step to step.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.MinGRU(input_size=3, hidden_size=4)
        >>> result = layer(torch.randn(2, 7, 3), lengths=torch.tensor([7, 5]))
        >>> result.outputs.shape, result.final_state.shape
        (torch.Size([2, 7, 4]), torch.Size([2, 4]))
    """

    input_size: int
    output_size: int
    state_size: int

    @abstractmethod
    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps.

        Args:
            inputs (*batch, time, input_size): x; or a `PackedSequence`, as the outputs are then.
            initial_state (*batch, state_size): the state before the first step. None: zeros.
            lengths (*batch): the steps of each right-padded sequence; the padding has no effect,
                and outputs there are zero.

        Returns:
            `outputs (*batch, time, output_size)` and the state at each sequence's own end,
            `final_state (*batch, state_size)`.
        """

    @abstractmethod
    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step, for streaming.

        Args:
            input (*batch, input_size): x_t.
            state (*batch, state_size): the state that the previous step returned. None: zeros.

        Returns:
            `outputs (*batch, output_size)` and `state (*batch, state_size)`.
        """

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Compute the last step only; arguments as in `forward`.

        Args:
            inputs (*batch, time, input_size): x.
            initial_state (*batch, state_size): the state before the first step. None: zeros.
            lengths (*batch): the steps of each right-padded sequence.
            resets (*batch, time): True where the state before a step is forgotten, for layers whose
                `forward` takes resets. None: nowhere.

        Returns:
            `outputs (*batch, output_size)` of each sequence's own last step (zero for a sequence
            without steps), and `final_state (*batch, state_size)`.
        """
        outputs, state = self(inputs, initial_state, lengths, **pass_resets(resets))
        return Result(last_step(outputs, expand_lengths(lengths, outputs)), state)
