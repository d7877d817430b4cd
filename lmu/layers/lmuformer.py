"""LMUFormer: an LMU in the place of a transformer's attention."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from linrec import Result, linear_scan
from linrec.nn import Layer, Stack
from linrec.nn.checks import check_step, check_steps
from linrec.nn.segments import check_resets
from lmu.layers.convolution import CausalConvolution, StepNorm, own_rows
from lmu.layers.padding import own_steps, without_padding
from lmu.layers.parallel_lmu import ParallelLMU


class PatchEmbedding(Layer):
    """Four convolutions over three steps each, and a fifth whose input is added to its output.

        z = h₄ + W₅ * h₄        h_i = gelu(norm(W_i * h_{i-1}))        h₀ = x

    Each published convolution looks one step ahead. Here each looks at the two steps before, so
    that there is no delay.

    Args:
        input_size: the size of x.
        width: the size of z and of all h_i.

    Example:
        >>> import torch, lmu
        >>> lmu.layers.PatchEmbedding(40, 16)(torch.randn(2, 7, 40)).outputs.shape
        torch.Size([2, 7, 16])

    References:
        Liu, Datta, Li and Beerel 2024, LMUFormer.
    """

    def __init__(self, input_size: int, width: int) -> None:
        super().__init__()
        sizes = [input_size, width, width, width, width, width]
        self.input_size, self.output_size = input_size, width
        self.convolutions = nn.ModuleList(
            CausalConvolution(taken, given, 3, bias=False) for taken, given in pairwise(sizes)
        )
        self.norms = nn.ModuleList(StepNorm(width) for _ in range(4))
        self.state_sizes = [2 * size for size in sizes[:-1]]
        self.state_size = sum(self.state_sizes)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        check_steps(self, inputs)
        inputs, own = without_padding(inputs, lengths), own_rows(inputs, lengths)
        before = split(initial_state, self.state_sizes)
        hidden, states = inputs, []
        for place, convolution in enumerate(self.convolutions):
            outputs, state = convolution(hidden, before[place], lengths, resets)
            last = place == len(self.norms)
            hidden = hidden + outputs if last else self.normalized(place, outputs, own)
            states.append(state)
        return Result(without_padding(hidden, lengths), torch.cat(states, -1))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        before, hidden, states = split(state, self.state_sizes), input, []
        for place, convolution in enumerate(self.convolutions):
            assert isinstance(convolution, CausalConvolution)
            outputs, now = convolution.step(hidden, before[place])
            last = place == len(self.norms)
            hidden = hidden + outputs if last else self.normalized(place, outputs, None)
            states.append(now)
        return Result(hidden, torch.cat(states, -1))

    def normalized(self, place: int, outputs: Tensor, own: Tensor | None) -> Tensor:
        """Normalise a convolution's outputs, and apply the nonlinearity."""
        return nn.functional.gelu(self.norms[place](outputs, own))


class LMUFormerBlock(Layer):
    """An LMU and a mixer of its features, each with a residual connection.

        z = x + norm(W lmu(x))        y = z + norm(W₂ gelu(norm(W₁ z)))

    Args:
        width: the size of x and y.
        order: how many polynomials the memory has; it has one channel.
        theta: the length of the window, in steps.
        expansion: how many times wider the mixer is inside.

    Example:
        >>> import torch, lmu
        >>> lmu.layers.LMUFormerBlock(16, order=8, theta=50)(torch.randn(2, 7, 16)).outputs.shape
        torch.Size([2, 7, 16])

    References:
        Liu, Datta, Li and Beerel 2024, LMUFormer.
    """

    def __init__(self, width: int, order: int, theta: float, expansion: int = 4) -> None:
        super().__init__()
        self.input_size = self.output_size = width
        self.lmu = ParallelLMU(width, width, 1, order, theta, input_activation=nn.ReLU())
        self.state_size = self.lmu.state_size
        self.after, self.after_norm = nn.Linear(width, width), StepNorm(width)
        self.inner, self.inner_norm = (
            nn.Linear(width, expansion * width),
            StepNorm(expansion * width),
        )
        self.outer, self.outer_norm = nn.Linear(expansion * width, width), StepNorm(width)

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
        remembered, state = self.lmu(inputs, initial_state, lengths, resets=resets)
        outputs = self.mixed(inputs, remembered, own_rows(inputs, lengths))
        return Result(without_padding(outputs, lengths), state)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        remembered, state = self.lmu.step(input, state)
        return Result(self.mixed(input, remembered, None), state)

    def mixed(self, inputs: Tensor, remembered: Tensor, own: Tensor | None) -> Tensor:
        """Compute y, each step by itself."""
        hidden = inputs + self.after_norm(self.after(remembered), own)
        inner = nn.functional.gelu(self.inner_norm(self.inner(hidden), own))
        return hidden + self.outer_norm(self.outer(inner), own)


