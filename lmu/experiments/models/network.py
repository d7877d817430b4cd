"""The interface of the papers' networks: train on features, run in parallel, stream."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from linrec import Result
from linrec.nn import Pretrained
from lmu.layers import Layer


class Network(Pretrained, nn.Module, ABC):
    """A network with a frozen memory first and trained layers after it.

        forward = head ∘ features

    Attributes:
        fitted: numbers that were fitted to the data when it was built, if it is not trained.

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
            features (*batch, ..., features): what `features` returned.

        Returns:
            The outputs, one for each row of features.
        """

    @abstractmethod
    def stream(self, inputs: Tensor) -> Tensor:
        """Compute what `forward` computes, reading one time step at a time.

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
    """A network that says something after each time step, and can be fed one at a time.

    Attributes:
        time_axis: where time is in the inputs: the last but one axis, or the last of words.
    """

    time_axis = -2

    @abstractmethod
    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one time step.

        Args:
            input (*batch, input_size): the step's input.
            state (*batch, state_size): what the step before returned; None before the first.

        Returns:
            The outputs after this step and the state to pass to the next.
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
    """A network of numbers: a layer reads the samples, and a readout follows it.

    Attributes:
        input_size: numbers a sample.
        at_end: True: the outputs of a sequence are those after its last sample. False: after each.
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
        """Return the inputs: where a network says nothing else, none of it is frozen."""
        return inputs

    def head(self, features: Tensor) -> Tensor:
        """Compute the outputs from the inputs."""
        result = self.reader.final(features) if self.at_end else self.reader(features)
        return self.read_out(result.outputs)

    @property
    def state_size(self) -> int:
        """Numbers kept from step to step."""
        return self.reader.state_size

    def run(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Read a block from where the last one was left, in parallel over time where that goes.

        Args:
            inputs (*batch, time, input_size): the samples.
            initial_state (*batch, state_size): what `run` or `step` returned before. None: zeros.
            lengths (*batch): the samples of each right-padded sequence.

        Returns:
            What `step` says after each sample, `(*batch, time, outputs)`, of no meaning past the
            lengths, and the state at each sequence's own end.
        """
        outputs, state = self.reader(inputs, initial_state, lengths)
        return Result(self.read_out(outputs), state)

    def resume(self, inputs: Tensor, initial_state: Tensor | None = None) -> Result:
        """Compute what `forward` does, from where the last block was left.

        Args:
            inputs (*batch, time, input_size): the samples.
            initial_state (*batch, state_size): what was returned before. None: zeros.

        Returns:
            The outputs of `forward`, and the state to go on from.
        """
        read = self.reader.final if self.at_end else self.reader
        outputs, state = read(inputs, initial_state)
        return Result(self.read_out(outputs), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Read one sample; the outputs are a sequence's that ends here."""
        outputs, state = self.reader.step(input, state)
        return Result(self.read_out(outputs), state)

    def stream(self, inputs: Tensor) -> Tensor:
        """Compute what `forward` computes, reading one sample at a time."""
        if not self.at_end:
            return torch.stack(list(self.steps(inputs)), dim=-2)
        state = None
        *before, last = inputs.unbind(-2)
        for input in before:
            _, state = self.reader.step(input, state)
        return self.step(last, state).outputs
