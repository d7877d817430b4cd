"""`from_equations`: finds states, inputs and outputs in the user's equations."""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportReturnType=false

from collections.abc import Mapping, Sequence

import sympy
from sympy.core.function import AppliedUndef, UndefinedFunction
from sympy.logic.boolalg import BooleanAtom

from linrec.symbolic import differences, differentials
from linrec.symbolic.matrices import as_expression
from linrec.symbolic.recurrence import LinearRecurrence
from linrec.symbolic.signals import LinearForm, find_time, linear_form, read_signal
from linrec.symbolic.state_space import StateSpace

Equations = sympy.Eq | Sequence[sympy.Eq] | Mapping[sympy.Expr, sympy.Expr]
Names = Sequence[sympy.Expr | UndefinedFunction]


def from_equations(
    equations: Equations,
    *,
    inputs: Names | None = None,
    outputs: Sequence[sympy.Expr] | None = None,
    time: sympy.Symbol | None = None,
) -> LinearRecurrence | StateSpace:
    """Derive the system that linear equations describe.

    Difference equations, between functions at t, t - 1, t + 1, …, give a `LinearRecurrence`;
    differential equations give a `StateSpace`. Both may be of any order, coupled and implicit.
    Timing is exact: for x(t+1) = a x(t) + u(t), the output of step t is x(t+1), because u(t)
    determines it; for the output x(t), which is known a step earlier, pass `outputs=[x(t)]`.

    Args:
        equations: sympy equations between functions of one time, or a mapping from their left
            sides to their right sides. Coefficients are parameters and functions of these; in
            difference equations they may depend on t.
        inputs: the given functions, in order. None: those that are on no left side, by name.
        outputs: linear expressions in the functions. None: the unknowns that an equation defines
            and that occur nowhere else, like y in y(t) = c x(t); if there are none, all unknowns,
            each at the newest time that is written and known.
        time: the symbol of time. None: the one that all functions share.

    Returns:
        The system. Its `states` say what each state is.

    Raises:
        ValueError: the equations are not linear, or cannot be solved; the message names the term.
        TypeError: something is not a sympy object; strings are never evaluated.

    Example:
        >>> import sympy
        >>> from linrec import symbolic
        >>> x, u = sympy.symbols("x u", cls=sympy.Function)
        >>> t, a = sympy.symbols("t a")
        >>> print(symbolic.from_equations(sympy.Eq(x(t), a * x(t - 1) + u(t))))
        LinearRecurrence of 1 state, 1 input, 1 output
          x(t) = a*x(t - 1) + u(t)
          y(t) = x(t)
    """
    pairs = as_pairs(equations)
    wanted = None if outputs is None else [as_expression("outputs", each) for each in outputs]
    both = [side for pair in pairs for side in pair]
    time = find_time([*both, *(wanted or [])]) if time is None else time
    given = None if inputs is None else [as_function(each, time) for each in inputs]
    unknowns, given = sorted_functions(pairs, given, time, wanted or [])
    forms = [difference_form(left, right, time) for left, right in pairs]
    check_determined(forms, unknowns, given)

    definitions = pure_definitions(pairs, forms, unknowns, time)
    kept = [form for form, (left, _) in zip(forms, pairs, strict=True) if left not in definitions]
    remaining = [x for x in unknowns if x not in {left.func for left in definitions}]
    if wanted is None:
        wanted = list(definitions) or default_outputs(forms, remaining, given, time)
    read = [linear_form(substitute(each, definitions, time), time) for each in wanted]
    differential = any(signal.derivative for form in forms for signal in form)
    make = differentials.state_space if differential else differences.recurrence
    return make(kept, remaining, given, read, time)


def difference_form(left: sympy.Expr, right: sympy.Expr, time: sympy.Symbol) -> LinearForm:
    """Write left - right as a linear form; a term that is refused has the sign it was given."""
    try:
        return linear_form(left - right, time)
    except ValueError:
        for side in (left, right):
            linear_form(side, time)
        raise


def as_pairs(equations: Equations) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """List left and right sides."""
    if isinstance(equations, Mapping):
        pairs = [
            (as_expression("equations", left), as_expression("equations", right))
            for left, right in equations.items()
        ]
        for left, right in pairs:
            if right.has(left):
                raise ValueError(
                    f"`{left}` is on both sides: expected the left side to say which value the "
                    "right side gives. Write x(t + 1) or x(t).diff(t) on the left, or x(t - 1) "
                    "on the right."
                )
    else:
        listed = [equations] if isinstance(equations, sympy.Basic | str) else list(equations)
        pairs = [as_pair(equation) for equation in listed]
    if not pairs:
        raise ValueError("`equations` is empty: expected one equation or more.")
    return pairs


