"""Functions of matrices in closed form: powers and exponentials, by interpolation at eigenvalues.

A function f that is analytic at the eigenvalues λ₁ … λ_n of A is, at A, the polynomial that
interpolates it there, in Newton's form

    f(A) = Σ_j f[λ₁, …, λ_j] (A - λ₁ I) … (A - λ_{j-1} I)

where equal eigenvalues take derivatives instead of differences (Higham 2008, Functions of
Matrices, section 1.2.2). No eigenvectors are needed, so it covers defective matrices too.
"""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportReturnType=false

from dataclasses import dataclass
from typing import Any, Protocol

import sympy
from sympy.polys.polyerrors import DomainError

from linrec.symbolic.matrices import Matrix, as_fraction, block_size, exact, is_real, tidy, to_float
from linrec.symbolic.polynomials import NoClosedForm, characteristic_polynomial

# Longer polynomials are not factored.
LONGEST_FACTORED = 300

# Eigenvalues of a matrix of floating-point numbers that differ by less, relative to their size,
# are taken as equal. For two that differ by δ, divided differences lose eps / δ of their digits,
# and one double eigenvalue at their mean is off by δ² / 8 f''.
CLOSE = 1e-6

# Rounding moves eigenvalues at least this much, relative to the largest of them.
ROUNDED = 1e-13

# Points at which two roots are compared, and their digits.
POINTS, DIGITS = 3, 30


class Analytic(Protocol):
    """A function that can be expanded anywhere, and is real at real points."""

    def coefficient(self, point: sympy.Expr, order: int) -> sympy.Expr:
        """Return the coefficient of (z - point)^order in the series at `point`."""
        ...


@dataclass(frozen=True)
class Power:
    """z^k for a symbol k that stands for 0, 1, 2, …."""

    exponent: sympy.Expr

    def coefficient(self, point: sympy.Expr, order: int) -> sympy.Expr:
        """Return binomial(k, order) point^(k - order); at 0 only k = order is left."""
        if point.is_zero:
            return sympy.KroneckerDelta(self.exponent, order)
        return (
            sympy.ff(self.exponent, order)
            / sympy.factorial(order)
            * (raise_to_power(point, self.exponent) * point**-order)
        )


@dataclass(frozen=True)
class Exponential:
    """φ_k(z dt) dt^k: exp(z dt) at k = 0, ∫₀^dt exp(z s) ds at k = 1.

    φ_{k+1}(z) = (φ_k(z) - 1/k!) / z, and the series of φ_k at 0 has the coefficients 1/(j+k)!.
    """

    dt: sympy.Expr
    integrals: int = 0

    def coefficient(self, point: sympy.Expr, order: int) -> sympy.Expr:
        """Return the coefficient, at 0 as a limit."""
        k = self.integrals
        if point.is_zero:
            return self.dt ** (order + k) / sympy.factorial(order + k)
        z = sympy.Dummy("z", complex=True)
        value = sympy.exp(z * self.dt)
        for j in range(k):
            value = (value - self.dt**j / sympy.factorial(j)) / z
        derivative = value.diff(z, order) / sympy.factorial(order)
        return derivative.subs(sympy.exp(z * self.dt), rectangular(point * self.dt)).subs(z, point)


def raise_to_power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    """Raise to a power, a complex number in polar form."""
    real, imaginary = base.as_real_imag()
    if base.is_real is not False or not (real.is_real and imaginary.is_real):
        return base**exponent
    modulus = tidy(sympy.sqrt(real**2 + imaginary**2))
    angle = exponent * sympy.atan2(imaginary, real)
    return modulus**exponent * (sympy.cos(angle) + sympy.I * sympy.sin(angle))


def rectangular(exponent: sympy.Expr) -> sympy.Expr:
    """Write an exponential with a complex exponent as cosine and sine."""
    real, imaginary = sympy.expand(exponent).as_real_imag()
    if exponent.is_real is not False or not (real.is_real and imaginary.is_real):
        return sympy.exp(exponent)
    return sympy.exp(real) * (sympy.cos(imaginary) + sympy.I * sympy.sin(imaginary))


