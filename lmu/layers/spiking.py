"""Spiking neurons, and an LMUFormer made of them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from linrec import Result
from linrec.nn import Layer, Stack
from linrec.nn.checks import check_step, check_steps
from linrec.nn.segments import check_resets
from lmu.layers.convolution import CausalConvolution, StepNorm, own_rows
from lmu.layers.lmuformer import LMUFormer, split
from lmu.layers.padding import own_steps, without_padding
from lmu.memory import LegendreMemory


class SpikingNeurons(Layer):
    """Leaky integrate-and-fire neurons after a batch normalisation.

        v_t = v_{t-1} + (norm(x_t) - v_{t-1}) / τ
        s_t = [v_t > threshold]                        v_t ← (1 - s_t) v_t

    Between two spikes the membrane v is a diagonal linear recurrence (`linrec.nn.EMA`). A spike
    resets it to zero, which is not linear, so these neurons run step by step: a sequence costs a
    pass for each of its steps. The neurons are `snntorch.Leaky`, whose gradients treat a spike as
    an arctangent. It keeps 1 - 1/τ in float32.

    Args:
        size: how many neurons.
        tau: τ, the membrane's time constant, in steps.
        threshold: the membrane value above which a neuron fires.

    Raises:
        ImportError: snntorch is not installed.

    Example:
        >>> import torch, lmu  # doctest: +SKIP
        >>> neurons = lmu.layers.SpikingNeurons(4).eval()  # doctest: +SKIP
        >>> neurons(3 * torch.randn(2, 7, 4)).outputs.unique().tolist()  # doctest: +SKIP
        [0.0, 1.0]

    References:
        Eshraghian et al. 2023, Training Spiking Neural Networks Using Lessons From Deep Learning.
    """

    def __init__(self, size: int, tau: float = 2.0, threshold: float = 1.0) -> None:
        super().__init__()
        try:
            from snntorch import Leaky
        except ImportError:
            raise ImportError(
                "Spiking neurons are those of snntorch, which is not installed. "
                "Type: pip install 'linrec[spiking]'"
            ) from None
        if not tau >= 1:
            raise ValueError(f"`tau` is {tau}: expected 1 or more, in steps.")
        self.input_size = self.output_size = self.state_size = size
        self.tau = float(tau)
        self.norm = StepNorm(size)
        self.neurons = Leaky(1.0 - 1.0 / tau, threshold, reset_mechanism="zero", reset_delay=False)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`. The state is v."""
        check_steps(self, inputs)
        drive = self.norm(without_padding(inputs, lengths), own_rows(inputs, lengths))
        batch = drive.shape[:-2]
        state = drive.new_zeros(*batch, self.state_size)
        state = state if initial_state is None else initial_state.expand_as(state)
        own = None if lengths is None else own_steps(inputs, lengths)
        anew = None if resets is None else check_resets(resets, inputs).expand(inputs.shape[:-1])
        spikes = []
        for now, driven in enumerate(drive.unbind(-2)):
            if anew is not None:
                forgotten = anew[..., now, None]  # padding has no resets
                forgotten = forgotten if own is None else forgotten & own[..., now, :]
                state = torch.where(forgotten, 0, state)
            fired, after = self.fire(driven, state)
            state = after if own is None else torch.where(own[..., now, :], after, state)
            spikes.append(fired)
        outputs = torch.stack(spikes, -2) if spikes else drive
        return Result(without_padding(outputs, lengths), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        return self.fire(self.norm(input), torch.zeros_like(input) if state is None else state)

    def fire(self, driven: Tensor, state: Tensor) -> Result:
        """Update the membranes by one input, and fire."""
        spikes, after = self.neurons(driven / self.tau, state)
        self.neurons.mem = driven.new_zeros(0)  # the module would keep the graph of the last step
        return Result(spikes.to(driven.dtype), after)


class _Parts(Layer):
    """A layer made of layers that are called one after the other, in the order of `parts`.

    The state is the parts' states, one after the other.

    Args:
        parts: the layers, by name.
        input_size: the size of the inputs.
        output_size: the size of the outputs.
    """

    def __init__(self, parts: Mapping[str, Layer], input_size: int, output_size: int) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.input_size, self.output_size = input_size, output_size
        self.state_sizes = [part.state_size for part in parts.values()]
        self.state_size = sum(self.state_sizes)

    @abstractmethod
    def compose(self, inputs: Tensor, call: Callable[[str, Tensor], Tensor]) -> Tensor:
        """Compute the outputs of one step or of all steps; `call` runs a part by its name."""

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        check_steps(self, inputs)
        before, after = split(initial_state, self.state_sizes), dict[str, Tensor]()
        starts = dict(zip(self.parts, before, strict=True))

        def call(name: str, x: Tensor) -> Tensor:
            outputs, after[name] = self.parts[name](x, starts[name], lengths, resets=resets)
            return outputs

        outputs = self.compose(without_padding(inputs, lengths), call)
        state = torch.cat([after[name] for name in self.parts], -1)
        return Result(without_padding(outputs, lengths), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        before, after = split(state, self.state_sizes), dict[str, Tensor]()
        starts = dict(zip(self.parts, before, strict=True))

        def call(name: str, x: Tensor) -> Tensor:
            part = self.parts[name]
            assert isinstance(part, Layer)
            outputs, after[name] = part.step(x, starts[name])
            return outputs

        outputs = self.compose(input, call)
        return Result(outputs, torch.cat([after[name] for name in self.parts], -1))


class SpikingEmbedding(_Parts):
    """Four convolutions over three steps with neurons between them, and a residual fifth.

        z = c₄ + W₅ * lif(c₄)        c_i = W_i * lif(c_{i-1}),   c₁ = W₁ * x

    Args:
        input_size: the size of x.
        width: the size of z and of all c_i.

    References:
        Liu, Datta, Li and Beerel 2024, LMUFormer.
    """

    def __init__(self, input_size: int, width: int) -> None:
        parts: dict[str, Layer] = {
            "convolution1": CausalConvolution(input_size, width, 3, bias=False)
        }
        for place in range(1, 5):
            parts[f"neurons{place}"] = SpikingNeurons(width)
            parts[f"convolution{place + 1}"] = CausalConvolution(width, width, 3, bias=False)
        super().__init__(parts, input_size, width)

    def compose(self, inputs: Tensor, call: Callable[[str, Tensor], Tensor]) -> Tensor:
        """Compute z."""
        hidden = call("convolution1", inputs)
        for place in range(1, 4):
            hidden = call(f"convolution{place + 1}", call(f"neurons{place}", hidden))
        return hidden + call("convolution5", call("neurons4", hidden))


class SpikingBlock(_Parts):
    """An LMU of spikes and a mixer of its features, each with a residual connection.

        s = lif(x)      u = lif(w s + b)      m = lif(memory(u))      h = lif(W [m, s] + b)
        z = x + norm(W' h + b')               y = z + W₂ lif(W₁ lif(z) + b₁) + b₂

    The memory is linear and runs in parallel; all neurons around it run step by step.

    Args:
        width: the size of x and y.
        order: how many polynomials the memory has; it has one channel.
        theta: the length of the window, in steps.
        expansion: how many times wider the mixer is inside.

    References:
        Liu, Datta, Li and Beerel 2024, LMUFormer.
    """

    def __init__(self, width: int, order: int, theta: float, expansion: int = 4) -> None:
        inner = expansion * width
        parts: dict[str, Layer] = {
            "inputs": SpikingNeurons(width, threshold=0.5),
            "signal": SpikingNeurons(1),
            "memory": LegendreMemory(1, order, theta),
            "remembered": SpikingNeurons(order),
            "hidden": SpikingNeurons(width),
            "mixed": SpikingNeurons(width),
            "inner": SpikingNeurons(inner),
        }
        super().__init__(parts, width, width)
        self.encoder = nn.Linear(width, 1)
        self.reader = nn.Linear(order + width, width)
        self.after, self.after_norm = nn.Linear(width, width), StepNorm(width)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)

    def compose(self, inputs: Tensor, call: Callable[[str, Tensor], Tensor]) -> Tensor:
        """Compute y."""
        spikes = call("inputs", inputs)
        signal = call("signal", self.encoder(spikes))
        remembered = call("remembered", call("memory", signal))
        hidden = call("hidden", self.reader(torch.cat([remembered, spikes], -1)))
        hidden = inputs + self.after_norm(self.after(hidden))
        return hidden + self.narrow(call("inner", self.widen(call("mixed", hidden))))


class SpikingLMUFormer(LMUFormer):
    """LMUFormer of spiking neurons, whose layers pass zeros and ones to each other.

    The defaults, with `input_size=128`, `classes=35` and 128 steps, are those of the published
    network for Speech Commands, with 1,689,894 trained numbers. All steps at once and one step at
    a time compute the same function in evaluation mode, except that rounding may make a neuron
    fire one step earlier.

    Args:
        input_size: the size of a step's input, such as the bands of a spectrogram.
        classes: how many scores.
        width: the number of features inside.
        depth: how many blocks.
        order: how many polynomials each memory has.
        theta: the length of the windows, in steps.
        expansion: how many times wider the mixers are inside.

    Raises:
        ImportError: snntorch is not installed.

    Example:
        >>> import lmu  # doctest: +SKIP
        >>> network = lmu.layers.SpikingLMUFormer(40, 10, width=16, order=8)  # doctest: +SKIP

    References:
        Liu, Datta, Li and Beerel 2024, LMUFormer: Low Complexity Yet Powerful Spiking Model With
        Legendre Memory Units (ICLR).
    """

    def __init__(
        self,
        input_size: int,
        classes: int,
        *,
        width: int = 256,
        depth: int = 1,
        order: int = 512,
        theta: float = 128.0,
        expansion: int = 4,
    ) -> None:
        super().__init__(input_size, classes, width=width, depth=0, order=1, theta=theta)
        self.features = Stack(
            [
                SpikingEmbedding(input_size, width),
                *(SpikingBlock(width, order, theta, expansion) for _ in range(depth)),
                SpikingNeurons(width),
            ]
        )
        self.state_sizes = [self.features.state_size, classes, 1]
        self.state_size = sum(self.state_sizes)
