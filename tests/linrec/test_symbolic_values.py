"""Values of symbols: their declared assumptions, their sizes, and the choice of the symbol."""

# Wrong arguments are passed on purpose, and sympy's annotations are narrower than what it does.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false

import random
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy
import torch

import linrec
from linrec import symbolic
from linrec.symbolic import Bounded, LinearRecurrence, StateSpace
from linrec.symbolic.matrices import factor_real_parts

p = sympy.Symbol("p", positive=True)
q = sympy.Symbol("q", integer=True)
a, b = sympy.symbols("a b", real=True)
g, t, s, z = sympy.symbols("g t s z")
HALF = LinearRecurrence([[p / 2]])

MINUS_ONE: list[Any] = [
    -1,
    -1.0,
    -1 + 0j,
    np.float32(-1),
    np.int64(-1),
    np.array([1.0, -1.0]),
    sympy.Integer(-1),
    sympy.Rational(-1, 2),
    sympy.Float(-1),
    -sympy.pi,
    Fraction(-1, 2),
    Decimal("-1"),
    torch.tensor(-1.0),
    torch.tensor([[1.0, 1.5], [1.2, -1.0]], dtype=torch.float64),
    torch.tensor([1.0, -1.0], dtype=torch.complex64),
    [1.0, -1.0],
    [torch.tensor(1.0), torch.tensor(-1.0)],
]


@pytest.mark.parametrize("value", MINUS_ONE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("symbol", [p, Bounded("p", 0, 2), sympy.Symbol("p", nonnegative=True)])
def test_a_sign_is_kept_whatever_the_type(symbol: sympy.Symbol, value: Any) -> None:
    with pytest.raises(ValueError, match=r"`p` is \(?-.*: expected it to be"):
        LinearRecurrence([[symbol / 2]]).bind(p=value)
    with pytest.raises(ValueError, match=r"`p` is \(?-.*: expected it to be"):
        StateSpace([[symbol / 2]]).bind(p=value)


@pytest.mark.parametrize(
    "value",
    [
        *(np.inf, -np.inf, np.nan, sympy.oo, np.float32("inf"), Decimal("inf")),
        *([1.0, np.inf], torch.tensor([1.0, np.inf]), torch.tensor([1.0 + 0j, np.nan])),
    ],
    ids=str,
)
@pytest.mark.parametrize("symbol", [p, q, a, g, Bounded("p", 0, 2)], ids=str)
def test_only_finite_numbers_are_taken(symbol: sympy.Symbol, value: Any) -> None:
    words = rf"`{symbol}` is .*(inf|nan).*: expected it to be .*, and finite"
    for made in (LinearRecurrence, StateSpace):
        with pytest.raises(ValueError, match=words):
            made([[symbol / 2]]).bind({symbol: value})


def test_a_symbol_of_extended_numbers_may_be_infinite() -> None:
    decay = sympy.exp(-sympy.Symbol("x", extended_positive=True))
    assert not LinearRecurrence([[decay]]).bind(x=np.inf).A.to_dense().any()
    with pytest.raises(ValueError, match="`x` is nan"):
        LinearRecurrence([[decay]]).bind(x=np.nan)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (sympy.Rational(1, 2), 0.25),
        (sympy.pi, np.pi / 2),
        (Fraction(10**400, 10**400 * 2), 0.25),
        (Decimal("0.5"), 0.25),
        (True, 0.5),
        (np.int64(2**24 + 1), (2**24 + 1) / 2),
        ([0.1, 0.3], [0.05, 0.15]),
        (np.array([1, 2]), [0.5, 1]),
    ],
)
def test_numbers_of_any_kind_are_taken_in_double_precision(value: Any, expected: Any) -> None:
    scale = torch.tensor(1.0, dtype=torch.float64)
    bound = LinearRecurrence([[p * a / 2]]).bind(p=value, a=scale)
    found = bound.A.to_dense().flatten()
    torch.testing.assert_close(found, torch.tensor(expected).double().flatten())


