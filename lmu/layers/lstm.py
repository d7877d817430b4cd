"""The LSTM as a layer, the papers' baseline."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from linrec import Result
from linrec.lengths import expand_lengths
from linrec.nn import Layer
from linrec.nn.checks import check_size, check_step, check_steps
from lmu.layers.padding import without_padding


class LSTM(Layer):
    """`torch.nn.LSTM`, with the state in one tensor and padding that has no effect.

        i, f, o = σ(W x_t + U h_{t-1} + b)        g = tanh(W' x_t + U' h_{t-1} + b')
        c_t = f c_{t-1} + i g                     h_t = o tanh(c_t)

    torch gives each gate two biases that are added; the second is kept at zero here and not
    trained, so that parameters count as they do in the papers: 4·h·(x + h + 1).

    Args:
        input_size: the size of x.
        hidden_size: the size of h.
        depth: how many, on top of each other.
        dropout: the share of outputs that are dropped between them in training.

    The state is [h_1 … h_depth, c_1 … c_depth]. Weights begin as in Keras: Glorot-uniform from
    below, orthogonal in time, biases at zero but for the forget gate's, at one.

    Example:
        >>> import torch, lmu
        >>> layer = lmu.layers.LSTM(input_size=1, hidden_size=25, depth=4)
        >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)
        18000

    References:
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, depth: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.input_size, self.output_size, self.depth = input_size, hidden_size, depth
        self.state_size = 2 * depth * hidden_size
        between = dropout if depth > 1 else 0.0
        self.lstm = nn.LSTM(input_size, hidden_size, depth, batch_first=True, dropout=between)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for name, parameter in self.lstm.named_parameters():
            kind = name.rpartition("_")[0]
            if kind == "weight_ih":
                nn.init.xavier_uniform_(parameter)
            elif kind == "weight_hh":
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)
            if kind == "bias_ih":
                nn.init.ones_(parameter.data[self.output_size : 2 * self.output_size])
            if kind == "bias_hh":
                parameter.requires_grad_(False)

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        check_steps(self, inputs)
        batch, count = inputs.shape[:-2], math.prod(inputs.shape[:-2])
        rows = inputs.reshape(count, *inputs.shape[-2:])
        state = inputs.new_zeros(self.state_size) if initial_state is None else initial_state
        check_size("initial_state", state, self.state_size)
        state = state.expand(*batch, -1).reshape(count, self.state_size)
        if lengths is not None:
            lengths = expand_lengths(lengths, inputs).reshape(count)
        outputs, end = self.all_rows(without_padding(rows, lengths), state, lengths)
        return Result(outputs.view(*batch, *outputs.shape[1:]), end.view(*batch, self.state_size))

    def all_rows(
        self, rows: Tensor, state: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run all steps of `(rows, time, input_size)`; torch wants at least a row and a step."""
        if 0 in rows.shape[:2]:
            return rows.new_zeros(*rows.shape[:2], self.output_size), state
        if lengths is None:
            return self.piece(rows, state)
        return self.in_pieces(rows, state, lengths)

    def in_pieces(self, rows: Tensor, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run from one sequence's end to the next, each time with the rows that go on.

        torch's own way, packed sequences, takes ten times as long on a CPU.
        """
        lengths, order = lengths.sort(descending=True)
        rows, state = rows[order], state[order]
        outputs, ends = [], [state[(lengths > 0).sum() :]]
        start, running = 0, state
        for stop in lengths[lengths > 0].unique().tolist():
            count = int((lengths > start).sum())
            piece, running = self.piece(rows[:count, start:stop], running[:count])
            outputs.append(pad(piece, (0, 0, 0, 0, 0, rows.shape[0] - count)))
            ends.append(running[int((lengths > stop).sum()) :])
            start = stop
        outputs.append(rows.new_zeros(rows.shape[0], rows.shape[1] - start, self.output_size))
        back = order.argsort()
        return torch.cat(outputs, 1)[back], torch.cat(ends[::-1])[back]

    def piece(self, rows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Run steps that all rows have."""
        parts = state.unflatten(-1, (2, self.depth, -1)).permute(1, 2, 0, 3).contiguous()
        outputs, ends = self.lstm(rows, tuple(parts))
        return outputs, torch.stack(ends).permute(2, 0, 1, 3).flatten(1)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        outputs, end = self(input.unsqueeze(-2), state)
        return Result(outputs.squeeze(-2), end)