class LMUFormer(Layer):
    """A classifier of sequences as they arrive: convolutions, LMU blocks, a running mean of scores.

        y_t = 1/(t+1) Σ_{s≤t} (W z_s + b)        z = blocks(embedding(x))

    The defaults, with `input_size=128`, `classes=35` and 128 steps, are those of the published
    network for Speech Commands, with 1,621,796 trained numbers. All steps at once and one step at
    a time compute the same function in evaluation mode; in training, batch normalisation sees the
    whole batch without its padding. The paper's text leaves open where the residual connections
    are; here both halves of a block have one.

    Args:
        input_size: the size of a step's input, such as the bands of a spectrogram.
        classes: how many scores.
        width: the number of features inside.
        depth: how many blocks.
        order: how many polynomials each memory has.
        theta: the length of the windows, in steps.
        expansion: how many times wider the mixers are inside.

    Example:
        >>> import torch, lmu
        >>> network = lmu.LMUFormer(input_size=40, classes=10, width=16, order=8, theta=60).eval()
        >>> scores, state = network(torch.randn(2, 60, 40))
        >>> scores.shape, network.step(torch.randn(2, 40), state).outputs.shape
        (torch.Size([2, 60, 10]), torch.Size([2, 10]))

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
        order: int = 256,
        theta: float = 128.0,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        self.features = Stack(
            [
                PatchEmbedding(input_size, width),
                *(LMUFormerBlock(width, order, theta, expansion) for _ in range(depth)),
            ]
        )
        self.head = nn.Linear(width, classes)
        self.input_size, self.output_size = input_size, classes
        self.state_sizes = [self.features.state_size, classes, 1]
        self.state_size = sum(self.state_sizes)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`.

        Args:
            inputs (*batch, time, input_size): x.
            initial_state (*batch, state_size): the states of embedding and blocks, the sum of
                scores and their number. None: zeros.
            lengths (*batch): the steps of each right-padded sequence.
            resets (*batch, time): True where the state before a step is forgotten, and the mean
                begins anew. None: nowhere.

        Returns:
            `outputs (*batch, time, classes)`, the mean of the scores up to each step, and
            `final_state (*batch, state_size)`.
        """
        check_steps(self, inputs)
        sizes = [self.features.state_size, self.output_size + 1]
        before, earlier = split(initial_state, sizes)
        features, state = self.features(without_padding(inputs, lengths), before, lengths, resets)
        scores = without_padding(self.head(features), lengths)
        dtype, scores = scores.dtype, widen(scores)
        steps = torch.ones_like(scores[..., :1])
        own = own_rows(inputs, lengths)
        if own is not None:
            steps = steps * own.unsqueeze(-1)
        sums, end = running_sums(torch.cat([scores, steps], -1), earlier, lengths, resets)
        totals, counts = sums.split([self.output_size, 1], -1)
        outputs = without_padding(totals / counts.clamp(min=1), lengths)
        return Result(outputs.to(dtype), torch.cat([state, end], -1))

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        before, total, count = split(state, self.state_sizes)
        features, now = self.features.step(input, before)
        scores = self.head(features)
        dtype, scores = scores.dtype, widen(scores)
        one = torch.ones_like(scores[..., :1])
        total = scores if total is None else total + scores
        count = one if count is None else count + one
        return Result((total / count).to(dtype), torch.cat([now, total, count], -1))


def widen(scores: Tensor) -> Tensor:
    """Cast scores to the dtype of their sums: half precision cannot count beyond 256 or 2,048."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def running_sums(
    added: Tensor, earlier: Tensor | None, lengths: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Add up steps `(*batch, time, size)` from each reset on; return all sums, and the last."""
    start = added.new_zeros(*added.shape[:-2], added.shape[-1]) if earlier is None else earlier
    if not added.shape[-2]:
        return added, start.expand(*added.shape[:-2], -1)
    if resets is None:
        sums = added.cumsum(-2) + start.unsqueeze(-2)
        return sums, sums[..., -1, :]
    anew = check_resets(resets, added)
    if lengths is not None:  # padding has no resets
        anew = anew & own_steps(added, lengths).squeeze(-1)
    sums = linear_scan((~anew).to(added.dtype).unsqueeze(-1), added, start)
    return sums, sums[..., -1, :]


def split(state: Tensor | None, sizes: list[int]) -> list[Tensor] | list[None]:
    """Split a state into its parts."""
    return [None] * len(sizes) if state is None else list(state.split(sizes, -1))
