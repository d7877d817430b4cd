"""Derive the Legendre memory symbolically, in two independent ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # sympy takes a third of a second to import, and `import lmu` must not
    import sympy

    from linrec import symbolic


def derive(order: int, way: str = "projection") -> symbolic.StateSpace:
    """Derive the Legendre memory, with the length θ of its window as the parameter.

    Both ways start from the window w(r) = u(t - r θ), 0 ≤ r ≤ 1, and end with its coefficients m
    in shifted Legendre polynomials P̃_i(r) = P_i(2r - 1).

    "projection" puts w = Σ_j m_j P̃_j into the equation that moves the window along,
    θ ∂w/∂t = -∂w/∂r with w(0) = u, and projects it on each P̃_i:

        θ m_i' = (2i+1) (P̃_i(0) u - P̃_i(1) w(1) + ∫ P̃_i' w dr)

    "pade" starts instead from the delay's transfer function exp(-θ s) and its Padé approximant of
    degrees d - 1 and d, in companion form. The shorter delay exp(-r θ s) is read from the same
    states, by the numerator that matches its first d derivatives at s = 0 and is a polynomial in
    r. So the states x give the window as w(r) = c(r) x, and m = T x with
    T_i = (2i+1) ∫ P̃_i(r) c(r) dr changes the basis to Legendre's.

    Args:
        order: how many polynomials, d; the number of states.
        way: "projection" or "pade".

    Returns:
        The system, with the parameter `theta`. Both ways give the same, and so does
        `lmu.delay_system`.

    Raises:
        ValueError: an order below 1, or an unknown way.

    Example:
        >>> import lmu
        >>> lmu.derive(order=2).A
        Matrix([
        [-1/theta, -1/theta],
        [ 3/theta, -3/theta]])

    References:
        Voelker, Kajić and Eliasmith 2019, Legendre Memory Units, eqs 1 to 3.
        Voelker and Eliasmith 2018, Improving Spiking Dynamical Networks: Accurate Delays,
        Higher-Order Synapses, and Time Cells, section 3.
    """
    import sympy

    from linrec import symbolic

    if not isinstance(order, int) or order < 1:
        raise ValueError(f"`order` is {order!r}: expected a whole number of 1 or more.")
    ways = {"projection": by_projection, "pade": by_pade}
    if way not in ways:
        raise ValueError(f"`way` is {way!r}: expected one of {', '.join(ways)}.")
    A, B = ways[way](order)
    theta, t = sympy.Symbol("theta", positive=True), sympy.Symbol("t")
    names = [sympy.Function(f"m{i}")(t) for i in range(order)]
    return symbolic.StateSpace(A / theta, B / theta, time=t, states=names)


def shifted_legendre(order: int, r: sympy.Symbol) -> list[sympy.Poly]:
    """Write P̃_0 … P̃_{d-1} as polynomials in r."""
    import sympy

    return [sympy.Poly(sympy.legendre(i, 2 * r - 1), r) for i in range(order)]


def integral(polynomial: sympy.Poly) -> Any:
    """Integrate from 0 to 1."""
    import sympy

    whole = polynomial.integrate()
    return sympy.sympify(whole.eval(1)) - sympy.sympify(whole.eval(0))


def by_projection(order: int) -> tuple[sympy.Matrix, sympy.Matrix]:
    """Find A and B for a window of length 1 by projecting its motion."""
    import sympy

    r = sympy.Symbol("r")
    P = shifted_legendre(order, r)
    # At the window's end only the expansion itself is known: w(1) = Σ_j P̃_j(1) m_j.
    A = sympy.Matrix(
        order,
        order,
        lambda i, j: (2 * i + 1) * (integral(P[i].diff(r) * P[j]) - P[i].eval(1) * P[j].eval(1)),
    )
    return A, sympy.Matrix(order, 1, lambda i, _: (2 * i + 1) * P[i].eval(0))


def by_pade(order: int) -> tuple[sympy.Matrix, sympy.Matrix]:
    """Find A and B for a window of length 1 from the Padé approximant of its delay."""
    import sympy

    from linrec import symbolic

    r, s = sympy.symbols("r s")
    delay = symbolic.StateSpace.from_delay(1, order - 1, order, "controllable")
    # In controllable form the states are s^(d-1), …, s, 1 over the denominator a(s), times u.
    denominator = delay.A.charpoly(s).all_coeffs()[::-1]  # by rising powers of s
    read = [
        sympy.Poly(
            sum(denominator[k - j] * (-r) ** j / sympy.factorial(j) for j in range(k + 1)), r
        )
        for k in reversed(range(order))
    ]  # the terms of a(s) exp(-r s) below s^d
    T = sympy.Matrix(
        [
            [(2 * i + 1) * integral(P * each) for each in read]
            for i, P in enumerate(shifted_legendre(order, r))
        ]
    )
    return T * delay.A * T.inv(), T * delay.B
