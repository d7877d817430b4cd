"""Scans in Numba's loops: bit for bit torch's, in any layout and any number of threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
import scipy.signal
import torch
from torch import Tensor

import linrec
from linrec import linear_scan
from linrec.benchmark import timing
from linrec.executors import Workload
from linrec.kernels import cpu_launch, cpu_loops, cpu_scan
from linrec.kernels.elementwise import loop, previous, shift_decays
from linrec.planner.costs import has_kernel
from linrec.testing import check_executor
from lmu.experiments.record import versions
from tests.cases import normal

REAL = [torch.float32, torch.float64]
COMPLEX = [torch.complex64, torch.complex128]

# Batch, steps and features: one of each, lanes, rows, more than a row or lanes hold, and so many
# sequences that they change places with the features.
SHAPES = [(1, 1, 1), (3, 5, 7), (2, 9, 40), (40, 6, 3), (1, 33, 17), (5, 2, 16)]


@pytest.fixture(autouse=True)
def with_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", True)


def lay_out(layout: str, B: int, T: int, F: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Draw a tensor `(batch, time, features)` whose numbers lie in memory in some order."""
    if layout == "features":
        return normal(B, T, F, seed=seed, dtype=dtype)
    if layout == "time":
        return normal(B, F, T, seed=seed, dtype=dtype).mT
    if layout == "sequences":
        return normal(T, F, B, seed=seed, dtype=dtype).movedim(-1, 0)
    if layout == "every second":
        return normal(B, 2 * T, 2 * F, seed=seed, dtype=dtype)[:, 1::2, ::2]
    one = {"one step": (B, 1, F), "one sequence": (1, T, F), "one feature": (B, T, 1)}[layout]
    return normal(*one, seed=seed, dtype=dtype).expand(B, T, F)


LAYOUTS = [
    "features",
    "time",
    "sequences",
    "every second",
    "one step",
    "one sequence",
    "one feature",
]


# Of the decays, and of what is read beside them.
PAIRS = [(each, each) for each in LAYOUTS] + [(each, "features") for each in LAYOUTS[1:]]


@pytest.mark.parametrize("dtype", REAL + COMPLEX)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_each_layout_gives_what_a_loop_gives(shape, reverse, dtype) -> None:
    """Real numbers bit by bit; torch may fuse the parts of a complex product."""
    B, T, F = shape
    eps = torch.finfo(dtype).eps
    state = normal(B, F, seed=0, dtype=dtype)
    for layout, others in PAIRS:
        decay = lay_out(layout, B, T, F, 1, dtype)
        drive, gradient = (lay_out(others, B, T, F, s, dtype) for s in (2, 3))
        states = torch.empty(B, T, F, dtype=dtype)
        cpu_launch.fill_on_cpu(decay, drive, states, state, reverse=reverse)
        expected = loop(decay, drive, state, reverse)
        size = loop(decay.abs(), drive.abs(), state.abs(), reverse)
        bound = 0 if dtype in REAL else 8 * (T + 1) * eps * size
        assert bool(((states - expected).abs() <= bound).all()), (layout, others)

        to_decay, to_drive = torch.empty_like(states), torch.empty_like(states)
        cpu_launch.differentiate_on_cpu(
            decay, state, states, gradient, to_decay, to_drive, reverse=reverse
        )
        zero, back = torch.zeros_like(state), shift_decays(decay, reverse)
        expected = loop(back, gradient, zero, not reverse)
        size = loop(back.abs(), gradient.abs(), zero.abs(), not reverse)
        bound = 0 if dtype in REAL else 8 * (T + 1) * eps * size
        before = previous(states, state, reverse)
        assert bool(((to_drive - expected).abs() <= bound).all()), (layout, others)
        bound = (bound + 8 * eps * size) * before.abs()
        assert bool(((to_decay - expected * before.conj()).abs() <= bound).all()), (layout, others)


@pytest.mark.parametrize("shape", [(1, 50, 70), (3, 40, 33), (50, 30, 2), (16, 9, 16)])
def test_threads_share_the_work_and_change_nothing(shape, monkeypatch) -> None:
    decay, drive = normal(*shape, seed=1).requires_grad_(), normal(*shape, seed=2).requires_grad_()

    def values() -> list[Tensor]:
        states = linear_scan(decay, drive)
        return [states, *torch.autograd.grad(states.square().sum(), [decay, drive])]

    one = values()
    monkeypatch.setattr(cpu_launch, "MANY", 0)
    threads = torch.get_num_threads()
    for count in (2, 3):
        torch.set_num_threads(count)
        try:
            shared = values()
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(shared, one, strict=True))


