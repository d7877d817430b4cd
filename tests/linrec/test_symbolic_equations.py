"""Derived systems, against their equations substituted step by step in exact arithmetic."""

# Wrong arguments are passed on purpose, and sympy's annotations are narrower than what it does.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportReturnType=false

from dataclasses import dataclass
from typing import Any

import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sympy import Eq, Rational

from linrec import symbolic
from linrec.symbolic import from_equations

t, p, q, a, b, c, d, s = sympy.symbols("t p q a b c d s")
u, v, w, x, y, z = sympy.symbols("u v w x y z", cls=sympy.Function)
tau = sympy.Symbol("tau", positive=True)
VALUES = {p: Rational(2, 3), q: Rational(-3, 2)}
COEFFICIENTS = [0, 0, 0, 0, 0, 1, -1, Rational(1, 2), p, q, p - q]
STEPS = 5


@dataclass(frozen=True)
class Written:
    """Equations as numbers: {(function, shift): coefficient} is what has to vanish at every t."""

    unknowns: int
    inputs: int
    equations: list[dict[tuple[str, int], sympy.Expr]]
    outputs: list[dict[tuple[str, int], sympy.Expr]]

    def sympy(self, forms: list[dict[tuple[str, int], sympy.Expr]]) -> list[sympy.Expr]:
        return [
            sympy.Add(*[k * sympy.Function(name)(t + shift) for (name, shift), k in form.items()])
            for form in forms
        ]


@st.composite
def written(draw: Any, *, varying: bool = False) -> Written:
    n, m = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    known = [*COEFFICIENTS, p / (t + 20), t * q] if varying else COEFFICIENTS
    coefficient = st.sampled_from([sympy.sympify(each) for each in known])
    equations = []
    for i in range(n):
        moved = draw(st.integers(-2, 2))
        form = {}
        for j in range(n):
            for lag in range(3):
                form[f"x{j}", moved - lag] = draw(coefficient)
        form[f"x{i}", moved] = draw(coefficient.filter(lambda value: value != 0))
        for j in range(m):
            for lag in range(-1, 3):
                form[f"u{j}", moved - lag] = (
                    draw(coefficient) if lag >= 0 or draw(st.booleans()) else sympy.Integer(0)
                )
        equations.append({key: value for key, value in form.items() if value != 0})
    outputs = []
    for _ in range(draw(st.integers(1, 2))):
        form = {(f"x{draw(st.integers(0, n - 1))}", draw(st.integers(-3, 1))): draw(coefficient)}
        form[f"u{draw(st.integers(0, m - 1))}", draw(st.integers(-2, 0))] = draw(coefficient)
        outputs.append({key: value for key, value in form.items() if value != 0})
    return Written(n, m, equations, outputs)


def signal(channel: int, step: int) -> sympy.Expr:
    """An input without pattern, zero before the start."""
    return (
        Rational((7 * step * step + 3 * channel + 5 * step) % 11 - 5) if step >= 0 else Rational(0)
    )


def substituted(system: Written) -> list[list[sympy.Expr]] | None:
    """Find the outputs by solving the equations for the newest unknowns, one time after another."""
    past: dict[tuple[str, int], sympy.Expr] = {}

    def value(name: str, step: int) -> sympy.Expr:
        if name.startswith("u"):
            return signal(int(name[1:]), step)
        return past.get((name, step), sympy.Integer(0))

    def numeric(coefficient: sympy.Expr, step: int) -> sympy.Expr:
        return coefficient.subs(t, step).subs(VALUES)

    names = [f"x{j}" for j in range(system.unknowns)]
    # An equation may reach one input ahead, so that unknowns move before the first input does.
    for now in range(-3, STEPS + 3):
        leading, rest = sympy.zeros(len(names), len(names)), sympy.zeros(len(names), 1)
        for i, form in enumerate(system.equations):
            newest = max(shift for name, shift in form if name in names)
            at = now - newest
            for (name, shift), coefficient in form.items():
                if name in names and shift == newest:
                    leading[i, names.index(name)] = numeric(coefficient, at)
                else:
                    rest[i] += numeric(coefficient, at) * value(name, at + shift)
        if leading.det() == 0:
            return None
        solution = leading.LUsolve(-rest)
        past |= {(name, now): solution[j] for j, name in enumerate(names)}
    return [
        [
            sum(
                (numeric(k, now) * value(name, now + shift) for (name, shift), k in form.items()), 0
            )
            for form in system.outputs
        ]
        for now in range(STEPS)
    ]


