"""Binding: from symbolic matrices and values of their symbols to tensors in a structure."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportArgumentType=false

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import sympy
import torch
from torch import Tensor

from linrec._tensors.arguments import as_tensor, device_of
from linrec._tensors.dtypes import common_dtype
from linrec._tensors.known_values import is_seen
from linrec._tensors.shapes import broadcast
from linrec.constraints import BoundParameters
from linrec.structures import BlockDiagonal, Dense, Diagonal, Structure
from linrec.symbolic.matrices import Matrix, block_size
from linrec.symbolic.parameters import as_values, both, constraint, in_double, starting_values
from linrec.symbolic.torch_lowering import TorchFunction, lower, number
from linrec.systems import LinearRecurrence

Evaluated = tuple[Structure, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Numerical:
    """Matrices as a torch function that computes each distinct entry once.

    Args:
        symbols: the parameters; the last one is the time, if the entries depend on it.
        program: computes the distinct entries that depend on the symbols.
        constants: the other distinct entries.
        places: for each matrix, the indices of its entries; None for an omitted matrix.
        time_varying: whether the last symbol is the time.
    """

    symbols: tuple[sympy.Symbol, ...]
    program: TorchFunction
    constants: Tensor
    places: tuple[Tensor | None, ...]
    time_varying: bool

    def evaluate(self, values: Mapping[str, Any], steps: int | None = None) -> Evaluated:
        """Compute A, B, C and D in double precision; with an axis of time where they vary."""
        device = device_of(*values.values()) or torch.get_default_device()
        inputs = [in_double(name, value, device) for name, value in values.items()]
        if self.time_varying:
            inputs = [value.unsqueeze(-1) for value in inputs]
            inputs.append(torch.arange(steps or 0, dtype=torch.float64, device=device))
        entries = self.computed_in_range(inputs) if inputs else self.constants.to(device)
        A, *rest = (None if place is None else put_entries(entries, place) for place in self.places)
        assert A is not None and self.places[0] is not None
        return structure(A, self.places[0].ndim), *rest  # type: ignore[return-value]  # three

    def computed_in_range(self, inputs: list[Tensor]) -> Tensor:
        """Compute the distinct entries, as complex numbers where real ones are out of range.

        Of √a at a = -4, torch's real functions make NaN.
        """
        entries = self.computed(inputs)
        if any(each.is_complex() for each in inputs) or not is_seen(entries.isnan(), wait=False):
            return entries
        wide = self.computed([each.to(torch.complex128) for each in inputs])
        return entries if is_seen(wide.isnan()) else wide

    def computed(self, inputs: list[Tensor]) -> Tensor:
        """Compute the distinct entries, `(*batch, entries)`."""
        shape = broadcast(**{f"parameter {i}": value.shape for i, value in enumerate(inputs)})
        constants = self.constants.to(inputs[0].device).expand(*shape, -1)
        results = self.program(inputs)
        if not results:
            return constants
        dtype = common_dtype(constants, *results)
        same = [result if result.dtype == dtype else result.to(dtype) for result in results]
        row = torch.stack([r if r.shape == shape else r.expand(shape) for r in same], -1)
        return torch.cat([row, constants.to(dtype)], -1)


def put_entries(entries: Tensor, places: Tensor) -> Tensor:
    """Put `entries (*batch, k)` into the places of a matrix."""
    chosen = entries.index_select(-1, places.flatten().to(entries.device))
    return chosen.unflatten(-1, places.shape)


def has_dtype(value: object) -> bool:
    """Whether a value has a dtype, unlike a Python number."""
    return not isinstance(value, int | float | complex)


def numerical(
    matrices: tuple[Matrix, Matrix, Matrix, Matrix],
    symbols: tuple[sympy.Symbol, ...],
    clock: sympy.Symbol | None = None,
) -> Numerical:
    """Prepare A, B, C and D for numbers: only the blocks of A, and no identities or zeros."""
    names = symbols if clock is None else (*symbols, clock)
    A, B, C, D = matrices
    one = sympy.eye(A.rows)
    shaped = [diagonal_blocks(A), *(None if each == one else grid(each) for each in (B, C))]
    shaped.append(grid(D) if any(D) else None)
    distinct: dict[sympy.Expr, int] = {}
    entries = [entry for array in shaped if array is not None for entry in leaves(array)]
    for entry in sorted(entries, key=lambda entry: not entry.free_symbols):
        distinct.setdefault(entry, len(distinct))
    dynamic = [entry for entry in distinct if entry.free_symbols]
    constants = [number(entry) for entry in distinct if not entry.free_symbols]
    dtype = torch.complex128 if any(isinstance(c, complex) for c in constants) else torch.float64
    return Numerical(
        names,
        lower(names, dynamic),
        torch.tensor(constants, dtype=dtype, device="cpu"),
        tuple(None if array is None else indices(array, distinct) for array in shaped),
        clock is not None,
    )


def grid(matrix: Matrix) -> list[Any]:
    """Write a matrix as nested lists."""
    return matrix.tolist()


def diagonal_blocks(A: Matrix) -> list[Any]:
    """Write A as nested lists: its diagonal, its blocks on the diagonal, or all of it."""
    size, n = block_size(A), A.rows
    if size == n > 1:
        return grid(A)
    if size == 1:
        return [A[i, i] for i in range(n)]
    return [grid(A[i : i + size, i : i + size]) for i in range(0, n, size)]


def leaves(nested: Any) -> list[sympy.Expr]:
    """List the entries of nested lists."""
    return (
        [entry for part in nested for entry in leaves(part)]
        if isinstance(nested, list)
        else [nested]
    )


def indices(nested: Any, distinct: Mapping[sympy.Expr, int]) -> Tensor:
    """Replace entries by their indices."""

    def replaced(part: Any) -> Any:
        return [replaced(each) for each in part] if isinstance(part, list) else distinct[part]

    return torch.tensor(replaced(nested), device="cpu")


def structure(entries: Tensor, axes: int) -> Structure:
    """Build the structure whose tensors have this many core axes."""
    kinds: dict[int, Callable[[Tensor], Structure]] = {1: Diagonal, 2: Dense, 3: BlockDiagonal}
    return kinds[axes](entries)


def blocks_of(A: Structure, size: int) -> Structure:
    """Keep only the blocks of a dense matrix that is known to be zero elsewhere."""
    if A.as_diagonal() is not None or size == A.state_size:
        return A
    count = A.state_size // size
    split = A.to_dense().unflatten(-1, (count, size)).unflatten(-3, (count, size))
    blocks = split.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
    return Diagonal(blocks.flatten(-3)) if size == 1 else BlockDiagonal(blocks)


def check_steps(steps: Any) -> None:
    """Refuse an invalid number of steps."""
    whole = steps is None or (isinstance(steps, Integral) and not isinstance(steps, bool))
    if not whole or (steps is not None and steps < 0):
        raise ValueError(
            f"`steps` is {steps!r}: expected how many steps there are, a whole number. A parameter "
            'of that name is given in a mapping, `bind({"steps": 2.0})`.'
        )


class Bindable(ABC):
    """A recurrence that only lacks numbers for its parameters."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """List the symbols that `bind` needs values for, by name."""

    @abstractmethod
    def evaluated(self, values: Mapping[str, Any], steps: int | None) -> Evaluated:
        """Compute A, B, C and D in double precision."""

    def bind(
        self,
        values: Mapping[Any, Any] | None = None,
        /,
        steps: int | None = None,
        **parameters: Any,
    ) -> LinearRecurrence:
        """Give the parameters values: numbers, or tensors, which keep their gradients.

        Constant matrices stay constant, a diagonal or block-diagonal A is stored as such, and
        identity and zero matrices are left out. Values are computed in double precision, then cast.

        Args:
            values: values by name or by symbol, as well as or instead of `parameters`.
            steps: the number of steps, for a system whose matrices depend on time.
            parameters (*batch): a value for each parameter, by name. Batch axes broadcast, and
                bind a batch of systems.

        Returns:
            The recurrence, in the dtype of the tensors, or torch's default if there are none.

        Raises:
            ValueError: a value is missing, unknown, or not what its symbol was declared to be.
        """
        given = as_values(self.parameters, both(values, parameters))
        self.check(given)
        return self.at(given, steps)

    @abstractmethod
    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse values that satisfy their symbols' assumptions but give no valid system."""

    def at(self, values: Mapping[str, Any], /, steps: int | None = None) -> LinearRecurrence:
        """Bind values that were checked against their symbols' assumptions."""
        A, B, C, D = self.evaluated(values, steps)
        recurrence = LinearRecurrence(A, B, C, D, time_varying=steps is not None)
        return recurrence.to(choose_dtype(recurrence.dtype, values))

    def bound_parameters(self, values: Mapping[Any, Any]) -> BoundParameters:
        """Pair the system with values that training may start from (see `linrec.nn`).

        Args:
            values: values by name or by symbol.

        Returns:
            The pair.

        Raises:
            ValueError: a value is missing, or on the border of what its symbol was declared to be.
        """
        start = starting_values(self.parameters, values)
        self.bind(start)  # raises now, not in training, if it cannot be evaluated
        known = {symbol.name: constraint(symbol) for symbol in self.parameters}
        kept = {name: module for name, module in known.items() if module is not None}
        return BoundParameters(self, start, kept)


def choose_dtype(computed: torch.dtype, values: Mapping[str, Any]) -> torch.dtype:
    """Choose the dtype: that of the tensors given, else torch's default."""
    tensors = [as_tensor(name, value) for name, value in values.items() if has_dtype(value)]
    dtype = common_dtype(*tensors) if tensors else torch.get_default_dtype()
    return dtype.to_complex() if computed.is_complex else dtype
