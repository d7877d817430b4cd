"""Filters agree with scipy's in outputs, delays, axes and dtypes, and are differentiable."""

# Wrong arguments are passed on purpose, and pairs known to be pairs used as such.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import importlib
import itertools
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

import linrec
from linrec.signal import lfilter, lfilter_zi, lfiltic, sosfilt, sosfilt_zi
from tests.cases import EXECUTORS
from tests.linrec.filters import (
    EPS,
    FILTERS,
    allowed,
    assert_within,
    filtered,
    polynomial,
    random,
    summed,
)

signal: Any = importlib.import_module("scipy.signal")  # whose stubs know no arrays but theirs
EXACT = ("recurrent", "auto")  # the executors that filters are crossed with in every detail


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("executor", EXACT)
def test_outputs_and_delays_are_scipys(name: str, axis: int, executor: str) -> None:
    b, a = FILTERS[name]
    x = random(6, 5, 9, seed=1)
    n = max(len(b), len(a)) - 1
    shape = list(x.shape)
    shape[axis] = n
    for zi in (None, random(*shape, seed=2), random(*(n if s == n else 1 for s in shape), seed=3)):
        if zi is not None and zi.shape[axis] != n:
            continue
        given = None if zi is None else np.moveaxis(zi, axis, -1)
        y_allowed, z_allowed = (
            np.moveaxis(bound, -1, axis) for bound in allowed(b, a, np.moveaxis(x, axis, -1), given)
        )
        expected = signal.lfilter(b, a, x, axis, zi)
        numbers, poles, sequence = (torch.from_numpy(each) for each in (b, a, x))
        start = None if zi is None else torch.from_numpy(zi)
        got = lfilter(numbers, poles, sequence, axis, zi=start, executor=EXECUTORS[executor])
        if zi is None:
            assert isinstance(got, torch.Tensor)
            assert_within(got, expected, y_allowed)
        else:
            assert_within(got[0], expected[0], y_allowed)
            assert_within(got[1], expected[1], z_allowed)


@pytest.mark.parametrize("name", FILTERS)
def test_sequences_in_pieces_are_the_sequence_at_once(name: str) -> None:
    b, a = FILTERS[name]
    n, x = max(len(b), len(a)) - 1, torch.from_numpy(random(2, 20, seed=1))
    state: Any = torch.zeros(2, n, dtype=torch.float64)
    pieces = []
    for piece in x.split([7, 0, 1, 12], -1):
        y, state = lfilter(b, a, piece, zi=state)
        pieces.append(y)
    whole, last = lfilter(b, a, x, zi=torch.zeros(2, n, dtype=torch.float64))
    y_allowed, z_allowed = allowed(b, a, x.numpy(), None)
    assert_within(torch.cat(pieces, -1), whole.numpy(), y_allowed)
    assert_within(state, last.numpy(), z_allowed)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3), (1,), (2, 1)])
@pytest.mark.parametrize("name", ["one pole", "moving average", "gain", "more zeros than poles"])
def test_few_steps_and_none(name: str, shape: tuple[int, ...]) -> None:
    b, a = FILTERS[name]
    n = max(len(b), len(a)) - 1
    x, zi = random(*shape, seed=1), random(*shape[:-1], n, seed=2)
    y, zf = lfilter(b, a, x, zi=zi)
    assert y.shape == shape and zf.shape == zi.shape
    expected, last = filtered(
        np.pad(b / a[0], (0, n + 1 - len(b))), np.pad(a / a[0], (0, n + 1 - len(a))), x, zi
    )
    y_allowed, z_allowed = allowed(b, a, x, zi)
    assert_within(y, expected, y_allowed)
    assert_within(zf, last, z_allowed)


DTYPES = (torch.float64, torch.float32, torch.complex64, torch.complex128)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(DTYPES, DTYPES)))
def test_the_dtype_is_the_common_one(first: torch.dtype, second: torch.dtype) -> None:
    common = torch.promote_types(first, second)
    b, x = torch.ones(2, dtype=first), torch.ones(4, dtype=second)
    for a in ([1.0, -0.5], [2.0]):  # plain numbers have no say
        assert lfilter(b, a, x).dtype == common
        assert lfilter([1, 2], a, x).dtype == second
        y, zf = lfilter(b, a, x, zi=torch.zeros(1, dtype=torch.float32))
        assert y.dtype == zf.dtype == common


