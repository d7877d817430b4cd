"""torch's recurrent modules as layers."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from linrec import Result
from linrec.lengths import expand_lengths
from linrec.nn import Layer
from linrec.nn.checks import check_size, check_step, check_steps
from linrec.nn.segments import run_segments
from lmu.layers.padding import without_padding


class TorchRecurrent(Layer):
    """A recurrent module of torch, with the state in one tensor and padding that has no effect.

    The state is torch's h_n, and c_n of an LSTM, with all depths side by side.

    Args:
        input_size: the size of x.
        hidden_size: the size of h.
        depth: how many layers, on top of each other.
        kinds: how many state vectors each layer has: 1, or 2 for an LSTM.
    """

    def __init__(self, input_size: int, hidden_size: int, depth: int, kinds: int) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.depth, self.kinds = depth, kinds
        self.state_size = kinds * depth * hidden_size

    @property
    @abstractmethod
    def module(self) -> nn.RNNBase:
        """The module of torch; its batch axis is the first."""

    def reset_parameters(self) -> None:
        """Draw the weights anew: inputs' Glorot-uniform, recurrent orthogonal, biases zero."""
        for name, parameter in self.module.named_parameters():
            kind = name.rpartition("_")[0]
            if kind == "weight_ih":
                nn.init.xavier_uniform_(parameter)
            elif kind == "weight_hh":
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

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
            initial_state (*batch, state_size): the state before the first step. None: zeros.
            lengths (*batch): the steps of each right-padded sequence.
            resets (*batch, time): True where the state before a step is forgotten. None: nowhere.
        """
        if resets is not None:
            return run_segments(self, inputs, initial_state, lengths, resets)
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
        """Run all steps of `(rows, time, input_size)`, also without rows or steps, unlike torch."""
        if 0 in rows.shape[:2]:
            return rows.new_zeros(*rows.shape[:2], self.output_size), state
        if lengths is None:
            return self.piece(rows, state)
        return self.in_pieces(rows, state, lengths)

    def in_pieces(self, rows: Tensor, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run piece by piece, from one sequence's end to the next, with the rows still going on.

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
        """Run steps that belong to all rows."""
        parts = state.unflatten(-1, (self.kinds, self.depth, -1)).permute(1, 2, 0, 3).contiguous()
        outputs, ends = self.module(rows, tuple(parts) if self.kinds > 1 else parts[0])
        ends = torch.stack(ends) if self.kinds > 1 else ends[None]
        return outputs, ends.permute(2, 0, 1, 3).flatten(1)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        check_step(self, input)
        outputs, end = self(input.unsqueeze(-2), state)
        return Result(outputs.squeeze(-2), end)
