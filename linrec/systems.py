"""The two values that a user writes down: a linear recurrence, and a continuous-time system."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from linrec._checks import as_tensor, broadcast, common_dtype, show
from linrec.structures import Dense, Structure, Varying, matvec


@dataclass(frozen=True, eq=False)
class LinearRecurrence:
    """A linear recurrence of n states, m inputs and p outputs, in discrete time.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t        t = 0 … T-1

    The input acts at once: y_t depends on u_t (see docs/conventions.md; scipy's and
    python-control's systems answer one step later, and `linrec.interop` translates).

    Args:
        A (*batch, n, n): the transition matrix: a tensor (taken as `Dense`) or a structure. In a
            `Varying` recurrence the last batch axis of A, B, C and D is time, where they have one.
        B (*batch, n, m): how inputs drive the states. None: directly, m = n.
        C (*batch, p, n): how outputs are read from the states. None: outputs are the states.
        D (*batch, p, m): how inputs are added to the outputs. None: they are not.
        copies: k runs the same system on each of k groups of input channels, at the cost of one
            kernel: inputs `(…, T, k·m)`, states `(…, k·n)`, outputs `(…, T, k·p)`, copy-major.

    Batch axes describe many systems at once; they broadcast against the inputs' batch axes.

    Raises:
        ValueError: the shapes do not belong together; the message says what to type instead.
        TypeError: something is not made of floating-point or complex numbers.

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
    copies: int = 1

    def __init__(
        self,
        A: Structure | Tensor | object,
        B: Tensor | object | None = None,
        C: Tensor | object | None = None,
        D: Tensor | object | None = None,
        *,
        copies: int = 1,
    ) -> None:
        structure = as_structure(A)
        if not isinstance(copies, int) or isinstance(copies, bool) or copies < 1:
            raise ValueError(f"`copies` is {copies!r}: expected a whole number of 1 or more.")
        object.__setattr__(self, "A", structure)
        for name, matrix in zip("BCD", check_matrices(structure, B, C, D), strict=True):
            object.__setattr__(self, name, matrix)
        object.__setattr__(self, "copies", copies)
        batch_shape(self)

    @property
    def varying(self) -> bool:
        """Whether the matrices change from step to step."""
        return isinstance(self.A, Varying)

    @property
    def steps(self) -> int | None:
        """The number of steps that there are matrices for; None if they never change."""
        return batch_shape(self)[-1] if self.varying else None

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the system; time is not one of them."""
        shape = batch_shape(self)
        return shape[:-1] if self.varying else shape

    @property
    def state_size(self) -> int:
        """The number of states, of all copies together."""
        return self.copies * self.A.state_size

    @property
    def input_size(self) -> int:
        """The number of inputs, of all copies together."""
        return self.copies * (self.A.state_size if self.B is None else self.B.shape[-1])

    @property
    def output_size(self) -> int:
        """The number of outputs, of all copies together."""
        return self.copies * (self.A.state_size if self.C is None else self.C.shape[-2])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that holds A, B, C and D."""
        return common_dtype(*self.leaves().values())

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.A.device

    def leaves(self) -> dict[str, Tensor]:
        """List the tensors that it is made of: `A`, or `A_field` for a structure of several."""
        inner = self.A.leaves()
        names = {"A" if len(inner) == 1 else f"A_{field}": leaf for field, leaf in inner.items()}
        given = {"B": self.B, "C": self.C, "D": self.D}
        return names | {name: leaf for name, leaf in given.items() if leaf is not None}

    def with_leaves(self, leaves: dict[str, Tensor]) -> "LinearRecurrence":
        """Make the same kind of recurrence from other tensors, named as in `leaves`."""
        remaining = iter(leaf for name, leaf in leaves.items() if name.startswith("A"))
        structure = self.A.map(lambda _tensor, _axes: next(remaining))
        rest = {name: leaves.get(name) for name in "BCD"}
        return LinearRecurrence(structure, **rest, copies=self.copies)

    def to(self, target: torch.dtype | torch.device | str) -> "LinearRecurrence":
        """Cast or move every tensor."""
        return self.with_leaves({name: leaf.to(target) for name, leaf in self.leaves().items()})

    def drive(self, inputs: Tensor) -> Tensor:
        """What inputs add to the states of one copy, B u for `inputs (*batch, m)`."""
        return inputs if self.B is None else matvec(self.B, inputs)

    def read(self, states: Tensor, inputs: Tensor) -> Tensor:
        """The outputs of one copy, C x + D u for `states (*batch, n)`, `inputs (*batch, m)`."""
        outputs = states if self.C is None else matvec(self.C, states)
        return outputs if self.D is None else outputs + matvec(self.D, inputs)

    def per_copy(self) -> "LinearRecurrence":
        """The system of one copy, with a batch axis of 1 where the copies stand."""
        if self.copies == 1:
            return self
        before = 2 if self.varying else 1
        return self._map_batched(lambda leaf, core: leaf.unsqueeze(-core - before))

    def over_time(self) -> "LinearRecurrence":
        """The same system with time as the last batch axis, to take all steps at once."""
        if self.varying:
            return self
        return self._map_batched(lambda leaf, core: leaf.unsqueeze(-core - 1), self.copies)

    def at(self, step: int) -> "LinearRecurrence":
        """The system of one copy at one step: itself, unless it is varying."""
        if not isinstance(self.A, Varying):
            return self
        now = self._map_batched(
            lambda leaf, core: leaf.narrow(-core - 1, min(step, leaf.shape[-core - 1] - 1), 1)
        )
        structure = now.A.at(0) if isinstance(now.A, Varying) else now.A
        rest = (m if m is None or m.ndim == 2 else m.squeeze(-3) for m in (now.B, now.C, now.D))
        return LinearRecurrence(structure, *rest)

    def each_step(self, length: int) -> Iterator["LinearRecurrence"]:
        """The systems of one copy at all steps, one after the other, as `at` gives them.

        Each tensor is cut once: the gradient of one cut out at every step is as large as all of
        them, and so that of T cuts as T².
        """
        if not isinstance(self.A, Varying):
            yield from repeat(self, length)
            return
        cut: list[Sequence[Tensor]] = []

        def collect(leaf: Tensor, core: int) -> Tensor:
            cut.append(leaf.unbind(-core - 1) if leaf.ndim > core else [leaf])
            return leaf

        matrices = (self.B, self.C, self.D)
        self.A.map(collect)
        for matrix in matrices:
            if matrix is not None:
                collect(matrix, 2)
        for step in range(length):
            now = iter(pieces[min(step, len(pieces) - 1)] for pieces in cut)
            structure = self.A.A.map(lambda _leaf, _core, now=now: next(now))
            yield LinearRecurrence(structure, *(m if m is None else next(now) for m in matrices))

    def _map_batched(
        self, function: Callable[[Tensor, int], Tensor], copies: int = 1
    ) -> "LinearRecurrence":
        """Change every tensor that has batch axes, `function(tensor, core_axes)`."""
        structure = self.A.map(
            lambda leaf, core: function(leaf, core) if leaf.ndim > core else leaf
        )
        rest = (
            matrix if matrix is None or matrix.ndim == 2 else function(matrix, 2)
            for matrix in (self.B, self.C, self.D)
        )
        return LinearRecurrence(structure, *rest, copies=copies)


@dataclass(frozen=True, eq=False)
class StateSpace:
    """A linear system of n states, m inputs and p outputs, in continuous time.

        x'(t) = A x(t) + B u(t)        y(t) = C x(t) + D u(t)

    `discretize` makes a `LinearRecurrence` of it.

    Args:
        A (*batch, n, n): the state matrix, in 1 / unit of time; a tensor or a structure.
        B (*batch, n, m): how inputs drive the states.
        C (*batch, p, n): how outputs are read from the states. None: outputs are the states.
        D (*batch, p, m): how inputs are added to the outputs. None: they are not.

    Raises:
        ValueError: the shapes do not belong together; the message says what to type instead.
        TypeError: something is not made of floating-point or complex numbers.

    Example:
        >>> import linrec
        >>> lag = linrec.StateSpace(A=[[-1.0]], B=[[1.0]])
        >>> linrec.discretize(lag, dt=0.1).A.to_dense()
        tensor([[0.9048]])
    """

    A: Structure
    B: Tensor
    C: Tensor | None = None
    D: Tensor | None = None

    def __init__(
        self,
        A: Structure | Tensor | object,
        B: Tensor | object,
        C: Tensor | object | None = None,
        D: Tensor | object | None = None,
    ) -> None:
        structure = as_structure(A)
        if isinstance(structure, Varying):
            raise TypeError(
                "`A` is Varying: expected a time-invariant system in continuous time. For steps "
                "of different lengths pass `discretize(system, dt)` a `dt (*batch, time)`."
            )
        if B is None:
            B = torch.eye(structure.state_size, dtype=structure.dtype, device=structure.device)
        object.__setattr__(self, "A", structure)
        for name, matrix in zip("BCD", check_matrices(structure, B, C, D), strict=True):
            object.__setattr__(self, name, matrix)
        batch_shape(self)

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the system."""
        return batch_shape(self)

    @property
    def state_size(self) -> int:
        """The number of states."""
        return self.A.state_size

    @property
    def input_size(self) -> int:
        """The number of inputs."""
        return self.B.shape[-1]

    @property
    def output_size(self) -> int:
        """The number of outputs."""
        return self.state_size if self.C is None else self.C.shape[-2]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that holds A, B, C and D."""
        return common_dtype(*self.A.leaves().values(), *self.matrices())

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.A.device

    def matrices(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """List B, C and D."""
        return self.B, self.C, self.D

    def to(self, target: torch.dtype | torch.device | str) -> "StateSpace":
        """Cast or move every tensor."""
        rest = (None if matrix is None else matrix.to(target) for matrix in self.matrices())
        return StateSpace(self.A.to(target), *rest)


def as_structure(A: Structure | Tensor | object) -> Structure:
    """Take a structure as it is, and anything else as a dense matrix."""
    return A if isinstance(A, Structure) else Dense(as_tensor("A", A))


def batch_shape(system: LinearRecurrence | StateSpace) -> torch.Size:
    """Broadcast the batch axes of A, B, C and D (time included, where they vary)."""
    shapes = {"A": system.A.batch_shape}
    for name, matrix in (("B", system.B), ("C", system.C), ("D", system.D)):
        if matrix is not None:
            shapes[name] = matrix.shape[:-2]
    return broadcast(**shapes)


def check_matrices(A: Structure, B: object, C: object, D: object) -> list[Tensor | None]:
    """Convert B, C and D, and see that they fit n states and each other."""
    B, C, D = (
        None if value is None else as_matrix(name, value)
        for name, value in (("B", B), ("C", C), ("D", D))
    )
    n = A.state_size
    for name, matrix in (("B", B), ("C", C), ("D", D)):
        if matrix is not None and 0 in matrix.shape[-2:]:
            raise ValueError(
                f"`{name}` has shape {show(matrix.shape)}: expected one or more rows and columns. "
                f"Pass `{name}=None` to leave it out."
            )
    if B is not None and B.shape[-2] != n:
        raise ValueError(
            f"`B` has shape {show(B.shape)}, but `A` has {n} states: expected one row per state, "
            f"(*batch, {n}, m).{swapped('B', B, -1, n)}"
        )
    if C is not None and C.shape[-1] != n:
        raise ValueError(
            f"`C` has shape {show(C.shape)}, but `A` has {n} states: expected one column per "
            f"state, (*batch, p, {n}).{swapped('C', C, -2, n)}"
        )
    if D is not None:
        expected = (n if C is None else C.shape[-2], n if B is None else B.shape[-1])
        if D.shape[-2:] != expected:
            raise ValueError(
                f"`D` has shape {show(D.shape)}: expected one row per output and one column per "
                f"input, (*batch, {expected[0]}, {expected[1]})."
                + (" Pass `D.mT`." if D.shape[-2:] == expected[::-1] else "")
            )
    return [B, C, D]


def as_matrix(name: str, value: object) -> Tensor:
    """Convert one of B, C and D; refuse vectors, which could be a row or a column."""
    matrix = as_tensor(name, value)
    if matrix.ndim < 2:
        axis = {"B": f"{name}[:, None]", "C": f"{name}[None, :]"}.get(name, "[[d]]")
        axis = axis if matrix.ndim else f"[[{name.lower()}]]"
        raise ValueError(
            f"`{name}` has shape {show(matrix.shape)}: expected a matrix. Pass `{axis}` for one "
            f"{'input' if name == 'B' else 'output'}."
        )
    return matrix


def swapped(name: str, matrix: Tensor, axis: int, states: int) -> str:
    """Suggest the transpose where it would have fitted."""
    fits = matrix.shape[axis] == states
    return f" If the axes are swapped then pass `{name}.mT`." if fits else ""