def test_plain_numbers_have_the_digits_of_the_sequence() -> None:
    x = torch.from_numpy(random(20))
    array = np.array([0.1, 0.3]), np.array([1.0, -0.9])
    assert torch.equal(lfilter([0.1, 0.3], [1.0, -0.9], x), lfilter(*array, x))
    assert lfilter([0.1, 0.3], [1.0, -0.9], x.float()).dtype == torch.float32
    assert lfilter([1], [1, -1], [1, 2, 3]).tolist() == [1, 3, 6]
    assert lfilter([1], [1, -1], torch.tensor([1, 2, 3])).dtype == torch.get_default_dtype()
    assert lfilter([1j], [1, -1], x.float()).dtype == torch.complex64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    x = torch.from_numpy(random(30)).to(dtype)
    y, zf = lfilter([0.25, 0.25], [1.0, -0.5], x, zi=torch.zeros(1, dtype=dtype))
    single = lfilter([0.25, 0.25], [1.0, -0.5], x.float())
    assert y.dtype == dtype and zf.dtype == torch.float32
    assert torch.equal(y, single.to(dtype))


def test_a_filter_for_each_channel() -> None:
    b, a = random(3, 2, seed=1), np.stack([polynomial(4, seed) for seed in range(3)])
    x = random(2, 11, 3, seed=2)  # time on axis 1, so that the channels are the last others
    y, zf = lfilter(b, a, x, 1, np.zeros((2, 4, 3)))
    for channel in range(3):
        own = np.ascontiguousarray(x[..., channel])
        expected, last = signal.lfilter(b[channel], a[channel], own, 1, np.zeros((2, 4)))
        y_allowed, z_allowed = allowed(b[channel], a[channel], own, None)
        assert_within(y[..., channel], expected, y_allowed)
        assert_within(zf[..., channel], last, z_allowed)
    averages = lfilter(b, [1.0], x, 1)
    for channel in range(3):
        expected = signal.lfilter(b[channel], [1.0], x[..., channel], 1)
        assert_within(
            averages[..., channel], expected, 16 * EPS * np.abs(b).sum() * np.abs(x).max()
        )
    assert lfilter(b, a, torch.zeros(11)).shape == (3, 11)  # a bank over one sequence


@pytest.mark.parametrize("order", [1, 2, 5, 6])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sections_are_scipys(order: int, axis: int) -> None:
    sos = signal.butter(order, 0.2, output="sos")
    x = random(6, 5, 9, seed=1)
    shape = list(x.shape)
    shape[axis] = 2
    zi = random(len(sos), *shape, seed=2)
    expected, last = signal.sosfilt(sos, x, axis, zi)
    y, zf = sosfilt(sos, x, axis, zi, executor=linrec.Recurrent())
    # The bound of a section, with what the sections before it have added.
    reached, y_allowed = np.moveaxis(x, axis, -1), 0.0
    for section, start in zip(sos, zi, strict=True):
        begin = np.moveaxis(start, axis, -1)
        own, delays = allowed(section[:3], section[3:], reached, begin)
        response = np.abs(signal.lfilter(section[:3], section[3:], np.eye(1, 9)[0]))
        y_allowed = own + summed(response[: x.shape[axis]], np.broadcast_to(y_allowed, own.shape))
        reached = signal.lfilter(section[:3], section[3:], reached, -1, begin)[0]
    y_allowed = np.moveaxis(y_allowed, -1, axis)
    assert_within(y, expected, y_allowed)
    assert zf.shape == last.shape
    assert np.abs(zf.numpy() - last).max() <= 8 * (np.max(y_allowed) + delays.max())
    assert_within(sosfilt(sos, x, axis), signal.sosfilt(sos, x, axis), 16 * np.max(y_allowed))


def exactly(b: Any, a: Any, x: Any) -> np.ndarray:
    """Outputs in 60 digits."""
    with mpmath.workdps(60):
        b, a = ([mpmath.mpf(float(v)) for v in each] for each in (b, a))
        z, y = [mpmath.mpf(0)] * (len(a) - 1), []
        for value in x:
            now = b[0] * mpmath.mpf(float(value)) + z[0]
            z = [
                (z[i + 1] if i + 1 < len(z) else 0)
                + b[i + 1] * mpmath.mpf(float(value))
                - a[i + 1] * now
                for i in range(len(z))
            ]
            y.append(float(now))
    return np.array(y)


