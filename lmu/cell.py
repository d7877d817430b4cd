"""The Legendre Memory Unit of 2019, one step at a time."""

from torch import Tensor

from linrec import Result
from lmu.unit import LegendreUnit


class LMUCell(LegendreUnit):
    """One step of the Legendre Memory Unit, nonlinear in time as its options have it.

        u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1} + b_u
        m_t = Ā m_{t-1} + B̄ u_t
        h_t = f(m_t, x_t; h_{t-1})

    f is the hidden module. The unit of 2019 is the one whose f is `nn.RNNCell(..., bias=False)`,
    h_t = tanh(W_m m_t + W_x x_t + W_h h_{t-1}), with all three connections: `LMUCell.original`.

    Args:
        input_size: the size of x.
        channels: the size of u, how many signals are remembered (`memory_d` of keras-lmu).
        order: how many polynomials, d, for each.
        theta: the length of the window, in steps.
        hidden: f. None: the outputs are the memory. A cell, `nn.RNNCell`, `nn.GRUCell` or
            `nn.LSTMCell`, is recurrent. Any other module is applied to each step by itself, such
            as `nn.Sequential(nn.Linear(...), nn.ReLU())`. It takes `(rows, features)`, the memory,
            followed by the input with `input_to_hidden`: channels·order, or channels·order +
            input_size, numbers.
        hidden_to_memory: whether there is e_h.
        memory_to_memory: whether there is e_m.
        input_to_hidden: whether f sees the input.
        input_projection: whether there are e_x and b_u; without, u = x + ... and channels =
            input_size.
        bias: whether there is b_u.
        trainable_theta: whether the length of the window is trained.
        discretizer: "zoh" or "euler", or another `method` of `LegendreMemory`.
        dropout: the share of x and h that the memory is not told of in training, other entries in
            each call: a cell does not know where a sequence begins. `LMU` drops the same entries
            at all steps of a sequence.
        recurrent_dropout: the share of m that e_m does not see in training, likewise.
        initializers: how the weights begin.
        executor: how the memory is run where it can run in parallel, in `LMU`.

    The state is one tensor `(*batch, state_size)`: the memory, followed by h, and c of an LSTM,
    where they are needed for the next step.

    Raises:
        ValueError: sizes that do not fit together, or a connection from or to no hidden module.
        TypeError: a hidden module that does not return one tensor, such as `nn.LSTM`.

    Example:
        >>> import torch, lmu
        >>> cell = lmu.LMUCell.original(input_size=3, hidden_size=8, order=6, theta=50)
        >>> outputs, state = cell(torch.randn(4, 3))
        >>> outputs, state = cell(torch.randn(4, 3), state)
        >>> outputs.shape, state.shape
        (torch.Size([4, 8]), torch.Size([4, 14]))

    References:
        Voelker, Kajić and Eliasmith 2019, Legendre Memory Units, eqs 1-7.
    """

    def forward(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `step`."""
        return self.step(input, state)
