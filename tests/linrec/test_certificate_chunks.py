"""Certificates of runs in chunks hold, and are as tight."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import linrec
from linrec.certificate import chunks
from linrec.certificate.real import RealSystem
from tests.cases import normal
from tests.linrec.test_certificate import (
    CERTIFIED,
    CERTIFY,
    DTYPES,
    LOOSE,
    exact_loop,
    one_copy,
    shares,
    turned,
    used,
)

CHUNK_BREAKS = {
    "tails dropped": (
        chunks,
        "assemble",
        lambda old: lambda system, *a, **k: with_tails(old(system, *a, **k), 0),
    ),
    "tails doubled": (
        chunks,
        "assemble",
        lambda old: lambda system, *a, **k: with_tails(old(system, *a, **k), 2),
    ),
    "an inverse that is none": (
        chunks,
        "inverse",
        lambda _: lambda matrix, near, _multiplied: chunks.exactly(near),
    ),
    "chunks in another order": (
        chunks,
        "toeplitz",
        lambda old: lambda kernel, size: old(kernel, size).flip(-1),
    ),
}


def with_tails(system: RealSystem, times: float) -> RealSystem:
    return replace(system, tails={name: times * tail for name, tail in system.tails.items()})


@pytest.fixture
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> list[chunks.ChunkedSystem]:
    """Take short sequences in chunks too; the list says which were."""
    made: list[chunks.ChunkedSystem] = []
    original = chunks.in_chunks

    def counted(*given: Any) -> chunks.ChunkedSystem | None:
        found = original(*given)
        made.extend([] if found is None else [found])
        return found

    monkeypatch.setattr(chunks, "LONG", 1)
    monkeypatch.setattr(CERTIFY, "in_chunks", counted)
    return made


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [name for name in CERTIFIED if name not in ("gated", "varying")])
@pytest.mark.sampled(2)
def test_the_same_holds_in_chunks(name: str, dtype: torch.dtype, in_chunks: list[Any]) -> None:
    """Whole chunks, and one that is cut short: 60 and 64 steps."""
    recurrence = one_copy(CERTIFIED[name])
    dtype = dtype.to_complex() if recurrence.dtype.is_complex else dtype
    recurrence = recurrence.to(dtype)
    for steps in (60, 64):
        inputs = normal(steps, recurrence.input_size, dtype=dtype)
        state = normal(recurrence.state_size, dtype=dtype)
        bound, radius = used(recurrence, inputs, state)
        assert max(bound) <= 1 and max(radius) <= 1
        if name not in LOOSE:
            assert np.median(bound) >= 1 / 4
    assert bool(in_chunks) != isinstance(recurrence.A, linrec.Diagonal)


@pytest.mark.parametrize("name", CHUNK_BREAKS)
def test_a_broken_certificate_in_chunks_is_seen(
    name: str, monkeypatch: pytest.MonkeyPatch, in_chunks: list[Any]
) -> None:
    module, attribute, broken = CHUNK_BREAKS[name]
    monkeypatch.setattr(module, attribute, broken(getattr(module, attribute)))
    recurrence, inputs, state = CERTIFIED["butter(6, .05)"], normal(60, 1), normal(6)
    bound, radius = used(recurrence, inputs, state)
    assert max(bound + radius) > 1 and in_chunks


def test_batches_systems_and_outputs_are_certified_in_chunks(in_chunks: list[Any]) -> None:
    """Two systems at once, two inputs, D, and states as outputs."""
    A = torch.stack([turned(torch.tensor([0.9, 0.8, 0.5]).double(), seed) for seed in (3, 4)])
    B, C, D = normal(2, 3, 2), normal(2, 2, 3), normal(2, 2, 2)
    inputs, state = normal(2, 50, 2), normal(2, 3)
    for matrices in ((B, C, D), (B, None, None), (None, C, None)):
        given = inputs if matrices[0] is not None else normal(2, 50, 3)
        whole = linrec.certify(linrec.LinearRecurrence(A, *matrices), given, state)
        for row in range(2):
            each = (None if matrix is None else matrix[row] for matrix in matrices)
            one = linrec.LinearRecurrence(A[row], *each)
            outputs, last = exact_loop(one, given[row], state[row])
            for t, true in enumerate(outputs):
                found = shares(whole.result.outputs[row, t], whole.bound.outputs[row, t], true)
                assert max(found, default=0) <= 1
            found = shares(whole.centre.final_state[row], whole.radius.final_state[row], last)
            assert max(found, default=0) <= 1
    assert len(in_chunks) == 3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("steps", [50, 64])
def test_sequences_of_any_length_are_certified_in_chunks(
    dtype: torch.dtype, steps: int, in_chunks: list[Any]
) -> None:
    """From no step to all of them, whole chunks and one step more; padding may be anything."""
    recurrence = CERTIFIED["butter(6, .05)"].to(dtype)
    lengths = torch.tensor([0, 1, 15, 16, 17, 33, 48, steps - 1, steps])
    inputs, state = normal(9, steps, 1, dtype=dtype), normal(9, 6, dtype=dtype)
    inputs[:, :, 0][torch.arange(steps) >= lengths[:, None]] = torch.nan
    whole = linrec.certify(recurrence, inputs, state, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        outputs, last = exact_loop(recurrence, inputs[row, :length], state[row])
        for numbers, limits in ((whole.result, whole.bound), (whole.centre, whole.radius)):
            found = shares(numbers.final_state[row], limits.final_state[row], last)
            for t, true in enumerate(outputs):
                found += shares(numbers.outputs[row, t], limits.outputs[row, t], true)
            assert max(found, default=0) <= 1
        assert not whole.result.outputs[row, length:].any()
        assert not whole.bound.outputs[row, length:].any()
        assert whole.bound.final_state[row].isfinite().all()
    assert len(in_chunks) == 1