def eigenvalues(A: sympy.MatrixBase, *, formulas: bool = True) -> list[sympy.Expr]:
    """Compute the eigenvalues, equal ones next to each other.

    Args:
        A: the matrix.
        formulas: whether only roots of factors of degree 1 and 2 are accepted; False also accepts
            indexed roots of polynomials with numerical coefficients, which have no formula.

    Raises:
        NoClosedForm: the characteristic polynomial has an irreducible factor of higher degree.
    """
    precise = exact(A)
    if precise != A:
        return [to_float(each) for each in eigenvalues(precise, formulas=formulas)]
    variable, found = sympy.Dummy("lambda"), dict[sympy.Expr, int]()
    for part in sympy.Matrix(A).strongly_connected_components():  # the blocks of a triangular form
        block = sympy.Matrix(A).extract(part, part)
        for factor, multiplicity in factors(characteristic_polynomial(block, variable)):
            # (Equal factors of two blocks may differ in the symbols of their coefficients' domain.)
            for root in roots(sympy.Poly(factor, variable), formulas):
                same = (known for known in found if is_same(known, root))
                known = next(same, root)
                found[known] = found.get(known, 0) + multiplicity
    return [root for root, multiplicity in found.items() for _ in range(multiplicity)]


def is_same(first: sympy.Expr, second: sympy.Expr) -> bool:
    """Whether two roots are equal, as written or at a few points (√(3 - 2√2) is √2 - 1)."""
    if first == second:
        return True
    difference = sympy.Add(first, -second)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    for point in range(POINTS):
        values: Any = {each: some_value(each, place, point) for place, each in enumerate(symbols)}
        found = sympy.N(difference.subs(values), DIGITS, maxn=4 * DIGITS)
        size = abs(sympy.N(first.subs(values), DIGITS))
        if not (found.is_number and found.is_finite and size.is_number and size.is_finite):
            return False
        if abs(found) > 10.0 ** (-2 * DIGITS) * (1 + size):  # (of a zero, 120 digits are zeros)
            return False
    return True


def some_value(symbol: Any, place: int, point: int) -> Any:
    """Choose a value that satisfies the assumptions on a symbol."""
    primes = [sympy.prime(5 + 3 * place + point), sympy.prime(11 + 2 * place + 7 * point)]
    size: Any = primes[0] if symbol.is_integer else sympy.Rational(*primes)
    size = -size if symbol.is_negative or (not symbol.is_nonnegative and point % 2) else size
    return size if symbol.is_real else size + sympy.I * sympy.Rational(point + 1, primes[1])


def merge_close(nodes: list[sympy.Expr]) -> list[sympy.Expr]:
    """Replace eigenvalues that rounding may have moved apart by their mean, next to each other."""
    left = {place: complex(node) for place, node in enumerate(nodes) if node.is_number}
    merged = [node for node in nodes if not node.is_number]
    least = ROUNDED * max(map(abs, left.values()), default=0.0)
    while left:
        place, value = next(iter(left.items()))
        near = [i for i, x in left.items() if abs(x - value) <= max(least, CLOSE * abs(value))]
        mean = nodes[place]
        if any(nodes[i] != mean for i in near):
            whole = complex(sympy.N(sympy.Add(*(nodes[i] for i in near)) / len(near), DIGITS))
            imaginary = whole.imag if abs(whole.imag) > least else 0.0
            mean = as_fraction(whole.real) + sympy.I * as_fraction(imaginary)
        merged += [mean] * len(near)
        left = {i: x for i, x in left.items() if i not in near}
    return merged


def factors(polynomial: sympy.Poly) -> list[tuple[sympy.Poly, int]]:
    """Factor a polynomial with rational coefficients; return others unfactored.

    Long polynomials are not factored either, unless their coefficients are numbers.
    """
    if polynomial.free_symbols_in_domain:
        size = sum(len(sympy.Add.make_args(sympy.expand(c))) for c in polynomial.all_coeffs())
        if size > LONGEST_FACTORED:
            return [(polynomial, 1)]
        if polynomial.degree() > 2 and is_seen_irreducible(polynomial):
            return [(polynomial, 1)]
    try:
        return polynomial.factor_list()[1]
    except DomainError:
        return [(polynomial, 1)]


def is_seen_irreducible(polynomial: sympy.Poly) -> bool:
    """Whether one look shows that a polynomial has no factor of lower degree.

    If a product is linear in a symbol c, as c f + g, one factor holds c and all others divide f and
    g. So there are no others if f and g have no common factor in the variable. sympy's
    factorisation in many symbols draws random numbers, and some of them make it take hours.
    """
    numbers = getattr(polynomial.domain, "domain", None)  # of the symbols' coefficients
    if numbers not in (sympy.ZZ, sympy.QQ):
        return False
    whole = sympy.expand(polynomial.clear_denoms(convert=True)[1].as_expr())
    for symbol in sorted(polynomial.free_symbols_in_domain, key=str):
        if whole.is_polynomial(symbol) and sympy.degree(whole, symbol) == 1:
            f, g = sympy.Poly(whole, symbol).all_coeffs()
            if not sympy.gcd(f, g).has(polynomial.gen):
                return True
    return False


