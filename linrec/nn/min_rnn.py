"""The minimal GRU and LSTM: their gates see inputs only, so they are linear recurrences."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from linrec.executors import Executor
from linrec.nn.recurrent import RecurrentLayer, whole, widen
from linrec.planner import Auto
from linrec.structures import Diagonal
from linrec.systems import LinearRecurrence


def positive_map(a: Tensor) -> Tensor:
    """Map numbers continuously to positive ones, adding 1/2 to numbers from 0 on.

        g(a) = a + 1/2 where a ≥ 0, σ(a) elsewhere

    Args:
        a: numbers, of any shape.

    Returns:
        g(a).

    Example:
        >>> import torch, linrec
        >>> linrec.nn.positive_map(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([0.2689, 0.5000, 2.5000])

    References:
        Feng et al. 2024, Were RNNs All We Needed?, appendix B.
    """
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


class MinRNN(RecurrentLayer):
    """The base of both: a recurrent layer whose gates and candidates see only the input.

    Args:
        input_size: input features of a step.
        hidden_size: output features of a step, which are also the states.
        bias: whether the projection has a bias.
        activation: g.
        executor: how the recurrence is run.
    """

    gates: int  # vectors of the projection, including the candidate

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = positive_map,
        executor: Executor = Auto(),
    ) -> None:
        super().__init__(input_size, whole("hidden_size", hidden_size), hidden_size, executor)
        self.activation = activation
        self.projection = nn.Linear(input_size, self.gates * hidden_size, bias)


class MinGRU(MinRNN):
    """The minimal GRU.

        h_t = (1 - z_t) h_{t-1} + z_t g(h̃_t)        z_t = σ(W_z x_t + b_z),  h̃_t = W_h x_t + b_h

    The authors compute in logarithms, and their g makes h̃ positive for that. No logarithms are
    taken here, and g may be any function. Outputs are the states. Weights are initialised as in
    `torch.nn.Linear`.

    Args:
        input_size: input features of a step.
        hidden_size: output features of a step, which are also the states.
        bias: whether there are b_z and b_h.
        activation: g; `torch.nn.Identity()` for the paper's section 3.1, which has none.
        executor: how the recurrence is run.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.MinGRU(input_size=3, hidden_size=4)
        >>> outputs, state = layer(torch.randn(2, 7, 3))
        >>> outputs.shape, torch.equal(outputs[:, -1], state)
        (torch.Size([2, 7, 4]), True)

    References:
        Feng et al. 2024, Were RNNs All We Needed?, sections 3.1
        and (for g) B.
    """

    gates = 2  # z, h̃

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence from the inputs; see `RecurrentLayer.recurrence`."""
        z, candidate = widen(self.projection(inputs)).chunk(2, -1)
        # 1 - σ(z) = σ(-z), which stays accurate where it is small.
        kept = LinearRecurrence(Diagonal(torch.sigmoid(-z)), time_varying=True)
        return kept, torch.sigmoid(z) * self.activation(candidate)


class MinLSTM(MinRNN):
    """The minimal LSTM, whose gates are normalised: they sum to 1.

        h_t = f'_t h_{t-1} + i'_t g(h̃_t)        f' = f / (f + i),  i' = i / (f + i)
        f_t = σ(W_f x_t + b_f)    i_t = σ(W_i x_t + b_i)    h̃_t = W_h x_t + b_h

    It is computed as f' = σ(-δ) and i' = σ(δ) with δ = log i - log f, which is accurate even where
    f and i are too small for a quotient. Outputs are the states. Weights are initialised as in
    `torch.nn.Linear`.

    Args:
        input_size: input features of a step.
        hidden_size: output features of a step, which are also the states.
        bias: whether there are b_f, b_i and b_h.
        activation: g; `torch.nn.Identity()` for the paper's section 3.2, which has none.
        executor: how the recurrence is run.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.MinLSTM(input_size=3, hidden_size=4)
        >>> layer.step(torch.randn(2, 3)).outputs.shape
        torch.Size([2, 4])

    References:
        Feng et al. 2024, Were RNNs All We Needed?, sections 3.2
        and (for g) B.
    """

    gates = 3  # f, i, h̃

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence from the inputs; see `RecurrentLayer.recurrence`."""
        f, i, candidate = widen(self.projection(inputs)).chunk(3, -1)
        delta = softplus(-f) - softplus(-i)  # log σ(a) = -softplus(-a)
        kept = LinearRecurrence(Diagonal(torch.sigmoid(-delta)), time_varying=True)
        return kept, torch.sigmoid(delta) * self.activation(candidate)