def run_exactly(system: symbolic.LinearRecurrence) -> list[list[sympy.Expr]]:
    """Run A, B, C and D in exact arithmetic, from zeros."""
    state = sympy.zeros(system.state_size, 1)
    outputs = []
    numbers = [matrix.subs(VALUES) for matrix in system.matrices]
    for now in range(STEPS):
        A, B, C, D = (each.subs(t, now) for each in numbers) if system.time_varying else numbers
        at = sympy.Matrix([signal(int(str(name.func)[1:]), now) for name in system.inputs])
        state = A * state + B * at
        outputs.append(list(C * state + D * at))
    return outputs


def check_against_substitution(system: Written) -> None:
    expected = substituted(system)
    assume(expected is not None and any(system.outputs))
    outputs = system.sympy(system.outputs)
    assume(all(output != 0 for output in outputs))
    inputs = [sympy.Function(f"u{j}")(t) for j in range(system.inputs)]
    equations = [Eq(form, 0) for form in system.sympy(system.equations)]
    try:
        derived = from_equations(equations, inputs=inputs, outputs=outputs, time=t)
    except ValueError as error:
        assume("depends on inputs after" not in str(error) and "hold no past" not in str(error))
        raise
    assert isinstance(derived, symbolic.LinearRecurrence)
    assert run_exactly(derived) == expected


@settings(max_examples=16)
@given(written())
def test_the_recurrence_of_random_equations_is_what_they_say(system: Written) -> None:
    check_against_substitution(system)


@settings(max_examples=6)
@given(written(varying=True))
def test_the_recurrence_of_equations_that_change_with_time(system: Written) -> None:
    check_against_substitution(system)


def test_the_comparison_sees_an_input_that_comes_a_step_late() -> None:
    one, x0, u0 = sympy.Integer(1), sympy.Function("x0"), sympy.Function("u0")
    form = {("x0", 0): one, ("x0", -1): -p, ("u0", 0): -one}
    expected = substituted(Written(1, 1, [form], [{("x0", 0): one}]))
    right = from_equations(Eq(x0(t), p * x0(t - 1) + u0(t)))
    late = from_equations(Eq(x0(t), p * x0(t - 1) + u0(t - 1)), outputs=[x0(t)])
    assert isinstance(right, symbolic.LinearRecurrence)
    assert isinstance(late, symbolic.LinearRecurrence)
    assert run_exactly(right) == expected != run_exactly(late)


DIFFERENTIAL = {
    "lag": [Eq(tau * x(t).diff(t), u(t) - x(t))],
    "second order": [Eq(x(t).diff(t, 2), -a * x(t).diff(t) - b * x(t) + u(t))],
    "derivative of the input": [Eq(x(t).diff(t, 2) + a * x(t).diff(t), u(t).diff(t) + c * u(t))],
    "coupled": [
        Eq(x(t).diff(t), a * x(t) + b * w(t) + u(t)),
        Eq(w(t).diff(t, 2), c * x(t).diff(t) - w(t) + v(t)),
    ],
    "implicit": [
        Eq(x(t).diff(t) + w(t).diff(t), -x(t) + u(t)),
        Eq(x(t).diff(t) - a * w(t).diff(t), -w(t) + u(t).diff(t)),
    ],
    "with an output": [Eq(x(t).diff(t), -a * x(t) + u(t)), Eq(y(t), c * x(t) + d * u(t))],
    "algebraic": [Eq(x(t).diff(t), -x(t) + w(t)), Eq(w(t), u(t) - b * x(t) - w(t) / 3)],
    "input twice differentiated": [
        Eq(x(t).diff(t, 2), -x(t) - x(t).diff(t) + u(t).diff(t, 2) + u(t))
    ],
    "shared denominator": [Eq((x(t).diff(t) + x(t)) / (1 + a), u(t))],
    "squares that cancel": [Eq(x(t).diff(t), (x(t) + 1) ** 2 - x(t) ** 2 - 1 + u(t))],
}


