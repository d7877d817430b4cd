"""Weights whose exponentials overflow: RWKV-4's average and xLSTM's matrix memory."""

import mpmath
import pytest
import torch
from torch import Tensor

import linrec

REACH = [1.0, 50.0, 5000.0]  # logarithms up to these; exp(88.8) is out of float32's range


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)


def exact_average(log_decay: Tensor, log_weights: Tensor, values: Tensor) -> list[float]:
    """The weighted averages of one feature, with 50 digits and no limit of exponents."""
    with mpmath.workdps(50):
        above, below, averages = mpmath.mpf(0), mpmath.mpf(0), []
        for f, i, u in zip(log_decay.tolist(), log_weights.tolist(), values.tolist(), strict=True):
            above = mpmath.exp(f) * above + mpmath.exp(i) * u
            below = mpmath.exp(f) * below + mpmath.exp(i)
            averages.append(float(above / below))
        return averages


@pytest.mark.parametrize("reach", REACH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 2, 3, 64, 300])
def test_averages_are_those_of_exact_arithmetic(reach: float, dtype, steps: int) -> None:
    """RWKV-4's time mixing: numerator and denominator are two scans of the same weights.

    Each weight of a sum is a product of at most T factors, whose errors sum to (T + |log|)·eps; a
    weight that matters has a logarithm of 40 or less. The average of positive weights adds the
    same again for the denominator, and T·eps for each sum: 6 (T + 40) eps in all.
    """
    log_decay = -normal(steps, 1, seed=1, dtype=dtype).abs()
    log_weights = reach * normal(steps, 1, seed=2, dtype=dtype)
    values = normal(steps, 1, seed=3, dtype=dtype)
    decay, weights, _ = linrec.rescale_weights(log_decay, log_weights)
    rounding = 20 * torch.finfo(dtype).eps * float(log_weights.abs().max())  # of m
    assert max(float(decay.max()), float(weights.max())) <= 1 + 2 * rounding
    got = linrec.linear_scan(decay, weights * values) / linrec.linear_scan(decay, weights)
    expected = exact_average(log_decay[:, 0], log_weights[:, 0], values[:, 0])
    largest = float(values.abs().max())
    bound = 6 * (steps + 40) * torch.finfo(dtype).eps * largest
    error = (got[:, 0].double() - torch.tensor(expected, dtype=torch.float64)).abs().max()
    assert error <= bound
    if reach > 100 and steps > 2:  # what it is for
        plain = linrec.linear_scan(log_decay.exp(), log_weights.exp())
        assert not plain.isfinite().all()


def test_the_matrix_memory_of_xlstm() -> None:
    """C_t = f C + i v kᵀ and n_t = f n + i k as copies of one recurrence, read as C q/max(|nq|, 1).

    The plain loop in double precision stays in range here, and the rescaled one in float32.
    """
    steps, keys, columns = 40, 4, 3
    k, q = normal(steps, keys, seed=1), normal(steps, keys, seed=2)
    v = normal(steps, columns, seed=3)
    log_f = torch.nn.functional.logsigmoid(normal(steps, 1, seed=4))
    log_i = 60 * normal(steps, 1, seed=5)  # exp of it: up to 1e60
    C, n, expected = torch.zeros(keys, columns).double(), torch.zeros(keys).double(), []
    for t in range(steps):
        C = log_f[t].exp() * C + log_i[t].exp() * k[t][:, None] * v[t]
        n = log_f[t].exp() * n + log_i[t].exp() * k[t]
        expected.append(q[t] @ C / torch.clamp((q[t] @ n).abs(), min=1))
    f, i, key, query, value = (each.float() for each in (log_f, log_i, k, q, v))
    decay, weights, log_scale = linrec.rescale_weights(f, i)
    memory = linrec.LinearRecurrence(
        linrec.Diagonal(decay.expand(steps, keys)),
        (weights * key).unsqueeze(-1),
        query.unsqueeze(-2),
        time_varying=True,
        copies=columns + 1,
    )
    read = linrec.run(memory, torch.cat([value, torch.ones(steps, 1)], -1)).outputs
    least = (-log_scale).exp()  # the 1, rescaled; exp(-m) may be infinite, and the quotient is 0
    got = read[:, :-1] / torch.maximum(read[:, -1:].abs(), least)
    torch.testing.assert_close(got.double(), torch.stack(expected), rtol=1e-3, atol=1e-4)


def test_pieces_are_the_whole() -> None:
    """The state and its scale go on from piece to piece."""
    log_decay, log_weights = -normal(2, 50, 3, seed=1).abs(), 300 * normal(2, 50, 3, seed=2)
    inputs = normal(2, 50, 3, seed=3)
    decay, weights, log_scale = linrec.rescale_weights(log_decay, log_weights)
    whole = linrec.linear_scan(decay, weights * inputs)
    state, scale = None, None
    for piece in (slice(0, 20), slice(20, 21), slice(21, 50)):
        now = linrec.rescale_weights(log_decay[:, piece], log_weights[:, piece], scale)
        states = linrec.linear_scan(now.decay, now.weights * inputs[:, piece], state)
        torch.testing.assert_close(now.log_scale, log_scale[:, piece], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(states, whole[:, piece], rtol=1e-9, atol=1e-12)
        state, scale = states[:, -1], now.log_scale[:, -1]


def test_weights_of_zero_and_forgotten_states() -> None:
    """Logarithms of -∞: no NaN, and nothing of what was forgotten."""
    log_decay, log_weights = torch.zeros(6, 1), torch.zeros(6, 1)
    log_weights[:2], log_decay[4] = -torch.inf, -torch.inf
    decay, weights, log_scale = linrec.rescale_weights(log_decay, log_weights)
    assert log_scale[:2].isneginf().all() and log_scale[2:].isfinite().all()
    states = linrec.linear_scan(decay, weights) * log_scale.exp()
    assert states.squeeze().tolist() == [0, 0, 1, 2, 1, 2]


@pytest.mark.parametrize("given", [False, True])
def test_the_gradient_of_an_average(given: bool) -> None:
    """m is a constant for it, and cancels: checked by differences."""
    first = torch.zeros(3, dtype=torch.float64) if given else None

    def average(log_decay: Tensor, log_weights: Tensor, values: Tensor) -> Tensor:
        decay, weights, _ = linrec.rescale_weights(log_decay, log_weights, first)
        state = weights.new_ones(3) if given else None
        above = linrec.linear_scan(decay, weights * values, state)
        return above / linrec.linear_scan(decay, weights, state)

    inputs = [normal(7, 3, seed=seed).requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(average, inputs)


def test_what_is_refused() -> None:
    ones = torch.zeros(4, 2)
    with pytest.raises(TypeError, match="real logarithms"):
        linrec.rescale_weights(ones, ones.to(torch.complex64))
    with pytest.raises(ValueError, match="initial_log_scale"):
        linrec.rescale_weights(ones, ones, torch.zeros(3))
    with pytest.raises(ValueError, match=r"\(\*batch, time, features\)"):
        linrec.rescale_weights(ones[0], ones)
