"""Parameters: the assumptions of their symbols, and how training keeps them."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportAttributeAccessIssue=false

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from numbers import Number
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

from linrec._tensors.arguments import as_tensor, device_of, holds_tensor
from linrec._tensors.dtypes import double_dtype
from linrec._tensors.known_values import is_seen
from linrec.constraints import FixedSign, Interval
from linrec.symbolic.matrices import as_expression
from linrec.symbolic.torch_lowering import number

NOT_FINITE = (sympy.oo, -sympy.oo, sympy.nan)


class Bounded(sympy.Symbol):
    """A real symbol strictly between two bounds.

    sympy's own assumptions cover the sign of a symbol, but not an interval.

    Args:
        name: the name of the symbol.
        lower: a number below all values.
        upper: a number above all values.

    Raises:
        ValueError: the interval between the bounds is empty.

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
        """The open interval of the values."""
        return sympy.Interval.open(*map(sympy.nsimplify, (self.lower, self.upper)))

    def _hashable_content(self) -> tuple[Any, ...]:
        return (*super()._hashable_content(), self.lower, self.upper)

    def __getnewargs_ex__(self) -> tuple[tuple[str, float, float], dict[str, Any]]:
        """Return the arguments of a copy."""
        return (self.name, self.lower, self.upper), {}


def constraint(symbol: sympy.Symbol) -> FixedSign | Interval | None:
    """Return the reparametrisation that enforces the symbol's assumptions, or None."""
    if isinstance(symbol, Bounded):
        return Interval(symbol.lower, symbol.upper)
    if symbol.is_nonnegative or symbol.is_nonpositive:
        return FixedSign(1 if symbol.is_nonnegative else -1)
    return None


def parameters_of(expressions: Iterable[sympy.Basic], *others: sympy.Symbol) -> tuple[Any, ...]:
    """List the symbols of expressions by name, without `others`; refuse namesakes."""
    symbols = set().union(*(expression.free_symbols for expression in expressions)) - {*others}
    ordered = sorted(symbols, key=lambda symbol: symbol.name)
    for first, second in pairwise(ordered):
        if first.name == second.name:
            raise namesakes(first, second)
    for other in others:
        refuse_namesakes(other, tuple(ordered))
    return tuple(ordered)


def refuse_namesakes(expression: sympy.Basic, symbols: Iterable[Any]) -> None:
    """Refuse an expression with a symbol that has the name of another symbol of the system."""
    known = {symbol.name: symbol for symbol in symbols}
    for symbol in expression.free_symbols:
        if known.get(symbol.name, symbol) != symbol:  # type: ignore[attr-defined]  # a Symbol
            raise namesakes(symbol, known[symbol.name])  # type: ignore[attr-defined]  # a Symbol


def replacements(
    known: tuple[Any, ...], values: Mapping[sympy.Symbol, object]
) -> dict[sympy.Symbol, sympy.Expr]:
    """Check the substitutes of parameters.

    Raises:
        ValueError: a symbol has the name of a parameter without being it, or an expression
            contradicts its parameter's assumptions, which simplifications have relied on.
        TypeError: a key is not a symbol.
    """
    found = dict[sympy.Symbol, sympy.Expr]()
    for symbol, value in values.items():
        if not isinstance(symbol, sympy.Symbol):
            raise TypeError(f"`values` has the key {symbol!r}: expected a symbol.")
        refuse_namesakes(symbol, known)
        expression = as_expression(symbol.name, value)
        for name, holds in symbol.assumptions0.items():
            seen = getattr(expression, f"is_{name}", None)
            inside = not isinstance(symbol, Bounded) or expression.free_symbols
            if (seen is not None and seen != holds) or not (
                inside or symbol.lower < expression < symbol.upper
            ):
                raise ValueError(
                    f"`{symbol}` is to become {expression}: expected it to be {describe(symbol)}."
                )
        found[symbol] = expression
    return found


