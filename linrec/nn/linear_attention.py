"""Linear attention that forgets, at rates set by the inputs or at fixed rates."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from linrec.executors import Executor
from linrec.nn.heads import AttentionLayer, HeadReadOut, attention
from linrec.nn.recurrent import split_heads, widen
from linrec.planner import Auto
from linrec.structures import BlockDiagonal
from linrec.systems import LinearRecurrence

GAIN = 2**-2.5  # of the projections, in the authors' code of both layers


class GatedLinearAttention(AttentionLayer):
    """Gated linear attention: each key forgets at a rate that the input sets.

        S_t = diag(α_t) S_{t-1} + k_t v_tᵀ        o_t = S_tᵀ q_t / √keys        for each head
        α_t = σ(W_α₂ W_α₁ x_t + b)^(1/τ)          y_t = W_o (LayerNorm(o_t) ⊙ silu(W_g x_t))

    q, k and v are W x_t, with half the width for q and k. Weights are initially Glorot uniform with
    gain 2^-2.5 (W_o: 1).

    Args:
        width: features of a step, in and out.
        heads: number of heads, each with a matrix S.
        key_width: size of q and of k, of all heads together. None: half the width.
        rank: the rank of W_α₂ W_α₁.
        temperature: τ; a larger one makes the memory longer.
        executor: how the recurrence is run.

    Raises:
        ValueError: a width that cannot be divided among the heads.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.GatedLinearAttention(width=8, heads=2)
        >>> layer(torch.randn(2, 7, 8)).outputs.shape, layer.state_size
        (torch.Size([2, 7, 8]), 16)

    References:
        Yang, Wang, Shen, Panda and Kim 2024, Gated Linear Attention Transformers with
        Hardware-Efficient Training, eq. 3 and section 4.4.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        key_width: int | None = None,
        rank: int = 16,
        temperature: float = 16.0,
        executor: Executor = Auto(),
    ) -> None:
        key_width = width // 2 if key_width is None else key_width
        super().__init__(width, heads, key_width, width, executor)
        self.temperature = temperature
        self.forget = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, key_width))
        self.out = HeadReadOut(width, width, nn.LayerNorm(width // heads), gate=True)
        initialise(self.projection, self.sizes)
        for module in (*self.forget, self.out.gate):
            initialise(module)
        initialise(self.out.projection, gain=1.0)

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, with a system for each head; see `RecurrentLayer.recurrence`."""
        q, k, v = self.parts(self.projection(inputs))
        log_gates = logsigmoid(widen(self.forget(inputs))) / self.temperature
        return attention(split_heads(log_gates.exp(), self.heads), k, q / q.shape[-1] ** 0.5, v)


class Retention(AttentionLayer):
    """Multi-scale retention: each head forgets at its own rate, and keys rotate as they age.

        S_t = γ e^(-iθ) S_{t-1} + k_t v_tᵀ        o_t = Re(S_tᵀ q̄_t) / √keys      for each head
        γ = 1 - 2^(-5-head)                       y_t = W_o (norm(o_t) ⊙ silu(W_g x_t))

    The complex numbers of q and k are pairs of real ones. The paper rotates q and k by e^(iθt)
    instead of S: the products are the same, and rotating S needs no position. θ goes from 1 to
    10⁻⁴ over the pairs; norm is LayerNorm without weights. Weights are initially Glorot uniform
    with gain 2^-2.5 (W_o: 1/2).

    Args:
        width: features of a step, in and out; also the size of q and of k, of all heads together.
        heads: number of heads, each with a matrix S.
        value_width: size of v, of all heads together. None: twice the width.
        executor: how the recurrence is run.

    Raises:
        ValueError: a width that cannot be divided among the heads, or into pairs.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.Retention(width=8, heads=2)
        >>> layer(torch.randn(2, 7, 8)).outputs.shape, layer.state_size
        (torch.Size([2, 7, 8]), 64)

    References:
        Sun, Dong, Huang, Ma, Xia, Xue, Wang and Wei 2023, Retentive Network: A Successor to
        Transformer for Large Language Models, eqs 5, 6 and 8.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        value_width: int | None = None,
        executor: Executor = Auto(),
    ) -> None:
        value_width = 2 * width if value_width is None else value_width
        super().__init__(width, heads, width, value_width, executor)
        keys = width // heads
        if keys % 2:
            raise ValueError(
                f"`width` is {width} and `heads` {heads}: expected an even number for each head."
            )
        norm = nn.LayerNorm(value_width // heads, elementwise_affine=False)
        self.out = HeadReadOut(width, value_width, norm, gate=True)
        self.pairs = keys // 2
        initialise(self.projection, self.sizes)
        initialise(self.out.gate)
        initialise(self.out.projection, gain=0.5)

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, with a system for each head; see `RecurrentLayer.recurrence`."""
        q, k, v = self.parts(self.projection(inputs))
        turned, q = torch.polar(*self.turns(inputs)), pairs(q)
        # (vmap has no rule for the real part of a tensor that torch has marked as conjugate.)
        conjugate = torch.complex(q.real, -q.imag)
        return attention(turned, pairs(k), conjugate / k.shape[-1] ** 0.5, v)

    def real_recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the same recurrence in real numbers, for ONNX, with 2 × 2 rotations.

        With S in real and imaginary parts, Re(S q̄) is the sum of the products of the parts.
        """
        q, k, v = self.parts(self.projection(inputs))
        decay, angle = self.turns(inputs)
        real, imaginary = decay * angle.cos(), decay * angle.sin()
        rows = torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)
        turned = BlockDiagonal(torch.stack(rows, -2))
        return attention(turned, widen(k), widen(q) / k.shape[-1] ** 0.5, v)

    def turns(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute γ `(heads, 1, 1)` and -θ `(pairs,)`, the same at all steps."""
        like = widen(inputs.new_empty(0))
        decay = 1 - 2.0 ** (-5 - torch.arange(self.heads, dtype=like.dtype, device=like.device))
        places = torch.linspace(0, 1, self.pairs, dtype=like.dtype, device=like.device)
        return decay[:, None, None], -(1e4**-places)


def pairs(tensor: Tensor) -> Tensor:
    """Read pairs of neighbours as complex numbers."""
    even, odd = widen(tensor).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.complex(even, odd)


def initialise(
    linear: nn.Module | None, sizes: list[int] | None = None, gain: float = GAIN
) -> None:
    """Draw Glorot uniform weights, separately for each part of the outputs."""
    assert isinstance(linear, nn.Linear)
    for part in linear.weight.split(sizes or len(linear.weight)):
        nn.init.xavier_uniform_(part, gain)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
