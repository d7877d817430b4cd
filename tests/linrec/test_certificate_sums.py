"""Sums of products with constant matrices stay within their bounds, however they are cut."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from linrec.certificate import sums
from linrec.certificate.sums import Matrices, Sum, Term
from tests.cases import normal

CUTS = (1, 2)


def wide(*shape: int, seed: int) -> Tensor:
    """Draw numbers of all sizes, some of them so that their sums cancel."""
    return normal(*shape, seed=seed) * 2.0 ** (20 * normal(*shape, seed=seed + 1)).round()


def exactly(tensor: Tensor) -> list[list[Fraction]]:
    return [[Fraction(value) for value in row] for row in tensor.tolist()]


def dot(row: list[Fraction], vector: list[Fraction]) -> Fraction:
    return sum((one * other for one, other in zip(row, vector, strict=True)), Fraction(0))


def shares(
    seed: int, cuts: int, changed: Callable[[Matrices], Matrices] = lambda made: made
) -> list[float]:
    """Add up (M + m + d)(v + c + e) + N u, and give the share of each bound that the error uses.

    The tail is m, the correction c; d is within the doubt and e within the radius. In turns one of
    d, c and e is so large that its bound is seen.
    """
    M, N, m = wide(3, 4, seed=seed), wide(3, 9, seed=seed + 1), 2.0**-60 * normal(3, 4)
    v, u = wide(8, 4, seed=seed + 2), wide(8, 9, seed=seed + 3)
    sizes = [2.0**-40 if seed // 4 % 3 == large else 2.0**-90 for large in range(3)]
    d, c, e = sizes[0] * M.sign() * v[0].sign(), 2.0**40 * sizes[1] * v, sizes[2] * v
    d, c, e = d * M.abs().amax(), c * normal(8, 4), e * M[0].sign()
    if cuts == 1:  # corrections are for parts that are exact
        c = 0 * c
    N = N - N.mean(-1, keepdim=True)
    u[4:] = u[4:].mean(-1, keepdim=True)  # sums that cancel
    matrices = changed(Matrices.of([Term(M, m, d.abs()), Term(N)], cuts))
    found = matrices.add_up([v, u], c, e.abs())
    return used(found, [M, m, d, N], [v, u, c, e])


def used(found: Sum, matrices: list[Tensor], vectors: list[Tensor]) -> list[float]:
    (M, m, d, N), (v, u, c, e) = map(exactly, matrices), map(exactly, vectors)
    terms = [exactly(each) for each in (found.part, found.rest) if each is not None]
    bounds = exactly(found.error)
    result = []
    for t, i in ((t, i) for t in range(len(v)) for i in range(len(M))):
        state = [sum(each, Fraction(0)) for each in zip(v[t], c[t], e[t], strict=True)]
        matrix = [sum(each, Fraction(0)) for each in zip(M[i], m[i], d[i], strict=True)]
        off = (
            sum((term[t][i] for term in terms), Fraction(0)) - dot(matrix, state) - dot(N[i], u[t])
        )
        result.append(float(abs(off) / bounds[t][i]))
    return result


@pytest.mark.parametrize("cuts", CUTS)
def test_sums_are_within_their_bounds(cuts: int) -> None:
    found = [share for seed in range(0, 120, 4) for share in shares(seed, cuts)]
    assert 0 < max(found) <= 1


def without(name: str) -> Callable[[Matrices], Matrices]:
    return lambda made: replace(made, **{name: 0 * getattr(made, name)})


BREAKS = {
    "no rounding of rests": without("coefficient"),
    "no rounding of corrections": without("of_small"),
    "corrections by nothing": without("first"),
    "radii by nothing": without("sizes"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_bound_of_sums_is_seen(name: str) -> None:
    found = [max(shares(seed, 2, BREAKS[name])) for seed in range(0, 60, 4)]
    assert max(found) > 1


def test_parts_of_too_many_bits_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of parts are not exact then."""
    original = sums.slices
    monkeypatch.setattr(sums, "slices", lambda of, bits, cuts: original(of, bits + 6, cuts))
    assert max(share for seed in range(0, 120, 4) for share in shares(seed, 2)) > 1


@pytest.mark.parametrize("cuts", CUTS)
def test_a_matrix_in_doubt_blurs_its_own_vectors_alone(cuts: int) -> None:
    """Of M there is nothing but a doubt: what N meets rounds as it would by itself."""
    M, N, doubt = 1e-80 * normal(3, 4), normal(3, 9), torch.full((3, 1), 1e-30).double()
    v, u = 1e-6 * normal(8, 4), normal(8, 9)
    both = Matrices.of([Term(M, doubt=doubt), Term(N)], cuts).add_up([v, u]).error
    alone = Matrices.of([Term(N)], cuts).add_up([u]).error
    assert (both <= 2 * alone + 1.01e-30 * v.abs().sum(-1, keepdim=True)).all()


def test_tails_and_doubts_left_out_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "or_zeros", lambda _, matrix: torch.zeros_like(matrix))
    assert max(share for seed in range(0, 60, 4) for share in shares(seed, 2)) > 1
