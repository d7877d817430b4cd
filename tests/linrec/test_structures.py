"""The five operations of every structure, compared with its dense matrix."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import scipy.linalg
import torch

import linrec
from linrec.structures import matvec
from linrec.testing import Disagreement, check_case
from tests.cases import TRANSITIONS, VARYING, normal

ALL = {name: make for name, make in TRANSITIONS.items()} | {
    name: (lambda make=make: make(4).A) for name, make in VARYING.items()
}
PAIRS = [
    ("dense", "diagonal"),
    ("diagonal", "dense"),
    ("diagonal", "diagonal"),
    ("blocks", "blocks"),
    ("companion", "companion"),
    ("companion complex batch", "companion"),
    ("low rank", "low rank"),
    ("low rank complex", "low rank complex"),
    ("low rank batch", "low rank batch"),
    ("diagonal", "low rank complex"),
    ("low rank complex", "diagonal"),
    ("varying dense", "varying dense batch"),
    ("varying diagonal", "varying diagonal"),
    ("varying diagonal", "varying dense"),
    ("varying low rank", "varying low rank"),
]


def close(got: torch.Tensor, expected: torch.Tensor, scale: float) -> None:
    """Within n roundings of products of this scale."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 64 * torch.finfo(torch.float64).eps * scale


def largest_row_sum(matrices: torch.Tensor) -> float:
    return float(matrices.abs().sum(-1).max())


@pytest.mark.parametrize("name", ALL)
def test_apply(name: str) -> None:
    A = ALL[name]()
    dense = A.to_dense()
    assert dense.shape == (*A.batch_shape, A.state_size, A.state_size)
    states = normal(*A.batch_shape, A.state_size, dtype=dense.dtype)
    expected = torch.einsum("...ij,...j->...i", dense, states)
    close(A.apply(states), expected, largest_row_sum(dense) * float(states.abs().max()))


@pytest.mark.parametrize("name", TRANSITIONS)
def test_one_matrix_for_an_axis_of_states(name: str) -> None:
    A = TRANSITIONS[name]()
    states = normal(*A.batch_shape, 5, A.state_size, dtype=A.dtype)
    shared = A[..., None] if A.batch_shape else A
    expected = torch.einsum("...ij,...kj->...ki", A.to_dense(), states)
    close(shared.apply(states), expected, largest_row_sum(A.to_dense()) * float(states.abs().max()))


@pytest.mark.parametrize("name", ALL)
def test_adjoint(name: str) -> None:
    A = ALL[name]()
    close(A.adjoint().to_dense(), A.to_dense().mH, largest_row_sum(A.to_dense()))
    close(A.adjoint().adjoint().to_dense(), A.to_dense(), largest_row_sum(A.to_dense()))


@pytest.mark.parametrize("later, earlier", PAIRS + [(name, name) for name in ALL])
def test_compose(later: str, earlier: str) -> None:
    A, E = ALL[later](), ALL[earlier]()
    if A.state_size != E.state_size:
        E = linrec.Dense(normal(*A.batch_shape, A.state_size, A.state_size, dtype=A.dtype))
    dtype = torch.promote_types(A.dtype, E.dtype)
    A, E = A.to(dtype), E.to(dtype)
    got = A.compose(E).to_dense()
    scale = largest_row_sum(A.to_dense()) * largest_row_sum(E.to_dense())
    close(got, A.to_dense() @ E.to_dense(), scale)


def test_low_rank_stays_low_rank_until_dense_is_smaller() -> None:
    A = TRANSITIONS["low rank"]()
    twice = A.compose(A)
    assert isinstance(twice, linrec.DiagonalPlusLowRank) and twice.left.shape[-1] == 2
    assert isinstance(twice.compose(twice).compose(twice), linrec.Dense)


@pytest.mark.parametrize("name", ALL)
def test_stacks(name: str) -> None:
    """A structure is indexed, cast and rebuilt as the stack of matrices that it is."""
    A = ALL[name]()
    dense = A.to_dense()
    if A.batch_shape:
        torch.testing.assert_close(A[..., None].to_dense(), dense.unsqueeze(-3), rtol=0, atol=0)
        torch.testing.assert_close(A[0].to_dense(), dense[0], rtol=0, atol=0)
    again = A.map(lambda leaf, _: leaf.clone())
    assert type(again) is type(A)
    torch.testing.assert_close(again.to_dense(), dense, rtol=0, atol=0)
    single = torch.complex64 if dense.is_complex() else torch.float32
    assert A.to(single).dtype == single


WIDER = [
    (torch.float32, torch.float64, torch.float64),
    (torch.float64, torch.float32, torch.float64),
    (torch.float32, torch.complex64, torch.complex64),
    (torch.complex64, torch.float64, torch.complex128),
]


