"""What executors expect to spend and to err, worked out by hand at sizes that can be told apart."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import linrec
from linrec.executors import Cost, Workload, chunked, toeplitz
from linrec.executors.fft import fast_length
from linrec.executors.scan import rounds_of_blocks
from tests.cases import SYSTEMS, TRANSITIONS, VARYING, normal

# n = 3, m = 2, p = 5, T = 100, seven sequences: 700 steps in all.
WORK = Workload(
    states=3,
    inputs=2,
    outputs=5,
    steps=100,
    batch=7,
    systems=1,
    multiplications=9,
    itemsize=4,
    driven=True,
    read=True,
    time_varying=False,
    A_varies=False,
    diagonal=False,
    device="cpu",
    roundoff=2.0**-24,
)
VARIED = WORK._replace(time_varying=True, A_varies=True)
UNREAD = WORK._replace(outputs=3, read=False)
SINGLE = WORK._replace(inputs=3, driven=False)
SEVERAL = WORK._replace(systems=7)
LONG = WORK._replace(steps=1000)
MANY = WORK._replace(batch=1 << 17)
DIAGONAL = WORK._replace(multiplications=3, diagonal=True, time_varying=True, A_varies=True)
LAST = Cost(2 * 7 * 600, 4 * 600, 3)  # x = [A^(T-1) B … B] [u_0 … u_{T-1}]
TEN = linrec.Chunked(size=10)
RECURRENT, TOEPLITZ, FFT = linrec.Recurrent(), linrec.Toeplitz(), linrec.FFTConvolution()
SCAN = linrec.AssociativeScan()


# Operations of products, bytes through memory, rounds that wait, operations of transforms; bytes
# held at once.
@pytest.mark.parametrize(
    "executor, work, expected",
    [
        # A x and B u a step; C x; the states written as steps and stacked, read and read again.
        (
            RECURRENT,
            WORK,
            Cost(
                2 * 700 * (9 + 6) + 2 * 700 * 15,
                4 * (4 * 2100) + 4 * 3500,
                400 + 100,
                memory=2 * 4 * 2100 + 4 * 3500,
            ),
        ),
        (RECURRENT, UNREAD, Cost(2 * 700 * 15, 4 * 4 * 2100, 500, memory=2 * 4 * 2100)),
        (
            RECURRENT,
            VARIED,
            Cost(42000, 4 * 100 * 15 + 33600 + 14000, 800 + 100, memory=16800 + 14000),
        ),
        (RECURRENT, SINGLE, Cost(2 * 700 * (9 + 15), 47600, 300 + 100, memory=30800)),
        # 5,050 blocks of m p on and below the diagonal; pieces of a triangle: a half more.
        (
            TOEPLITZ,
            WORK,
            Cost(3 * 7 * 50500, 4 * 4 * 50500 + 3 * 14000, 5, memory=2 * 14000 + 4 * 101000) + LAST,
        ),
        (
            TOEPLITZ,
            SEVERAL,
            Cost(
                3 * 7 * 50500,
                4 * 4 * 7 * 50500 + 3 * 14000,
                5,
                memory=2 * 14000 + 4 * 7 * 7 * 101000,
            )
            + Cost(8400, 7 * 2400, 3),
        ),
        # 1,001,000 · 5 entries in two pieces of 2^22 numbers at most.
        (
            TOEPLITZ,
            LONG,
            Cost(
                3 * 7 * 5005000,
                16 * 5005000 + 3 * 140000,
                5 * 3,
                memory=2 * 140000 + 4 * (1 << 22),
            )
            + Cost(84000, 24000, 3),
        ),
        # Transforms of 200 numbers, in 8 stages: seven for each sequence, and their products.
        (
            FFT,
            WORK,
            Cost(
                0,
                4 * 14000,
                12,
                7 * (7 * 2.5 * 200 * 8 + 4 * 200 * 10),
                memory=14000 + 3 * 4 * 5 * 200,
            )
            + LAST,
        ),
        (
            FFT,
            MANY,
            Cost(
                0,
                4 * 20 * 100 * 2**17,
                12 * 125,
                2**17 * 36000.0,
                memory=20 * 100 * 2**17 + 12000,
            )
            + Cost(1200 * 2**17, 2400, 3),
        ),
        # Two products a step with A, log2(100) squarings of it; B u and C x around.
        (
            SCAN,
            WORK,
            Cost(
                29400 + 2 * (3 * 9 * 7 + 2 * 700 * 9), 6 * 33600 + 14000, 14 * 7 + 4, memory=33600
            ),
        ),
        (
            SCAN,
            VARIED,
            Cost(
                29400 + 2 * (3 * 9 * 100 + 12600),
                6 * (33600 + 3600) + 14000,
                102,
                memory=33600 + 3600,
            ),
        ),
        (SCAN, UNREAD, Cost(8400 + 25578, 6 * 33600, 102, memory=33600)),
        (SCAN, SINGLE, Cost(21000 + 25578, 6 * 33600 + 14000, 102, memory=33600)),
        # One step is what drives it.
        (SCAN, WORK._replace(steps=1), Cost(294, 6 * 336 + 140, 4, memory=336)),
        # Six blocks of 16 steps, walked through twice, and a scan over the six.
        (SCAN, DIAGONAL, Cost(29400, 4 * 16800 + 14000, 2 * 16 + 8 + 6, memory=16800 + 14000)),
        (
            SCAN,
            DIAGONAL._replace(batch=1 << 17, read=False),
            Cost(2 * 2**17 * 100 * 6, 4 * 2 * 2**17 * 1200, 100, memory=2 * 2**17 * 1200),
        ),
        # Rows of ten inputs of two and three states by a block; ten chunks carried.
        (
            TEN,
            WORK,
            Cost(2 * 700 * 23 * 5, 2800 * (10 + 4 + 6 / 10), 8, memory=14000)
            + Cost(2 * 7 * 10 * 3 * 23, 5 * 840, 26, memory=3 * 840),
        ),
        # A hundred chunks, taken in pairs four times: the products with A twice, in fewer rounds.
        (
            TEN,
            LONG,
            Cost(2 * 7000 * 23 * 5, 28000 * 14.6, 8, memory=140000)
            + Cost(2 * 7 * 100 * 3 * (20 + 6), 5 * 8400, 2 * 7 + 4 * 8 + 6, memory=3 * 8400),
        ),
        # Many sequences: one loop, and outputs of 2^20 numbers at a time.
        (
            TEN,
            MANY._replace(steps=1000),
            Cost(2000 * 2**17 * 23 * 5, 4000 * 2**17 * 14.6, 8 * 625, memory=20000 * 2**17)
            + Cost(2 * 2**17 * 300 * 23, 5 * 1200 * 2**17, 206, memory=3 * 1200 * 2**17),
        ),
    ],
)
def test_cost(executor: linrec.Executor, work: Workload, expected: Cost) -> None:
    assert executor.cost(work) == pytest.approx(expected)


@pytest.mark.parametrize(
    "executor, work, expected",
    [
        (RECURRENT, WORK, Cost(2 * 700 * 15, 0, 400)),
        (RECURRENT, VARIED, Cost(2 * 700 * 15, 4 * 100 * 15, 800)),
        (RECURRENT, SINGLE, Cost(2 * 700 * 9, 0, 300)),
        (TOEPLITZ, WORK, LAST),
        (FFT, SEVERAL, Cost(8400, 7 * 2400, 3)),
        (SCAN, DIAGONAL, SCAN.cost(DIAGONAL)),
        (TEN, WORK, Cost(2 * 7 * 10 * 3 * 23, 5 * 840, 26, memory=3 * 840)),
    ],
)
def test_cost_of_the_last_step(executor, work: Workload, expected: Cost) -> None:
    assert executor.final_cost(work) == pytest.approx(expected)


KERNEL = Cost(4 * (7 * 3 + 200) * 9, 4 * 4800, 27, memory=1.5 * 4800)  # 7 squarings, 600 numbers


@pytest.mark.parametrize(
    "executor, work, expected",
    [
        (RECURRENT, WORK, Cost(0, 0, 0)),
        (SCAN, WORK, Cost(0, 0, 0)),
        (TOEPLITZ, WORK, KERNEL),
        (TOEPLITZ, SEVERAL, Cost(7 * 7956, 7 * 19200, 27, memory=7 * 7200)),
        (TOEPLITZ, WORK._replace(steps=1), Cost(4 * 2 * 9, 4 * 48, 6, memory=1.5 * 48)),
        (TOEPLITZ, WORK._replace(steps=65), Cost(4 * (21 + 130) * 9, 4 * 3120, 27, memory=4680)),
        (FFT, WORK, Cost(0, 6 * 4 * 200 * 10, 6, 4000 * 10, memory=2 * 4 * 200 * 10) + KERNEL),
        (
            FFT,
            SEVERAL,
            Cost(0, 7 * 48000, 6, 7 * 40000, memory=7 * 16000)
            + Cost(7 * 7956, 7 * 19200, 27, memory=7 * 7200),
        ),
        (
            TEN,
            WORK,
            Cost(4 * 9 * (70 + 16 * 3), 3 * 8 * 23 * 50, 40 + 12 * 4, memory=2 * 8 * 23 * 50),
        ),
        (
            TEN,
            SEVERAL._replace(steps=5),  # one chunk, of five steps
            Cost(
                4 * 7 * 9 * (35 + (9 + 1) * 3),
                3 * 7 * 8 * 13 * 25,
                40 + 12 * 3,
                memory=2 * 7 * 8 * 13 * 25,
            ),
        ),
    ],
)
def test_cost_of_preparation(executor, work: Workload, expected: Cost) -> None:
    assert executor.preparation_cost(work) == pytest.approx(expected)


@pytest.mark.parametrize(
    "executor, roundings",
    [
        (RECURRENT, {1: 5 * 2, 64: 5 * 65, 100: 5 * 101}),
        (TOEPLITZ, {1: 2, 64: 128, 100: 200}),
        (FFT, {1: 12 * 1 * 2, 64: 12 * 7 * 2, 65: 12 * 8 * 2, 100: 12 * 8 * 2}),
        (SCAN, {1: 2 * 4 * 3, 2: 2 * 4 * 3, 64: 2 * 4 * 8, 65: 2 * 4 * 9, 100: 2 * 4 * 9}),
        (TEN, {1: 5 * 3, 10: 23 * 3, 100: 23 * 12}),
    ],
)
def test_error_is_the_root_of_the_roundings(executor, roundings: dict[int, int]) -> None:
    for steps, count in roundings.items():
        got = executor.error(WORK._replace(steps=steps))
        assert got == pytest.approx(math.sqrt(count) * 2.0**-24)


def test_error_of_elementwise_scans_and_of_unknown_executors() -> None:
    assert SCAN.error(DIAGONAL) == pytest.approx(math.sqrt(202) * 2.0**-24)
    assert linrec.Executor.error(SCAN, WORK) == math.inf


def test_costs_are_added_part_by_part() -> None:
    assert Cost(1, 2, 3, 4, 5) + Cost(10, 20, 30, 40, 50) == Cost(11, 22, 33, 44, 55)


@pytest.mark.parametrize("executor", [RECURRENT, TOEPLITZ, SCAN, TEN], ids=str)
def test_operations_are_those_that_torch_counts(executor: linrec.Executor) -> None:
    """Products of matrices are counted as they are dispatched; a triangle is rounded up."""
    recurrence = SYSTEMS["ABC"](TRANSITIONS["dense"]()).to(torch.float32)
    inputs = normal(7, 100, recurrence.input_size, dtype=torch.float32)
    plan = executor.prepare(recurrence, 100)
    expected = executor.cost(Workload.of(recurrence, 100, 7)).operations
    with FlopCounterMode(display=False) as counter:
        linrec.run(recurrence, inputs, executor=executor, plan=plan)
    assert 0.5 < counter.get_total_flops() / expected < 1.5


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
    work = WORK._replace(states=n, inputs=m, outputs=p, steps=steps)
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
        (48, 1 << 14, 2 * 16 + 8 + 3),
        (1 << 12, 1 << 14, 2 * (1 << 10) + 8 + 4),  # four blocks fill the threads
        (1 << 12, 3 << 13, 2 * (1 << 11) + 8 + 2),
        (1 << 12, 1 << 16, 1 << 12),
    ],
)
def test_rounds_of_a_scan_in_blocks(steps: int, width: int, expected: int) -> None:
    assert rounds_of_blocks(steps, width) == expected


def test_chunks_are_taken_in_pairs_from_the_13th_on() -> None:
    counts = (0, 1, 12, 13, 24, 25, 48, 49, 4096)
    assert [chunked.pairings(count) for count in counts] == [0, 0, 0, 1, 1, 2, 2, 3, 9]


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
@pytest.mark.parametrize("system", ["ABC", "ABCD, 2 copies"])
def test_toeplitz_pieces_put_together_are_the_whole(system, batch, monkeypatch) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS["dense"]())
    inputs = normal(*batch, 23, recurrence.input_size)
    whole = linrec.run(recurrence, inputs, executor=TOEPLITZ).outputs
    monkeypatch.setattr(toeplitz, "PIECE", 23 * 2 * 5)
    pieces = linrec.run(recurrence, inputs, executor=TOEPLITZ).outputs
    torch.testing.assert_close(pieces, whole, rtol=1e-13, atol=1e-13)
