"""The cost estimates of executors, compared with the operations that torch counts."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import linrec
from linrec.executors import Cost, Workload, carry, toeplitz
from linrec.executors.fft import fast_length
from linrec.planner.costs import estimates_of, rounds_of_blocks
from tests.cases import SYSTEMS, TRANSITIONS, VARYING, normal

RECURRENT, TOEPLITZ, SCAN = linrec.Recurrent(), linrec.Toeplitz(), linrec.AssociativeScan()
TEN = linrec.Chunked(10)


def test_what_nobody_estimated_is_unknown() -> None:
    work = Workload.of(linrec.LinearRecurrence(torch.eye(2)), 9, 1)
    assert linrec.Executor.error(SCAN, work) == math.inf
    assert linrec.Executor.cost(SCAN, work).operations == math.inf


def test_costs_are_added_part_by_part() -> None:
    assert Cost(1, 2, 3, 4, 5) + Cost(10, 20, 30, 40, 50) == Cost(11, 22, 33, 44, 55)


@pytest.mark.parametrize("executor", [RECURRENT, TOEPLITZ, SCAN, TEN], ids=str)
def test_operations_are_those_that_torch_counts(executor: linrec.Executor) -> None:
    """Products of matrices are counted as they are dispatched; a triangle is rounded up."""
    recurrence = SYSTEMS["ABC"](TRANSITIONS["dense"]()).to(torch.float32)
    inputs = normal(7, 100, recurrence.input_size, dtype=torch.float32)
    plan, work = executor.prepare(recurrence, 100), Workload.of(recurrence, 100, 7)
    own = estimates_of(executor)
    for verb, cost in ((linrec.run, own.cost), (linrec.final, own.final_cost)):
        with FlopCounterMode(display=False) as counter:
            verb(recurrence, inputs, executor=executor, plan=plan)
        assert 0.5 < counter.get_total_flops() / cost(work).operations < 1.5


def described(transition: str, system: str, batch: int = 7, steps: int = 9) -> Workload:
    A = VARYING[transition](steps) if transition in VARYING else TRANSITIONS[transition]()
    return Workload.of(SYSTEMS[system](A), steps, batch)


@pytest.mark.parametrize(
    "transition, system, expected",
    [
        ("dense", "ABC", (4, 2, 1, 9, 7, 1, 16, 8, True, True, False, False, False)),
        ("dense", "A", (4, 4, 4, 9, 7, 1, 16, 8, False, False, False, False, False)),
        ("dense complex", "ABCD", (3, 1, 3, 9, 7, 1, 9, 16, True, True, False, False, False)),
        ("dense batch", "AB", (3, 1, 3, 9, 7, 2, 9, 8, True, False, False, False, False)),
        ("diagonal", "A", (4, 4, 4, 9, 7, 1, 4, 8, False, False, False, False, True)),
        ("blocks", "A", (6, 6, 6, 9, 7, 1, 12, 8, False, False, False, False, False)),
        ("low rank", "A", (5, 5, 5, 9, 7, 1, 15, 8, False, False, False, False, False)),
        ("low rank batch", "A", (4, 4, 4, 9, 7, 2, 12, 8, False, False, False, False, False)),
        ("varying dense", "A", (3, 3, 3, 9, 7, 1, 9, 8, False, False, True, True, False)),
        ("varying diagonal", "A", (3, 3, 3, 9, 7, 1, 3, 8, False, False, True, True, True)),
    ],
)
def test_what_a_workload_is(transition: str, system: str, expected: tuple) -> None:
    work = described(transition, system)
    assert tuple(work)[:13] == expected
    assert work.device == "cpu" and work.roundoff == 2.0**-53
    assert work.numbers == 7 * 9


@pytest.mark.parametrize(
    "dtype, itemsize, roundoff",
    [
        (torch.float16, 4, 2.0**-24),
        (torch.float32, 4, 2.0**-24),
        (torch.complex64, 8, 2.0**-24),
        (torch.float64, 8, 2.0**-53),
        (torch.complex128, 16, 2.0**-53),
    ],
)
def test_workloads_of_every_precision(dtype, itemsize: int, roundoff: float) -> None:
    recurrence = linrec.LinearRecurrence(torch.eye(2).to(dtype), torch.ones(2, 1).to(dtype))
    work = Workload.of(recurrence, 5, 1)
    assert (work.itemsize, work.roundoff) == (itemsize, roundoff)
    mixed = linrec.LinearRecurrence(torch.eye(2, dtype=torch.float32), torch.ones(2, 1).double())
    assert Workload.of(mixed, 5, 1).itemsize == 8


def test_matrices_of_many_systems_count_where_A_is_shared() -> None:
    recurrence = linrec.LinearRecurrence(torch.eye(2), torch.ones(3, 2, 1))
    work = Workload.of(recurrence, 5, 3)
    assert (work.systems, work.multiplications, work.inputs) == (3, 4, 1)
    none = linrec.LinearRecurrence(torch.ones(0, 2, 2), torch.ones(2, 1))
    assert Workload.of(none, 5, 0).systems == 1
    one = linrec.LinearRecurrence(torch.eye(2).expand(1, 2, 2), torch.ones(2, 1))
    assert (Workload.of(one, 5, 3).systems, Workload.of(one, 5, 3).multiplications) == (1, 4)


@pytest.mark.parametrize(
    "n, m, p, steps, expected",
    [
        (256, 1, 256, 1024, 16),  # n / √(m p)
        (468, 1, 468, 784, 16),  # 22 steps; 16 of them divide the length
        (1024, 1, 1024, 96, 32),
        (4096, 1, 256, 1 << 12, 256),  # few outputs: twice as many, of up to 256
        (64, 1, 1, 1000, 125),
        (64, 1, 17, 1000, 10),  # 16 at least; 10 divide the length
        (64, 1, 16, 1000, 25),  # as 2 · 16, and 25 divide the length
        (4, 1, 4, 97, 16),  # a prime length keeps what is best
        (64, 8, 64, 1024, 4),  # many inputs
        (64, 5, 1024, 1000, 4),
        (64, 4, 1024, 1024, 16),
        (1 << 14, 1, 1 << 13, 1 << 12, 64),  # 64 at most
        (8, 1, 8, 3, 3),  # never more than there are
        (8, 1, 8, 0, 1),
    ],
)
def test_steps_in_a_chunk(n: int, m: int, p: int, steps: int, expected: int) -> None:
    described = Workload.of(linrec.LinearRecurrence(torch.eye(2)), steps, 1)
    work = described._replace(states=n, inputs=m, outputs=p)
    assert linrec.Chunked().steps_in_chunk(work) == expected
    assert linrec.Chunked(size=7).steps_in_chunk(work) == min(7, max(steps, 1))


@pytest.mark.parametrize("size", [0, -3, 2.5, "3"])
def test_chunks_of_no_whole_number_of_steps_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"`size` is .*: expected a whole number of 1 or more"):
        linrec.Chunked(size=size)  # type: ignore[arg-type]  # the refusal is tested


@pytest.mark.parametrize(
    "steps, width, expected",
    [
        (31, 1, 31),  # a block has 16 steps at least, and one block is none
        (32, 1, 2 * 16 + 8 + 2),  # two blocks, and the scan over them
        (48, 1 << 14, 48),  # steps so wide are bound by memory
        (1 << 12, 1 << 13, 2 * (1 << 9) + 8 + 8),  # eight blocks fill the threads
        (1 << 12, 3 << 13, 1 << 12),
        (1 << 12, 1 << 16, 1 << 12),
    ],
)
def test_rounds_of_a_scan_in_blocks(steps: int, width: int, expected: int) -> None:
    assert rounds_of_blocks(steps, width, "cpu") == expected


def test_chunks_are_taken_in_pairs_from_the_13th_on() -> None:
    counts = (0, 1, 12, 13, 24, 25, 48, 49, 4096)
    assert [carry.pairings(count) for count in counts] == [0, 0, 0, 1, 1, 2, 2, 3, 9]


def test_lengths_that_transforms_like() -> None:
    odd = [3**b * 5**c for b in range(5) for c in range(4) if 3**b * 5**c <= 135]
    smooth = sorted(2**a * part for a in range(14) for part in odd)
    for least in range(1, 5000):
        found = fast_length(least)
        shortest = next(size for size in smooth if size >= least)
        assert found in smooth and found >= least
        assert found == shortest if shortest % 256 else found <= 17 / 16 * shortest
    # The smallest of all where its odd part is at most 135, but 2^k, which caches do not like.
    assert [fast_length(n) for n in (1, 2, 7, 11, 17, 199, 1023, 1567, 2047, 131071)] == [
        1, 2, 8, 12, 18, 200, 1080, 1600, 2160, 131072,
    ]  # fmt: skip


@pytest.mark.parametrize("batch", [(), (2,), (3, 2)])
@pytest.mark.parametrize("system", ["AB", "ABC", "ABCD, 2 copies"])
@pytest.mark.parametrize("transition", ["dense", "diagonal complex", "low rank batch"])
def test_a_toeplitz_matrix_is_the_same_kept_whole_and_in_pieces(
    transition: str, system: str, batch: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    dtype = recurrence.dtype
    inputs = normal(*batch, *recurrence.batch_shape, 23, recurrence.input_size, dtype=dtype)
    assert "matrix" in TOEPLITZ.prepare(recurrence, 23).tensors
    kept = linrec.run(recurrence, inputs, executor=TOEPLITZ)
    monkeypatch.setattr(toeplitz, "SMALL", 0)
    assert "matrix" not in TOEPLITZ.prepare(recurrence, 23).tensors
    whole = linrec.run(recurrence, inputs, executor=TOEPLITZ)
    assert torch.equal(kept.outputs, whole.outputs)
    assert torch.equal(kept.final_state, whole.final_state)
    monkeypatch.setattr(toeplitz, "PIECE", 23 * 2 * 5)
    pieces = linrec.run(recurrence, inputs, executor=TOEPLITZ).outputs
    torch.testing.assert_close(pieces, kept.outputs, rtol=1e-13, atol=1e-13)


def test_only_a_small_toeplitz_matrix_is_kept() -> None:
    """A plan of many systems or of many steps holds no more than their kernels."""
    for shape, steps, kept in (((), 64, True), ((), 500, False), ((300,), 64, False)):
        recurrence = linrec.LinearRecurrence(torch.rand(*shape, 4, 4) / 8, torch.ones(4, 1))
        tensors = TOEPLITZ.prepare(recurrence, steps).tensors
        assert ("matrix" in tensors) == kept
        kernel = tensors["last"].numel()
        assert sum(each.numel() for each in tensors.values()) <= kernel + toeplitz.SMALL