SHARP: dict[str, Any] = {  # ordinary filters, whose companion matrices have powers of 1e3 and more
    "butter(6, .05)": lambda: signal.butter(6, 0.05),
    "cheby1(6, 1, .1)": lambda: signal.cheby1(6, 1, 0.1),
    "bessel(7, .07)": lambda: signal.bessel(7, 0.07),
}


@pytest.mark.parametrize("name", SHARP)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_sharp_filters_lose_at_most_a_hundred_times_what_the_loop_does(
    name: str, executor: str
) -> None:
    b, a = SHARP[name]()
    x = random(300, seed=1)
    truth = exactly(b, a, x)
    loop = np.abs(filtered(b, a, x, np.zeros(len(a) - 1))[0] - truth).max()
    error = np.abs(lfilter(b, a, x, executor=EXECUTORS[executor]).numpy() - truth).max()
    assert error <= 100 * loop


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", ["one pole", "fewer zeros than poles", "complex", "integrator"])
def test_every_executor_filters(executor: str, name: str) -> None:
    b, a = FILTERS[name]
    x = random(3, 40, seed=1)
    zi = random(3, max(len(a), len(b)) - 1, seed=2)
    expected = signal.lfilter(b, a, x, -1, zi)
    got = lfilter(b, a, x, -1, zi, executor=EXECUTORS[executor])
    # The largest power of the matrix, squared, is what products of powers may cancel.
    roundings = 40 * 8 * len(a) * EPS * 100
    for mine, theirs in zip(got, expected, strict=True):
        assert np.abs(mine.numpy() - theirs).max() <= roundings * np.abs(theirs).max()


@pytest.mark.parametrize(
    "name", ["one pole", "not normalised", "fewer zeros than poles", "complex", "moving average"]
)
@pytest.mark.sampled(2)
def test_gradients_in_everything(name: str) -> None:
    b, a = (torch.from_numpy(np.asarray(each)).requires_grad_() for each in FILTERS[name])
    n = max(len(b), len(a)) - 1
    x = torch.from_numpy(random(2, 5, seed=1)).requires_grad_()
    zi = torch.from_numpy(random(2, n, seed=2)).requires_grad_()

    def both(b: Any, a: Any, x: Any, zi: Any) -> Any:
        return lfilter(b, a, x, zi=zi)

    assert torch.autograd.gradcheck(both, (b, a, x, zi), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(both, (b, a, x, zi))


def test_gradients_of_sections_and_of_steady_starts() -> None:
    sos = torch.from_numpy(signal.butter(3, 0.3, output="sos")).requires_grad_()
    x = torch.from_numpy(random(5, seed=1)).requires_grad_()

    def steady(sos: Any, x: Any) -> Any:
        sections = torch.cat([sos[:, :3], torch.ones(2, 1), sos[:, 4:]], -1)
        return sosfilt(sections, x, zi=sosfilt_zi(sections) * x[0])

    assert torch.autograd.gradcheck(steady, (sos, x))


def test_maps_over_filters() -> None:
    b, a = (
        torch.from_numpy(random(4, 2)),
        torch.from_numpy(np.stack([polynomial(3, i) for i in range(4)])),
    )
    x = torch.from_numpy(random(9, seed=1))
    mapped = torch.vmap(lambda b, a: lfilter(b, a, x, executor=linrec.Recurrent()))(b, a)
    assert torch.allclose(mapped, lfilter(b, a, x, executor=linrec.Recurrent()), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lfilter([1.0], [0.0, 1.0], torch.ones(3)), "is 0: the filter would have to know"),
        (lambda: lfilter([], [1.0], torch.ones(3)), "`b` has shape (0,)"),
        (lambda: lfilter([1.0], [], torch.ones(3)), "`a` has shape (0,)"),
        (lambda: lfilter([1.0], [1.0], torch.tensor(3.0)), "`x` is a single number"),
        (lambda: lfilter([1.0], [1.0], torch.ones(3), 1), "`axis` is 1"),
        (
            lambda: lfilter([1.0], [1.0, 2.0], torch.ones(3), zi=torch.ones(2)),
            "`zi` has shape (2,)",
        ),
        (
            lambda: lfilter([1.0], [1.0, 2.0], torch.ones(4, 3), zi=torch.ones(1)),
            "`zi` has shape (1,): expected (4, 1)",
        ),
        (
            lambda: lfilter([1.0], [1.0, 2.0], torch.ones(4, 3), zi=torch.ones(3, 1)),
            "`zi` has shape (3, 1): expected (4, 1)",
        ),
        (lambda: sosfilt(torch.ones(2, 5), torch.ones(3)), "`sos` has shape (2, 5)"),
        (lambda: sosfilt(torch.ones(6), torch.ones(3)), "`sos` has shape (6,)"),
        (lambda: sosfilt(2 * torch.ones(1, 6), torch.ones(3)), "`sos[..., 3]` is not 1"),
        (
            lambda: sosfilt(torch.ones(2, 6), torch.ones(3), zi=torch.ones(1, 2)),
            "`zi` has shape (1, 2): expected (2, 2)",
        ),
        (lambda: lfilter_zi([1.0], [1.0, -1.0]), "a pole at 1"),
        (lambda: lfilter_zi([1.0], [0.0]), "is 0: the filter"),
        (lambda: lfiltic([[1.0]], [1.0], [1.0]), "`b` has shape (1, 1)"),
    ],
)
def test_refuses_in_words(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        call()
    assert message in str(refusal.value)


@pytest.mark.filterwarnings("ignore:torch.quantize")  # deprecated, and so refused
def test_refuses_what_are_no_numbers() -> None:
    with pytest.raises(TypeError, match="`b` is of type str"):
        lfilter("low", [1.0], torch.ones(3))
    for given, message in ((None, "`x` is None: expected"), (quantized(3), "`x` is quantized")):
        with pytest.raises(TypeError, match=message):
            lfilter([1.0], [1.0, 0.5], given)
        with pytest.raises(TypeError, match=message):
            sosfilt([[1.0, 0.0, 0.0, 1.0, 0.5, 0.0]], given)
    for axis in (None, 1.0, "time"):
        for call in (lambda axis: lfilter([1.0], [1.0, 0.5], torch.ones(2, 3), axis), sections):
            with pytest.raises(TypeError, match=f"`axis` is {axis!r}: expected a whole number"):
                call(axis)
    assert sections(np.int64(1)).equal(sections(1))


def sections(axis: Any) -> torch.Tensor:
    return sosfilt([[1.0, 0.0, 0.0, 1.0, 0.5, 0.0]], torch.ones(2, 3), axis)


def quantized(*shape: int) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(shape), 0.1, 0, torch.qint8)