def roots(factor: sympy.Poly, formulas: bool) -> list[sympy.Expr]:
    """Compute the roots of an irreducible polynomial."""
    coefficients = factor.all_coeffs()
    if factor.degree() == 1:
        return [tidy(-coefficients[1] / coefficients[0])]
    if factor.degree() == 2:
        a, b, c = coefficients
        middle, quarter = tidy(-b / (2 * a)), tidy(b**2 / (4 * a**2) - c / a)
        # A root known to be imaginary is written with I, so that sympy finds its complex parts.
        distance = sympy.I * sympy.sqrt(-quarter) if quarter.is_negative else sympy.sqrt(quarter)
        return [middle + tidy(distance), middle - tidy(distance)]
    if not formulas and not factor.free_symbols_in_domain:
        return factor.all_roots()
    raise NoClosedForm(
        f"The characteristic polynomial has the factor {factor.as_expr()} of degree "
        f"{factor.degree()}, whose roots have no formula to work with. `bind` the system and ask "
        "`linrec` for numbers."
    )


def function_of_matrix(function: Analytic, A: Matrix, *, rounded: bool = False) -> Matrix:
    """Compute f(A) in closed form.

    Args:
        function: f.
        A: a square matrix.
        rounded: whether it stands for floating-point numbers, whose eigenvalues may be moved apart.

    Returns:
        f(A), simplified.

    Raises:
        NoClosedForm: the eigenvalues have no formula.
    """
    precise = exact(A)
    if precise != A:  # in floating point, equal eigenvalues would not be found equal
        return Matrix(function_of_matrix(function, precise, rounded=True).applyfunc(to_float))
    n, size = A.rows, block_size(A)
    if size < n:  # blocks are independent
        blocks = [A[i : i + size, i : i + size] for i in range(0, n, size)]
        found = (function_of_matrix(function, Matrix(each), rounded=rounded) for each in blocks)
        return Matrix(sympy.diag(*found))
    nodes = merge_close(eigenvalues(A)) if rounded else eigenvalues(A)
    if n == 2 and is_pair(*nodes):
        return function_of_pair(function, A, nodes[0])
    total, product = sympy.zeros(n, n), sympy.eye(n)
    for difference, node in zip(divided_differences(function, nodes), nodes, strict=True):
        total += difference * product
        product = (product * (A - node * sympy.eye(n))).applyfunc(sympy.expand)
    real = all(is_real(entry) for entry in A.flat())
    return Matrix(total.applyfunc(real_form if real else tidy))


def is_pair(first: sympy.Expr, second: sympy.Expr) -> bool:
    """Whether two eigenvalues are known to be a conjugate pair off the real line."""
    real, imaginary = first.as_real_imag()
    return bool(imaginary.is_nonzero) and real - sympy.I * imaginary == sympy.expand(second)


def function_of_pair(function: Analytic, A: Matrix, node: sympy.Expr) -> Matrix:
    """Compute f(A) for an A with the eigenvalues σ ± iω.

    The two terms of Newton's form are Re f(λ) I + Im f(λ) / ω (A - σ I).
    """
    sigma, omega = node.as_real_imag()
    real, imaginary = sympy.expand(function.coefficient(node, 0)).as_real_imag()
    turned = (A - sigma * sympy.eye(2)) / omega
    return Matrix((real * sympy.eye(2) + imaginary * turned).applyfunc(tidy))


def divided_differences(function: Analytic, nodes: list[sympy.Expr]) -> list[sympy.Expr]:
    """Compute f[λ₁], f[λ₁, λ₂], …; equal nodes have to be adjacent."""
    column = [function.coefficient(node, 0) for node in nodes]
    first = [column[0]]
    for order in range(1, len(nodes)):
        column = [
            function.coefficient(nodes[i], order)
            if nodes[i] == nodes[i + order]
            else (column[i + 1] - column[i]) / (nodes[i + order] - nodes[i])
            for i in range(len(nodes) - order)
        ]
        first.append(column[0])
    return first


def real_form(expression: sympy.Expr) -> sympy.Expr:
    """Simplify an entry of a function of a real matrix, combining conjugate eigenvalues."""
    if expression.has(sympy.I) and all(s.is_real for s in expression.free_symbols):
        expression = sympy.expand(expression.rewrite(sympy.cos)).as_real_imag()[0]
    return tidy(expression)
