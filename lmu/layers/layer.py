"""What every layer can do: all steps, the last step, one step."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from linrec import Result
from lmu._checks import check_input


class Layer(nn.Module, ABC):
    """A map of sequences to sequences that looks at no later step.

    Whatever a layer has to keep from step to step is one tensor, its state: it can be sliced,
    reordered and carried like any other, whichever layer it is of.

    Attributes:
        input_size: numbers a step takes.
        output_size: numbers a step gives.
        state_size: numbers kept from step to step.

    Example:
        >>> import torch, lmu
        >>> layer = lmu.layers.LSTM(input_size=3, hidden_size=4)
        >>> result = layer(torch.randn(2, 7, 3), lengths=torch.tensor([7, 5]))
        >>> result.outputs.shape, result.final_state.shape
        (torch.Size([2, 7, 4]), torch.Size([2, 8]))
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
    ) -> Result:
        """Compute the last step only; arguments as of `forward`.

        Returns:
            `outputs (*batch, output_size)`, those of each sequence's last own step (zero where it
            has none), and `final_state (*batch, state_size)`.
        """
        outputs, state = self(inputs, initial_state, lengths)
        return Result(last_own_step(outputs, lengths), state)


def check_step(layer: Layer, input: Tensor) -> None:
    """Refuse what is no step of what a layer takes."""
    check_input("input", input, layer.input_size, dtype_of(layer, input))


def check_steps(layer: Layer, inputs: Tensor) -> None:
    """Refuse what are no sequences of what a layer takes."""
    check_input("inputs", inputs, layer.input_size, dtype_of(layer, inputs))
    if inputs.ndim < 2:
        raise ValueError(
            f"`inputs` has shape {tuple(inputs.shape)}: expected (*batch, time, "
            f"{layer.input_size}). For one step call `step`."
        )


def dtype_of(layer: Layer, inputs: Tensor) -> torch.dtype:
    """Find the dtype of a layer's weights; without any, that of its inputs."""
    return next(layer.parameters(), inputs).dtype


def own_steps(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Which steps are a sequence's own, `(*batch, time, 1)`."""
    lengths = as_lengths(lengths, inputs)
    steps = torch.arange(inputs.shape[-2], device=inputs.device)
    return (steps < lengths.unsqueeze(-1)).unsqueeze(-1)


def as_lengths(lengths: Tensor, inputs: Tensor) -> Tensor:
    """See that lengths are whole numbers between 0 and the number of steps, one a sequence."""
    if not isinstance(lengths, Tensor):  # torch takes no reversed array, nor another byte order
        array = np.asarray(lengths)
        lengths = torch.tensor(array.astype(np.int64 if array.dtype.kind in "iu" else float))
    lengths = lengths.to(inputs.device)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(
            f"`lengths` has dtype {lengths.dtype}: expected whole numbers (*batch). Pass "
            "`lengths.long()`, or of a mask (*batch, time) `mask.sum(-1)`."
        )
    batch = inputs.shape[:-2]
    try:
        lengths = lengths.expand(batch)
    except RuntimeError:
        raise ValueError(
            f"`lengths` has shape {tuple(lengths.shape)}: expected {tuple(batch)}, one number for "
            f"each sequence of inputs of shape {tuple(inputs.shape)}."
        ) from None
    if torch.compiler.is_compiling() or lengths.numel() == 0:
        return lengths
    try:
        least, most = int(lengths.min()), int(lengths.max())
    except RuntimeError:  # inside vmap no value can be looked at
        return lengths
    if least < 0 or most > inputs.shape[-2]:
        raise ValueError(
            f"`lengths` are between {least} and {most}: expected 0 to {inputs.shape[-2]}, the "
            "number of steps of `inputs`."
        )
    return lengths


def without_padding(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Put zeros past the end of each sequence of `inputs (*batch, time, input_size)`."""
    if lengths is None:
        return inputs
    return torch.where(own_steps(inputs, lengths), inputs, 0)


def last_own_step(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Take each sequence's last own step of `(*batch, time, feature)`, which is zero past its end.

    Where it has none that is zero, too.
    """
    if not sequence.shape[-2]:
        return sequence.sum(-2)
    if lengths is None:
        return sequence[..., -1, :]
    lengths = as_lengths(lengths, sequence)
    index = (lengths - 1).clamp(min=0)[..., None, None]
    last = sequence.gather(-2, index.expand(*sequence.shape[:-2], 1, sequence.shape[-1]))
    return last.squeeze(-2)
