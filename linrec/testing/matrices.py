"""Kinds of square matrices that give executors trouble, made from arbitrary ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from linrec import memories


def shrink(matrices: Tensor, size: float) -> Tensor:
    """Shrink matrices whose largest absolute row sum is beyond `size` to it."""
    norm = matrices.abs().sum(-1).amax(-1)
    return matrices * (size / norm.clamp(min=size))[..., None, None]


def stable(matrices: Tensor) -> Tensor:
    """Contractions."""
    return shrink(matrices, 0.9)


def unstable(matrices: Tensor) -> Tensor:
    """Powers grow, by at most a quarter a step."""
    return shrink(matrices, 1.25)


def identity(matrices: Tensor) -> Tensor:
    """What goes in is added up."""
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype).expand_as(matrices).clone()


def marginal(matrices: Tensor) -> Tensor:
    """Rotations and reflections: the size of the state never changes."""
    return torch.linalg.qr(matrices + 2 * identity(matrices)).Q


def shift(matrices: Tensor) -> Tensor:
    """A permutation: states move on in a circle."""
    return identity(matrices).roll(1, -1)


def nilpotent(matrices: Tensor) -> Tensor:
    """Strictly upper triangular: the n-th power is zero."""
    return matrices.triu(1)


def jordan(matrices: Tensor) -> Tensor:
    """One eigenvalue, one eigenvector: there is no diagonal form."""
    eigenvalue = matrices[..., :1, :1]
    eigenvalue = eigenvalue / eigenvalue.abs().clamp(min=1.0)
    return eigenvalue * identity(matrices) + torch.ones_like(matrices).triu(1).tril(1)


def singular(matrices: Tensor) -> Tensor:
    """Of rank one at most."""
    return shrink(matrices[..., :, :1] * matrices[..., :1, :], 0.9)


def badly_scaled(matrices: Tensor) -> Tensor:
    """States in units that differ by powers of 1,024, by the fifth at most."""
    units = 1024.0 ** -(torch.arange(matrices.shape[-1], dtype=matrices.real.dtype) % 6)
    return stable(matrices) * units[:, None] / units


def legendre(matrices: Tensor) -> Tensor:
    """The memory of a sliding window (Voelker et al. 2019), far from normal at high order."""
    n = matrices.shape[-1]
    A = memories.legendre(n, 4.0 * n).A.to_dense()
    return torch.linalg.matrix_exp(A).to(matrices.dtype).expand_as(matrices).clone()


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function
    for function in (
        stable,
        identity,
        unstable,
        marginal,
        shift,
        nilpotent,
        jordan,
        singular,
        badly_scaled,
        legendre,
    )
}
