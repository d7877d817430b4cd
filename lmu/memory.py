"""The linear memory of the LMU as a module."""

import warnings

import torch
from torch import Tensor, nn

import linrec
from linrec import Auto, Executor, LinearRecurrence
from linrec.nn import Layer, PlanCache
from linrec.nn.sampled import TimedRecurrence
from lmu.legendre import delay_system


class LegendreMemory(TimedRecurrence, Layer):
    """A memory of the last `theta` steps of every input channel, in `order` Legendre polynomials.

        m_t = Ā m_{t-1} + B̄ u_t        for each channel by itself

    The memory is frozen unless the window is trained. Then every call computes Ā and B̄ anew, and
    the gradient reaches `log_theta` through the matrix exponential. The state dict of a frozen
    memory has Ā and B̄, but not θ: after loading one of another window, `theta` and the repr still
    name the window that the memory was made with.

    Args:
        channels: how many input channels.
        order: how many polynomials, d, per channel.
        theta: the length of the window, in steps.
        method: the method of `linrec.discretize` for Ā and B̄, any but "gbt". "euler" is stable
            only for theta > 4·order or so.
        trainable_theta: whether `theta` is trained, by its logarithm, which keeps it positive.
        executor: how it is run.

    The outputs are m itself; the C and D that `linrec.discretize` adds to a system are not used.
    "zoh" (exactly), "bilinear", "euler" and "backward_diff" hold each sample over its step. With
    "foh" a sample is a triangle about the start of its step, with "impulse" an impulse there: the
    window is then half a step older.

    Raises:
        ValueError: a number of channels or an order below 1, or a window that is not positive.

    Example:
        >>> import torch, lmu
        >>> memory = lmu.LegendreMemory(channels=2, order=6, theta=100)
        >>> memory(torch.randn(8, 500, 2)).outputs.shape
        torch.Size([8, 500, 12])

    References:
        Chilkuri and Eliasmith 2021, eq. 19. Voelker, Kajić and Eliasmith 2019, eqs 1-4.
    """

    A: Tensor
    B: Tensor

    def __init__(
        self,
        channels: int,
        order: int,
        theta: float,
        method: str = "zoh",
        trainable_theta: bool = False,
        *,
        executor: Executor = Auto(),
    ) -> None:
        super().__init__()
        if not isinstance(channels, int) or channels < 1:
            raise ValueError(f"`channels` is {channels!r}: expected a whole number of 1 or more.")
        self.channels, self.order, self.method = channels, order, method
        self.input_size, self.output_size, self.state_size = channels, *[channels * order] * 2
        discrete = linrec.discretize(delay_system(order, float(theta)), method=method)
        if method == "euler" and theta <= 4 * order:
            warnings.warn(
                f"theta = {theta:g} with order = {order}: Euler's method needs about "
                f"theta > {4 * order} to be stable. Pass method='zoh'.",
                stacklevel=2,
            )
        self.log_theta: nn.Parameter | None = None
        if trainable_theta:
            self.log_theta = nn.Parameter(torch.tensor(float(theta)).log())
        else:
            self.fixed_theta = float(theta)
            self.register_buffer("A", discrete.A.to_dense().to(torch.get_default_dtype()))
            assert discrete.B is not None
            self.register_buffer("B", discrete.B.to(torch.get_default_dtype()))
            # A template that A and B are put into; it holds no numbers.
            self.shape = LinearRecurrence(discrete.A, discrete.B, copies=channels).to("meta")
        self.plans = PlanCache(executor)

    @property
    def theta(self) -> Tensor | float:
        """The length of the window, in steps."""
        return self.fixed_theta if self.log_theta is None else self.log_theta.exp()

    @property
    def recurrence(self) -> LinearRecurrence:
        """The recurrence of the present window."""
        if self.log_theta is None:
            return self.plans.recurrence(self.shape, {"A": self.A, "B": self.B})
        system = delay_system(self.order, self.log_theta.double().exp())
        discrete = linrec.discretize(system, method=self.method)
        memory = LinearRecurrence(discrete.A, discrete.B, copies=self.channels)
        return memory.to(self.log_theta.dtype)

    def as_recurrence(self) -> LinearRecurrence:
        """Return the whole memory as one recurrence, for `linrec.Stream`."""
        return self.recurrence

    def recurrence_of(self, dt: Tensor | None) -> LinearRecurrence:
        """Make the recurrence for steps of unequal length.

        Args:
            dt (*batch, time): the length of each step, in the unit of `theta`. None: 1 for all.

        Returns:
            The recurrence, in the dtype of the memory; time-varying if `dt` is given.
        """
        if dt is None:
            return self.recurrence
        theta = self.fixed_theta if self.log_theta is None else self.log_theta.double().exp()
        system = delay_system(self.order, theta)
        held = self.A if self.log_theta is None else self.log_theta
        discrete = linrec.discretize(
            system.to(torch.float64).to(held.device), dt, self.method, dt_per="step"
        )
        memory = LinearRecurrence(discrete.A, discrete.B, copies=self.channels, time_varying=True)
        return memory.to(held.dtype)

    def extra_repr(self) -> str:
        """Name the sizes."""
        theta = float(torch.as_tensor(self.theta).detach())
        trained = "" if self.log_theta is None else ", trainable_theta=True"
        return (
            f"channels={self.channels}, order={self.order}, theta={theta:g}, "
            f"method={self.method!r}{trained}"
        )
