"""Convolutions in Numba's loops: transforms, both adjoints, sizes, threads, layouts."""

import math
import sys

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

import linrec
from linrec.executors import Workload
from linrec.executors.fft import Convolution, fast_length
from linrec.executors.tiled_bilinear import Direction, compute
from linrec.kernels import cpu_loops, cpu_spectra, cpu_threads
from linrec.kernels.cpu_transforms import radices_of, transform
from linrec.planner.costs import has_convolution
from linrec.testing import check_executor
from tests.cases import normal

REAL = [torch.float32, torch.float64]

# Units, copies, inputs, steps and outputs: of one step, of less than a block and of several, of
# lengths of which the transforms are odd, or have each of the radices.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 2, 33, 17),
    (3, 1, 1, 50, 40),
    (2, 1, 1, 68, 33),
    (1, 2, 3, 130, 70),
    (5, 1, 1, 7, 16),
    (2, 1, 1, 784, 100),
]


@pytest.fixture(autouse=True)
def with_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the loops for everything, however small."""
    for name, value in {"HAS_NUMBA": True, "MANY": 1, "SHORTEST": 1, "FEWEST_SEQUENCES": 1}.items():
        monkeypatch.setattr(cpu_loops, name, value)
    monkeypatch.setattr(cpu_loops, "FILLED", 0)


def plainly(
    monkeypatch: pytest.MonkeyPatch, direction: Direction, product: Convolution, *sides: Tensor
) -> Tensor:
    """Compute what torch's transforms give."""
    with monkeypatch.context() as without:
        without.setattr(cpu_loops, "HAS_NUMBA", False)
        found = compute(product, direction, *sides)
    return found[0] if direction is Direction.ADJOINT else found


def roundings(steps: int, dtype: torch.dtype) -> float:
    """Bound the relative error of three transforms (Higham 2002, theorem 24.2), of 2 T numbers.

    Each of log2(n) stages errs by the roots' error, 1 unit, and by a product and a sum of complex
    numbers, 4 √2 units at most. To two norms that are taken for one, a factor of 2 is added, and
    one of √2 for two signals in one transform.
    """
    unit = torch.finfo(dtype).eps / 2
    return 3 * (math.log2(fast_length(2 * steps - 1) + 1) + 1) * (1 + 4 * math.sqrt(2)) * unit * 3