@pytest.mark.parametrize("mine, theirs, both", WIDER)
@pytest.mark.parametrize(
    "name", ["dense", "dense batch", "diagonal", "blocks", "companion", "low rank"]
)
def test_dtypes_are_promoted(name: str, mine, theirs, both) -> None:
    A, E = TRANSITIONS[name]().to(mine), TRANSITIONS[name]().to(theirs)
    states = normal(*A.batch_shape, A.state_size, dtype=torch.float64).to(theirs)
    got, expected = A.apply(states), A.to(both).apply(states.to(both))
    assert got.dtype == both
    torch.testing.assert_close(got, expected)
    square = TRANSITIONS[name]().to(both).to_dense() @ TRANSITIONS[name]().to(both).to_dense()
    for other in (E, linrec.Dense(E.to_dense())):
        for got in (A.compose(other), other.compose(A)):
            assert got.dtype == both
            torch.testing.assert_close(got.to_dense(), square, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 1), (2, 5)])
def test_one_matrix_and_many_vectors(batch: tuple[int, ...]) -> None:
    matrix, vectors = normal(1, 3, 4, seed=1), normal(*batch, 4, seed=2)
    expected = torch.einsum("pn,...n->...p", matrix[0], vectors)
    got = matvec(matrix, vectors)
    torch.testing.assert_close(got, expected if batch else expected[None])


LISTED = {
    linrec.Dense: {"A": [[1.0, 2], [3, 4]]},
    linrec.Diagonal: {"diagonal": [1.0, 2]},
    linrec.BlockDiagonal: {"blocks": [[[1.0, 2], [3, 4]]]},
    linrec.Companion: {"coefficients": [1.0, 2]},
    linrec.DiagonalPlusLowRank: {"diagonal": [1.0, 2], "left": [[1.0], [2]], "right": [[3.0], [4]]},
}


@pytest.mark.parametrize("structure", LISTED)
def test_lists_of_numbers(structure: type[linrec.Structure]) -> None:
    tensors = [torch.tensor(each) for each in LISTED[structure].values()]
    states = normal(3, 2, dtype=torch.float32)
    got = structure(*LISTED[structure].values())
    assert got.apply(states).equal(structure(*tensors).apply(states))
    assert all(
        mine.equal(given) for mine, given in zip(got.leaves().values(), tensors, strict=True)
    )


@pytest.mark.parametrize("n", [1, 2, 5])
def test_companions_are_scipys(n: int) -> None:
    coefficients = normal(n)
    expected = scipy.linalg.companion([1.0, *coefficients.tolist()])
    A = linrec.Companion(coefficients)
    assert A.to_dense().tolist() == expected.tolist()
    assert (
        linrec.Companion(coefficients, transposed=True).to_dense().tolist() == expected.T.tolist()
    )
    assert A.multiplications == n


def test_blocks_of_other_sizes() -> None:
    """Two blocks of three after three of two: six states on either side."""
    later, earlier = normal(2, 3, 3, seed=1), normal(3, 2, 2, seed=2)
    A, E = linrec.BlockDiagonal(later), linrec.BlockDiagonal(earlier)
    close(A.compose(E).to_dense(), A.to_dense() @ E.to_dense(), 100.0)
    stacked = linrec.BlockDiagonal(normal(4, 2, 3, 3, seed=3))
    for first, second in ((A, stacked), (stacked, A)):
        product = first.compose(second)
        assert isinstance(product, linrec.BlockDiagonal)
        close(product.to_dense(), first.to_dense() @ second.to_dense(), 100.0)


@pytest.mark.parametrize(
    "ranks, kind",
    [((1, 2), linrec.DiagonalPlusLowRank), ((2, 2), linrec.Dense), ((3, 2), linrec.Dense)],
)
def test_ranks_that_add_up_to_all_are_dense(ranks: tuple[int, int], kind: type) -> None:
    A = linrec.DiagonalPlusLowRank(normal(4), normal(3, 4, ranks[0]), normal(4, ranks[0]))
    E = linrec.DiagonalPlusLowRank(normal(4), normal(4, ranks[1]), normal(2, 1, 4, ranks[1]))
    assert (A.batch_shape, E.batch_shape) == ((3,), (2, 1))
    for first, second in ((A, E), (E, A)):
        product = first.compose(second)
        assert isinstance(product, kind)
        close(product.to_dense(), first.to_dense() @ second.to_dense(), 100.0)


