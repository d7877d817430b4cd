"""Memory kept for later results: it is reused, and no result is ever overwritten."""

import gc
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import linrec
from linrec._tensors import huge_pages, reused_memory
from linrec._tensors.reused_memory import Pool, pool

EXECUTORS = {
    "chunked": linrec.Chunked(),
    "fft": linrec.FFTConvolution(),
    "scan": linrec.AssociativeScan(),
    "toeplitz": linrec.Toeplitz(),
    "loop": linrec.Recurrent(),
    "auto": linrec.Auto(),
}


@pytest.fixture(autouse=True)
def every_result_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "HUGE", 1)


@pytest.fixture
def kept() -> Iterator[Pool]:
    with linrec.reuse_memory():
        found = pool()
        assert found is not None
        yield found


def memory(diagonal: bool = False) -> linrec.LinearRecurrence:
    if diagonal:
        return linrec.LinearRecurrence(linrec.Diagonal(torch.linspace(0.1, 0.9, 6)))
    return linrec.discretize(linrec.memories.legendre(order=6, theta=20.0))


def states_and_gradient(
    recurrence: linrec.LinearRecurrence, executor: linrec.Executor, seed: int
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (3, 40, recurrence.input_size)
    inputs = torch.randn(sizes, generator=generator).requires_grad_()
    states = linrec.run(recurrence, inputs, executor=executor).outputs
    (gradient,) = torch.autograd.grad(states.square().sum(), inputs)
    return states.detach(), gradient


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("name", EXECUTORS)
def test_results_are_those_of_new_memory(name: str, diagonal: bool) -> None:
    recurrence, executor = memory(diagonal), EXECUTORS[name]
    expected = [states_and_gradient(recurrence, executor, seed) for seed in range(4)]
    found: list[tuple[Tensor, Tensor]] = []
    with linrec.reuse_memory():
        for seed in range(4):
            states, gradient = states_and_gradient(recurrence, executor, seed)
            found.append((states.clone(), gradient.clone()))
    for both, others in zip(found, expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(both, others, strict=True))


def test_the_memory_of_a_dropped_result_is_used_again(kept: Pool) -> None:
    recurrence, inputs = memory(), torch.randn(2, 30, 1)
    first = linrec.run(recurrence, inputs, executor=linrec.Chunked()).outputs
    place = first.untyped_storage().data_ptr()
    second = linrec.run(recurrence, inputs, executor=linrec.Chunked()).outputs
    assert second.untyped_storage().data_ptr() != place
    del first
    third = linrec.run(recurrence, 2 * inputs, executor=linrec.Chunked()).outputs
    assert third.untyped_storage().data_ptr() == place
    assert torch.equal(third, 2 * second)
    assert kept.most == kept.used == 2 * third.nbytes


def test_whatever_holds_a_result_keeps_its_memory(kept: Pool) -> None:
    recurrence, inputs = memory(), torch.randn(2, 30, 1, requires_grad=True)
    states = linrec.run(recurrence, inputs, executor=linrec.Chunked()).outputs
    expected = states.detach().clone()
    view, array, graph = states.detach()[1:, ::3], states.detach().numpy(), states.square().sum()
    del states
    for _ in range(3):
        linrec.run(recurrence, inputs.detach() + 1, executor=linrec.Chunked())
    assert torch.equal(view, expected[1:, ::3])
    assert np.array_equal(array, expected.numpy())
    again = linrec.run(recurrence, inputs, executor=linrec.Chunked()).outputs
    (wanted,) = torch.autograd.grad(again.square().sum(), inputs)
    (found,) = torch.autograd.grad(graph, inputs)
    assert torch.equal(found, wanted)


def test_at_the_end_all_memory_is_given_back() -> None:
    recurrence, inputs = memory(), torch.randn(2, 30, 1)
    with pytest.raises(KeyError), linrec.reuse_memory():
        kept = pool()
        assert kept is not None
        survivor = linrec.run(recurrence, inputs, executor=linrec.Chunked()).outputs
        expected = survivor.clone()
        for steps in (30, 20):  # too different in size for one block
            linrec.run(recurrence, inputs[:, :steps], executor=linrec.Chunked())
            linrec.run(recurrence, inputs[:, : steps // 3], executor=linrec.Chunked())
        watched = [weakref.ref(block) for block in (*kept.waiting, *kept.returned)]
        assert kept.waiting and kept.returned
        raise KeyError
    assert pool() is None
    assert [block() for block in watched] == [None] * len(watched)
    linrec.run(recurrence, inputs + 1, executor=linrec.Chunked())
    assert torch.equal(survivor, expected)
    del survivor
    assert kept is not None and not kept.returned


def test_an_inner_context_has_memory_of_its_own(kept: Pool) -> None:
    with linrec.reuse_memory():
        assert pool() not in (None, kept)
    assert pool() is kept


def test_a_block_serves_results_that_are_little_smaller() -> None:
    kept = Pool()
    places = []
    for size in (100, 80, 79, 101):
        memory = kept.take_memory(size)
        places.append(memory.ctypes.data)
        del memory
    assert places[0] == places[1]
    # The third has a block of its own, which takes the first one's leave: 100 bytes were in use.
    assert kept.most == 101


def test_where_memory_is_short_blocks_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Pool()
    for size in (100, 50):
        kept.take_memory(size)
    sizes: list[int] = []

    def allocate(size: int, dtype: type) -> np.ndarray:
        sizes.append(size)
        if kept.waiting:
            raise MemoryError
        return np.zeros(size, dtype)

    monkeypatch.setattr(reused_memory.np, "empty", allocate)
    kept.most = 1000
    assert len(kept.take_memory(70)) == 70
    assert sizes == [70, 70] and kept.used == 70


def test_what_is_too_much_is_given_back_before_more_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Pool()
    kept.take_memory(100)
    waiting: list[int] = []

    def allocate(size: int, dtype: type) -> np.ndarray:
        waiting.append(len(kept.waiting))
        return np.zeros(size, dtype)

    monkeypatch.setattr(reused_memory.np, "empty", allocate)
    kept.take_memory(60)
    assert waiting == [0]


def test_nobody_waits_for_memory() -> None:
    """A handler of signals may ask for it while the thread that it interrupts takes some."""
    kept = Pool()
    with kept.lock:
        assert len(kept.take_memory(10)) == 10
    assert kept.used == 0


def test_results_may_be_computed_while_a_context_is_left() -> None:
    """Some threads compute while another enters and leaves contexts, switched very often."""
    like, wrong, over = torch.zeros(()), [], threading.Event()

    def work(number: int) -> None:
        try:
            while not over.is_set():
                held = [
                    huge_pages.empty(like, size).fill_(number) for size in (7, 8, 9, 20, 21, 40)
                ]
                if any((each != number).any() for each in held):
                    wrong.append(number)
        except (RuntimeError, IndexError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(300):
            with linrec.reuse_memory():
                time.sleep(1e-3)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not wrong


def test_the_smallest_block_that_fits_is_taken() -> None:
    kept = Pool()
    taken = [kept.take_memory(size) for size in (100, 60, 70)]
    place = taken[1].ctypes.data
    taken.clear()
    assert kept.take_memory(55).ctypes.data == place


# (Of few sizes, so that blocks fit often; 20 bytes are too many for a block of ten.)
@given(st.lists(st.tuples(st.sampled_from([8, 9, 10, 20]), st.integers(0, 5)), max_size=40))
def test_results_never_share_memory_and_little_is_held(steps: list[tuple[int, int]]) -> None:
    """Results of any sizes come and go: each keeps its content, and the bound holds."""
    kept, alive = Pool(), {}
    for count, (size, slot) in enumerate(steps):
        alive.pop(slot, None)
        memory = kept.take_memory(size)
        memory[:] = count
        alive[slot] = (memory, count)
        del memory
        waiting = sum(block.nbytes for block in kept.waiting)
        assert kept.used + waiting <= kept.most
        needed = sum(memory.nbytes for memory, _ in alive.values())
        assert needed <= kept.used <= 1.25 * needed
        assert all((memory == number).all() for memory, number in alive.values())


def test_threads_may_share_it(kept: Pool) -> None:
    recurrence, wrong = memory(), []
    inputs = [torch.full((2, 50, 1), float(number)) for number in range(4)]
    expected = [linrec.run(recurrence, each, executor=linrec.Chunked()).outputs for each in inputs]

    def work(number: int) -> None:
        for _ in range(100):
            found = linrec.run(recurrence, inputs[number], executor=linrec.Chunked()).outputs
            if not torch.equal(found, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    gc.collect()
    kept.take(1)
    assert kept.used == sum(each.nbytes for each in expected) + 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_a_result_is_no_view_and_may_be_of_any_dtype(kept: Pool, dtype: torch.dtype) -> None:
    like = torch.zeros((), dtype=dtype)
    with torch.device("meta"):  # the device is that of `like`
        result = huge_pages.empty(like, 3, 4)
    assert (result.dtype, result.device.type) == (dtype, "cpu")
    assert result.is_contiguous() and not result._is_view()
    assert kept.used == result.nbytes == 12 * dtype.itemsize
    result.fill_(2)
    assert torch.equal(result, torch.full((3, 4), 2, dtype=dtype))


def test_graphs_of_torch_compile_are_as_before() -> None:
    recurrence, inputs = memory(), torch.randn(2, 30, 1)
    graph = torch.compile(lambda u: linrec.run(recurrence, u).outputs, backend="eager")
    expected = graph(inputs)
    with linrec.reuse_memory():
        assert torch.equal(graph(inputs), expected)
