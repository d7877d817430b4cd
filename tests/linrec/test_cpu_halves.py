"""Half-precision scans in Numba's loops: bit for bit the scans of converted numbers."""

import pytest
import torch
from torch import Tensor

from linrec import linear_scan
from linrec.kernels import cpu_halves_launch, cpu_loops
from linrec.kernels.cpu_halves import BLOCK
from tests.cases import normal

HALVES = [torch.bfloat16, torch.float16]

# Sequences, steps and features: fewer and more steps than a block, ends of a block, more features
# than a piece.
SHAPES = [
    (1, 1, 16),
    (3, 5, 17),
    (2, BLOCK, 20),
    (1, BLOCK + 1, 33),
    (5, 2 * BLOCK, 16),
    (2, 130, 600),
]


@pytest.fixture(autouse=True)
def with_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count calls of the loops."""
    called: list[str] = []
    for name in ("fill_halves", "differentiate_halves_on_cpu"):
        loop = getattr(cpu_halves_launch, name)
        counted = lambda *given, name=name, loop=loop: called.append(name) or loop(*given)  # noqa: E731  # two of them
        monkeypatch.setattr(cpu_halves_launch, name, counted)
    return called


def converted(monkeypatch: pytest.MonkeyPatch, *given: Tensor) -> Tensor:
    """Scan numbers that are converted before and after."""
    with monkeypatch.context() as without:
        without.setattr(cpu_loops, "BROAD", 1 << 30)
        return linear_scan(*given)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["plain", "time last", "every second", "batches"])
def test_states_and_gradients_are_those_of_converted_numbers(
    layout: str, shape: tuple[int, int, int], dtype: torch.dtype, calls: list[str], monkeypatch
) -> None:
    B, T, F = shape

    def draw(seed: int) -> Tensor:
        if layout == "time last":
            numbers = normal(B, F, T, seed=seed).mT
        elif layout == "every second":
            return normal(B, 2 * T, F, seed=seed).tanh().to(dtype)[:, 1::2]
        else:
            numbers = normal(*((2, B) if layout == "batches" else (B,)), T, F, seed=seed)
        return numbers.tanh().to(dtype)

    decay, drive, gradient = (draw(seed).requires_grad_() for seed in (1, 2, 3))
    state = normal(F, seed=4).float().requires_grad_()
    given = (decay, drive, state)
    found = linear_scan(*given)
    expected = converted(monkeypatch, *given)
    assert found.dtype == dtype and torch.equal(found, expected)
    sides = [torch.autograd.grad(states, given, gradient) for states in (found, expected)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*sides, strict=True))
    assert calls == ["fill_halves", "differentiate_halves_on_cpu"]


@pytest.mark.parametrize("dtype", HALVES)
def test_all_numbers_are_read_and_rounded_as_torch_does(dtype: torch.dtype) -> None:
    """All 65,536 of 16 bits, and float32 numbers with every upper half, at ties and beside them."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(-1, 1, 16)
    numbers = bits.view(dtype)
    kept = linear_scan(torch.zeros_like(numbers), numbers)
    assert torch.equal(kept.isnan(), numbers.isnan())
    finite = ~numbers.isnan()
    assert torch.equal(kept.view(torch.int16)[finite], (numbers + 0).view(torch.int16)[finite])
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1000, 0x0FFF, 0x1001, 0x3000):
        wide = (torch.arange(1 << 16, dtype=torch.int64) << 16 | lower).to(torch.int32)
        state = wide.view(torch.float32)
        one = torch.ones(1, 1 << 16, dtype=dtype)
        found, expected = linear_scan(one, one * 0, state)[0], (state * 1 + 0).to(dtype)
        assert torch.equal(found.isnan(), expected.isnan())
        finite = ~found.isnan()
        assert torch.equal(found.view(torch.int16)[finite], expected.view(torch.int16)[finite])


def test_derivatives_of_derivatives(monkeypatch) -> None:
    decay, drive = (normal(2, 9, 20, seed=s).tanh().bfloat16().requires_grad_() for s in (1, 2))
    values: list[tuple[Tensor, ...]] = []
    for scan in (linear_scan, lambda *given: converted(monkeypatch, *given)):
        states = scan(decay, drive)
        first = torch.autograd.grad(states.square().sum(), (decay, drive), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), (decay, drive))
        values.append((*first, *second))
    # The first are the same operations; the second add up the same numbers in another order.
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(values[0][:2], values[1][:2], strict=True)
    )
    for mine, theirs in zip(values[0][2:], values[1][2:], strict=True):
        scale = theirs.float().abs().max()
        assert (mine.float() - theirs.float()).abs().max() <= 8 * 2.0**-8 * scale


def test_transforms_take_the_other_way(calls: list[str]) -> None:
    decay, drive = (normal(3, 9, 20, seed=s).tanh().bfloat16() for s in (1, 2))
    mapped = torch.vmap(linear_scan)(decay, drive)
    tangent = torch.func.jvp(linear_scan, (decay, drive), (decay, drive))[1]
    assert mapped.dtype == tangent.dtype == torch.bfloat16 and not calls
    assert torch.equal(mapped, linear_scan(decay, drive)) and calls == ["fill_halves"]


def test_threads_share_the_work_and_change_nothing() -> None:
    threads = torch.get_num_threads()
    for shape in ((1, 70, 40), (5, 20, 33), (3, 9, 1200)):
        decay, drive = (normal(*shape, seed=s).tanh().half().requires_grad_() for s in (1, 2))

        def values(given: tuple[Tensor, Tensor] = (decay, drive)) -> list[Tensor]:
            states = linear_scan(*given)
            return [states, *torch.autograd.grad(states.sum(), given)]

        one = values()
        for count in (2, 3, 16):
            torch.set_num_threads(count)
            try:
                shared = values()
            finally:
                torch.set_num_threads(threads)
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(shared, one, strict=True))


def test_the_default_dtype_and_device_are_nothing_to_them(calls: list[str]) -> None:
    numbers = normal(3, 20, seed=1).bfloat16().requires_grad_()
    expected = torch.autograd.grad(linear_scan(numbers, numbers).sum(), numbers)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            found = torch.autograd.grad(linear_scan(numbers, numbers).sum(), numbers)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found[0], expected[0]) and len(calls) == 4


def test_what_they_are_not_for(calls: list[str], monkeypatch) -> None:
    numbers = normal(3, 20, seed=1).bfloat16()
    linear_scan(numbers, numbers.half())  # two formats
    linear_scan(numbers[:1], numbers)  # a decay for all steps
    linear_scan(numbers[:, :15], numbers[:, :15])
    linear_scan(numbers, numbers, torch.zeros(20, dtype=torch.float64))
    linear_scan(numbers[:0], numbers[:0])
    assert cpu_loops.halves_for(numbers.float()) is None
    assert cpu_loops.halves_for(numbers.to("meta")) is None
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", False)
    linear_scan(numbers, numbers)
    assert not calls
