"""The diagonal state-space model of all channels, with a step for each state."""

import torch
from torch import Tensor, nn

from linrec.discretization import discretize
from linrec.executors import Executor
from linrec.nn.initial_steps import log_uniform
from linrec.nn.recurrent import SkipLayer, complex_of, whole, widen
from linrec.planner import Auto
from linrec.structures import Diagonal
from linrec.systems import LinearRecurrence, StateSpace


class S5(SkipLayer):
    """The simplified state-space layer: one system of all channels, with a step for each state.

        s'(t) = Λ s(t) + B x(t)        y(t) = 2 Re(C s(t)) + D x(t)
        Λ = -exp(a) + i ω,             discretised with a step exp(b) for each state

    Initially Λ has the eigenvalues of the normal part of HiPPO-LegS, repeated `blocks` times; B and
    C are Gaussian matrices of variance 1/columns in the coordinates of its eigenvectors;
    D ~ N(0, 1), and steps are log-uniform. Each state stands for a conjugate pair.

    Args:
        width: features of a step, in and out.
        states: complex states.
        blocks: the number of equal parts that the states initially consist of.
        dt_min: the least step initially.
        dt_max: the largest step initially.
        method: how it is discretised, as in `linrec.discretize`; "zoh" or "bilinear".
        executor: how the recurrence is run.

    Raises:
        ValueError: states that cannot be divided into the blocks, or steps that are not positive.

    Example:
        >>> import torch, linrec
        >>> linrec.nn.S5(width=3, states=8)(torch.randn(2, 7, 3)).outputs.shape
        torch.Size([2, 7, 3])

    References:
        Smith, Warrington and Linderman 2023, Simplified State Space Layers for Sequence Modeling,
        sections 3.2 and 3.3, appendix B.
    """

    def __init__(
        self,
        width: int,
        states: int = 32,
        *,
        blocks: int = 1,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        method: str = "zoh",
        executor: Executor = Auto(),
    ) -> None:
        super().__init__(width, width, 2 * whole("states", states), executor)
        if states % whole("blocks", blocks):
            raise ValueError(
                f"`states` is {states} and `blocks` {blocks}: expected blocks of equal sizes."
            )
        self.method = method
        frequencies, basis = hippo_normal(2 * states // blocks)
        basis = torch.block_diag(*[basis] * blocks)  # (2·states, states)
        B = torch.randn(2 * states, width, dtype=torch.float64) / width**0.5
        C = torch.randn(width, 2 * states, dtype=torch.float64) / (2 * states) ** 0.5
        self.log_decay = nn.Parameter(torch.full((states,), 0.5).log())
        self.frequency = nn.Parameter(as_parts(frequencies.repeat(blocks)))
        self.log_dt = nn.Parameter(log_uniform((states,), dt_min, dt_max))
        self.B = nn.Parameter(as_parts(basis.mH @ B.to(basis.dtype)))
        self.C = nn.Parameter(as_parts(C.to(basis.dtype) @ basis))
        self.D = nn.Parameter(torch.randn(width))

    def recurrence(self, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
        """Make the recurrence, the same for all inputs; see `RecurrentLayer.recurrence`."""
        poles = torch.complex(-widen(self.log_decay).exp(), widen(self.frequency))
        system = StateSpace(Diagonal(poles), complex_of(self.B), 2 * complex_of(self.C))
        steps = widen(self.log_dt).exp()
        return discretize(system, steps, self.method, dt_per="state"), inputs


def hippo_normal(order: int) -> tuple[Tensor, Tensor]:
    """Diagonalise the normal part of HiPPO-LegS, which is skew-symmetric but for -1/2 times I.

    The matrix of LegS is -√(2n+1)√(2k+1) below its diagonal and -(n+1) on it. Adding half of
    √(2n+1)√(2k+1) to every entry gives the normal part.

    Args:
        order: its size, even.

    Returns:
        The positive imaginary parts, `(order/2,)`, and their eigenvectors, `(order, order/2)`.
    """
    root = (2 * torch.arange(order, dtype=torch.float64) + 1).sqrt()
    half = torch.outer(root, root) / 2
    skew = half.triu(1) - half.tril(-1)
    # i times it is Hermitian: S v = iω v means (-i S) v = ω v.
    frequencies, vectors = torch.linalg.eigh(-1j * skew)
    return frequencies[order // 2 :], vectors[:, order // 2 :]


def as_parts(tensor: Tensor) -> Tensor:
    """Cast to the default dtype, a complex tensor to its real and imaginary parts."""
    parts = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return parts.to(torch.get_default_dtype())