def test_one_matrix_before_those_of_every_step() -> None:
    A, E = VARYING["varying diagonal"](4).A, linrec.Dense(normal(3, 3))
    close(A.compose(E).to_dense(), A.to_dense() @ E.to_dense(), 100.0)


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: linrec.Dense(torch.ones(2, 3)), r"`A` .* \(2, 3\): expected a square matrix"),
        (lambda: linrec.Dense(torch.ones(3)), r"`A` .* \(3,\): expected a square matrix"),
        (lambda: linrec.Dense(torch.ones(0, 0)), "0 states: expected one or more"),
        (lambda: linrec.Dense(torch.ones(2, 0, 0)), "0 states: expected one or more"),
        (lambda: linrec.Diagonal(torch.tensor(1.0)), r"`diagonal` .*: expected a vector \(\*b"),
        (lambda: linrec.Diagonal(torch.ones(2, 0)), "`diagonal` has 0 states: expected one"),
        (lambda: linrec.Companion(torch.tensor(1.0)), r"`coefficients` .*: expected a vector"),
        (lambda: linrec.Companion(torch.ones(2, 0)), "`coefficients` has 0 states"),
        (lambda: linrec.BlockDiagonal(torch.ones(0, 2, 2)), "0 states: expected one or more"),
        (lambda: linrec.BlockDiagonal(torch.ones(2, 0, 0)), "0 states: expected one or more"),
        (lambda: linrec.BlockDiagonal(torch.ones(2, 2)), r"`blocks` .* \(2, 2\): expected square"),
        (lambda: linrec.BlockDiagonal(torch.ones(2, 2, 3)), r"\(2, 2, 3\): expected square"),
        (
            lambda: linrec.DiagonalPlusLowRank(torch.ones(3), torch.ones(1, 3), torch.ones(1, 3)),
            "`left.mT`",
        ),
        (
            lambda: linrec.DiagonalPlusLowRank(
                torch.ones(2, 3), torch.ones(4, 3, 1), torch.ones(3, 1)
            ),
            r"diagonal \(2,\), left \(4,\)",
        ),
        (lambda: linrec.Varying(torch.eye(3)), r"expected one a step, \(\*batch, time, n, n\)"),
        (lambda: linrec.Varying(linrec.Varying(torch.ones(2, 1, 1))), "one axis of time"),
    ],
)
def test_bad_structures_are_refused(make, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make()


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: linrec.Dense("a"), "`A` is of type str: expected a torch.Tensor"),
        (lambda: linrec.Diagonal("a"), "`diagonal` is of type str"),
        (lambda: linrec.BlockDiagonal("a"), "`blocks` is of type str"),
        (lambda: linrec.DiagonalPlusLowRank("a", [[1.0]], [[1.0]]), "`diagonal` is of type str"),
        (lambda: linrec.DiagonalPlusLowRank([1.0], "a", [[1.0]]), "`left` is of type str"),
        (lambda: linrec.DiagonalPlusLowRank([1.0], [[1.0]], "a"), "`right` is of type str"),
        (lambda: linrec.Diagonal(torch.ones(2).long()), r"`diagonal.float\(\)`"),
    ],
)
def test_what_is_no_matrix_is_refused(make, error: str) -> None:
    with pytest.raises(TypeError, match=error):
        make()


@pytest.mark.parametrize("wrong", ["diagonal", "left", "right"])
def test_a_low_rank_part_without_its_axes_is_refused(wrong: str) -> None:
    parts = {"diagonal": torch.ones(3), "left": torch.ones(3, 1), "right": torch.ones(3, 1)}
    parts[wrong] = parts[wrong].sum() if wrong == "diagonal" else parts[wrong][:, 0]
    with pytest.raises(ValueError, match=rf"`{wrong}` has shape \(.*\): expected a "):
        linrec.DiagonalPlusLowRank(**parts)


@dataclass(frozen=True, eq=False)
class Decays(linrec.Structure):
    """A user's diagonal matrix, equal to `Diagonal` but for its class."""

    values: torch.Tensor
    core_axes: ClassVar[Mapping[str, int]] = {"values": 1}

    @property
    def state_size(self) -> int:
        return self.values.shape[-1]

    def apply(self, states: torch.Tensor) -> torch.Tensor:
        return self.values * states

    def compose(self, earlier: linrec.Structure) -> linrec.Structure:
        other = earlier.as_diagonal()
        if other is not None:
            return Decays(self.values * other)
        return linrec.Dense(self.to_dense()).compose(earlier)

    def adjoint(self) -> "Decays":
        return Decays(self.values.conj())

    def to_dense(self) -> torch.Tensor:
        return torch.diag_embed(self.values)

    def as_diagonal(self) -> torch.Tensor:
        return self.values