@pytest.mark.parametrize("name", DIFFERENTIAL)
def test_the_transfer_function_is_that_of_the_equations(name: str) -> None:
    equations = DIFFERENTIAL[name]
    system = from_equations(equations)
    assert isinstance(system, symbolic.StateSpace)
    # Laplace: x becomes X, and its derivatives s X, s² X, …; then solve for what is asked.
    functions = {f.func for e in equations for f in e.atoms(sympy.Function) if t in f.free_symbols}
    inputs = [i.func for i in system.inputs]
    transformed = {f: sympy.Symbol(f"{f}_s") for f in functions}

    def laplace(side: sympy.Expr) -> sympy.Expr:
        orders = {f(t).diff(t, k): s**k * g for f, g in transformed.items() for k in (1, 2)}
        return side.xreplace(orders).xreplace({f(t): g for f, g in transformed.items()})

    unknowns = [g for f, g in transformed.items() if f not in inputs]
    answer = sympy.solve([laplace(e.lhs - e.rhs) for e in equations], unknowns, dict=True)[0]
    several = {"with an output": "y", "coupled": "xw", "algebraic": "xw", "implicit": "wx"}
    wanted = several.get(name, "x")
    expected = sympy.Matrix(
        len(wanted),
        len(inputs),
        lambda i, j: answer[sympy.Symbol(f"{wanted[i]}_s")].diff(transformed[inputs[j]]),
    )
    H = sympy.Matrix([[system.transfer_function(s)]])
    assert (H.reshape(*expected.shape) - expected).applyfunc(sympy.simplify).is_zero_matrix


@pytest.mark.parametrize(
    ("equations", "outputs", "states"),
    [
        (Eq(x(t), a * x(t - 1) + u(t)), None, [x(t)]),
        (Eq(x(t + 1), a * x(t) + u(t)), None, [x(t + 1)]),
        (Eq(x(t + 1), a * x(t) + u(t)), [x(t)], [x(t), u(t)]),
        ({x(t): a * x(t - 1) + b * x(t - 2) + u(t)}, None, [x(t), x(t - 1)]),
        (Eq(x(t), a * x(t - 1) + u(t - 2)), None, [x(t), u(t), u(t - 1)]),
        ([Eq(x(t + 1), a * x(t) + u(t)), Eq(y(t), c * x(t) + d * u(t))], None, [x(t), u(t)]),
        (Eq(y(t), u(t) + b * u(t - 1)), None, [u(t), u(t - 1)]),
        (
            [Eq(x(t + 1), a * x(t) + w(t)), Eq(w(t + 1), c * w(t) + u(t))],
            None,
            [x(t + 1), w(t + 1)],
        ),
        (Eq(x(t).diff(t, 2), -x(t) + u(t)), None, [x(t), x(t).diff(t)]),
        ({x(t).diff(t): -x(t) / tau + u(t)}, None, [x(t)]),
    ],
)
def test_there_are_no_more_states_than_the_past_needs(
    equations: Any, outputs: Any, states: list[sympy.Expr]
) -> None:
    assert list(from_equations(equations, outputs=outputs).states) == states


def test_inputs_come_by_name_or_as_they_are_given() -> None:
    equation = Eq(x(t), v(t) + 2 * u(t) + x(t - 1))
    assert from_equations(equation).B == sympy.Matrix([[2, 1]])
    assert from_equations(equation, inputs=[v, u(t)]).B == sympy.Matrix([[1, 2]])
    implicit = Eq(u(t), x(t) - a * x(t - 1))
    assert from_equations(implicit, inputs=[u]).A == sympy.Matrix([[a]])


STEP, RATE = Eq(x(t), a * x(t - 1) + u(t)), Eq(x(t).diff(t), u(t) - a * x(t))


@pytest.mark.parametrize("outputs", [None, [y(t)]])
@pytest.mark.parametrize(
    "equations, gain, through",
    [
        (Eq(y(t), a * y(t) + u(t)), 0, 1 / (1 - a)),
        ([STEP, Eq(y(t), c * x(t) - y(t) / 2)], 2 * c / 3, 0),
        ([RATE, Eq(y(t), c * x(t) - y(t) / 2)], 2 * c / 3, 0),
        ([RATE, Eq(y(t), c * x(t) - d * (y(t) - u(t)))], c / (1 + d), d / (1 + d)),
    ],
)
def test_an_output_on_both_sides_is_solved_for(
    equations: Any, gain: Any, through: Any, outputs: Any
) -> None:
    """Solved by hand: y (1 - f) = c x + d u gives y = (c x + d u)/(1 - f)."""
    system = from_equations(equations, outputs=outputs)
    assert system.C.shape == system.D.shape == (1, 1)
    assert sympy.simplify(system.C[0] - gain) == 0 == sympy.simplify(system.D[0] - through)