@pytest.mark.parametrize("axis", [0, 1, -1])  # of two
def test_delays_of_a_bank_of_filters_go_on_from_where_they_were(axis: int) -> None:
    """Filters have batch axes of their own: what comes back as `zf` is taken as `zi`."""
    b, a = random(4, 1, 3, seed=1), random(4, 1, 3, seed=2) * 0.2
    a[..., 0] = 1.0
    x = torch.from_numpy(random(5, 20, seed=3))
    x = x if axis else x.mT
    time = -1 if axis else -2
    start = torch.zeros(1, 2).double()
    whole, end = lfilter(b, a, x, axis, zi=start if axis else start.mT)
    first, state = lfilter(b, a, x.narrow(axis, 0, 7), axis, zi=torch.zeros_like(end))
    second, last = lfilter(b, a, x.narrow(axis, 7, 13), axis, zi=state)
    assert whole.shape == (4, *x.shape) and last.shape == end.shape
    for index in range(4):
        expected, theirs = signal.lfilter(
            b[index, 0], a[index, 0], x.numpy(), time, np.zeros_like(end[0].numpy())
        )
        y_allowed, z_allowed = allowed(b[index, 0], a[index, 0], x.movedim(time, -1).numpy(), None)
        got = torch.cat([first, second], time)[index].movedim(time, -1)
        assert_within(got, np.moveaxis(expected, time, -1), y_allowed)
        assert_within(last[index].movedim(time, -1), np.moveaxis(theirs, time, -1), z_allowed)
    sections = np.concatenate([b, a], -1)[:, :, None, :]
    _, state = sosfilt(sections, x, axis, torch.zeros(1, *end.shape[1:]).double())
    assert state.shape == (1, *end.shape)
    _, again = sosfilt(sections, x, axis, state)
    assert again.shape == state.shape
    for wrong in (state[:, :, None], state[0, 0, 0], state[:0]):
        with pytest.raises(ValueError, match="`zi` has shape"):
            sosfilt(sections, x, axis, wrong)
