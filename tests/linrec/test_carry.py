"""The carry of the state from chunk to chunk: in pairs and a loop, or in groups on devices."""

import pytest
import torch

import linrec
from linrec.executors import carry
from linrec.testing import error_bound


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry the state as on a device."""
    monkeypatch.setattr(carry, "is_launched", lambda device: True)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def system(states: int, *batch: int, copies: int = 1) -> linrec.LinearRecurrence:
    A = 0.9 * torch.linalg.qr(drawn(*batch, states, states, seed=1))[0]
    return linrec.LinearRecurrence(A, drawn(*batch, states, 2, seed=2), copies=copies)


# (Sixteen chunks a group of the least systems, eight of 64 states, pairs beyond 128.)
@pytest.mark.parametrize("chunks", [1, 2, 17, 260])
@pytest.mark.parametrize("states", [1, 3, 64, 160])
@pytest.mark.parametrize("rest", [0, 1])
@pytest.mark.usefixtures("launched")
def test_any_number_of_chunks_is_carried_as_by_the_loop(
    chunks: int, states: int, rest: int
) -> None:
    chunks = min(chunks, 600 // states)
    recurrence, executor = system(states), linrec.Chunked(3)
    inputs = drawn(2, 3 * chunks + rest, 2, seed=3)
    plan = executor.prepare(recurrence, inputs.shape[-2])
    assert ("groups" in plan.tensors) == (states < 160 and chunks > 1)
    for state in (None, drawn(2, states, seed=4)):
        right = linrec.run(recurrence, inputs, state, executor=linrec.Recurrent())
        outputs, last = linrec.run(recurrence, inputs, state, executor=executor)
        bounds = [
            error_bound(recurrence, inputs, each, initial_state=state)
            for each in (executor, linrec.Recurrent())
        ]
        most = sum(bound.outputs for bound in bounds)
        most_last = sum(bound.final_state for bound in bounds)
        assert ((outputs - right.outputs).abs() <= most).all()
        alone = linrec.final(recurrence, inputs, state, executor=executor)
        assert ((last - right.final_state).abs() <= most_last).all()
        assert ((alone.final_state - right.final_state).abs() <= most_last).all()


@pytest.mark.parametrize(("batch", "copies"), [((), 3), ((4,), 1), ((2, 1), 3)])
@pytest.mark.usefixtures("launched")
def test_banks_and_copies_share_the_matrices_of_groups(batch: tuple[int, ...], copies: int) -> None:
    recurrence = system(3, *batch, copies=copies)
    inputs = drawn(*batch, 70, 2 * copies, seed=5).requires_grad_()
    found = []
    for executor in (linrec.Chunked(4), linrec.Recurrent()):
        outputs, last = linrec.run(recurrence, inputs, executor=executor)
        found.append([outputs, *torch.autograd.grad(outputs.sum() + last.sum(), [inputs])])
    for mine, right in zip(*found, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("launched")
def test_a_system_that_is_trained_is_carried_in_pairs() -> None:
    A = (0.5 * drawn(3, 3, seed=6)).requires_grad_()
    B, inputs = drawn(3, 1, seed=7), drawn(40, 1, seed=8)
    plan = linrec.Chunked(2).prepare(linrec.LinearRecurrence(A, B), 40)
    assert len(plan["powers"]) == 6  # 20 chunks, 10, 5, 3, 2, 1
    with torch.no_grad():
        plan = linrec.Chunked(2).prepare(linrec.LinearRecurrence(A, B), 40)
    assert "groups" in plan.tensors

    def outputs(A: torch.Tensor) -> torch.Tensor:
        return linrec.run(linrec.LinearRecurrence(A, B), inputs, executor=linrec.Chunked(2)).outputs

    assert torch.autograd.gradcheck(outputs, [A])
