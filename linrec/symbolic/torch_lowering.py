"""Lowering of sympy expressions to torch: a list of operations, without generated code.

sympy's `lambdify` writes source code and executes it; names of symbols and functions are part of
that code, and its torch code for matrices loses gradients. Here an expression is traversed once, in
postorder, and turned into a list of torch functions with the indices of their arguments. A symbol's
name is only a key, and a function that is not in the table is refused.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor

# Up to this size, double precision represents all integers exactly.
EXACT = 2**53


def from_below(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Give a function sympy's values beyond 1, where its complex values jump.

    There sympy continues asin, acos and atanh from below the real axis, and torch from above.
    """

    def on_the_cut(z: Tensor) -> Tensor:
        value = function(z)
        if not z.is_complex():
            return value
        return torch.where((z.imag == 0) & (z.real > 1), value.conj(), value)

    return on_the_cut


FUNCTIONS: dict[type[sympy.Basic], Callable[..., Any]] = {
    sympy.exp: torch.exp,
    sympy.log: torch.log,
    sympy.sin: torch.sin,
    sympy.cos: torch.cos,
    sympy.tan: torch.tan,
    sympy.sinh: torch.sinh,
    sympy.cosh: torch.cosh,
    sympy.tanh: torch.tanh,
    sympy.asin: from_below(torch.asin),
    sympy.acos: from_below(torch.acos),
    sympy.atan: torch.atan,
    sympy.asinh: torch.asinh,
    sympy.acosh: torch.acosh,
    sympy.atanh: from_below(torch.atanh),
    sympy.erf: torch.erf,
    sympy.Abs: torch.abs,
    sympy.sign: torch.sgn,
    sympy.re: torch.real,
    sympy.conjugate: torch.conj,
    sympy.floor: torch.floor,
    sympy.ceiling: torch.ceil,
    sympy.Mod: torch.remainder,
}


@dataclass(frozen=True)
class TorchFunction:
    """Operations on a growing list of values: first the inputs, then the constants, then results.

    Args:
        constants: numbers that the operations use.
        operations: functions, and the places of their arguments in the list.
        results: the places of the results.
    """

    constants: tuple[float | complex | int, ...]
    operations: tuple[tuple[Callable[..., Any], tuple[int, ...]], ...]
    results: tuple[int, ...]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Evaluate."""
        values: list[Any] = [*inputs, *self.constants]
        for function, places in self.operations:
            arguments = [values[place] for place in places]
            try:
                values.append(function(*arguments))
            except NotImplementedError as error:
                raise ValueError(f"A function has no values in torch here: {error}.") from None
        return [values[place] for place in self.results]


def lower(symbols: Sequence[sympy.Symbol], expressions: Sequence[sympy.Expr]) -> TorchFunction:
    """Turn expressions into a torch function that computes equal subexpressions once.

    Args:
        symbols: the inputs, in order.
        expressions: the expressions, none of them constant.

    Returns:
        The function.

    Raises:
        ValueError: a function that torch does not have.
    """
    constants: dict[float | complex | int, int] = {}
    nodes = [node for expression in expressions for node in postorder(expression)]
    for node in nodes:
        if not node.free_symbols:
            constants.setdefault(number(node), len(symbols) + len(constants))
    places: dict[sympy.Basic, int] = {symbol: place for place, symbol in enumerate(symbols)}
    operations: list[tuple[Callable[..., Any], tuple[int, ...]]] = []

    def place(node: sympy.Basic) -> int:
        return places[node] if node.free_symbols else constants[number(node)]

    for node in nodes:
        if node in places or not node.free_symbols:
            continue
        arguments = [place(argument) for argument in node.args]
        for function, chosen in node_operations(
            node, arguments, len(symbols) + len(constants) + len(operations)
        ):
            operations.append((function, chosen))
        places[node] = len(symbols) + len(constants) + len(operations) - 1
    results = tuple(place(expression) for expression in expressions)
    return TorchFunction(tuple(constants), tuple(operations), results)


def node_operations(
    node: sympy.Basic, arguments: list[int], following: int
) -> list[tuple[Callable[..., Any], tuple[int, ...]]]:
    """Choose the operations of one node; `following` is the place of the first one's result."""
    if isinstance(node, sympy.Add | sympy.Mul):
        function = operator.add if isinstance(node, sympy.Add) else operator.mul
        chosen, left = [], arguments[0]
        for count, right in enumerate(arguments[1:]):
            chosen.append((function, (left, right)))
            left = following + count
        return chosen
    if isinstance(node, sympy.Pow):
        return [power(node, arguments)]
    function = FUNCTIONS.get(type(node))
    if function is None:
        raise ValueError(
            f"`{node}` cannot be evaluated in torch: expected sums, products, powers and "
            f"{', '.join(sorted(known.__name__ for known in FUNCTIONS))}."
        )
    return [(function, tuple(arguments))]


def power(node: sympy.Pow, arguments: list[int]) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """Choose the operation of a power; common exponents have faster ones."""
    special = {-1: torch.reciprocal, sympy.S.Half: torch.sqrt, -sympy.S.Half: torch.rsqrt}
    base, exponent = node.args
    if exponent in special and base.free_symbols:
        return special[exponent], (arguments[0],)
    if exponent.is_Integer and exponent.is_odd and abs(exponent) > EXACT:
        return odd_power, (arguments[0], arguments[1])
    return operator.pow, (arguments[0], arguments[1])


def odd_power(base: Tensor, exponent: float) -> Tensor:
    """Raise to an odd integer so large that double precision rounds it to an even one."""
    return base.sgn() * base.abs() ** exponent


def postorder(expression: sympy.Basic) -> list[sympy.Basic]:
    """List the subexpressions, arguments before their functions."""
    if not isinstance(expression, sympy.Expr):
        raise ValueError(f"`{expression}` cannot be evaluated in torch: expected an expression.")
    if not expression.free_symbols or not expression.args:
        return [expression]
    parts = [part for argument in expression.args for part in postorder(argument)]
    return [*parts, expression]


def number(constant: sympy.Basic) -> float | complex | int:
    """Evaluate a constant in double precision; exactly representable integers stay integers."""
    if constant.is_Integer and abs(constant) <= EXACT:  # type: ignore[operator]  # an Integer
        return int(constant)  # type: ignore[call-overload]  # an Integer, as was just seen
    try:
        value = complex(sympy.N(constant, 20))
    except OverflowError:
        value = complex("inf")
    except TypeError:
        raise ValueError(f"`{shorten(constant)}` is not a number: expected one.") from None
    if not abs(value) < float("inf"):
        raise ValueError(
            f"`{shorten(constant)}` is too large for double precision, or no number: expected "
            "less than 1.8e308. Choose other units."
        )
    return value if value.imag else value.real


def shorten(constant: sympy.Basic) -> str:
    """Write a constant, shortened to its first digits if it has many."""
    digits = max((abs(each.p).bit_length() for each in constant.atoms(sympy.Rational)), default=0)
    if digits > 200 or constant.is_Float:
        return f"about {sympy.N(constant, 5)}"
    return str(constant)
