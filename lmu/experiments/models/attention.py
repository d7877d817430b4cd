"""Attention: weigh the source's states at each step of the target."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class AttentionMemory:
    """The source's states, prepared for attention.

    Attributes:
        keys (*batch, source_time, query_size): what queries are compared with.
        values (*batch, source_time, value_size): what is returned.
        padding_mask (*batch, 1, source_time): True in the padding, which nothing looks at.
    """

    keys: Tensor
    values: Tensor
    padding_mask: Tensor

    def unsqueeze(self) -> "AttentionMemory":
        """Add an axis behind the batch, for the hypotheses of each sentence."""
        batch = self.padding_mask.ndim - 2
        parts = (part.unsqueeze(batch) for part in (self.keys, self.values, self.padding_mask))
        return AttentionMemory(*parts)


class DotProductAttention(nn.Module):
    """A mixture of the source's states, weighted by how well each matches a query.

        c_t = Σ_s softmax_s(q_t · W v_s / √size) v_s        o_t = tanh(W_c [c_t, q_t])

    Args:
        query_size: the size of q, and of o.
        value_size: the size of v.

    Example:
        >>> import torch
        >>> attention = DotProductAttention(query_size=4, value_size=6)
        >>> source = attention.source(torch.randn(2, 9, 6), torch.tensor([9, 5]))
        >>> attention(torch.randn(2, 3, 4), source).shape
        torch.Size([2, 3, 4])

    References:
        Luong, Pham and Manning 2015, Effective Approaches to Attention-based Neural Machine
        Translation, eqs 5, 7 and 8 ("general").
    """

    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(value_size, query_size, False)
        self.combined = nn.Linear(value_size + query_size, query_size, False)

    def source(self, values: Tensor, lengths: Tensor) -> AttentionMemory:
        """Prepare the source's states, `values (*batch, source_time, value_size)`."""
        steps = torch.arange(values.shape[-2], device=values.device)
        padding_mask = steps >= lengths.unsqueeze(-1)
        return AttentionMemory(self.key(values), values, padding_mask.unsqueeze(-2))

    def forward(self, queries: Tensor, source: AttentionMemory) -> Tensor:
        """Answer `queries (*batch, time, query_size)`, each by itself."""
        scores = (queries @ source.keys.mT) * queries.shape[-1] ** -0.5
        # The least finite number, not -∞: where all is padding the softmax stays a number.
        scores = scores.masked_fill(source.padding_mask, torch.finfo(scores.dtype).min)
        context = scores.softmax(-1) @ source.values
        return torch.tanh(self.combined(torch.cat([context, queries], -1)))
