"""Sequences packed into one row: each is what it is alone, whatever lies beside it."""

import itertools

import pytest
import torch
from torch import Tensor

import linrec
from tests.cases import SYSTEMS, TRANSITIONS, VARYING, data, normal

OFFSETS = {
    "one": [0, 1],
    "one step and nothing": [0, 1, 1],
    "nothing and one step": [0, 0, 1],
    "alike": [0, 5, 10, 15],
    "unlike": [0, 1, 4, 4, 40, 41, 57],
    "nothing": [0, 0, 0],
}
KINDS = [
    *(("dense", each) for each in SYSTEMS),
    *((each, "ABCD") for each in ("diagonal", "blocks", "companion", "low rank complex")),
    *((each, "ABCD, 2 copies") for each in VARYING if "batch" not in each),
]


def part(recurrence: linrec.LinearRecurrence, steps: slice) -> linrec.LinearRecurrence:
    """Take steps of a time-varying system, of each matrix that has more than one."""
    if not recurrence.time_varying:
        return recurrence

    def cut(leaf: Tensor, core: int) -> Tensor:
        whole = leaf.ndim > core and leaf.shape[-core - 1] == recurrence.steps
        return leaf[steps] if whole else leaf

    return recurrence.map_batched(cut)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("offsets", OFFSETS)
@pytest.mark.parametrize("transition, system", KINDS)
def test_packed_sequences_are_what_each_is_alone(
    transition: str, system: str, offsets: str, started: bool
) -> None:
    ends = OFFSETS[offsets]
    total = ends[-1]
    A = VARYING[transition](total) if transition in VARYING else TRANSITIONS[transition]()
    if transition in VARYING and not total:
        pytest.skip("a time-varying system has a step")
    recurrence = SYSTEMS[system](A)
    inputs, state = data(recurrence, total)
    states = torch.stack([state * (1 + i) for i in range(len(ends) - 1)]) if started else None
    outputs, last = linrec.run_packed(recurrence, inputs, torch.tensor(ends), states)
    assert outputs.shape[0] == total and len(last) == len(ends) - 1
    for i, (begin, end) in enumerate(itertools.pairwise(ends)):
        start = torch.zeros_like(state) if states is None else states[i]
        if begin == end:
            assert torch.equal(last[i], start)
            continue
        own = part(recurrence, slice(begin, end))
        alone = linrec.run(own, inputs[begin:end], start, executor=linrec.Recurrent())
        torch.testing.assert_close(outputs[begin:end], alone.outputs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(last[i], alone.final_state, rtol=1e-12, atol=1e-12)


def test_a_system_of_other_steps_is_refused() -> None:
    for steps in (1, 2, 4):
        varying = linrec.LinearRecurrence(VARYING["varying dense"](steps))
        with pytest.raises(ValueError, match=f"has {steps} steps and `inputs` 3"):
            linrec.run_packed(varying, normal(3, 3), torch.tensor([0, 1, 3]))


@pytest.mark.parametrize("offsets", [[0], [1, 3], [0, 2], [0, 2, 1, 3], [[0, 3]], []])
def test_offsets_that_do_not_fit_are_refused(offsets: list[int]) -> None:
    memory = linrec.LinearRecurrence([[0.5]])
    with pytest.raises(ValueError, match="`offsets` is"):
        linrec.run_packed(memory, torch.ones(3, 1), torch.tensor(offsets, dtype=torch.long))
