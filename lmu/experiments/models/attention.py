"""Attention: weigh the source's states at each step of the target."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class AttentionMemory:
    """The source's states, prepared for attention.

    Attributes:
        keys (*batch, heads, source_time, size): vectors that queries are compared with.
        values (*batch, heads, source_time, size): vectors that are mixed.
        padding_mask (*batch, 1, 1, source_time): True in the padding, which is never attended to.
    """

    keys: Tensor
    values: Tensor
    padding_mask: Tensor

    def unsqueeze(self) -> "AttentionMemory":
        """Add an axis after the batch, for the hypotheses of each sentence."""
        batch = self.padding_mask.ndim - 3
        parts = (part.unsqueeze(batch) for part in (self.keys, self.values, self.padding_mask))
        return AttentionMemory(*parts)


class DotProductAttention(nn.Module):
    """Mixtures of the source's states, weighted by how well each matches a query.

        c_{t,h} = Σ_s softmax_s(Q_h q_t · K_h v_s / √size) V_h v_s      o_t = W [c_{t,1} … c_{t,H}]

    Each of the H heads has an equal share of the numbers, size = query_size / H.

    Args:
        query_size: the size of q, and of o.
        value_size: the size of v.
        heads: H, the number of mixtures.

    Raises:
        ValueError: a query size that is not divisible by the number of heads.

    Example:
        >>> import torch
        >>> attention = DotProductAttention(query_size=4, value_size=6, heads=2)
        >>> source = attention.source(torch.randn(2, 9, 6), torch.tensor([9, 5]))
        >>> attention(torch.randn(2, 3, 4), source).shape
        torch.Size([2, 3, 4])

    References:
        Vaswani et al. 2017, Attention Is All You Need, section 3.2.
    """

    def __init__(self, query_size: int, value_size: int, heads: int = 1) -> None:
        super().__init__()
        if heads < 1 or query_size % heads:
            raise ValueError(
                f"`heads` is {heads}: expected a number of 1 or more that divides the "
                f"{query_size} numbers of a query."
            )
        self.heads = heads
        self.query = nn.Linear(query_size, query_size, False)
        self.key = nn.Linear(value_size, query_size, False)
        self.value = nn.Linear(value_size, query_size, False)
        self.combined = nn.Linear(query_size, query_size, False)
        # Queries and keys begin as large as their inputs: smaller ones would attend uniformly.
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)

    def source(self, values: Tensor, lengths: Tensor) -> AttentionMemory:
        """Prepare the source's states, `values (*batch, source_time, value_size)`."""
        steps = torch.arange(values.shape[-2], device=values.device)
        padding_mask = steps >= lengths.unsqueeze(-1)
        keys, mixed = (self.share_out(layer(values)) for layer in (self.key, self.value))
        return AttentionMemory(keys, mixed, padding_mask.unsqueeze(-2).unsqueeze(-2))

    def forward(self, queries: Tensor, source: AttentionMemory) -> Tensor:
        """Compute a mixture for each of `queries (*batch, time, query_size)`, by itself."""
        shared = self.share_out(self.query(queries))
        scores = (shared @ source.keys.mT) * shared.shape[-1] ** -0.5
        # The least finite number, not -∞: so the softmax is not NaN where all is padding.
        scores = scores.masked_fill(source.padding_mask, torch.finfo(scores.dtype).min)
        context = scores.softmax(-1) @ source.values
        return self.combined(context.transpose(-2, -3).flatten(-2))

    def share_out(self, vectors: Tensor) -> Tensor:
        """Give each head its share, `(*batch, heads, time, size)`."""
        return vectors.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
