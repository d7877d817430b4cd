"""Shared parts of layers with several heads, each with a matrix as its state."""

from torch import Tensor, nn
from torch.nn.functional import silu

from linrec.executors import Executor
from linrec.nn.recurrent import RecurrentLayer, split_heads, whole
from linrec.structures import Diagonal, DiagonalPlusLowRank, Structure
from linrec.systems import LinearRecurrence


class HeadReadOut(nn.Module):
    """The readout of several heads: normalises the outputs of each, and mixes them.

        y = W_o (norm(o) ⊙ silu(W_g x))        norm: each head by itself

    Args:
        width: features of a step, in and out.
        values: size of o, of all heads together.
        norm: the norm of one head.
        gate: whether there is a W_g.
    """

    def __init__(self, width: int, values: int, norm: nn.Module, *, gate: bool) -> None:
        super().__init__()
        self.norm = norm
        self.gate = nn.Linear(width, values, bias=False) if gate else None
        self.projection = nn.Linear(values, width, bias=False)

    def forward(self, read: Tensor, heads: int, inputs: Tensor) -> Tensor:
        """Mix `read (..., values)`, given the inputs of the same steps."""
        outputs = self.norm(read.unflatten(-1, (heads, -1))).flatten(-2)
        if self.gate is not None:
            outputs = outputs * silu(self.gate(inputs))
        return self.projection(outputs)


class AttentionLayer(RecurrentLayer):
    """Linear attention: projects inputs to q, k and v; each head has a keys by values matrix.

    A subclass makes the recurrence from q, k and v; it creates `out` last, after its other parts.

    Args:
        width: features of a step, in and out.
        heads: number of heads, each with a matrix.
        key_width: size of q and of k, of all heads together.
        value_width: size of v, of all heads together.
        executor: how the recurrence is run.
    """

    out: HeadReadOut

    def __init__(
        self, width: int, heads: int, key_width: int, value_width: int, executor: Executor
    ) -> None:
        head_size("width", width, heads)
        keys = head_size("key_width", key_width, heads)
        values = head_size("value_width", value_width, heads)
        super().__init__(width, width, heads * keys * values, executor)
        self.heads = heads
        self.sizes = [key_width, key_width, value_width]
        self.projection = nn.Linear(width, sum(self.sizes), bias=False)  # q, k, v

    def parts(self, projected: Tensor) -> list[Tensor]:
        """Split the projection into q, k and v, `(*batch, heads, time, size)`."""
        return [split_heads(part, self.heads) for part in projected.split(self.sizes, -1)]

    def read_out(self, read: Tensor, inputs: Tensor) -> Tensor:
        """Normalise, gate and mix; see `RecurrentLayer.read_out`."""
        return self.out(read, self.heads, inputs)


def attention(
    gates: Tensor | Structure,
    keys: Tensor,
    queries: Tensor,
    values: Tensor,
    corrected: Tensor | None = None,
) -> tuple[LinearRecurrence, Tensor]:
    """Make the recurrence of a matrix S, whose columns are copies of one system.

        S_t = (diag(a_t) + k_t c_tᵀ) S_{t-1} + k_t v_tᵀ        o_t = S_tᵀ q_t

    Args:
        gates (*batch, heads, time, keys): a, or one number for all keys; or A.
        keys (*batch, heads, time, keys): k.
        queries (*batch, heads, time, keys): q.
        values (*batch, heads, time, values): v.
        corrected (*batch, heads, time, keys): c, in a delta rule. None: zeros.

    Returns:
        The recurrence, and v.
    """
    columns = keys.unsqueeze(-1)
    if isinstance(gates, Tensor):
        # (The stride of the expanded tensor tells that it is one number.)
        gates = gates.expand(*gates.shape[:-1], keys.shape[-1])
        # (One tensor for U and B: what is fed back takes the way of the inputs.)
        gates = (
            Diagonal(gates)
            if corrected is None
            else DiagonalPlusLowRank(gates, columns, corrected.unsqueeze(-1))
        )
    memory = LinearRecurrence(
        gates,
        columns,
        queries.unsqueeze(-2),
        time_varying=True,
        copies=values.shape[-1],
    )
    return memory, values


def head_size(name: str, size: int, heads: int) -> int:
    """Divide a size among heads."""
    if whole(name, size) % whole("heads", heads):
        raise ValueError(f"`{name}` is {size} and `heads` {heads}: expected heads of equal sizes.")
    return size // heads
