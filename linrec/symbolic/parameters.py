"""Parameters: what their symbols say of them, and how training keeps to it."""

# sympy's annotations are narrower, or wider, than what it does.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import sympy
from torch import Tensor

from linrec._checks import as_tensor
from linrec.constraints import FixedSign, Interval


class Bounded(sympy.Symbol):
    """A real symbol between two bounds, which it does not reach.

    sympy's own assumptions know the sign of a symbol, but no interval.

    Args:
        name: the name of the symbol.
        lower: a number below all values.
        upper: a number above all values.

    Raises:
        ValueError: there is nothing between the bounds.

    Example:
        >>> from linrec.symbolic import Bounded
        >>> damping = Bounded("zeta", 0, 1)
        >>> damping.is_positive, damping.interval
        (True, Interval.open(0, 1))
    """

    __slots__ = ("lower", "upper")

    lower: float
    upper: float

    def __new__(cls, name: str, lower: float, upper: float) -> "Bounded":
        """Make the symbol, with the sign that its bounds imply."""
        lower, upper = float(lower), float(upper)
        if not -float("inf") < lower < upper < float("inf"):
            raise ValueError(
                f"`{name}` is bounded by {lower} and {upper}: expected two finite numbers, the "
                "smaller first. For one bound use `sympy.Symbol(name, positive=True)`."
            )
        signs = {"positive": True} if lower >= 0 else {"negative": True} if upper <= 0 else {}
        symbol = sympy.Symbol.__xnew__(cls, name, real=True, **signs)
        symbol.lower, symbol.upper = lower, upper
        return symbol

    @property
    def interval(self) -> sympy.Interval:
        """The open interval that the values are in."""
        return sympy.Interval.open(*map(sympy.nsimplify, (self.lower, self.upper)))

    def _hashable_content(self) -> tuple[Any, ...]:
        return (*super()._hashable_content(), self.lower, self.upper)

    def __getnewargs_ex__(self) -> tuple[tuple[str, float, float], dict[str, Any]]:
        """Say what a copy is made of."""
        return (self.name, self.lower, self.upper), {}


def constraint(symbol: sympy.Symbol) -> FixedSign | Interval | None:
    """Choose the reparametrisation that keeps what is known of a symbol; None: nothing is."""
    if isinstance(symbol, Bounded):
        return Interval(symbol.lower, symbol.upper)
    if symbol.is_nonnegative or symbol.is_nonpositive:
        return FixedSign(1 if symbol.is_nonnegative else -1)
    return None


def parameters_of(expressions: Iterable[sympy.Basic], *others: sympy.Symbol) -> tuple[Any, ...]:
    """List the symbols of some expressions by name, `others` left out; refuse namesakes."""
    symbols = set().union(*(expression.free_symbols for expression in expressions)) - {*others}
    ordered = sorted(symbols, key=lambda symbol: symbol.name)
    for first, second in pairwise(ordered):
        if first.name == second.name:
            raise ValueError(
                f"Two symbols are called `{first.name}` and have different assumptions, "
                f"{first.assumptions0} and {second.assumptions0}: expected one. "
                "Make the symbol once and use it everywhere."
            )
    return tuple(ordered)


def as_values(symbols: tuple[sympy.Symbol, ...], given: Mapping[Any, object]) -> dict[str, Any]:
    """Check that there is one value for each parameter; name those that miss or are too many."""
    named: dict[str, Any] = {}
    for key, value in given.items():
        named[key.name if isinstance(key, sympy.Symbol) else key] = value
    names = [symbol.name for symbol in symbols]
    missing = [name for name in names if name not in named]
    unknown = [name for name in named if name not in names]
    if missing or unknown:
        problems = [f"no value for {', '.join(missing)}"] if missing else []
        problems += [f"{', '.join(map(str, unknown))}, which it does not have"] if unknown else []
        raise ValueError(
            f"The system has the parameters ({', '.join(names)}) and got {' and '.join(problems)}."
            " Expected one value for each, as in `bind(theta=2.0)`."
        )
    for symbol in symbols:
        check_value(symbol, named[symbol.name])
    return {name: named[name] for name in names}


def check_value(symbol: sympy.Symbol, value: object) -> None:
    """Refuse a number that contradicts what the symbol was declared to be (tensors are free)."""
    if isinstance(value, str):
        raise TypeError(f"`{symbol.name}` is the string {value!r}: expected a number or a tensor.")
    if not isinstance(value, int | float):
        return
    inside = not isinstance(symbol, Bounded) or symbol.lower < value < symbol.upper
    contradicted = (
        (symbol.is_positive and not value > 0)
        or (symbol.is_negative and not value < 0)
        or (symbol.is_nonnegative and value < 0)
        or (symbol.is_nonpositive and value > 0)
        or (symbol.is_nonzero and value == 0)
        or (symbol.is_integer and value != int(value))
    )
    if contradicted or not inside:
        raise ValueError(f"`{symbol.name}` is {value}: expected it to be {declared(symbol)}.")


def declared(symbol: sympy.Symbol) -> str:
    """Say what a symbol was declared to be."""
    if isinstance(symbol, Bounded):
        return f"between {symbol.lower:g} and {symbol.upper:g}"
    said = ("integer", "positive", "negative", "nonnegative", "nonpositive", "nonzero")
    true = [name for name in said if getattr(symbol, f"is_{name}")]
    return ", ".join(true[:2]) or "a number"


def starting_values(
    symbols: tuple[sympy.Symbol, ...], given: Mapping[Any, object]
) -> dict[str, Tensor]:
    """Turn the values that training starts from into tensors, which no border may be among."""
    values = {name: as_tensor(name, value) for name, value in as_values(symbols, given).items()}
    for symbol in symbols:
        keeper, value = constraint(symbol), values[symbol.name]
        if keeper is not None and not bool(keeper.right_inverse(value).isfinite().all()):
            raise ValueError(
                f"`{symbol.name}` starts at {value.tolist()}: expected it to be "
                f"{declared(symbol)}, and not on the border."
            )
    return values