DECAYS = normal(512, 16, dtype=torch.float32).sigmoid()


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_diagonal_of_a_users_is_run_as_ours(varying: bool, gradient: bool) -> None:
    """The same executor and estimates, and (to the last digit) the same operations."""
    mine, ours = (
        linrec.LinearRecurrence(linrec.Varying(kind(DECAYS)) if varying else kind(DECAYS[0]))
        for kind in (Decays, linrec.Diagonal)
    )
    plans = [linrec.explain(each, 512, (64,), gradient=gradient) for each in (mine, ours)]
    assert plans[0].rows == plans[1].rows and plans[0].chosen == linrec.AssociativeScan()
    inputs = normal(64, 512, 16, dtype=torch.float32)
    got, expected = linrec.run(mine, inputs), linrec.run(ours, inputs)
    assert all(map(torch.equal, got, expected))


def test_a_diagonal_of_a_users_stays_diagonal() -> None:
    rates = -DECAYS[0].double()
    mine, ours = (
        linrec.StateSpace(kind(rates), torch.ones(16, 1)) for kind in (Decays, linrec.Diagonal)
    )
    for method in ("zoh", "foh", "bilinear"):
        got, expected = (linrec.discretize(each, 0.1, method) for each in (mine, ours))
        assert got.A.as_diagonal().equal(expected.A.as_diagonal())
        assert got.B.equal(expected.B)
    assert linrec.poles(mine).equal(linrec.poles(ours))
    assert linrec.parallel(mine, ours).A.as_diagonal() is not None
    assert linrec.Diagonal(rates).compose(Decays(rates)).as_diagonal() is not None


CAPABLE = {
    "dense": (False, False, 16),
    "diagonal": (True, True, 4),
    "diagonal batch": (True, True, 3),
    "blocks": (False, False, 12),
    "low rank batch": (False, True, 12),
}


@pytest.mark.parametrize("name", CAPABLE)
def test_what_structures_say_of_themselves(name: str) -> None:
    A, (diagonal, low_rank, multiplications) = TRANSITIONS[name](), CAPABLE[name]
    dense, parts = A.to_dense(), A.as_diagonal_plus_low_rank()
    assert (A.as_diagonal() is not None, parts is not None) == (diagonal, low_rank)
    assert A.multiplications == multiplications
    if parts is not None:
        d, left, right = parts
        close(torch.diag_embed(d) + left @ right.mH, dense, largest_row_sum(dense))
    assert (A.magnitude() >= dense.abs() * (1 - 1e-12)).all()


def test_blocks_of_one_state_and_corrections_of_no_rank_are_diagonal() -> None:
    values = normal(3, 5)
    blocks = linrec.BlockDiagonal(values[..., None, None])
    plain = linrec.DiagonalPlusLowRank(values, values.new_zeros(5, 0), values.new_zeros(5, 0))
    assert blocks.as_diagonal().equal(values) and plain.as_diagonal().equal(values)
    twice = linrec.DiagonalPlusLowRank(values, normal(5, 1), normal(5, 1)).compose(blocks)
    assert isinstance(twice, linrec.DiagonalPlusLowRank) and twice.left.shape[-1] == 1


def test_a_structure_that_says_nothing_is_taken_for_any() -> None:
    class Silent(linrec.Structure):
        """A matrix of which nothing is known but how it multiplies."""

        def __init__(self, values: torch.Tensor) -> None:
            self.values = values

        core_axes = Decays.core_axes
        state_size, apply, compose = Decays.state_size, Decays.apply, Decays.compose
        adjoint, to_dense = Decays.adjoint, Decays.to_dense

    A = Silent(DECAYS[0])
    assert A.as_diagonal() is A.as_diagonal_plus_low_rank() is A.magnitude() is None
    assert A.multiplications == 16


@pytest.mark.parametrize("capability", ["as_diagonal", "as_diagonal_plus_low_rank", "magnitude"])
def test_false_claims_are_found(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    A = linrec.Diagonal(torch.tensor([0.5, -1.0]))
    inputs, options = torch.ones(1, 2), {"executor": linrec.Recurrent(), "property": "capabilities"}
    assert check_case(linrec.LinearRecurrence(A), inputs, **options) <= 1
    wrong = getattr(linrec.Diagonal(A.diagonal / 2), capability)()
    monkeypatch.setattr(linrec.Diagonal, capability, lambda self: wrong)
    with pytest.raises(Disagreement, match="capabilities"):
        check_case(linrec.LinearRecurrence(A), inputs, **options)


def test_autocast_changes_no_product_of_structures() -> None:
    parts = normal(4).float(), normal(4, 1).float(), normal(4, 1, seed=1).float()
    low_rank = linrec.DiagonalPlusLowRank(*parts)
    for A in (
        low_rank,
        linrec.Dense(normal(4, 4).float()),
        linrec.BlockDiagonal(normal(2, 2, 2).float()),
    ):
        expected, written = A.compose(A).to_dense(), A.to_dense()
        with torch.autocast("cpu", torch.bfloat16):
            found = A.compose(A).to_dense()
            assert torch.equal(A.to_dense(), written)
        assert found.dtype == torch.float32 and torch.equal(found, expected)
