"""The interface of all layers: all steps, the last step, one step."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from linrec.call import check_lengths, inside
from linrec.executors import Result
from linrec.nn.pretrained import Pretrained
from linrec.run import under_autocast


class Layer(Pretrained, nn.Module, ABC):
    """A map of sequences to sequences that looks at no later step.

    Whatever a layer has to keep from step to step is one tensor of real numbers, its state: it can
    be sliced, reordered and carried like any other, whichever layer it is of.

    Attributes:
        input_size: numbers a step takes.
        output_size: numbers a step gives.
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
            inputs (*batch, time, input_size): x.
            initial_state (*batch, state_size): the state before the first step. None: zeros.
            lengths (*batch): the steps of each right-padded sequence; what stands past them has no
                effect, and outputs there are zero.

        Returns:
            `outputs (*batch, time, output_size)` and the state at each sequence's own end,
            `final_state (*batch, state_size)`.
        """

    @abstractmethod
    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step, for streaming.

        Args:
            input (*batch, input_size): x_t.
            state (*batch, state_size): what the step before returned. None: zeros.

        Returns:
            `outputs (*batch, output_size)` and `final_state (*batch, state_size)`.
        """

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Compute the last step only; arguments as of `forward`.

        Args:
            inputs (*batch, time, input_size): x.
            initial_state (*batch, state_size): the state before the first step. None: zeros.
            lengths (*batch): the steps of each right-padded sequence.
            resets (*batch, time): True where the state before a step is forgotten, of layers whose
                `forward` takes them. None: nowhere.

        Returns:
            `outputs (*batch, output_size)`, those of each sequence's last own step (zero where it
            has none), and `final_state (*batch, state_size)`.
        """
        outputs, state = self(inputs, initial_state, lengths, **passed_on(resets))
        return Result(last_own_step(outputs, lengths), state)


def passed_on(resets: Tensor | None) -> dict[str, Tensor]:
    """Give resets to a layer inside, which need not know of them where there are none."""
    return {} if resets is None else {"resets": resets}


def check_step(layer: Layer, input: Tensor) -> None:
    """Check shape and dtype of one step's input."""
    check_input("input", input, layer)


def check_steps(layer: Layer, inputs: Tensor) -> None:
    """Check shape and dtype of sequences."""
    check_input("inputs", inputs, layer)
    if inputs.ndim < 2:
        raise ValueError(
            f"`inputs` has shape {tuple(inputs.shape)}: expected (*batch, time, "
            f"{layer.input_size}). For one step call `step`."
        )


def check_input(name: str, tensor: Tensor, layer: Layer) -> None:
    """Refuse a tensor whose last axis does not fit, or whose dtype is not that of the weights."""
    check_size(name, tensor, layer.input_size)
    dtype = next(layer.parameters(), tensor).dtype
    # Autocast casts by itself what meets weights.
    if tensor.dtype != dtype and not under_autocast(tensor.device.type):
        raise TypeError(
            f"`{name}` has dtype {tensor.dtype}: expected {dtype}, that of the weights. Pass "
            f"`{name}.to({dtype})`."
        )


def check_size(name: str, tensor: Tensor, size: int) -> None:
    """Refuse a tensor whose last axis does not fit."""
    if tensor.ndim < 1 or tensor.shape[-1] != size:
        raise ValueError(
            f"`{name}` has shape {tuple(tensor.shape)}: expected {size} numbers on the last "
            f"axis, (*batch, {size})."
        )


def without_padding(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Put zeros past the end of each sequence of `inputs (*batch, time, input_size)`."""
    if lengths is None:
        return inputs
    lengths = lengths_of(inputs, lengths)
    return torch.where(inside(lengths, inputs.shape[-2]).unsqueeze(-1), inputs, 0)


def last_own_step(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Take each sequence's last own step of `(*batch, time, feature)`; zeros where it has none."""
    if not sequence.shape[-2]:
        return sequence.sum(-2)
    if lengths is None:
        return sequence[..., -1, :]
    lengths = lengths_of(sequence, lengths)
    index = (lengths - 1).clamp(min=0)[..., None, None]
    last = sequence.gather(-2, index.expand(*sequence.shape[:-2], 1, sequence.shape[-1]))
    return torch.where(lengths.unsqueeze(-1) > 0, last.squeeze(-2), 0)


def lengths_of(sequence: Tensor, lengths: Tensor) -> Tensor:
    """See that there is one length for each sequence of `(*batch, time, feature)`, and it fits."""
    lengths, batch = check_lengths(lengths, sequence), sequence.shape[:-2]
    try:
        return lengths.expand(batch)
    except RuntimeError:
        raise ValueError(
            f"`lengths` has shape {tuple(lengths.shape)}: expected {tuple(batch)}, one number for "
            f"each sequence of inputs of shape {tuple(sequence.shape)}."
        ) from None
