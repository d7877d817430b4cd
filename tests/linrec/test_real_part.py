"""Complex systems with real outputs give exactly the real parts, with every executor."""

# Matrices known to be there are used as such.
# pyright: reportOptionalMemberAccess=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportOperatorIssue=false

from typing import Any

import pytest
import torch

import linrec
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, VARYING, normal

STEPS = 9
EPS = torch.finfo(torch.float64).eps
COMPLEX = {name: make for name, make in TRANSITIONS.items() if "complex" in name} | {
    "varying diagonal complex batch": lambda: VARYING["varying diagonal complex batch"](STEPS)
}


def interleaved(state: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(state).flatten(-2)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("transition", COMPLEX)
def test_outputs_are_the_real_parts(transition: str, system: str) -> None:
    given = SYSTEMS[system](COMPLEX[transition]())
    real = linrec.real_part(given)
    assert not real.dtype.is_complex and real.state_size == 2 * given.state_size
    inputs = normal(2, *given.batch_shape, STEPS, given.input_size)
    state = normal(2, *given.batch_shape, given.state_size, seed=1, dtype=torch.complex128)
    for name, executor in EXECUTORS.items():
        if executor.why_not(real, STEPS) is not None:
            continue
        expected = linrec.run(given, inputs, state, executor=linrec.Recurrent())
        got = linrec.run(real, inputs, interleaved(state), executor=executor)
        # Both are sums of at most 2(2n + m) T products; powers are at most those of the cases.
        scale = max(float(expected.outputs.abs().max()), float(expected.final_state.abs().max()))
        tolerance = 64 * STEPS * (2 * real.state_size + 2) * EPS * max(scale, 1)
        assert (got.outputs - expected.outputs.real).abs().max() <= tolerance, name
        assert (got.final_state - interleaved(expected.final_state)).abs().max() <= tolerance, name


def test_structures_stay_small() -> None:
    kinds = {"diagonal complex": (3, 2, 2), "blocks complex batch": (2, 2, 4, 4)}
    for name, shape in kinds.items():
        A = linrec.real_part(linrec.LinearRecurrence(COMPLEX[name]())).A
        assert isinstance(A, linrec.BlockDiagonal) and A.blocks.shape == shape
    assert isinstance(
        linrec.real_part(linrec.LinearRecurrence(COMPLEX["dense complex"]())).A, linrec.Dense
    )
    plain = linrec.LinearRecurrence([[0.5]])
    assert linrec.real_part(plain) is plain


def test_pairs_of_conjugates_are_twice_the_real_part() -> None:
    """Half of the states stand for all: the whole system has their conjugates too."""
    half = SYSTEMS["ABC"](COMPLEX["diagonal complex"]())
    a, B, C = half.A.leaves()["diagonal"], half.B, half.C
    whole = linrec.LinearRecurrence(
        linrec.Diagonal(torch.cat([a, a.conj()])),
        torch.cat([B, B.conj()]),
        torch.cat([C, C.conj()], -1),
    )
    inputs = normal(STEPS, 2)
    expected = linrec.run(whole, inputs, executor=linrec.Recurrent()).outputs
    got = linrec.run(linrec.real_part(linrec.LinearRecurrence(half.A, B, 2 * C)), inputs).outputs
    assert expected.imag.abs().max() <= 1e-14 * float(expected.abs().max())
    assert torch.allclose(got, expected.real, rtol=1e-12, atol=1e-13)


def test_continuous_systems_too() -> None:
    A = linrec.Diagonal(torch.complex(-torch.ones(3).double(), normal(3)))
    B, C = normal(3, 1, dtype=torch.complex128), normal(2, 3, seed=1, dtype=torch.complex128)
    system = linrec.StateSpace(A, B, C)
    sampled = linrec.discretize(linrec.real_part(system), 0.1)
    inputs = normal(STEPS, 1)
    expected = linrec.run(linrec.discretize(system, 0.1), inputs).outputs.real
    assert torch.allclose(linrec.run(sampled, inputs).outputs, expected, rtol=1e-10, atol=1e-12)


def test_gradients_reach_the_complex_numbers() -> None:
    given = SYSTEMS["ABCD"](COMPLEX["diagonal complex"]())
    names = list(given.leaves())
    inputs = normal(STEPS, 1)

    def answer(*leaves: Any) -> Any:
        system = given.with_leaves(dict(zip(names, leaves, strict=True)))
        return linrec.run(linrec.real_part(system), inputs).outputs

    leaves = tuple(leaf.clone().requires_grad_() for leaf in given.leaves().values())
    assert torch.autograd.gradcheck(answer, leaves)
