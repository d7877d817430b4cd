"""Kernels of the elementwise scan, run by Triton's interpreter, against a loop and its bound."""

from typing import Any

import pytest
import torch
from torch import Tensor

import linrec
from linrec.executors import Workload
from linrec.kernels import elementwise, elementwise_gradients, elementwise_scan
from linrec.kernels.elementwise import loop, previous, shift_decays
from linrec.planner.costs import has_kernel
from tests.cases import generator

launching = pytest.importorskip("linrec.kernels.launch", reason="Triton is not installed")
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles, chunks and blocks of features at sizes that the interpreter bears."""
    sizes = {
        "TILE": 4,
        "LONG_TILE": 4,
        "SHORT_CHUNK": 3,
        "FEW_PROGRAMS": 4,
        "LANES": 1,
        "BYTES": 16,
        "ROWS": 2,
    }
    for name, size in sizes.items():
        monkeypatch.setattr(launching, name, size)


def draw(dtype: torch.dtype, *shape: int, seed: int) -> Tensor:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(*shape, generator=generator(seed), dtype=wide).to(dtype)


def given(dtype: torch.dtype, B: int = 1, T: int = 7, F: int = 3) -> list[Tensor]:
    """Decays, drives, a state, and a gradient."""
    decay = 0.7 * draw(dtype, B, T, F, seed=1)
    return [decay, draw(dtype, B, T, F, seed=2), draw(dtype, B, F, seed=3), decay.flip(1) + 1]


def bound(decay: Tensor, drive: Tensor, state: Tensor, reverse: bool) -> Tensor:
    """Bound the error of any order of sums, (2 T + 2) roundings of what is summed, at a step.

    A product of complex numbers rounds as three (Higham 2002, lemma 3.5); half-precision results
    are rounded once more.
    """
    a, b, x = (each.abs().double() for each in (decay, drive, state))
    magnitude = loop(a, b, x, reverse)
    half = drive.dtype in HALVES
    unit = torch.finfo(torch.float32 if half else drive.dtype).eps / 2
    roundings = (3 if drive.is_complex() else 1) * (2 * drive.shape[1] + 2)
    return magnitude * (roundings * unit + (torch.finfo(drive.dtype).eps if half else 0))


def exact(*tensors: Tensor) -> list[Tensor]:
    wide = torch.complex128 if tensors[0].is_complex() else torch.float64
    return [each.to(wide) for each in tensors]


@pytest.mark.parametrize("way", ["walk", "tile", "split"])
@pytest.mark.parametrize("dtype", [*DTYPES, *HALVES], ids=str)
@pytest.mark.sampled(2)
def test_states_and_gradients_are_the_loops(dtype: torch.dtype, way: str) -> None:
    for reverse in (False, True) if way == "walk" else (dtype.is_complex,):
        decay, drive, state, gradient = given(dtype, 2 if dtype == torch.float32 else 1)
        got, _ = launching.launch(decay, drive, state, reverse=reverse, way=way)
        a, b, x = exact(decay, drive, state)
        states = loop(a, b, x, reverse)
        assert got.dtype == dtype
        assert ((got - states).abs() <= bound(decay, drive, state, reverse)).all()
        own = states.to(dtype)
        to_drive, to_decay = launching.launch(
            decay, gradient, None, reverse=not reverse, shift=True, before=own, first=state, way=way
        )
        a, g, x, first = exact(decay, gradient, own, state)
        right = loop(shift_decays(a, reverse), g, torch.zeros_like(first), not reverse)
        most = bound(shift_decays(decay, reverse), gradient, torch.zeros_like(state), not reverse)
        assert ((to_drive - right).abs() <= most).all()
        before = previous(x, first, reverse)
        room = 2 * torch.finfo(dtype).eps * (right * before).abs()
        assert ((to_decay - right * before.conj()).abs() <= most * before.abs() + room).all()


@pytest.mark.parametrize("way", ["walk", "tile", "split"])
def test_any_size_and_stride(way: str) -> None:
    for whole, T, F in ((False, 1, 3), (False, 7, 1), (True, 7, 3)):
        decay, drive, state, _ = given(torch.float64, 2, T, F)
        layouts = [
            (decay[:1, :1].expand(2, T, F), drive),  # one decay for all, read in place
            (decay.mT.contiguous().mT, drive.mT.contiguous().mT),  # time contiguous
            (decay.flip(1), drive[:, :, :1].expand(2, T, F)),
        ]
        for a, b in layouts if whole else layouts[T > 1 :: 2]:
            got, _ = launching.launch(a, b, state, reverse=False, way=way)
            assert ((got - loop(a, b, state, False)).abs() <= 2 * bound(a, b, state, False)).all()
    launched, _ = launching.launch(decay, drive, None, reverse=False, way=way)
    right = loop(decay, drive, torch.zeros_like(state), False)
    assert (
        (launched - right).abs() <= 2 * bound(decay, drive, torch.zeros_like(state), False)
    ).all()


@pytest.mark.parametrize("way", ["walk", "split"])
def test_threads_find_their_features_side_by_side(way: str, monkeypatch) -> None:
    """A stride of 0 or a large one would have threads exchange what they read in every step."""
    kernels: list[dict[str, Any]] = []
    run = launching.call

    def call(kernel: Any, programs: int, *rest: Any, **options: Any) -> None:
        kernels.append(dict(zip(kernel.arg_names, rest, strict=False)))
        run(kernel, programs, *rest, **options)

    monkeypatch.setattr(launching, "call", call)
    decay, drive, _, gradient = given(torch.float32, 2, 9, 4)
    for a, b in ((decay[:, :, :1].expand(2, 9, 4), drive), (decay.mT.contiguous().mT, drive)):
        none = torch.zeros(()).expand(2, 4)
        states, _ = launching.launch(a, b, none, reverse=False, way=way)
        assert ((states - loop(a, b, none, False)).abs() <= 2 * bound(a, b, none, False)).all()
        back = {"reverse": True, "shift": True, "before": states, "first": none}
        launching.launch(a, gradient, None, way=way, **back)
    strides = {
        (name, given[name]) for given in kernels for name in given if name.endswith("_feature")
    }
    read = {(name, 1) for name in ("decay_feature", "drive_feature", "states_feature")}
    assert strides == read | {("start_feature", n) for n in (0, 1)} | {
        (name, n) for name in ("before_feature", "first_feature") for n in (0, 1)
    }, "0 stands for a tensor that is not there"


@pytest.mark.parametrize("way", ["walk", "split"])
def test_places_far_apart_are_numbers_of_64_bits(way: str, monkeypatch) -> None:
    decay, drive, state, _ = given(torch.float32, 2, 9, 4)
    near = launching.launch(decay, drive, state, reverse=False, way=way)[0]
    kinds: list[Any] = []
    run = launching.call

    def call(*rest: Any, **options: Any) -> None:
        kinds.append(options["OFFSET"])
        run(*rest, **options)

    monkeypatch.setattr(launching, "call", call)
    monkeypatch.setattr(launching, "FAR", 1)
    assert torch.equal(near, launching.launch(decay, drive, state, reverse=False, way=way)[0])
    assert set(kinds) == {launching.tl.int64}


@pytest.mark.parametrize("way", ["walk", "tile", "split"])
def test_products_that_leave_the_range_do_no_harm_to_a_state_of_zero(way: str) -> None:
    decay, drive = torch.full((1, 24, 4), 1e30), torch.zeros(1, 24, 4)
    decay[:, 12], drive[:, 13] = 0.0, 1.0
    decay[:, 14:] = 0.5
    got, _ = launching.launch(decay, drive, torch.zeros(1, 4), reverse=False, way=way)
    assert torch.equal(got, loop(decay, drive, torch.zeros(1, 4), False))


def test_the_layout_and_the_sizes_choose_the_way() -> None:
    decay, drive, state, _ = given(torch.float32, 1, 24, 4)
    assert elementwise_scan(decay, drive, state, False).is_contiguous()
    turned = [each.mT.contiguous().mT for each in (decay, drive)]
    assert elementwise_scan(*turned, state, False).mT.is_contiguous()


def test_the_operation_keeps_the_rules_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """(With the loop in the kernels' place: they are compared with it above.)"""
    monkeypatch.setattr(elementwise, "launches", lambda tensor: False)
    for reverse in (False, True):
        decay, drive, state, gradient = given(torch.complex128, 1, 2, 2 - reverse)
        leaves = [each.requires_grad_() for each in (decay, drive, state)]

        def scan(*given: Tensor, reverse: bool = reverse) -> Any:
            return elementwise_scan(*given, reverse)

        assert torch.autograd.gradcheck(scan, leaves, fast_mode=True)
        assert torch.autograd.gradgradcheck(scan, leaves, fast_mode=True)
    torch.library.opcheck(elementwise_scan, (*leaves, True))
    states = scan(*leaves).detach()
    fixed = (decay.detach(), state.detach(), states, gradient.detach(), True)
    torch.library.opcheck(elementwise_gradients, fixed)


def test_vmap_counts_the_mapped_axis_among_the_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "FEW_PROGRAMS", 1)  # else many sequences go another way
    decay, drive, state, _ = given(torch.float64, 2, 5, 2)
    many = torch.stack([drive, 2 * drive], 2)
    mapped = torch.vmap(lambda b: elementwise_scan(decay, b, state, False), 2)(many)
    alone = [elementwise_scan(decay, b, state, False) for b in many.unbind(2)]
    assert torch.equal(mapped, torch.stack(alone))