def namesakes(first: sympy.Basic, second: sympy.Basic) -> ValueError:
    """Make the error for two symbols with the same name."""
    if first.assumptions0 == second.assumptions0:  # type: ignore[attr-defined]  # Symbols have them
        differ = "are not the same (a Dummy or a Bounded differs from every other)"
    else:
        differ = f"have different assumptions, {assumptions(first)} and {assumptions(second)}"
    return ValueError(
        f"Two symbols are called `{first}` and {differ}: expected one. "
        "Make the symbol once and use it everywhere."
    )


def assumptions(symbol: sympy.Basic) -> dict[str, bool]:
    """List the assumptions of a symbol, except commutativity."""
    known = getattr(symbol, "_assumptions_orig", symbol.assumptions0)  # type: ignore[attr-defined]
    return {name: value for name, value in known.items() if name != "commutative"}


def both(values: Mapping[Any, Any] | None, named: Mapping[str, Any]) -> dict[Any, Any]:
    """Merge values by name or symbol with values by keyword; refuse one given twice."""
    names = {str(key) for key in values or {}}
    twice = sorted(names & named.keys())
    if twice:
        raise ValueError(f"`{twice[0]}` is given twice: expected one value for each parameter.")
    return {**(values or {}), **named}


def as_values(symbols: tuple[sympy.Symbol, ...], given: Mapping[Any, object]) -> dict[str, Any]:
    """Check that there is one value for each parameter; name the missing and the unknown ones."""
    named: dict[str, Any] = {}
    for key, value in given.items():
        name = key.name if isinstance(key, sympy.Symbol) else key
        if name in named:
            raise ValueError(f"`{name}` is given twice, by name and by symbol: expected it once.")
        named[name] = value
    names = [symbol.name for symbol in symbols]
    missing = [name for name in names if name not in named]
    unknown = [name for name in named if name not in names]
    if missing or unknown:
        problems = [f"no value for {', '.join(missing)}"] if missing else []
        problems += [f"{', '.join(map(str, unknown))}, which it does not have"] if unknown else []
        hint = 'bind({"steps": 2.0})' if "steps" in missing else "bind(theta=2.0)"
        raise ValueError(
            f"The system has the parameters ({', '.join(names)}) and got {' and '.join(problems)}."
            f" Expected one value for each, as in `{hint}`."
        )
    return {symbol.name: check_value(symbol, named[symbol.name]) for symbol in symbols}


def as_number(name: str, value: object) -> object:
    """Convert numbers of sympy, `fractions` and the like to Python's; return others unchanged."""
    if isinstance(value, str):
        raise TypeError(f"`{name}` is the string {value!r}: expected a number or a tensor.")
    if isinstance(value, sympy.Basic):
        if value.free_symbols:
            raise TypeError(
                f"`{name}` is the expression {value}: expected a number. Put expressions in the "
                f"place of parameters with `system.subs({{{name}: {value}}})`."
            )
        return as_float(name, value)
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, Number) and not isinstance(value, np.generic):
        return as_float(name, sympy.sympify(value, strict=True))
    return value


def as_float(name: str, value: sympy.Basic) -> float | complex:
    """Convert a number to double precision."""
    try:
        taken = number(value) if value not in NOT_FINITE else float(value)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"`{name}` is out of range: {error}") from None
    return taken if isinstance(taken, complex) else float(taken)


def in_double(name: str, value: object, device: torch.device | str | None = None) -> Tensor:
    """Convert a number or a tensor to a tensor in double precision; numbers go to a device."""
    value = as_number(name, value)
    if isinstance(value, int | float | complex):
        dtype = torch.complex128 if isinstance(value, complex) else torch.float64
        return torch.tensor(value, dtype=dtype, device=device)
    if not holds_tensor(value):  # otherwise numbers would be rounded to torch's default dtype
        array = np.asarray(value)
        if array.dtype.kind in "iufc":
            value = array.astype(complex if array.dtype.kind == "c" else float)
    tensor = as_tensor(name, value, device=device)
    return tensor.to(double_dtype(tensor.dtype))


