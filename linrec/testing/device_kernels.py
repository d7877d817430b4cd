"""Checks of the kernels of chunks on a device: gates, feedback and their gradients."""

from typing import Any

import torch
from torch import Tensor

from linrec.kernels.delta import delta_chunks, plain_delta
from linrec.kernels.gated import gated_chunks, plain_gated

# Sequences, heads, steps, rows, columns, and whether there is feedback.
SIZES = ((2, 3, 70, 64, 64, False), (1, 2, 70, 24, 100, False), (1, 2, 70, 64, 33, True))
NAMES = ("outputs", "last state", *(f"gradient in {name}" for name in "akqvlrx"))


def runs_chunks(device: str, dtype: torch.dtype) -> None:
    """Compare values and gradients with the loop in double precision, within its roundings.

    A term is rounded once for each gate, and at each step that feeds it back once for each sum;
    factors have 22 bits. Half-precision numbers are rounded once more when they are stored.
    """
    for outer, inner, T, N, V, low in SIZES:
        drawn = torch.Generator().manual_seed(T + N)
        shapes = [(T,), (T, N), (T, N), (T, V), *[(T, N)] * (2 * low)]
        given = [torch.randn(outer, inner, *shape, generator=drawn) for shape in shapes]
        given[0] = given[0].sigmoid() * (torch.arange(T) != T // 2)
        given[1:] = [given[1] / N**0.5, *given[2:4], *(each / (2 * N) for each in given[4:])]
        start = torch.randn(outer * inner, N, V, generator=drawn)
        to_outputs = torch.randn(outer, inner, T, V, generator=drawn).to(dtype)
        tangents = [to_outputs, torch.randn(start.shape, generator=drawn)]
        leaves = [*(each.to(dtype) for each in given), start]
        act, loop = (delta_chunks, plain_delta) if low else (gated_chunks, plain_gated)
        got = run_and_pull(
            act, [each.to(device) for each in leaves], [t.to(device) for t in tangents]
        )
        truth = run_and_pull(
            loop, [each.double() for each in leaves], [t.double() for t in tangents]
        )
        sizes = [each.double().abs() for each in leaves], [t.double().abs() for t in tangents]
        roundings = (4 + low * N) * T + 2 * (N + V) + 32
        stored = torch.finfo(dtype).eps if dtype != torch.float32 else 0.0
        names = [name for name in NAMES if low or name[-2:] not in (" l", " r")]
        for name, mine, right, most in zip(
            names, got, truth, run_and_pull(loop, *sizes), strict=True
        ):
            allowed = roundings * torch.finfo(torch.float32).eps * most + stored * right.abs()
            error = (mine.cpu().double() - right).abs()
            if not bool((error <= allowed).all()):
                used = float((error / allowed.clamp(min=1e-300)).max())
                raise AssertionError(
                    f"{name} of {N} x {V}, feedback {low}: {used:.3g} times what is allowed"
                )


def run_and_pull(act: Any, given: list[Tensor], tangents: list[Tensor]) -> list[Tensor]:
    """Return y, the last x, and the gradients for given tangents of both."""
    leaves = [each.detach().requires_grad_() for each in given]
    found = act(*leaves)[:2]
    pulled = torch.autograd.grad(found, leaves, tangents)
    return [*(each.detach() for each in found), *pulled]