n = sympy.Symbol("n")
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "square": (Eq(x(t), a * x(t - 1) ** 2 + u(t)), {}, r"`a\*x\(t - 1\)\*\*2` is not linear"),
    "product": (Eq(x(t), x(t - 1) * u(t)), {}, r"`u\(t\)\*x\(t - 1\)` is not linear"),
    "homogeneous": (Eq(x(t), sympy.sqrt(x(t - 1) * u(t))), {}, r"`sqrt\(u\(t\)\*x\(t - 1\)\)`"),
    "modulus": (Eq(x(t), x(t - 1) + sympy.Abs(u(t))), {}, r"`Abs\(u\(t\)\)` is not linear"),
    "floor": (Eq(x(t), sympy.floor(x(t - 1)) + u(t)), {}, r"`floor\(x\(t - 1\)\)` is not linear"),
    "quotient": (Eq(x(t), u(t) / x(t - 1)), {}, r"`u\(t\)/x\(t - 1\)` is not linear"),
    "affine": (Eq(x(t), a * x(t - 1) + u(t) + b), {}, "The term `b` multiplies no signal"),
    "rates in time": (Eq(x(t).diff(t), u(t) - x(t) / t), {}, r"`1/t` of `x\(t\)` depends on t"),
    "string": ("x(t) = x(t-1) + u(t)", {}, "of type str.*never evaluated"),
    "strings": (["__import__('os').abort()"], {}, "of type str.*never evaluated"),
    "string output": (Eq(x(t), x(t - 1) + u(t)), {"outputs": ["x(t)"]}, "is the string"),
    "string input": (Eq(x(t), x(t - 1) + u(t)), {"inputs": ["u"]}, "expected functions of t"),
    "string mapping": ({x(t): "u(t)"}, {}, "is the string"),
    "inequality": (x(t) > u(t), {}, "StrictGreaterThan"),
    "identity": ([Eq(x(t), x(t))], {}, "always holds"),
    "contradiction": ([Eq(sympy.Integer(1), 2)], {}, "never holds"),
    "nothing": ([], {}, "is empty"),
    "no function": (Eq(a, b), {}, "no functions of time"),
    "no input": (Eq(x(t), a * x(t - 1)), {}, "have no input"),
    "two speeds": (
        Eq(x(2 * t), x(t - 1) + u(t)),
        {"time": t},
        r"`x\(2\*t\)` runs at another speed",
    ),
    "half steps": (Eq(x(t), x(t - sympy.S.Half) + u(t)), {}, "shifted by -1/2"),
    "symbolic delay": (Eq(x(t), x(t - 1) + u(t - n)), {"time": t}, "shifted by -n"),
    "continuous delay": (Eq(x(t).diff(t), -x(t) + u(t - 1)), {}, "`StateSpace.from_delay`"),
    "two times": (Eq(x(t + n), x(t + n - 1) + u(t + n)), {}, "Pass `time=t`"),
    "two arguments": (Eq(z(t, a), z(t - 1, a) + u(t)), {}, "has 2 arguments"),
    "future": (Eq(x(t), a * x(t - 1) + u(t + 1)), {"outputs": [x(t)]}, "depends on inputs after t"),
    "future input": (Eq(x(t), x(t - 1) + u(t)), {"outputs": [u(t + 1)]}, "depends on inputs after"),
    "too few": (Eq(x(t) + w(t), u(t)), {"inputs": [u]}, "There are 1 equations for"),
    "too many": ([Eq(x(t), u(t)), Eq(x(t), v(t))], {}, "There are 2 equations for x"),
    "dependent": (
        [Eq(x(t) + w(t), u(t) + x(t - 1)), Eq(2 * x(t) + 2 * w(t), v(t))],
        {},
        "cannot be solved for",
    ),
    "singular rates": (
        [Eq(x(t).diff(t) + w(t).diff(t), u(t)), Eq(x(t).diff(t) + w(t).diff(t), x(t))],
        {},
        "cannot be solved for the highest derivatives",
    ),
    "cancelled": (Eq(y(t), y(t) + u(t)), {}, "`y` cancels out of the equations"),
    "cancelled output": ([RATE, Eq(y(t), y(t) + x(t))], {}, "`y` cancels out of the equations"),
    "state on both sides": ({x(t): a * x(t) + u(t)}, {}, "is on both sides"),
    "improper": (Eq(x(t).diff(t), -x(t) + u(t).diff(t, 2)), {}, "derivative 1 of the inputs u"),
    "integral": (
        Eq(x(t), x(t - 1) + sympy.Integral(u(t), t)),
        {},
        "is neither a signal nor a derivative",
    ),
    "higher derivative": (
        Eq(x(t).diff(t), -x(t) + u(t)),
        {"outputs": [x(t).diff(t, 2)]},
        "wants derivative 2 of x",
    ),
    "undefined function": (
        Eq(x(t), sympy.Function("f")(a) * x(t - 1) + u(t)),
        {"time": t},
        r"holds f\(a\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_equations_are_told_why(name: str) -> None:
    equations, options, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        from_equations(equations, **options)