def test_many_callers_at_once() -> None:
    """Each is given its own result while the others compute theirs."""
    given = [normal(4, 60, 24, seed=seed) for seed in range(16)]
    expected = [linear_scan(each.tanh(), each) for each in given]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda each: linear_scan(each.tanh(), each), given * 4)
        assert all(
            torch.equal(mine, theirs) for mine, theirs in zip(found, expected * 4, strict=True)
        )


FORKED = """
import os, torch, linrec
from linrec.executors import Workload
from linrec.kernels import cpu_launch, cpu_threads
cpu_launch.MANY = 0
torch.set_num_threads(2)
ones = torch.ones(2, 50, 20)
expected = linrec.linear_scan(ones, ones)
assert cpu_threads.THREADS
child = os.fork()
if not child:
    os._exit(0 if torch.equal(linrec.linear_scan(ones, ones), expected) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)


def test_a_recursive_filter_is_scipys() -> None:
    """Each of j steps rounds twice: Σ 2 (j + 1) 0.9ʲ · 0.1 eps is 20 eps, on either side."""
    inputs = normal(3, 4_000, 20, seed=1)
    expected = scipy.signal.lfilter([0.1], [1, -0.9], inputs.numpy(), axis=1)
    states = linear_scan(torch.tensor([[0.9]], dtype=torch.double), 0.1 * inputs)
    bound = 2 * 20 * torch.finfo(torch.double).eps * inputs.abs().max()
    assert (states - torch.from_numpy(expected)).abs().max() < bound


@pytest.mark.parametrize("kind", ["conjugate", "imaginary part"])
def test_numbers_that_torch_keeps_as_others(kind: str) -> None:
    """Conjugates, and imaginary parts of them, are marks on other numbers."""
    complex_numbers = normal(2, 20, 18, seed=1, dtype=torch.complex128)
    marked = complex_numbers.conj() if kind == "conjugate" else complex_numbers.conj().imag
    assert torch.equal(linear_scan(0.5 * marked, marked), linear_scan(0.5 * marked, marked.clone()))
    written = marked.resolve_conj().resolve_neg()
    assert torch.equal(linear_scan(marked, marked), linear_scan(written, written))


def test_the_property_kit(monkeypatch) -> None:
    """It draws systems of all kinds: those that are diagonal are scanned in loops."""
    called: list[str] = []

    def count(function, name: str):
        return lambda *given, **named: called.append(name) or function(*given, **named)

    for name in ("fill_on_cpu", "differentiate_on_cpu"):
        monkeypatch.setattr(cpu_launch, name, count(getattr(cpu_launch, name), name))
    check_executor(linrec.AssociativeScan(), examples=25)
    assert called.count("fill_on_cpu") > 20 and called.count("differentiate_on_cpu") > 5


def test_numba_that_cannot_be_imported_is_left_out(monkeypatch) -> None:
    cpu_loops.import_loops.cache_clear()
    monkeypatch.setitem(sys.modules, "linrec.kernels.cpu_launch", None)
    try:
        assert cpu_loops.loops_for(torch.ones(1)) is None
        assert linear_scan(torch.ones(3, 1), torch.ones(3, 1)).mT.tolist() == [[1, 2, 3]]
    finally:
        cpu_loops.import_loops.cache_clear()


def test_loops_are_compiled_where_no_folder_can_keep_them(monkeypatch) -> None:
    def refuse(*, nogil: bool, cache: bool = False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: (function, nogil)

    monkeypatch.setattr(numba, "njit", refuse)
    assert cpu_scan.compile_loop(len) == (len, True)


def test_what_loops_are_not_for(monkeypatch) -> None:
    assert cpu_loops.loops_for(torch.ones(1)) is cpu_launch
    assert cpu_loops.loops_for(torch.ones(1, dtype=torch.bfloat16)) is None
    assert cpu_loops.loops_for(torch.ones(1, device="meta")) is None
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert cpu_loops.loops_for(torch.ones(1)) is None


def test_auto_knows_of_them(monkeypatch) -> None:
    recurrence = linrec.LinearRecurrence(linrec.Diagonal(torch.rand(100, 4)))
    note = str(linrec.explain(recurrence, 100).note)
    assert "scans elementwise in loops that Numba compiles" in note
    work = Workload.of(recurrence, 100, 1)
    assert has_kernel(work) and not has_kernel(work._replace(diagonal=False))
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", False)
    assert not has_kernel(work) and linrec.explain(recurrence, 100).note is None


def test_what_is_measured_or_trained_names_numba(monkeypatch) -> None:
    """Its loops round as torch's do, and those of blocks differ: a record says which ran."""
    expected = {"numba": numba.__version__}
    assert expected.items() <= timing.machine().items() and expected.items() <= versions().items()
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", False)
    assert "numba" not in timing.machine() and "numba" not in versions()
