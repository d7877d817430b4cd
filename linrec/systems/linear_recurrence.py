"""The linear recurrence, which executors run."""

# pyright: reportConstantRedefinition=false
# (A, B, C and D are variables.)
# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from linrec._tensors.arguments import check_cast
from linrec._tensors.autograd import is_already
from linrec.structures import Structure, matvec
from linrec.structures.base import make_unchecked
from linrec.systems.four_matrices import (
    FourMatrices,
    as_structure,
    batch_axes,
    check_matrices,
    options_for_lists,
)
from linrec.systems.varying import Varying


@dataclass(frozen=True, eq=False)
class LinearRecurrence(FourMatrices):
    """A linear recurrence of n states, m inputs and p outputs, in discrete time.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t        t = 0 … T-1

    The input acts at once: y_t depends on u_t (see docs/conventions.md; scipy's and
    python-control's systems answer one step later, and `linrec.interop` translates).

    Args:
        A (*batch, n, n): the transition matrix: a tensor (taken as `Dense`) or a structure.
        B (*batch, n, m): how inputs drive the states. None: directly, m = n.
        C (*batch, p, n): how outputs are read from the states. None: outputs are the states.
        D (*batch, p, m): how inputs are added to the outputs. None: they are not.
        time_varying: whether the matrices change from step to step. The last batch axis of A, B, C
            and D is then time, `(*batch, time, n, n)`; a matrix without batch axes is the same at
            every step. `Varying(A)` in place of A means the same.
        copies: k runs the same system on each of k groups of input channels, at the cost of one
            kernel: inputs `(…, T, k·m)`, states `(…, k·n)`, outputs `(…, T, k·p)`, copy-major.

    Batch axes describe many systems at once; they broadcast against the inputs' batch axes.

    Raises:
        ValueError: the shapes do not fit together; the message says what to type instead.
        TypeError: an argument is not made of floating-point or complex numbers.

    Example:
        >>> import linrec
        >>> average = linrec.LinearRecurrence(A=[[0.9]], B=[[0.1]])
        >>> average.state_size, average.input_size, average.output_size
        (1, 1, 1)
    """

    A: Structure
    B: Tensor | None = None
    C: Tensor | None = None
    D: Tensor | None = None
    time_varying: bool = False
    copies: int = 1

    def __init__(
        self,
        A: Structure | Tensor | Varying | object,
        B: Tensor | object | None = None,
        C: Tensor | object | None = None,
        D: Tensor | object | None = None,
        *,
        time_varying: bool = False,
        copies: int = 1,
    ) -> None:
        if isinstance(A, Varying):
            A, time_varying = A.A, True
        options = options_for_lists(A=A, B=B, C=C, D=D)
        structure = as_structure(A, options)
        if not isinstance(time_varying, bool):
            raise TypeError(
                f"`time_varying` is {time_varying!r}: expected True or False. (Time is the last "
                "batch axis of A, B, C and D.)"
            )
        if not isinstance(copies, int) or isinstance(copies, bool) or copies < 1:
            raise ValueError(f"`copies` is {copies!r}: expected a whole number of 1 or more.")
        object.__setattr__(self, "A", structure)
        for name, matrix in zip("BCD", check_matrices(structure, B, C, D, options), strict=True):
            object.__setattr__(self, name, matrix)
        object.__setattr__(self, "time_varying", time_varying)
        object.__setattr__(self, "copies", copies)
        if not batch_axes(self.A, *self.matrices()) and time_varying:
            raise ValueError(
                "`time_varying` is True and none of A, B, C and D has an axis of time: expected "
                "(*batch, time, n, n), (*batch, time, n, m), … of one at least. For a system that "
                "is the same at every step leave `time_varying` out."
            )

    @cached_property
    def own_axes(self) -> tuple[tuple[Tensor, int], ...]:
        """The tensors, A's first, each with the number of its axes that are not batch axes."""
        of_a = ((getattr(self.A, name), axes) for name, axes in self.A.core_axes.items())
        return (*of_a, *((matrix, 2) for matrix in self.matrices() if matrix is not None))

    @property
    def steps(self) -> int | None:
        """The number of steps that have matrices; None if the matrices never change."""
        shape = batch_axes(self.A, *self.matrices()) if self.time_varying else ()
        return shape[-1] if shape else None

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the system; time is not one of them."""
        shape = batch_axes(self.A, *self.matrices())
        return shape[:-1] if self.time_varying else shape

    @property
    def state_size(self) -> int:
        """The number of states of all copies together."""
        return self.copies * self.A.state_size

    @property
    def input_size(self) -> int:
        """The number of inputs of all copies together."""
        return self.copies * (self.A.state_size if self.B is None else self.B.shape[-1])

    @property
    def output_size(self) -> int:
        """The number of outputs of all copies together."""
        return self.copies * (self.A.state_size if self.C is None else self.C.shape[-2])

    def leaves(self) -> dict[str, Tensor]:
        """Return the tensors by name: `A`, or `A_field` for a structure of several tensors."""
        inner = self.A.leaves()
        names = {"A" if len(inner) == 1 else f"A_{field}": leaf for field, leaf in inner.items()}
        given = {"B": self.B, "C": self.C, "D": self.D}
        return names | {name: leaf for name, leaf in given.items() if leaf is not None}

    def with_leaves(self, leaves: dict[str, Tensor]) -> "LinearRecurrence":
        """Make the same kind of recurrence from other tensors, named as in `leaves`."""
        remaining = iter(leaf for name, leaf in leaves.items() if name.startswith("A"))
        structure = self.A.map(lambda _tensor, _axes: next(remaining))
        return self.rebuilt(structure, *(leaves.get(name) for name in "BCD"))

    def to(self, target: torch.dtype | torch.device | str) -> "LinearRecurrence":
        """Cast or move every tensor.

        Raises:
            TypeError: a dtype that is neither floating-point nor complex.
            ValueError: a real dtype for a complex recurrence. For more digits type
                `.to(torch.complex128)`.
        """
        if is_already(target, self.tensors()):
            return self
        check_cast(self.dtype, target)
        move = once(lambda leaf, _: leaf.to(target))
        return self.with_leaves({name: move(leaf, 0) for name, leaf in self.leaves().items()})

    def drive(self, inputs: Tensor) -> Tensor:
        """Compute B u of one copy for `inputs (*batch, m)`."""
        return inputs if self.B is None else matvec(self.B, inputs)

    def read(self, states: Tensor, inputs: Tensor) -> Tensor:
        """Compute C x + D u of one copy for `states (*batch, n)`, `inputs (*batch, m)`."""
        outputs = states if self.C is None else matvec(self.C, states)
        return outputs if self.D is None else outputs + matvec(self.D, inputs)

    def per_copy(self) -> "LinearRecurrence":
        """Return the system of one copy, with a batch axis of length 1 in place of the copies."""
        if self.copies == 1:
            return self
        before = 2 if self.time_varying else 1
        return self.map_batched(lambda leaf, core: leaf.unsqueeze(-core - before), copies=1)

    def over_time(self) -> "LinearRecurrence":
        """Rewrite the system as a time-varying one, to process all steps at once.

        Tensors with batch axes get a time axis of length 1, one step for all.
        """
        if self.time_varying:
            return self
        return self.map_batched(lambda leaf, core: leaf.unsqueeze(-core - 1), time_varying=True)

    def at(self, step: int) -> "LinearRecurrence":
        """Return the time-invariant system with the matrices of one step."""
        if not self.time_varying:
            return self
        return self.map_batched(
            lambda leaf, core: leaf.select(-core - 1, min(step, leaf.shape[-core - 1] - 1)),
            time_varying=False,
        )

    def map_batched(
        self,
        function: Callable[[Tensor, int], Tensor],
        *,
        time_varying: bool | None = None,
        copies: int | None = None,
    ) -> "LinearRecurrence":
        """Apply `function(tensor, core_axes)` to every tensor that has batch axes."""
        function = once(function)
        structure = self.A.map(
            lambda leaf, core: function(leaf, core) if leaf.ndim > core else leaf
        )
        rest = (
            matrix if matrix is None or matrix.ndim == 2 else function(matrix, 2)
            for matrix in self.matrices()
        )
        return self.rebuilt(structure, *rest, time_varying=time_varying, copies=copies)

    def rebuilt(
        self,
        A: Structure,
        B: Tensor | None,
        C: Tensor | None,
        D: Tensor | None,
        *,
        time_varying: bool | None = None,
        copies: int | None = None,
    ) -> "LinearRecurrence":
        """Make a recurrence from matrices of fitting shapes, without checking them again."""
        return make_unchecked(
            LinearRecurrence,
            A=A,
            B=B,
            C=C,
            D=D,
            time_varying=self.time_varying if time_varying is None else time_varying,
            copies=self.copies if copies is None else copies,
        )


def once(function: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """Apply a function once per tensor: U of a delta rule and its B stay one tensor."""
    changed: list[tuple[Tensor, Tensor]] = []

    def apply(leaf: Tensor, core: int) -> Tensor:
        for given, made in changed:
            if given is leaf:
                return made
        made = function(leaf, core)
        changed.append((leaf, made))
        return made

    return apply
