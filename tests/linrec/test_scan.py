"""The elementwise scan against a loop, in values, gradients and transformations."""

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import linrec
from linrec import linear_scan
from linrec.kernels import cpu_loops
from tests.cases import normal


@pytest.fixture(autouse=True, params=["blocks", "loops"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test in blocks of torch operations, and in the loops that Numba compiles."""
    monkeypatch.setattr(cpu_loops, "HAS_NUMBA", request.param == "loops")
    return request.param


DTYPES = [torch.float64, torch.complex128, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1), (2, 3), (3, 1), (16, 4), (17, 4), (50, 2), (101, 1)]


def loop(decay: Tensor, drive: Tensor, state: Tensor | None = None) -> Tensor:
    state = torch.zeros_like((decay * drive)[..., 0, :]) if state is None else state
    states = []
    for t in range(max(decay.shape[-2], drive.shape[-2])):
        state = decay[..., t % decay.shape[-2], :] * state + drive[..., t % drive.shape[-2], :]
        states.append(state)
    return torch.stack(states, -2)


def bound(decay: Tensor, drive: Tensor, state: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(2t + 2)·eps·Σ |a…a||b|, with a second factor of two for complex products."""
    magnitude = loop(decay.abs(), drive.abs(), None if state is None else state.abs())
    wide = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    steps = torch.arange(1, magnitude.shape[-2] + 1)[:, None]
    limit = 4 * (steps + 1) * torch.finfo(wide).eps * magnitude
    return limit + (torch.finfo(dtype).eps * magnitude if wide != dtype else 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [(), (3,), (2, 1, 2)])
@pytest.mark.parametrize("steps, features", SHAPES)
def test_against_the_loop(
    steps: int, features: int, batch: tuple[int, ...], dtype: torch.dtype
) -> None:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    decay, drive = (normal(*batch, steps, features, seed=s, dtype=wide).to(dtype) for s in (1, 2))
    state = normal(*batch, features, seed=3, dtype=wide).to(dtype)
    for initial in (state, None):
        got = linear_scan(decay, drive, initial)
        start = None if initial is None else initial.to(wide)
        expected = loop(decay.to(wide), drive.to(wide), start)
        assert got.dtype == dtype
        limit = bound(decay.to(wide), drive.to(wide), start, dtype)
        assert bool(((got.to(wide) - expected).abs() <= limit).all())


@pytest.mark.parametrize("width", [1, 1 << 14])
def test_narrow_and_wide_steps_agree(width: int) -> None:
    decay, drive = normal(37, width, seed=1).tanh(), normal(37, width, seed=2)
    expected = loop(decay, drive)
    limit = bound(decay, drive, None, torch.float64)
    assert bool(((linear_scan(decay, drive) - expected).abs() <= limit).all())


def test_broadcasting() -> None:
    decay, drive = normal(1, 4, seed=1), normal(3, 9, 4, seed=2)
    torch.testing.assert_close(linear_scan(decay, drive), loop(decay, drive))
    torch.testing.assert_close(
        linear_scan(drive, decay), loop(drive, decay.expand(3, 9, 4)), rtol=1e-10, atol=1e-10
    )


def test_no_steps_and_no_sequences() -> None:
    assert linear_scan(torch.ones(2, 0, 3), torch.ones(2, 0, 3)).shape == (2, 0, 3)
    assert linear_scan(torch.ones(0, 5, 3), torch.ones(0, 5, 3)).shape == (0, 5, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("steps", [1, 2, 6, 10])
@pytest.mark.sampled(2)
def test_derivatives(steps: int, dtype: torch.dtype) -> None:
    arguments = tuple(
        normal(*shape, seed=s, dtype=dtype).requires_grad_()
        for s, shape in enumerate([(2, steps, 2), (2, steps, 2), (2, 2)])
    )
    assert torch.autograd.gradcheck(linear_scan, arguments, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(linear_scan, arguments, fast_mode=steps > 6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("steps, features", [(33, 2), (64, 1), (101, 3), (600, 1), (37, 1 << 14)])
def test_gradients_of_sequences_in_blocks(steps, features, again, dtype) -> None:
    """Against the loop's; `again` is how a gradient to be differentiated again is computed."""
    decay = 0.5 * normal(steps, features, seed=1, dtype=dtype)
    shapes = [(steps, features), (features,)]
    drive, state = (normal(*shape, seed=s, dtype=dtype) for s, shape in enumerate(shapes, 2))
    given = [tensor.requires_grad_() for tensor in (decay, drive, state)]
    v = normal(steps, features, seed=4, dtype=dtype)
    expected = torch.autograd.grad(loop(*given), given, v)
    got = torch.autograd.grad(linear_scan(*given), given, v, create_graph=again)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-11, atol=1e-11)
    tangents = (drive.detach(), decay.detach(), v[0])
    primals = tuple(tensor.detach() for tensor in given)
    moved = torch.func.jvp(linear_scan, primals, tangents)[1]
    expected = torch.func.jvp(loop, primals, tangents)[1]
    torch.testing.assert_close(moved, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("steps, features", [(1, 2), (33, 2), (101, 3), (600, 1), (37, 1 << 14)])
def test_second_derivatives_of_sequences_in_blocks(steps: int, features: int) -> None:
    """The last of them is not to be differentiated again: its scan is written in place."""
    decay = (0.5 * normal(steps, features, seed=1)).requires_grad_()
    drive, state = (normal(*shape, seed=2).requires_grad_() for shape in [decay.shape, (features,)])
    weights = [normal(*each.shape, seed=s) for s, each in enumerate((decay, drive, state), 3)]

    def twice(function) -> tuple[Tensor, ...]:
        given = (decay, drive, state)
        once = torch.autograd.grad(function(*given).square().sum(), given, create_graph=True)
        total = sum(((g * w).sum() for g, w in zip(once, weights, strict=True)), torch.tensor(0.0))
        return torch.autograd.grad(total, given)

    for mine, theirs in zip(twice(linear_scan), twice(loop), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_third_derivatives() -> None:
    given = [normal(5, 2, seed=1), normal(5, 2, seed=2), normal(2, seed=3)]
    weights = [normal(*each.shape, seed=s) for s, each in enumerate(given, 4)]

    def thrice(function) -> Tensor:
        total = function(*given).square().sum()
        for _ in range(3):
            gradients = torch.autograd.grad(total, given, create_graph=True)
            total = torch.stack([(g * w).sum() for g, w in zip(gradients, weights, strict=True)])
            total = total.prod()
        return total.detach()

    for each in given:
        each.requires_grad_()
    torch.testing.assert_close(thrice(linear_scan), thrice(loop), rtol=1e-9, atol=0)


def heads_in_steps(*shape: int, seed: int) -> Tensor:
    """Draw `(*batch, heads, time, features)` numbers, the heads of a step side by side."""
    *batch, heads, time, features = shape
    return normal(*batch, time, heads, features, seed=seed).transpose(-3, -2)


@pytest.mark.parametrize("batch", [(2,), (2, 3)])
@pytest.mark.parametrize("shared", [False, True])
def test_heads_that_lie_within_steps_are_not_copied(shared: bool, batch: tuple[int, ...]) -> None:
    decay = heads_in_steps(*batch, 5, 40, 3, seed=1)
    if shared:  # one number for all, read again
        decay = decay[..., :1, :, :1].expand(*batch, 5, 40, 3)
    drive, state = heads_in_steps(*batch, 5, 40, 3, seed=2), normal(*batch, 5, 3, seed=3)
    got = linear_scan(decay, drive, state)
    if not shared:
        assert got.stride() == drive.stride()
    expected = linear_scan(decay.contiguous(), drive.contiguous(), state)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
    gradients = []
    for lie in (torch.clone, torch.Tensor.contiguous):
        sides = [lie(each).detach().requires_grad_() for each in (decay, drive, state)]
        states = linear_scan(*sides)
        gradients.append(torch.autograd.grad((states**2).sum(), sides, create_graph=True))
        assert torch.autograd.grad(gradients[-1][0].sum(), sides)[1].isfinite().all()
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    mapped = torch.vmap(linear_scan, in_dims=(0, 0, 0))(decay, drive, state)
    torch.testing.assert_close(mapped, expected, rtol=1e-13, atol=1e-13)
    decay = decay.clone()  # (torch moves no numbers that share their memory)
    tangents = [normal(*each.shape, seed=seed) for seed, each in enumerate((decay, drive, state))]
    moved = torch.func.jvp(linear_scan, (decay, drive, state), tuple(tangents))[1]
    plain = (decay.contiguous(), drive.contiguous(), state)
    right = torch.func.jvp(linear_scan, plain, tuple(tangents))[1]
    torch.testing.assert_close(moved, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("moved", range(3))
def test_forward_derivatives_in_one_argument(moved: int) -> None:
    given = [normal(5, 2, seed=1), normal(5, 2, seed=2), normal(2, seed=3)]
    tangent = normal(*given[moved].shape, seed=4)

    def call(function, each: Tensor) -> Tensor:
        return function(*given[:moved], each, *given[moved + 1 :])

    got, expected = (
        torch.func.jvp(lambda each, f=f: call(f, each), (given[moved],), (tangent,))[1]
        for f in (linear_scan, loop)
    )
    torch.testing.assert_close(got, expected)


def test_forward_derivatives_of_a_gradient() -> None:
    """The scan against the direction of time has forward derivatives too."""
    given = (normal(40, 1, seed=1).tanh(), normal(40, 1, seed=2), normal(1, seed=3))
    tangents = tuple(normal(*each.shape, seed=s) for s, each in enumerate(given, 4))
    gradient = lambda f: torch.func.grad(lambda *a: f(*a).square().sum(), argnums=(0, 1, 2))  # noqa: E731  # said once for both
    got, expected = (torch.func.jvp(gradient(f), given, tangents)[1] for f in (linear_scan, loop))
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_gradient_of_some_arguments_only() -> None:
    decay, drive = normal(8, 2, seed=1), normal(8, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: linear_scan(decay, b), drive)
    decay.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: linear_scan(a, drive.detach()), decay)


def test_vmap_over_any_argument() -> None:
    decay, drive, state = normal(3, 9, 2, seed=1), normal(9, 2, seed=2), normal(2, 3, seed=3)
    mapped = torch.vmap(linear_scan, in_dims=(0, None, 1))(decay, drive, state)
    expected = torch.stack([linear_scan(decay[i], drive, state[:, i]) for i in range(3)])
    torch.testing.assert_close(mapped, expected, rtol=0, atol=0)
    gradient = torch.vmap(torch.func.grad(lambda a: linear_scan(a, drive).sum()))(decay)
    rows = [torch.func.grad(lambda a: linear_scan(a, drive).sum())(row) for row in decay]
    torch.testing.assert_close(gradient, torch.stack(rows), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_a_graph_that_is_traced_from_operations_follows_its_inputs(
    mode: Literal["real", "fake"],
) -> None:
    """Nothing is computed past torch while its operations are recorded: it would be a constant."""

    def states_and_gradients(decay: Tensor, drive: Tensor) -> tuple[Tensor, ...]:
        states = linear_scan(decay, drive)
        return (states, *torch.autograd.grad(states.square().sum(), (decay, drive)))

    first, then = (
        [normal(2, 40, 3, seed=seed + which).requires_grad_() for which in (0, 1)]
        for seed in (1, 3)
    )
    graph = make_fx(states_and_gradients, tracing_mode=mode)(*first)
    for got, expected in zip(graph(*then), states_and_gradients(*then), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "decay, drive", [(torch.float32, torch.float64), (torch.float64, torch.float32)]
)
def test_the_wider_dtype_is_kept(decay: torch.dtype, drive: torch.dtype) -> None:
    a, b = normal(20, 2, seed=1).tanh().to(decay), normal(20, 2, seed=2).to(drive)
    got = linear_scan(a, b)
    torch.testing.assert_close(got, loop(a.double(), b.double()), rtol=1e-13, atol=1e-13)
    assert linear_scan(a[:0], b[:0]).dtype == torch.float64
    state = torch.ones(2, dtype=torch.float64)
    narrow = linear_scan(a.half(), b.half(), state)  # accumulated in the state's precision
    assert narrow.dtype == torch.float16
    wide = loop(a.half().double(), b.half().double(), state)
    assert narrow.equal(wide.half())


@pytest.mark.parametrize("which", range(3))
def test_one_argument_is_complex(which: int) -> None:
    given = [normal(20, 2, seed=1).tanh(), normal(20, 2, seed=2), normal(2, seed=3)]
    given[which] = given[which] * (1 + 2j)
    got, expected = linear_scan(*given), loop(*given)
    assert got.dtype == torch.complex128
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


def test_one_state_for_many_sequences() -> None:
    decay, drive, state = normal(7, 2, seed=1), normal(3, 7, 2, seed=2), normal(2, seed=3)
    got = linear_scan(decay, drive, state)
    torch.testing.assert_close(got, linear_scan(decay, drive, state.expand(3, 2)), rtol=0, atol=0)
    assert linear_scan(decay.half(), drive.half()[:0], state.half()).dtype == torch.float16


def test_bad_input_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`decay` is of type list.*torch.as_tensor"):
        linear_scan([[1.0]], torch.ones(1, 1))  # type: ignore[arg-type]  # the refusal is tested
    with pytest.raises(TypeError, match=r"dtype torch.int64.*drive.float"):
        linear_scan(torch.ones(2, 1), torch.ones(2, 1).long())
    with pytest.raises(ValueError, match=r"`decay` has 3 steps and `drive` 2: expected as many"):
        linear_scan(torch.ones(3, 1), torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"3 features and `drive` 5.*\(7, 2, 3\) and \(2, 5\)"):
        linear_scan(torch.ones(7, 2, 3), torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"batch axes do not broadcast: decay \(4, 3, 1\), drive"):
        linear_scan(torch.ones(4, 3, 1), torch.ones(2, 3, 1))
    with pytest.raises(ValueError, match=r"`initial_state` has shape \(4, 2\): expected \(2,\)"):
        linear_scan(torch.ones(3, 2), torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"`drive` has shape \(3,\): expected \(\*batch, time"):
        linear_scan(torch.ones(3, 2), torch.ones(3))
    with pytest.raises(ValueError, match=r"`decay` has shape \(3,\): expected \(\*batch, time"):
        linear_scan(torch.ones(3), torch.ones(3, 2))
    with pytest.raises(TypeError, match="`drive` is of type list"):
        linear_scan(torch.ones(3, 2), [[1.0]])  # type: ignore[arg-type]  # as above
    with pytest.raises(TypeError, match="`initial_state` is of type list"):
        linear_scan(torch.ones(3, 2), torch.ones(3, 2), [1.0])  # type: ignore[arg-type]  # as above


def test_as_the_scan_under_a_varying_diagonal() -> None:
    gates, drive = normal(20, 3, seed=1).tanh(), normal(20, 3, seed=2)
    recurrence = linrec.LinearRecurrence(linrec.Varying(linrec.Diagonal(gates)))
    outputs = linrec.run(recurrence, drive, executor=linrec.AssociativeScan()).outputs
    torch.testing.assert_close(outputs, linear_scan(gates, drive), rtol=0, atol=0)
