"""Linear attention that overwrites: the delta rule."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from linrec.executors import Executor
from linrec.nn.heads import AttentionLayer, HeadReadOut, attention
from linrec.nn.initial_steps import inverse_softplus, log_uniform
from linrec.nn.recurrent import split_heads, widen
from linrec.planner import Auto
from linrec.systems import LinearRecurrence


class DeltaNet(AttentionLayer):
    """The delta rule: a step replaces a share β of the value under its key by the new value.

        S_t = S_{t-1} + β_t k_t (v_t - S_{t-1}ᵀ k_t)ᵀ        o_t = S_tᵀ q_t / √keys   for each head
            = (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ      y_t = W_o RMSNorm(o_t)
        v = silu(W_v x),  k, q = silu(W x) / |silu(W x)|,    β_t = σ(W_β x_t)

    Weights are initialised as in `torch.nn.Linear`. The authors' short convolution before each silu
    is left out.

    Args:
        width: features of a step, in and out.
        heads: number of heads, each with a matrix S.
        key_width: size of q and of k, of all heads together. None: the width.
        executor: how the recurrence is run.

    Raises:
        ValueError: a width that cannot be divided among the heads.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.DeltaNet(width=8, heads=2)
        >>> layer(torch.randn(2, 7, 8)).outputs.shape, layer.state_size
        (torch.Size([2, 7, 8]), 32)

    References:
        Schlag, Irie and Schmidhuber 2021, Linear Transformers Are Secretly Fast Weight Programmers.
        Yang, Wang, Zhang, Shen and Kim 2024, Parallelizing Linear Transformers with the Delta Rule
        over Sequence Length, section 2.2 and eq. 11.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        key_width: int | None = None,
        executor: Executor = Auto(),
    ) -> None:
        key_width = width if key_width is None else key_width
        super().__init__(width, heads, key_width, width, executor)
        self.beta = nn.Linear(width, heads, bias=False)
        self.out = HeadReadOut(width, width, nn.RMSNorm(width // heads, eps=1e-5), gate=False)

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, with a system for each head; see `RecurrentLayer.recurrence`."""
        return self.delta_rule(inputs, None)

    def delta_rule(self, inputs: Tensor, alpha: Tensor | None) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence; first S decays by `alpha (*batch, heads, time, 1)`."""
        q, k, v = self.parts(silu(widen(self.projection(inputs))))
        q, k = normalise(q), normalise(k)
        beta = split_heads(torch.sigmoid(widen(self.beta(inputs))), self.heads)
        alpha = torch.ones_like(beta) if alpha is None else alpha
        return attention(alpha, beta * k, q / q.shape[-1] ** 0.5, v, -alpha * k)


class GatedDeltaNet(DeltaNet):
    """The gated delta rule: the whole memory decays before it is corrected.

        S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ        o_t = S_tᵀ q_t / √keys
        α_t = exp(-a softplus(W_α x_t + b))        y_t = W_o (RMSNorm(o_t) ⊙ silu(W_g x_t))

    q, k, v and β are as in `DeltaNet`; a, α and b as in `SSD`, one for each head.

    Args:
        width: features of a step, in and out.
        heads: number of heads, each with a matrix S.
        key_width: size of q and of k, of all heads together. None: the width.
        dt_min: the least softplus(b) initially.
        dt_max: the largest softplus(b) initially.
        executor: how the recurrence is run.

    Raises:
        ValueError: a width that cannot be divided among the heads.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.GatedDeltaNet(width=8, heads=2)
        >>> layer(torch.randn(2, 7, 8)).outputs.shape, layer.state_size
        (torch.Size([2, 7, 8]), 32)

    References:
        Yang, Kautz and Hatamizadeh 2025, Gated Delta Networks: Improving Mamba2 with Delta Rule,
        eq. 10 and section 3.4.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        *,
        key_width: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        executor: Executor = Auto(),
    ) -> None:
        super().__init__(width, heads, key_width=key_width, executor=executor)
        self.alpha = nn.Linear(width, heads, bias=False)
        self.dt_bias = nn.Parameter(inverse_softplus(log_uniform((heads,), dt_min, dt_max)))
        self.log_decay = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.out = HeadReadOut(width, width, self.out.norm, gate=True)

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, with a system for each head; see `RecurrentLayer.recurrence`."""
        # This is softplus, whose own compiled gradient has the wrong layout (torch 2.13).
        dt = -logsigmoid(-widen(self.alpha(inputs)) - self.dt_bias)
        alpha = torch.exp(-dt * widen(self.log_decay).exp())
        return self.delta_rule(inputs, split_heads(alpha, self.heads))


def normalise(tensor: Tensor) -> Tensor:
    """Scale vectors to length 1; ones under 0.001 stay short, which keeps gradients finite."""
    return tensor * torch.rsqrt(tensor.square().sum(-1, keepdim=True) + 1e-6)
