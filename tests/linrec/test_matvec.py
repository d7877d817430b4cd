"""Products of matrices and vectors whose batch axes differ."""

import pytest
import torch

from linrec.structures import base, matvec
from tests.cases import normal


@pytest.mark.parametrize("many", [0, 1 << 14], ids=["one product each", "copies of small ones"])
@pytest.mark.parametrize(
    ("matrices", "vectors"),
    [
        ((3, 4, 5), (2, 3, 5)),  # one vector of each system
        ((3, 1, 4, 5), (2, 3, 2, 5)),  # a few rows
        ((3, 1, 4, 5), (6, 2, 3, 9, 5)),  # more rows than a matrix has
        ((2, 3, 4, 5), (6, 7, 1, 3, 5)),  # an axis of the systems that vectors do not have
        ((1, 3, 4, 5), (6, 2, 3, 5)),
        ((3, 4, 5), (0, 3, 5)),
    ],
)
def test_vectors_with_leading_axes_that_matrices_lack(
    matrices: tuple[int, ...],
    vectors: tuple[int, ...],
    many: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "MANY", many)
    matrix, vector = (
        normal(*s, seed=k).requires_grad_() for k, s in enumerate((matrices, vectors))
    )
    got, expected = matvec(matrix, vector), torch.einsum("...pn,...n->...p", matrix, vector)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
    weights = normal(*expected.shape, seed=2)
    for mine, right in zip(
        torch.autograd.grad(got, (matrix, vector), weights),
        torch.autograd.grad(expected, (matrix, vector), weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-12)
