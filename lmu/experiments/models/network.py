"""The interface of the papers' networks: train on features, run in parallel, stream."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from linrec import Result
from linrec.nn import Pretrained
from lmu.layers import Layer


class Network(Pretrained, nn.Module, ABC):
    """A network with a frozen memory and trained layers after it.

        forward = head ∘ features

    Attributes:
        fitted: how many numbers were fitted to the data at construction, if it is not trained.

    A frozen memory gives the same states for the same input in every epoch. They are the input's
    features: `features` computes them once, and training repeats the `head` alone.
    """

    fitted: int = 0

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of the frozen memory.

        Args:
            inputs (*batch, time, input_size): the sequences.

        Returns:
            Features, `(*batch, features)` of whole sequences or `(*batch, time, features)`.
        """

    @abstractmethod
    def head(self, features: Tensor) -> Tensor:
        """Compute the outputs from the features: the part with parameters.

        Args:
            features (*batch, ..., features): the result of `features`.

        Returns:
            The outputs, one for each row of features.
        """

    @abstractmethod
    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of `forward`, reading one time step at a time.

        Args:
            inputs (*batch, time, input_size): the sequences.

        Returns:
            The outputs of `forward`, up to rounding.
        """

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of whole sequences, in parallel over time.

        Args:
            inputs (*batch, time, input_size): the sequences.

        Returns:
            The outputs, one for each row of features.
        """
        return self.head(self.features(inputs))


class StreamingNetwork(Network):
    """A network with outputs after each time step, which can read one step at a time.

    Attributes:
        time_axis: the time axis of the inputs: the last but one, or for words the last.
    """

    time_axis = -2

    @abstractmethod
    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one time step.

        Args:
            input (*batch, input_size): the step's input.
            state (*batch, state_size): the state that the previous step returned; None before the
                first.

        Returns:
            The outputs after this step, and the state to pass to the next.
        """

    def steps(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the outputs after each time step, read one at a time.

        Args:
            inputs (*batch, time, input_size): the sequences.

        Yields:
            The outputs `(*batch, outputs)` after each step.
        """
        state = None
        for input in inputs.unbind(self.time_axis):
            outputs, state = self.step(input, state)
            yield outputs


class SampleNetwork(StreamingNetwork):
    """A network for numeric samples: a layer that reads them, and a readout.

    Attributes:
        input_size: how many numbers a sample has.
        at_end: True: a sequence has outputs after its last sample. False: after each sample.
    """

    input_size: int = 1
    at_end: bool = False

    @property
    @abstractmethod
    def reader(self) -> Layer:
        """The layer that reads the samples."""

    @abstractmethod
    def read_out(self, outputs: Tensor) -> Tensor:
        """Compute the outputs `(*batch, outputs)` from the layer's `(*batch, size)`."""

    def features(self, inputs: Tensor) -> Tensor:
        """Return the inputs: unless a network overrides this, none of it is frozen."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the outputs from the inputs."""
        result = self.reader.final(features) if self.at_end else self.reader(features)
        return self.read_out(result.outputs)

    @property
    def state_size(self) -> int:
        """The number of entries of the state."""
        return self.reader.state_size

    def run(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Read a block from a given state on, in parallel over time where possible.

        Args:
            inputs (*batch, time, input_size): the samples.
            initial_state (*batch, state_size): the state that `run` or `step` returned before.
                None: zeros.
            lengths (*batch): the samples of each right-padded sequence.

        Returns:
            The outputs of `step` after each sample, `(*batch, time, outputs)`, meaningless past the
            lengths, and the state at each sequence's own end.
        """
        outputs, state = self.reader(inputs, initial_state, lengths)
        return Result(self.read_out(outputs), state)

    def resume(self, inputs: Tensor, initial_state: Tensor | None = None) -> Result:
        """Compute the outputs of `forward`, from a given state on.

        Args:
            inputs (*batch, time, input_size): the samples.
            initial_state (*batch, state_size): the state that was returned before. None: zeros.

        Returns:
            The outputs of `forward`, and the state to continue from.
        """
        read = self.reader.final if self.at_end else self.reader
        outputs, state = read(inputs, initial_state)
        return Result(self.read_out(outputs), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one sample; the outputs are for a sequence that ends here."""
        outputs, state = self.reader.step(input, state)
        return Result(self.read_out(outputs), state)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of `forward`, reading one sample at a time."""
        if not self.at_end:
            return torch.stack(list(self.steps(inputs)), dim=-2)
        state = None
        *before, last = inputs.unbind(-2)
        for input in before:
            _, state = self.reader.step(input, state)
        return self.step(last, state).outputs
