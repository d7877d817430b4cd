"""Linear forms of signals, read from equations; errors name a nonlinear term."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sympy
from sympy.core.function import AppliedUndef, UndefinedFunction

from linrec.symbolic.matrices import as_expression


@dataclass(frozen=True)
class Signal:
    """A function of time, shifted by steps or differentiated `order` times.

    Args:
        function: the undefined function, such as x in x(t).
        shift: the number of steps ahead; negative for the past.
        derivative: how many times it is differentiated.
    """

    function: UndefinedFunction
    shift: int = 0
    derivative: int = 0

    def at(self, time: sympy.Symbol) -> sympy.Expr:
        """Write the signal."""
        value = self.function(time + self.shift)
        return value.diff(time, self.derivative) if self.derivative else value


LinearForm = Mapping[Signal, sympy.Expr]


def find_time(expressions: Iterable[sympy.Basic]) -> sympy.Symbol:
    """Find the symbol of time, the argument that all functions share."""
    applied = set().union(*(expression.atoms(AppliedUndef) for expression in expressions))
    if not applied:
        raise ValueError(
            "The equations have no functions of time: expected some, as x(t) and u(t) with "
            "`x, u = sympy.symbols('x u', cls=sympy.Function)` and `t = sympy.Symbol('t')`."
        )
    common = set.intersection(*(function.free_symbols for function in applied))
    if len(common) != 1:
        shown = ", ".join(sorted(map(str, applied)))
        raise ValueError(
            f"The functions {shown} have the symbols {sorted(map(str, common))} in common: "
            "expected one, the time. Pass `time=t` to say which it is."
        )
    return common.pop()


def read_signal(atom: sympy.Expr, time: sympy.Symbol) -> Signal:
    """Read x(t), x(t - 2) or a derivative of x(t)."""
    if isinstance(atom, sympy.Derivative):
        inner = atom.expr
        counts = dict(atom.variable_count)
        if not isinstance(inner, AppliedUndef) or set(counts) != {time}:
            raise ValueError(f"`{atom}` is no derivative of a function of {time} by {time}.")
        signal = read_signal(inner, time)
        return Signal(signal.function, signal.shift, int(counts[time]))
    if len(atom.args) != 1:
        raise ValueError(f"`{atom}` has {len(atom.args)} arguments: expected one, the time.")
    shift = sympy.expand(atom.args[0] - time)
    if time in shift.free_symbols:
        raise ValueError(f"`{atom}` runs at another speed than {time}: expected {time} + a number.")
    if not shift.is_Integer:
        raise ValueError(
            f"`{atom}` is shifted by {shift}: expected a whole number of steps. In continuous time "
            "a delayed input has no finite state; `StateSpace.from_delay` approximates it, to be "
            "put before the system with `series`."
        )
    return Signal(atom.func, int(shift))


def linear_form(expression: sympy.Expr, time: sympy.Symbol) -> dict[Signal, sympy.Expr]:
    """Write an expression as a sum of signals with coefficients that contain no signals.

    An expression is linear in its signals if its derivatives with respect to them contain no
    signals, and nothing is left after subtracting the derivatives times the signals. Neither test
    is enough alone: √(x u) is the sum of its derivatives times x and u, and the derivative of
    x + 1 is free of x.

    Args:
        expression: the expression.
        time: the symbol of time; coefficients may depend on it.

    Returns:
        The nonzero coefficients.

    Raises:
        ValueError: the expression is not linear; the message names the term.
    """
    expression = as_expression("equation", expression).doit()
    strange = expression.atoms(sympy.Subs, sympy.Integral, sympy.Sum)
    if strange:
        raise ValueError(
            f"`{strange.pop()}` is neither a signal nor a derivative of one: expected terms like "
            f"x({time}), x({time} - 2) or x({time}).diff({time})."
        )
    atoms = [a for a in expression.atoms(sympy.Derivative) if a.expr.atoms(AppliedUndef)]
    atoms += [a for a in expression.atoms(AppliedUndef) if time in a.free_symbols]
    placeholders = {atom: sympy.Dummy() for atom in atoms}
    names = {placeholder: atom for atom, placeholder in placeholders.items()}
    plain = sympy.expand(expression.xreplace(placeholders))
    found = slopes(plain, names)
    if found is None:
        found = slopes(sympy.simplify(plain), names)
    if found is None:
        raise nonlinear_term_error(plain, names)
    form: dict[Signal, sympy.Expr] = {}
    for placeholder, slope in found.items():
        signal = read_signal(names[placeholder], time)
        form[signal] = form.get(signal, sympy.Integer(0)) + slope
    return {signal: coefficient for signal, coefficient in form.items() if coefficient != 0}


def slopes(
    plain: sympy.Expr, names: Mapping[sympy.Dummy, sympy.Expr]
) -> dict[sympy.Dummy, sympy.Expr] | None:
    """Compute the coefficients; None if the expression is not linear."""
    present = [name for name in names if name in plain.free_symbols]
    found = {name: plain.diff(name) for name in present}
    found = {
        name: slope.doit() if slope.has(sympy.Derivative) else slope
        for name, slope in found.items()
    }
    if any(
        slope.has(sympy.Derivative) or slope.free_symbols & names.keys() for slope in found.values()
    ):
        return None
    rest = sympy.expand(plain - sympy.Add(*[slope * name for name, slope in found.items()]))
    if rest != 0 and sympy.simplify(rest) != 0:
        return None
    return found


def nonlinear_term_error(plain: sympy.Expr, names: Mapping[sympy.Dummy, sympy.Expr]) -> ValueError:
    """Name the first term that makes an expression nonlinear or affine."""
    terms = sympy.Add.make_args(plain)
    for term in terms:
        if slopes(term, names) is None and term.free_symbols & names.keys():
            return ValueError(
                f"The term `{term.xreplace(dict(names))}` is not linear in its signals: expected "
                "each term to be a signal times a coefficient."
            )
    constant = sympy.Add(*[term for term in terms if not term.free_symbols & names.keys()])
    return ValueError(
        f"The term `{constant}` multiplies no signal: expected none but signals times "
        f"coefficients. Let it multiply an input, `({constant})*one(t)`, and feed that with ones."
    )