REFUSED: dict[str, tuple[Any, str]] = {
    "integer": (lambda: LinearRecurrence([[q]]).bind(q=1.5), "`q` is 1.5: .* integer"),
    "one of integers": (
        lambda: LinearRecurrence([[q]]).bind(q=torch.tensor([1.0, 0.5])),
        r"`q` is 0.5 at \(1,\)",
    ),
    "infinite integer": (lambda: LinearRecurrence([[1 / q]]).bind(q=float("inf")), "`q` is inf"),
    "NaN": (lambda: LinearRecurrence([[1 / q]]).bind(q=float("nan")), "`q` is nan"),
    "NaN for a real": (lambda: LinearRecurrence([[a]]).bind(a=float("nan")), "`a` is nan"),
    "complex for a real": (lambda: LinearRecurrence([[a]]).bind(a=1j), "`a` is 1j: .* real"),
    "too large": (lambda: LinearRecurrence([[a]]).bind(a=10**400), r"1.0000E\+400.* too large"),
    "too large a fraction": (
        lambda: LinearRecurrence([[a]]).bind(a=Fraction(10**400, 3)),
        "too large",
    ),
    "very long": (lambda: LinearRecurrence([[a]]).bind(a=10**6000), "too large"),
    "large constant": (
        lambda: LinearRecurrence([[sympy.Integer(10) ** 400]]).bind(),
        r"1.0000E\+400.* too large",
    ),
    "large coefficient": (lambda: StateSpace([[a * 10**400]]).bind(a=1.0), "too large"),
    "large step": (lambda: StateSpace([[a]]).discretize(10**400).bind(a=-1.0), "too large"),
    "expression": (lambda: LinearRecurrence([[a]]).bind(a=b), "is the expression b"),
    "twice": (lambda: HALF.bind({p: 1.0}, p=2.0), "given twice"),
    "twice in a mapping": (lambda: HALF.bind({p: 1.0, "p": 2.0}), "given twice"),
    "half a step": (lambda: LinearRecurrence([[t]]).bind(steps=2.5), "`steps` is 2.5"),
    "no number of steps": (lambda: LinearRecurrence([[t]]).bind(steps=True), "`steps` is True"),
    "negative steps": (lambda: LinearRecurrence([[t]]).bind(steps=-1), "`steps` is -1"),
    "a parameter called steps": (
        lambda: LinearRecurrence([[sympy.Symbol("steps")]]).bind(steps=1),
        'bind\\({"steps": 2.0}\\)',
    ),
    "negative dt": (lambda: StateSpace([[-1]]).discretize(g).bind(g=-1.0), "`dt` is -1.0"),
    "complex floor": (lambda: LinearRecurrence([[sympy.floor(g)]]).bind(g=1j), "not supported"),
    "other t": (lambda: LinearRecurrence([[sympy.Symbol("t", real=True)]]), "Two symbols .* `t`"),
    "dt is t": (lambda: StateSpace([[-1]]).discretize(t), "t is the time of the system"),
    "dt is called t": (
        lambda: StateSpace([[-1]]).discretize(sympy.Symbol("t", positive=True)),
        "Two symbols are called `t`",
    ),
    "response at another p": (
        lambda: HALF.impulse_response(sympy.Symbol("p")),
        "Two symbols are called `p`",
    ),
    "function of another p": (lambda: HALF.transfer_function(sympy.Symbol("p")), "does not have"),
    "another p put in": (lambda: HALF.subs({sympy.Symbol("p"): 2}), "Two symbols are called `p`"),
    "string put in": (lambda: HALF.subs({"p": 2}), "expected a symbol"),
    "wrong sign put in": (lambda: HALF.subs({p: -1}), "`p` is to become -1: .* positive"),
    "out of bounds put in": (
        lambda: LinearRecurrence([[Bounded("x", 0, 1)]]).subs({Bounded("x", 0, 1): 2}),
        "between 0 and 1",
    ),
    "another s": (
        lambda: StateSpace.from_transfer_function(1 / (sympy.Symbol("s", real=True) + 1), s),
        "Two symbols are called `s`",
    ),
    "half an index": (lambda: HALF.impulse_response(2.5), "whole number of steps"),
    "infinite index": (lambda: HALF.impulse_response(sympy.oo), "whole number of steps"),
    "index that is no number": (
        lambda: HALF.impulse_response(float("nan")),
        "whole number of steps",
    ),
    "time that is no number": (
        lambda: StateSpace([[-p]]).impulse_response(float("nan")),
        "a real time",
    ),
    "too many steps": (lambda: HALF.impulse_response(10**9), "Pass a symbol k"),
    "complex time": (lambda: StateSpace([[-p]]).impulse_response(sympy.I), "a real time"),
    "impulse through D": (
        lambda: StateSpace([[-p]], [[1]], [[1]], [[1]]).impulse_response(0),
        "through which an impulse passes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_what_is_wrong(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_large_whole_numbers_are_ordinary_coefficients() -> None:
    assert float(LinearRecurrence([[10**30 * a]]).bind(a=1e-30).A.to_dense()) == pytest.approx(1.0)
    for exponent, expected in ((10**20, 1.0), (10**17 + 1, -1.0), (-(10**17) - 1, -1.0)):
        assert float(LinearRecurrence([[a**exponent]]).bind(a=-1.0).A.to_dense()) == expected


def test_the_impulse_is_not_felt_before_it_comes() -> None:
    assert HALF.impulse_response(-1) == 0 and StateSpace([[-p]]).impulse_response(-0.5) == 0
    assert HALF.impulse_response(sympy.Symbol("j", negative=True)) == 0
    wide = LinearRecurrence([[a]], [[1, 2]]).impulse_response(-3)
    assert wide == sympy.zeros(1, 2)
    assert HALF.impulse_response(3.0) == p**3 / 8


def test_symbols_are_replaced_all_at_once() -> None:
    swapped = LinearRecurrence([[a, b], [0, 1]]).subs({a: b, b: a})
    assert swapped.A == sympy.Matrix([[b, a], [0, 1]])


def test_tensors_that_cannot_be_looked_at_are_taken() -> None:
    def decay(value: torch.Tensor) -> torch.Tensor:
        return HALF.bind(p=value).A.to_dense()

    torch.testing.assert_close(
        torch.vmap(decay)(torch.tensor([1.0, 2.0])).flatten(), torch.tensor([0.5, 1.0])
    )
    assert HALF.bind(p=torch.ones(2, device="meta")).batch_shape == (2,)


def test_what_was_discretised_is_composed_in_numbers_where_formulas_divide_zero_by_zero() -> None:
    dt, r = sympy.symbols("dt r", positive=True)
    rates = StateSpace([[-1, 1], [0, -r]], [[0], [1]], [[1, 0]]).discretize(dt)
    lag = StateSpace([[-p]], [[p]]).discretize(dt)
    for symbolically, numerically in (
        (symbolic.series, linrec.series),
        (symbolic.parallel, linrec.parallel),
    ):
        composed = symbolically(rates, lag)
        for rate in (1.0, 1.0 + 1e-9, 0.3):
            values = {"r": rate, "dt": 0.5}
            got = composed.bind(values, p=2.0)
            known = numerically(rates.bind(values), lag.bind(p=2.0, dt=0.5))
            for name, leaf in known.leaves().items():
                torch.testing.assert_close(got.leaves()[name], leaf)
        assert composed.subs({r: 1}).bind(p=2.0, dt=0.5).state_size == 3
        assert composed.stability_conditions() == ()


def test_parameters_that_a_formula_lost_are_still_asked_for() -> None:
    steps = StateSpace([[0]], [[1 / p]]).discretize(p)
    assert steps.parameters == (p,) and float(steps.bind(p=2.0).A.to_dense()) == 1


GAINS: dict[str, Any] = {
    "discrete": lambda: LinearRecurrence.from_transfer_function(p, z),
    "continuous": lambda: StateSpace.from_transfer_function(p, s),
    "observable": lambda: StateSpace.from_transfer_function(p, s, "observable"),
    "balanced": lambda: LinearRecurrence.from_transfer_function(p, z, "balanced"),
    "zeros and poles": lambda: StateSpace.from_zpk([], [], p),
    "that cancel": lambda: LinearRecurrence.from_zpk([2], [2], p),
    "equation": lambda: symbolic.from_equations(
        sympy.Eq(sympy.Function("y")(t), p * sympy.Function("u")(t))
    ),
}


@pytest.mark.parametrize("name", GAINS)
def test_a_gain_is_a_system(name: str) -> None:
    system = GAINS[name]()
    assert system.transfer_function(z) == p and system.stability_conditions() == ()
    inputs = torch.tensor([[1.0], [-2.0]])
    discrete = system if isinstance(system, LinearRecurrence) else system.discretize(1)
    torch.testing.assert_close(linrec.run(discrete.bind(p=3.0), inputs).outputs, 3 * inputs)


@pytest.mark.parametrize(
    "name", ["update", "values", "items", "keys", "pop", "clear", "training", "parametrizations"]
)
def test_names_of_trained_parameters_work_or_are_refused(name: str) -> None:
    refused = 0
    for symbol in (sympy.Symbol(name, positive=True), sympy.Symbol(name, real=True)):
        system = LinearRecurrence([[symbol / 2]])
        for trainable in ([], [name]):
            try:
                module = linrec.nn.Recurrence(system, trainable=trainable, parameters={name: 0.5})
            except ValueError as error:
                assert "Rename its symbol" in str(error)
                refused += 1
            else:
                assert float(module.recurrence.A.to_dense().detach()) == pytest.approx(0.25)
    assert refused == (4 if name in ("training", "parametrizations") else 1)


@pytest.mark.parametrize("seed", range(3))
def test_long_complex_fractions_are_written_with_real_parts(seed: int) -> None:
    """At rational points they are equal to the last digit, without a division by a factor."""
    a, b, s = sympy.symbols("a b s")
    draw = random.Random(seed)

    def polynomial() -> sympy.Expr:
        terms = [a * s, b, s**2, a * b, sympy.Integer(1)]
        return sympy.Add(
            *((draw.randint(-3, 3) + draw.randint(-3, 3) * sympy.I) * each for each in terms)
        )

    common, below = polynomial(), polynomial()
    real = 1 + a**2 + b * s
    given = sympy.expand(common * real) / sympy.expand(below * real) + common / (s + sympy.I * a)
    for expression in (given, given - given.expand()):
        written = factor_real_parts(expression)
        for point in ({a: 2, b: sympy.Rational(1, 3), s: -5}, {a: sympy.I, b: 7, s: 11}):
            mine, theirs = (sympy.nsimplify(each.subs(point)) for each in (written, expression))
            assert sympy.expand(sympy.radsimp(mine - theirs)) == 0
    assert factor_real_parts(given - given.expand()) == 0
    below_real = sympy.fraction(sympy.together(factor_real_parts(sympy.I * common / real**2)))[1]
    assert sympy.degree(below_real, b) == 2
