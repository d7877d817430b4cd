"""Kinds of square matrices that are hard for executors, made from arbitrary ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from linrec import memories


def shrink(matrices: Tensor, size: float) -> Tensor:
    """Scale matrices down to a largest absolute row sum of at most `size`."""
    norm = matrices.abs().sum(-1).amax(-1)
    return matrices * (size / norm.clamp(min=size))[..., None, None]


def stable(matrices: Tensor) -> Tensor:
    """Make contractions."""
    return shrink(matrices, 0.9)


def unstable(matrices: Tensor) -> Tensor:
    """Make matrices whose powers may grow, by at most a quarter a step."""
    return shrink(matrices, 1.25)


def identity(matrices: Tensor) -> Tensor:
    """Make identities: states are sums of their inputs."""
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype).expand_as(matrices).clone()


def marginal(matrices: Tensor) -> Tensor:
    """Make rotations and reflections: the size of the state never changes."""
    return torch.linalg.qr(matrices + 2 * identity(matrices)).Q


def shift(matrices: Tensor) -> Tensor:
    """Make cyclic permutations: states move on in a circle."""
    return identity(matrices).roll(1, -1)


def nilpotent(matrices: Tensor) -> Tensor:
    """Make strictly upper triangular matrices, whose n-th power is zero."""
    return matrices.triu(1)


def jordan(matrices: Tensor) -> Tensor:
    """Make matrices with one eigenvalue and one eigenvector, which have no diagonal form."""
    eigenvalue = matrices[..., :1, :1]
    eigenvalue = eigenvalue / eigenvalue.abs().clamp(min=1.0)
    return eigenvalue * identity(matrices) + torch.ones_like(matrices).triu(1).tril(1)


def singular(matrices: Tensor) -> Tensor:
    """Make matrices of rank at most one."""
    return shrink(matrices[..., :, :1] * matrices[..., :1, :], 0.9)


def badly_scaled(matrices: Tensor) -> Tensor:
    """Put states in units that differ by powers of 1,024, by the fifth at most."""
    units = 1024.0 ** -(torch.arange(matrices.shape[-1], dtype=matrices.real.dtype) % 6)
    return stable(matrices) * units[:, None] / units


def legendre(matrices: Tensor) -> Tensor:
    """Make memories of a sliding window (Voelker et al. 2019), far from normal at high order."""
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