def as_pair(equation: object) -> tuple[sympy.Expr, sympy.Expr]:
    """Split an equation into left and right side."""
    if isinstance(equation, BooleanAtom | bool):
        raise ValueError(
            f"An equation is {equation}: sympy saw that it {'always' if equation else 'never'} "
            "holds. Expected one that says something of its functions."
        )
    if not isinstance(equation, sympy.Eq):
        hint = " Strings are never evaluated." if isinstance(equation, str) else ""
        raise TypeError(
            f"An equation is of type {type(equation).__name__}: expected `sympy.Eq(left, right)`."
            f"{hint}"
        )
    return as_expression("left side", equation.lhs), as_expression("right side", equation.rhs)


def as_function(value: object, time: sympy.Symbol) -> UndefinedFunction:
    """Return the function u, given u or u(t)."""
    if isinstance(value, UndefinedFunction):
        return value
    if isinstance(value, AppliedUndef) and value.args == (time,):
        return value.func
    raise TypeError(f"`inputs` has {value!r}: expected functions of {time}, as u({time}) or u.")


def sorted_functions(
    pairs: Sequence[tuple[sympy.Expr, sympy.Expr]],
    inputs: list[UndefinedFunction] | None,
    time: sympy.Symbol,
    others: Sequence[sympy.Expr],
) -> tuple[list[UndefinedFunction], list[UndefinedFunction]]:
    """Separate unknowns from inputs: unknowns are on left sides, unless inputs are named."""
    left = functions([side for side, _ in pairs], time)
    right = [side for _, side in pairs]
    everywhere = list(dict.fromkeys([*left, *functions([*right, *others], time)]))
    if inputs is None:
        inputs = sorted((f for f in everywhere if f not in left), key=str)
    return [f for f in everywhere if f not in inputs], inputs


def functions(expressions: Sequence[sympy.Expr], time: sympy.Symbol) -> list[UndefinedFunction]:
    """List the functions of time in the order of their equations."""
    found: dict[UndefinedFunction, None] = {}
    for expression in expressions:
        for atom in sorted(expression.atoms(AppliedUndef), key=str):
            if time in atom.free_symbols:
                found[atom.func] = None
    return list(found)


def check_determined(
    forms: Sequence[LinearForm],
    unknowns: Sequence[UndefinedFunction],
    inputs: Sequence[UndefinedFunction],
) -> None:
    """Refuse too many or too few equations, unknowns that cancel, and systems without inputs."""
    if len(forms) != len(unknowns):
        raise ValueError(
            f"There are {len(forms)} equations for {', '.join(map(str, unknowns))}: expected as "
            "many as unknowns. Functions on no left side are inputs; or name them, `inputs=[u(t)]`."
        )
    for unknown in unknowns:
        if not any(signal.function == unknown for form in forms for signal in form):
            raise ValueError(
                f"`{unknown}` cancels out of the equations: expected one that determines it."
            )
    if not inputs:
        raise ValueError(
            "The equations have no input: expected a function that is given. Add one, `+ u(t)`, "
            "and feed it with zeros."
        )


def pure_definitions(
    pairs: Sequence[tuple[sympy.Expr, sympy.Expr]],
    forms: Sequence[LinearForm],
    unknowns: Sequence[UndefinedFunction],
    time: sympy.Symbol,
) -> dict[AppliedUndef, sympy.Expr]:
    """Find the unknowns that an equation defines and that occur nowhere else, y(t) = c x(t)."""
    found = {}
    for (left, right), own in zip(pairs, forms, strict=True):
        if not isinstance(left, AppliedUndef) or left.func not in unknowns:
            continue
        times = [s for form in forms for s in form if s.function == left.func]
        past = any(signal.function in unknowns for signal in own if signal.function != left.func)
        if len(times) == 1 and (past or len(forms) == 1):
            if not right.has(left.func):
                found[left] = right
            elif (unknown := read_signal(left, time)) in own:
                rest = sympy.Add(*[c * s.at(time) for s, c in own.items() if s != unknown])
                found[left] = -rest / own[unknown]  # (as in y(t) = c x(t) - y(t)/2)
    return found


def substitute(
    expression: sympy.Expr, definitions: Mapping[AppliedUndef, sympy.Expr], time: sympy.Symbol
) -> sympy.Expr:
    """Substitute the right side of a definition for its left side, at any time."""
    by_function = {left.func: (left, right) for left, right in definitions.items()}
    values = {}
    for atom in expression.atoms(AppliedUndef):
        if atom.func in by_function:
            left, right = by_function[atom.func]
            values[atom] = right.subs(time, atom.args[0] - left.args[0] + time)
    return expression.xreplace(values)


def default_outputs(
    forms: Sequence[LinearForm],
    unknowns: Sequence[UndefinedFunction],
    inputs: Sequence[UndefinedFunction],
    time: sympy.Symbol,
) -> list[sympy.Expr]:
    """Choose all unknowns, each at the newest time that is written and known."""
    if any(signal.derivative for form in forms for signal in form):
        return [unknown(time) for unknown in unknowns]
    known = differences.find_newest(differences.solve(forms, unknowns, time), inputs)
    chosen = []
    for unknown in unknowns:
        written = max(s.shift for form in forms for s in form if s.function == unknown)
        chosen.append(unknown(time + min(written, known.get(unknown, written))))
    return chosen