def test_linear_scan_and_the_executor_run_kernels_where_they_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decay = (0.7 * draw(torch.float64, 1, 2, 5, 2, seed=1)).requires_grad_()
    drive = draw(torch.float64, 1, 2, 5, 2, seed=2).requires_grad_()
    state = draw(torch.float64, 1, 2, 2, seed=3).requires_grad_()
    weights = draw(torch.float64, 1, 2, 5, 2, seed=4)

    def values() -> list[Tensor]:
        states = linrec.linear_scan(decay, drive, state)
        gradients = torch.autograd.grad((states * weights).sum(), [decay, drive, state])
        only = linrec.linear_scan(decay.detach(), drive, state)
        return [states, *gradients, *torch.autograd.grad((only * weights).sum(), [drive, state])]

    launched: list[str] = []
    run = launching.call
    plain = values()

    def call(kernel: Any, *rest: Any, **options: Any) -> None:
        launched.append(kernel.fn.__name__)
        run(kernel, *rest, **options)

    for asked in ("scan.serves", "scan_forward.serves"):
        monkeypatch.setattr(f"linrec.{asked}", lambda tensor: True)
    monkeypatch.setattr(launching, "call", call)
    for mine, theirs in zip(values(), plain, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert len(launched) >= 4


def test_explain_says_that_there_are_kernels() -> None:
    recurrence = linrec.LinearRecurrence(linrec.Diagonal(torch.rand(4))).to("meta")
    assert linrec.explain(recurrence, 100).note is None
    work = Workload.of(recurrence, 100, 1)._replace(device="cuda")
    assert has_kernel(work) and elementwise.HAS_TRITON
    assert not has_kernel(work._replace(diagonal=False))