def draw(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Convolution, Tensor, Tensor, Tensor]:
    """Draw inputs, kernels `(m, p, time)` and a gradient in the outputs."""
    units, copies, m, steps, p = shape
    inputs = normal(units, copies, steps, m, seed=1, dtype=dtype)
    kernels = normal(m, p, steps, seed=2, dtype=dtype)
    gradient = normal(units, steps, copies, p, seed=3, dtype=dtype).transpose(1, 2)
    return Convolution(steps, m, p), inputs, kernels, gradient


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 25, 27, 32, 40, 64, 90, 125])
@pytest.mark.parametrize("dtype", REAL)
def test_a_transform_is_numpys(n: int, dtype: torch.dtype) -> None:
    width = cpu_spectra.width_of(dtype)
    signals = normal(n, 2, width, seed=1, dtype=dtype)
    memory, room = signals.flatten().clone().numpy(), np.empty(2 * n * width, signals.numpy().dtype)
    radices = np.array(radices_of(n), np.int64)
    assert math.prod(radices_of(n)) == n
    in_room = transform(memory, room, radices, cpu_spectra.roots_of(n, dtype))
    found = (room if in_room else memory).reshape(n, 2, width).astype(np.float64)
    expected = np.fft.fft(
        signals[:, 0].double().numpy() + 1j * signals[:, 1].double().numpy(), axis=0
    )
    errors = np.linalg.norm(found[:, 0] + 1j * found[:, 1] - expected, axis=0)
    bound = (math.log2(n) + 1) * (1 + 4 * math.sqrt(2)) * torch.finfo(dtype).eps / 2
    assert (errors <= bound * np.linalg.norm(expected, axis=0)).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_convolution_is_scipys_direct_sum(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    product, inputs, kernels, _ = draw(shape, dtype)
    steps = inputs.shape[-2]
    spectrum = torch.fft.rfft(kernels, fast_length(2 * steps - 1))
    found = compute(product, Direction.FORWARD, spectrum, inputs)
    for unit, copy in np.ndindex(*inputs.shape[:2]):
        for output in range(kernels.shape[1]):
            expected, bound = np.zeros(steps), 0.0
            for channel in range(kernels.shape[0]):
                signal = inputs[unit, copy, :, channel].double()
                kernel = kernels[channel, output].double()
                whole = scipy.signal.convolve(signal.numpy(), kernel.numpy(), method="direct")
                expected += whole[:steps]
                bound += float(signal.norm() * kernel.norm()) * roundings(steps, dtype)
            errors = found[unit, copy, :, output].double() - torch.from_numpy(expected)
            assert errors.abs().max() <= bound


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_adjoints_are_torchs(shape: tuple[int, ...], dtype: torch.dtype, monkeypatch) -> None:
    """Gradients in inputs and in kernels, each as exact as its own numbers are large.

    Beside torch's transforms in blocks, and autograd through them, where a frequency counts twice
    if it stands for its mirror image too.
    """
    product, inputs, kernels, gradient = draw(shape, dtype)
    size = fast_length(2 * inputs.shape[-2] - 1)
    spectrum = torch.fft.rfft(kernels, size)
    given = (spectrum.clone().requires_grad_(), inputs.clone().requires_grad_())
    to_kernels, to_inputs = torch.autograd.grad(product.forward(*given), given, gradient)
    relative = 2 * roundings(inputs.shape[-2], dtype)  # of either side
    (found,) = compute(product, Direction.ADJOINT, spectrum, gradient)
    norms = kernels.norm(dim=-1) @ gradient.norm(dim=-2).unsqueeze(-1)  # Σ_p ‖h_mp‖ ‖g_p‖
    for expected in (
        plainly(monkeypatch, Direction.ADJOINT, product, spectrum, gradient),
        to_inputs,
    ):
        assert ((found - expected).abs().amax(-2) <= relative * norms.squeeze(-1)).all()
    found = compute(product, Direction.CONSTANT, gradient, inputs)
    # Σ ‖u_m‖ ‖g_p‖ over sequences, a root of 1 / n for the norm of the spectrum on either side.
    norms = torch.einsum("ucm,ucp->mp", inputs.norm(dim=-2), gradient.norm(dim=-2))
    for expected in (
        plainly(monkeypatch, Direction.CONSTANT, product, gradient, inputs),
        to_kernels,
    ):
        errors = torch.fft.irfft(found - expected, size).norm(dim=-1)
        assert (errors <= relative * norms).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_a_signal_errs_by_roundings_of_its_own(scale: float, monkeypatch) -> None:
    """One vector beside another of another size, which are transformed as one signal."""
    product, inputs, kernels, gradient = draw((2, 1, 1, 100, 32), torch.float32)
    kernels[:, 16:] *= scale
    spectrum = torch.fft.rfft(kernels, fast_length(199))
    found = compute(product, Direction.FORWARD, spectrum, inputs)
    expected = plainly(monkeypatch, Direction.FORWARD, product, spectrum, inputs)
    bound = 2 * roundings(100, torch.float32) * inputs.norm() * kernels.double().norm(dim=-1)
    assert ((found - expected).abs().amax((0, 1, 2)) <= bound).all()
    gradient[..., 16:] *= scale
    found = compute(product, Direction.CONSTANT, gradient, inputs)
    expected = plainly(monkeypatch, Direction.CONSTANT, product, gradient, inputs)
    norms = gradient.double().flatten(0, 2).norm(dim=0)
    errors = torch.fft.irfft((found - expected).to(torch.complex128), fast_length(199)).norm(dim=-1)
    assert (errors <= 2 * roundings(100, torch.float32) * inputs.norm() * norms).all()


@pytest.mark.parametrize("exponent", [-149, -127, -126, 0, 125, 126, 127])
@pytest.mark.parametrize("channels", [1, 2])
def test_kernels_of_any_norm_are_divided_exactly(exponent: int, channels: int) -> None:
    """By a power of two whose reciprocal is no subnormal number, and arranged in pairs."""
    spectra = torch.randn(channels, 40, 1, dtype=torch.complex64).sgn()
    spectra[0, :, 0] = torch.complex(*(torch.full((40,), each * 2.0**exponent) for each in (1, 0)))
    spectra[1:] *= 2.0**exponent
    scales = cpu_spectra.sizes_of(spectra)
    assert (scales.frexp()[0] == 0.5).all()
    assert ((1 / scales) >= torch.finfo(torch.float32).tiny).all()
    found = torch.from_numpy(cpu_spectra.lay_out_kernels(spectra, scales, 1))
    found = found.unflatten(-1, (2, 16)).permute(1, 0, 3, 2).flatten(1, 2)  # a pair's real, imag
    exact = torch.nn.functional.pad(spectra / scales.unsqueeze(-1), (0, 0, 0, 24)).squeeze(-1)
    first, second = exact.unflatten(1, (2, 2, 16)).unbind(2)
    pairs = torch.view_as_real(first + 1j * second)
    assert torch.equal(found, pairs.flatten(1, 2))


def test_the_default_device_is_nothing_to_them() -> None:
    product, inputs, kernels, gradient = draw((2, 1, 1, 44, 30), torch.float64)
    spectrum = torch.fft.rfft(kernels, fast_length(87))
    sides = {
        Direction.FORWARD: (spectrum, inputs),
        Direction.ADJOINT: (spectrum, gradient),
        Direction.CONSTANT: (gradient, inputs),
    }
    cpu_spectra.plan_of.cache_clear()
    cpu_spectra.order_of.cache_clear()
    with torch.device("meta"):
        found = [compute(product, way, *given) for way, given in sides.items()]
    for result, (way, given) in zip(found, sides.items(), strict=True):
        expected = compute(product, way, *given)
        if way is Direction.ADJOINT:
            (result,), (expected,) = result, expected
        assert torch.equal(result, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_with_its_output(bad: float) -> None:
    product, inputs, kernels, gradient = draw((2, 1, 1, 20, 32), torch.float32)
    kernels[0, 3, 5] = bad
    spectrum = torch.fft.rfft(kernels, fast_length(39))
    found = compute(product, Direction.FORWARD, spectrum, inputs).isnan().any(-2).any(0).squeeze(0)
    assert found.nonzero().flatten().tolist() == [3]
    assert compute(product, Direction.ADJOINT, spectrum, gradient)[0].isnan().all()
    gradient[1, 0, 4, 7] = bad
    found = compute(product, Direction.CONSTANT, gradient, inputs).isnan().any(-1).squeeze(0)
    assert found.nonzero().flatten().tolist() == [7]


def test_threads_share_the_work_and_change_nothing(monkeypatch) -> None:
    product, inputs, kernels, gradient = draw((7, 1, 2, 60, 150), torch.float32)
    spectrum = torch.fft.rfft(kernels, fast_length(119))

    def values() -> list[Tensor]:
        forward = compute(product, Direction.FORWARD, spectrum, inputs)
        (to_inputs,) = compute(product, Direction.ADJOINT, spectrum, gradient)
        return [forward, to_inputs, compute(product, Direction.CONSTANT, gradient, inputs)]

    one, threads = values(), torch.get_num_threads()
    for count, together in ((2, 1 << 18), (3, 1 << 12), (16, 1)):
        monkeypatch.setattr(cpu_spectra, "TOGETHER", together)
        torch.set_num_threads(count)
        try:
            shared = values()
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(shared, one, strict=True))
    assert cpu_threads.THREADS


def test_only_the_outputs_are_written() -> None:
    """What lies between and around them stays as it was, wherever they start."""
    steps, p = 30, 21
    memory = torch.full((2, steps + 2, 3, p + 5), 7.0)
    outputs = memory[:, 1:-1, :, 3 : 3 + p].transpose(1, 2)
    inputs, kernels = normal(2, 3, steps, 1, seed=1).float(), normal(1, p, steps, seed=2).float()
    size = fast_length(2 * steps - 1)
    given = torch.fft.rfft(inputs.mT, size), torch.fft.rfft(kernels, size)
    assert cpu_spectra.convolve_on_cpu(*given, outputs, size)
    assert torch.equal(
        outputs, compute(Convolution(steps, 1, p), Direction.FORWARD, given[1], inputs)
    )
    outputs.fill_(7.0)
    assert bool((memory == 7.0).all())


@pytest.mark.parametrize("kind", ["sum", "transposed", "imaginary part", "every second"])
def test_gradients_of_any_layout(kind: str) -> None:
    product, _, kernels, gradient = draw((2, 2, 1, 40, 36), torch.float64)
    spectrum = torch.fft.rfft(kernels, fast_length(79))
    given = {
        "sum": torch.ones(1, 1, 1, 1, dtype=torch.float64).expand(2, 2, 40, 36),
        "transposed": gradient.mT.contiguous().mT,
        "imaginary part": torch.complex(gradient, gradient).conj().imag,
        "every second": normal(2, 2, 80, 72, seed=4)[..., ::2, ::2],
    }[kind]
    plain = given.clone(memory_format=torch.contiguous_format).resolve_neg()
    (found,) = compute(product, Direction.ADJOINT, spectrum, given)
    assert torch.equal(found, compute(product, Direction.ADJOINT, spectrum, plain)[0])
    inputs = normal(2, 2, 40, 1, seed=5)
    found = compute(product, Direction.CONSTANT, given, inputs)
    assert torch.equal(found, compute(product, Direction.CONSTANT, plain, inputs))


def test_the_property_kit(monkeypatch) -> None:
    """It draws systems of all kinds; those with real numbers are convolved in loops."""
    called: list[str] = []

    def count(function, name: str):
        return lambda *given, **named: called.append(name) or function(*given, **named)

    names = ("convolve_on_cpu", "correlate_on_cpu", "correlate_inputs_on_cpu")
    for name in names:
        monkeypatch.setattr(cpu_spectra, name, count(getattr(cpu_spectra, name), name))
    check_executor(linrec.FFTConvolution(), examples=25)
    assert all(called.count(name) > 5 for name in names)


def test_numba_that_cannot_be_imported_is_left_out(monkeypatch) -> None:
    cpu_loops.import_loops.cache_clear()
    monkeypatch.setitem(sys.modules, "linrec.kernels.cpu_spectra", None)
    try:
        assert cpu_loops.convolutions_for(torch.ones(1, 1, 3, 2)) is None
    finally:
        cpu_loops.import_loops.cache_clear()


def test_what_loops_are_not_for(monkeypatch) -> None:
    assert cpu_loops.convolutions_for(torch.ones(1, 1, 3, 2)) is cpu_spectra
    assert cpu_loops.convolutions_for(torch.ones(1, 1, 3, 2, dtype=torch.complex64)) is None
    assert cpu_loops.convolutions_for(torch.ones(1, 1, 3, 2, device="meta")) is None
    assert cpu_loops.convolutions_for(torch.ones(1, 1, 1 << 15, 1)) is None
    for name in ("MANY", "SHORTEST", "FEWEST_SEQUENCES"):
        with monkeypatch.context() as change:
            change.setattr(cpu_loops, name, 100)
            assert cpu_loops.convolutions_for(torch.ones(1, 1, 3, 2)) is None
    monkeypatch.setattr(cpu_loops, "FILLED", 0.7)
    filled = {p for p in range(1, 65) if cpu_loops.convolutions_for(torch.ones(1, 1, 3, p))}
    assert filled == {*range(23, 33), *range(45, 65)}
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert cpu_loops.convolutions_for(torch.ones(1, 1, 3, 32)) is None


def test_auto_knows_of_them(monkeypatch) -> None:
    recurrence = linrec.LinearRecurrence(torch.rand(40, 40), torch.rand(40, 1))
    work = Workload.of(recurrence, 100, 8)
    assert has_convolution(work)
    assert not has_convolution(work._replace(systems=2))
    assert not has_convolution(work._replace(itemsize=8))  # complex, by its roundoff
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", False)
    assert not has_convolution(work)