def check_value(symbol: sympy.Symbol, value: object) -> Any:
    """Refuse a value with an entry that contradicts the symbol's assumptions.

    Values that cannot be read, inside `vmap` and `torch.compile`, are not checked.
    """
    value = as_number(symbol.name, value)
    tensor = in_double(symbol.name, value, "cpu")
    wrong = contradictions(symbol, tensor.detach())
    if not is_seen(wrong):
        return value
    first = tuple(wrong.nonzero()[0].tolist())
    entry = tensor[first].item()
    place = f" at {first}" if first else ""
    kind = describe(symbol) if math.isfinite(abs(entry)) else f"{describe(symbol)}, and finite"
    raise ValueError(f"`{symbol.name}` is {entry}{place}: expected it to be {kind}.")


def contradictions(symbol: sympy.Symbol, values: Tensor) -> Tensor:
    """Find the entries that a symbol cannot stand for.

    Only a symbol declared `extended_real` may be infinite.
    """
    extended = symbol.is_extended_real and symbol.is_finite is None
    wrong = torch.zeros_like(values, dtype=torch.bool) if extended else ~values.isfinite()
    if values.is_complex():
        if symbol.is_imaginary:
            return wrong | (values.real != 0) | (values.imag == 0)
        if symbol.is_extended_real is None:
            return wrong if not symbol.is_nonzero else wrong | (values == 0)
        wrong, values = wrong | (values.imag != 0), values.real
    elif symbol.is_imaginary:
        return torch.ones_like(values, dtype=torch.bool)
    if isinstance(symbol, Bounded):
        wrong = wrong | ~((values > symbol.lower) & (values < symbol.upper))
    checks: dict[str, Callable[[Tensor], Tensor]] = {
        "is_extended_positive": lambda v: v > 0,
        "is_extended_negative": lambda v: v < 0,
        "is_extended_nonnegative": lambda v: v >= 0,
        "is_extended_nonpositive": lambda v: v <= 0,
        "is_extended_nonzero": lambda v: v != 0,
        "is_extended_real": lambda v: ~v.isnan(),
        "is_zero": lambda v: v == 0,
        "is_integer": lambda v: v.isfinite() & (v == v.round()),
        "is_noninteger": lambda v: v != v.round(),
        "is_even": lambda v: v % 2 == 0,
        "is_odd": lambda v: v % 2 == 1,
    }
    for name, holds in checks.items():
        if getattr(symbol, name):
            wrong = wrong | ~holds(values)
    return wrong


def describe(symbol: sympy.Symbol) -> str:
    """Describe the assumptions of a symbol."""
    if isinstance(symbol, Bounded):
        return f"between {symbol.lower:g} and {symbol.upper:g}"
    kinds = ("even", "odd", "integer", "noninteger", "imaginary", "real")
    signs = ("zero", "positive", "negative", "nonnegative", "nonpositive", "nonzero")
    found = [[n for n in names if getattr(symbol, f"is_{n}")][:1] for names in (kinds, signs)]
    return ", ".join(name for names in found for name in names) or "a number"


def starting_values(
    symbols: tuple[sympy.Symbol, ...], given: Mapping[Any, object]
) -> dict[str, Tensor]:
    """Convert the initial values of training to tensors; refuse values on a bound."""
    known = as_values(symbols, given)
    device = device_of(*known.values())
    values = {name: as_tensor(name, each, device=device) for name, each in known.items()}
    for symbol in symbols:
        keeper, value = constraint(symbol), values[symbol.name]
        try:
            reached = keeper is None or bool(keeper.right_inverse(value).isfinite().all())
        except ValueError:
            reached = False
        if not reached:
            raise ValueError(
                f"`{symbol.name}` starts at {value.tolist()}: expected it to be "
                f"{describe(symbol)}, and not on the border."
            )
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"`{symbol.name}` starts at {value.tolist()} in {value.dtype}: expected finite "
                "values. Pass a tensor of a wider dtype if they are."
            )
    return values
