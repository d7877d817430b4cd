"""From differential equations to a StateSpace.

The equations are solved for the highest derivative of each unknown; the lower ones are the states
(companion form). Derivatives of inputs are eliminated afterwards. If the q-th derivative of u is
the highest, the states ζ = x - B_q u^(q-1) obey

    ζ' = A ζ + … + (B_{q-1} + A B_q) u^(q-1)        y = C ζ + … + (D_{q-1} + C B_q) u^(q-1)

and so on down to u itself (Kailath 1980, Linear Systems, section 2.3).
"""

from collections.abc import Sequence

import sympy
from sympy.core.function import UndefinedFunction

from linrec.symbolic.matrices import Matrix, is_zero, tidy_matrix
from linrec.symbolic.polynomials import inverse
from linrec.symbolic.signals import LinearForm, Signal
from linrec.symbolic.state_space import StateSpace


def state_space(
    equations: Sequence[LinearForm],
    unknowns: Sequence[UndefinedFunction],
    inputs: Sequence[UndefinedFunction],
    outputs: Sequence[LinearForm],
    time: sympy.Symbol,
) -> StateSpace:
    """Make the system that differential equations describe.

    Args:
        equations: as many linear forms as there are unknowns; each of them is zero.
        unknowns: the functions that the equations determine.
        inputs: the given functions.
        outputs: a linear form for each output.
        time: the symbol of time.

    Returns:
        The system.

    Raises:
        ValueError: the equations cannot be solved, depend on time, or differentiate an input
            more often than they integrate it.
    """
    check_forms([*equations, *outputs], time)
    orders = {
        unknown: max(s.derivative for form in equations for s in form if s.function == unknown)
        for unknown in unknowns
    }
    highest = [Signal(unknown, derivative=order) for unknown, order in orders.items()]
    states = [Signal(x, derivative=k) for x, order in orders.items() for k in range(order)]
    if not states:
        raise ValueError("The equations differentiate no unknown: expected one that is.")
    most = max(
        [s.derivative for form in [*equations, *outputs] for s in form if s.function in inputs],
        default=0,
    )
    lower = [*states, *(Signal(u, derivative=k) for k in range(most + 1) for u in inputs)]
    identity = sympy.eye(len(lower))
    known = {signal: identity[place, :] for place, signal in enumerate(lower)}
    known |= zip(highest, solve_highest(equations, highest, lower), strict=True)
    after = [known[Signal(s.function, derivative=s.derivative + 1)] for s in states]
    read = [total(form, known, identity.cols) for form in outputs]
    A, *B = split(sympy.Matrix.vstack(*after), len(states), len(inputs))
    C, *D = split(sympy.Matrix.vstack(*read), len(states), len(inputs))
    for q in range(most, 0, -1):
        if any(not is_zero(entry) for entry in D[q]):
            raise ValueError(
                f"An output depends on derivative {q} of the inputs "
                f"{', '.join(map(str, inputs))}: expected each input to be integrated at least as "
                "often as it is differentiated. Take the derivative for an input of its own."
            )
        B[q - 1], D[q - 1] = B[q - 1] + A * B[q], D[q - 1] + C * B[q]
    matrices = (tidy_matrix(Matrix(matrix)) for matrix in (A, B[0], C, D[0]))
    # After elimination of the inputs' derivatives, the states are no longer these signals.
    names = [signal.at(time) for signal in states] if not most else None
    given = [function(time) for function in inputs]
    return StateSpace(*matrices, time=time, states=names, inputs=given)


def check_forms(forms: Sequence[LinearForm], time: sympy.Symbol) -> None:
    """Refuse shifts and coefficients that depend on time."""
    for form in forms:
        for signal, coefficient in form.items():
            if signal.shift:
                raise ValueError(
                    f"`{signal.function(time + signal.shift)}` is shifted and the equations are "
                    "differential: expected all signals at one time. A delayed input has no "
                    "finite state; `StateSpace.from_delay` approximates it, to be put before the "
                    "system with `series`."
                )
            if time in coefficient.free_symbols:
                raise ValueError(
                    f"The coefficient `{coefficient}` of `{signal.at(time)}` depends on {time}: "
                    "expected constant coefficients in a differential equation. Write the "
                    "difference equation of its steps, whose coefficients may depend on time."
                )


def solve_highest(
    equations: Sequence[LinearForm], highest: Sequence[Signal], lower: Sequence[Signal]
) -> list[sympy.MatrixBase]:
    """Solve for the highest derivatives; each gives a row of coefficients of the lower ones."""
    leading = coefficients(equations, highest)
    inverted = inverse(leading) if leading.rows == leading.cols else None
    if inverted is None:
        raise ValueError(
            "The equations cannot be solved for the highest derivatives of "
            f"{', '.join(str(signal.function) for signal in highest)}: expected as many "
            "independent equations in these."
        )
    rows = -inverted * coefficients(equations, lower)
    return [rows[i, :] for i in range(rows.rows)]


def coefficients(forms: Sequence[LinearForm], signals: Sequence[Signal]) -> sympy.MatrixBase:
    """Write forms as rows."""
    return sympy.Matrix(len(forms), len(signals), lambda i, j: forms[i].get(signals[j], 0))


def total(
    form: LinearForm, known: dict[Signal, sympy.MatrixBase], columns: int
) -> sympy.MatrixBase:
    """Add up the linear forms behind an output's signals."""
    row = sympy.zeros(1, columns)
    for signal, coefficient in form.items():
        if signal not in known:
            raise ValueError(
                f"An output wants derivative {signal.derivative} of {signal.function}, which the "
                "equations do not mention: expected no higher one than they do."
            )
        row += coefficient * known[signal]
    return row


def split(rows: sympy.MatrixBase, states: int, inputs: int) -> list[sympy.MatrixBase]:
    """Split rows into the coefficients of states, inputs and inputs' derivatives."""
    cuts = range(states, rows.cols, inputs) if inputs else []
    return [rows[:, :states], *(rows[:, cut : cut + inputs] for cut in cuts)]
