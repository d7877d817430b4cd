"""Coordinates in which powers stay small, compared with rational arithmetic."""

# Of scipy's overloads those that return two arrays are meant.
# pyright: reportOptionalIterable=false

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import signal

import linrec
import linrec.testing
from linrec.coordinates import whole_numbers
from linrec.coordinates.contraction import contract

FILTERS = {
    "butter(6, .05)": signal.butter(6, 0.05),
    "cheby1(6, 1, .1)": signal.cheby1(6, 1, 0.1),
    "bessel(7, .07)": signal.bessel(7, 0.07),
    "ellip(7, .7, 41, .013)": signal.ellip(7, 0.7, 41, 0.013),
    "butter(8, .005), unstable as rounded": signal.butter(8, 0.005),
}


def companion(name: str) -> np.ndarray:
    return signal.tf2ss(*FILTERS[name])[0]


def fractions(matrix: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(entry)) for entry in row] for row in matrix]


def product(left: list[list[Fraction]], right: list[list[Fraction]]) -> list[list[Fraction]]:
    return [
        [
            sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0))
            for column in zip(*right, strict=True)
        ]
        for row in left
    ]


@pytest.mark.parametrize("name", FILTERS)
def test_the_norm_reaches_its_target_from_powers_that_explode(name):
    A = companion(name)
    assert np.linalg.norm(A, 2) > 20
    moved = contract(A[None], 600).matrix[0]
    radius = np.abs(np.linalg.eigvals(moved)).max()  # of A itself they have lost most digits
    target = (1 + radius) / 2 if radius < 1 else radius * (1 + 1 / 600)
    norm = np.linalg.norm(moved, 2)
    assert norm <= target * 1.002  # the last stage ends within a thousandth


@pytest.mark.parametrize("name", FILTERS)
def test_the_matrix_in_new_coordinates_is_correctly_rounded(name):
    """T A' = A T holds in rational arithmetic but for one rounding of each entry of A'."""
    A = companion(name)
    basis, _, matrix = (each[0] for each in contract(A[None], 600))
    T, moved = fractions(basis), fractions(matrix)
    left, right = product(T, moved), product(fractions(A), T)
    allowed = product(fractions(np.abs(basis)), fractions(np.abs(matrix)))
    for row_left, row_right, row_allowed in zip(left, right, allowed, strict=True):
        for a, b, bound in zip(row_left, row_right, row_allowed, strict=True):
            assert abs(a - b) <= bound * Fraction(2) ** -53 + Fraction(2) ** -90


def test_a_stack_of_real_and_one_of_complex_matrices():
    stack = np.stack([companion("butter(6, .05)"), np.diag(np.full(6, 0.5))])
    real = contract(stack, 100)
    assert (real.basis[1] == np.eye(6)).all()  # nothing to do for it
    turned = stack * np.exp(0.3j)
    turned_found = contract(turned, 100)
    for system in range(2):
        T, X, A = (each[system] for each in turned_found)
        assert np.linalg.norm(A, 2) < 1
        assert np.abs(T @ A - turned[system] @ T).max() <= 1e-13 * np.abs(T).max()
        assert np.abs(X @ T - np.eye(6)).max() < 1e-6


def test_a_large_matrix_is_transformed_in_doubles():
    random = np.random.default_rng(0).standard_normal((96, 96))
    A = np.triu(random, 1) + np.diag(np.linspace(-0.9, 0.9, 96))
    A *= 0.3
    T, _, moved = (each[0] for each in contract(A[None], 100))
    assert np.linalg.norm(moved, 2) < 1 < np.linalg.norm(A, 2)
    assert np.linalg.norm(T @ moved - A @ T, 2) <= 1e-12 * np.linalg.norm(T, 2)


def test_fixed_point_numbers_are_exact():
    numbers = np.array([[1.5, -(2.0**-200)], [3e20, 0.0]])
    assert (whole_numbers.to_float(whole_numbers.to_fixed(numbers)) == numbers).all()


def test_an_inverse_that_is_too_far_off_is_refused():
    assert whole_numbers.similar(np.eye(2), np.eye(2), -np.eye(2)) is None


@pytest.mark.parametrize("order, cutoff", [(4, 0.005), (4, 0.02), (5, 0.02), (7, 0.01)])
def test_few_steps_of_a_sharp_filter_are_within_the_bound(order: int, cutoff: float) -> None:
    """States in companion form are large sums; coordinates give them back to the loop's digits."""
    A, B, C, D = (torch.tensor(each) for each in signal.tf2ss(*signal.butter(order, cutoff)))
    recurrence = linrec.LinearRecurrence(A, B, C, D)
    coordinates = linrec.contracting_coordinates(recurrence, 5)
    basis, inverse = coordinates.basis.to_dense(), coordinates.inverse.to_dense()
    residual = (basis @ inverse - torch.eye(order, dtype=basis.dtype)).abs()
    # |T W - I| <= n u |T| |W| of substitution (Higham 2002, eq. 14.5), and as much of this product.
    assert (residual <= 2 * order * 2.0**-53 * (basis.abs() @ inverse.abs())).all()
    assert not inverse.triu(1).any()
    for executor in (linrec.Toeplitz(), linrec.AssociativeScan(), linrec.FFTConvolution()):
        linrec.testing.check_case(
            recurrence, torch.ones(5, 1, dtype=A.dtype), executor=executor, property="agreement"
        )
