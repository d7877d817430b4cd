"""Autograd functions, which are skipped when no derivatives are needed."""

import inspect

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import linrec
from linrec import scan
from linrec._tensors import autograd
from linrec._tensors.autograd import is_unwatched, with_signature
from linrec.executors import tiled_bilinear
from tests.cases import normal

FUNCTIONS = (tiled_bilinear.Multiply, scan.Scan, scan.ScanWithTangents)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.__name__)
def test_signatures_are_kept(function: type[torch.autograd.Function]) -> None:
    kept = function.forward.__signature__  # type: ignore[attr-defined]  # kept by the decorator
    del function.forward.__signature__  # type: ignore[attr-defined]  # as above
    try:
        assert kept == inspect.signature(function.forward)
    finally:
        with_signature(function)


def test_what_asks_for_derivatives_is_seen() -> None:
    plain, trained = torch.ones(3), torch.ones(3, requires_grad=True)
    assert is_unwatched(plain, plain) and not is_unwatched(plain, trained)
    with torch.no_grad():
        assert is_unwatched(plain, trained)
    seen = []
    torch.vmap(lambda each: seen.append(is_unwatched(each)) or each)(plain)
    torch.func.jvp(lambda each: seen.append(is_unwatched(each)) or each, (plain,), (plain,))
    torch.func.grad(lambda each: seen.append(is_unwatched(each)) or each.sum())(plain)
    with forward_ad.dual_level():
        seen.append(is_unwatched(forward_ad.make_dual(plain, plain)))
    assert seen == [False] * 4


@pytest.mark.parametrize("executor", [linrec.Chunked(4), linrec.FFTConvolution()], ids=str)
def test_runs_are_the_same_with_and_without_autograd(executor, monkeypatch) -> None:
    recurrence = linrec.LinearRecurrence(normal(3, 3) / 3, normal(3, 1), copies=2)
    diagonal = linrec.LinearRecurrence(linrec.Diagonal(normal(3).tanh()), normal(3, 2))
    inputs = normal(2, 13, 2)

    def results() -> list[Tensor]:
        found = [linrec.run(recurrence, inputs, executor=executor)]
        found.append(linrec.run(diagonal, inputs, executor=linrec.AssociativeScan()))
        return [each for result in found for each in result]

    called = results()
    for module in (tiled_bilinear, scan):
        monkeypatch.setattr(module, "is_unwatched", lambda *tensors: False)
    for mine, right in zip(called, results(), strict=True):
        assert torch.equal(mine, right) and mine.stride() == right.stride()
    assert autograd.is_unwatched is is_unwatched
