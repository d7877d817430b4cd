"""The results of `run`, `final` and `step` have their own memory, and tensors as gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import linrec
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, VARYING, data

CALLS: dict[str, Callable[..., linrec.Result]] = {"run": linrec.run, "final": linrec.final}

STRUCTURES = ("dense", "identity", "diagonal", "diagonal complex", "dense batch", "blocks")


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def check_own_memory(result: linrec.Result, *given: Tensor | None) -> None:
    """Every result has memory of its own, in which it can be written."""
    held = [*result, *(tensor for tensor in given if tensor is not None)]
    held = [tensor for tensor in held if tensor.numel()]
    assert len({memory(tensor) for tensor in held}) == len(held)
    before = [tensor.clone() for tensor in held]
    for result_at in range(2):
        result[result_at].fill_(-7.0)
        for tensor, value in zip(held, before, strict=True):
            if all(tensor is not each for each in result[: result_at + 1]):
                assert torch.equal(tensor, value)


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.sampled(2)
def test_results_share_no_memory(call: str, executor: linrec.Executor) -> None:
    for name in STRUCTURES:
        for around in ("A", "AB", "ABCD", "AD", "AC, 2 copies", "AB, 3 copies"):
            recurrence = SYSTEMS[around](TRANSITIONS[name]())
            for steps in (0, 1, 2, 33):
                inputs, state = data(recurrence, steps, 2)
                for start in (None, state):
                    for lengths in (None, torch.tensor(steps // 2)):
                        result = CALLS[call](
                            recurrence, inputs, start, lengths=lengths, executor=executor
                        )
                        check_own_memory(result, inputs, start, *recurrence.leaves().values())


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize("call", CALLS)
def test_results_of_varying_systems_share_no_memory(call: str, name: str) -> None:
    for around in ("A", "ABC"):
        for steps in (1, 4):
            recurrence = SYSTEMS[around](VARYING[name](steps))
            inputs, state = data(recurrence, steps, 2)
            for executor in (linrec.Recurrent(), linrec.AssociativeScan(), linrec.Auto()):
                for start in (None, state):
                    result = CALLS[call](recurrence, inputs, start, executor=executor)
                    check_own_memory(result, inputs, start, *recurrence.leaves().values())


# The memory order of inputs `(3, 2, time, m)`, as permutations of what lies in memory.
ORDERS = {
    "as written": (0, 1, 2, 3),
    "time first": (1, 2, 0, 3),
    "features first": (1, 2, 3, 0),
    "batch swapped": (1, 0, 2, 3),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
def test_results_are_contiguous_whatever_the_strides(executor: linrec.Executor, order: str) -> None:
    for name in ("dense", "diagonal", "dense batch"):
        for around in ("A", "ABCD", "AC, 2 copies"):
            recurrence = SYSTEMS[around](TRANSITIONS[name]())
            plain = torch.randn(3, 2, 9, recurrence.input_size, dtype=recurrence.dtype)
            permutation = ORDERS[order]
            inverse = sorted(range(4), key=permutation.__getitem__)
            strided = plain.permute(permutation).contiguous().permute(inverse)
            expected = linrec.run(recurrence, plain, executor=executor)
            for lengths in (None, torch.tensor(9)):
                for result in (
                    linrec.run(recurrence, strided, lengths=lengths, executor=executor),
                    linrec.final(recurrence, strided, lengths=lengths, executor=executor),
                    linrec.step(recurrence, strided[..., 0, :]),
                ):
                    assert result.outputs.is_contiguous() and result.final_state.is_contiguous()
            result = linrec.run(recurrence, strided, executor=executor)
            for got, wanted in zip(result, expected, strict=True):
                torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", STRUCTURES)
def test_results_of_a_step_share_no_memory(name: str) -> None:
    for around in SYSTEMS:
        recurrence = SYSTEMS[around](TRANSITIONS[name]())
        inputs, state = data(recurrence, 1, 2)
        for start in (None, state):
            result = linrec.step(recurrence, inputs[..., 0, :], start)
            check_own_memory(result, inputs, start, *recurrence.leaves().values())


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.sampled(2)
def test_results_share_no_memory_under_vmap_and_in_a_graph(executor: linrec.Executor) -> None:
    recurrence = SYSTEMS["A"](TRANSITIONS["diagonal"]())
    inputs, state = data(recurrence, 5, 2)

    def zeroed(inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, after = linrec.run(recurrence, inputs, state, executor=executor)
        outputs.zero_()
        return outputs, after

    expected = linrec.run(recurrence, inputs, state).final_state
    for transformed in (torch.vmap(zeroed), torch.compile(zeroed, backend="aot_eager")):
        outputs, after = transformed(inputs, state)
        assert not outputs.any()
        torch.testing.assert_close(after, expected)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("name", TRANSITIONS)
@pytest.mark.sampled(3)
def test_gradients_of_one_step_are_tensors(name: str, executor: linrec.Executor, call: str) -> None:
    """From no state y_0 = (C B + D) u_0, whose derivative in A is 0."""
    for around in ("A", "ABCD", "AC, 2 copies"):
        recurrence = SYSTEMS[around](TRANSITIONS[name]())
        leaves = recurrence.leaves()
        inputs, _ = data(recurrence, 1, 2)
        for lengths in (None, torch.tensor(1)):
            trained = {
                leaf: value.clone().requires_grad_(leaf.startswith("A"))
                for leaf, value in leaves.items()
            }
            result = CALLS[call](
                recurrence.with_leaves(trained), inputs, lengths=lengths, executor=executor
            )
            of_A = [value for leaf, value in trained.items() if leaf.startswith("A")]
            for each in result:
                for gradient in torch.autograd.grad(each.abs().sum(), of_A, retain_graph=True):
                    assert not gradient.any()


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
def test_gradients_of_no_step_are_tensors(executor: linrec.Executor) -> None:
    recurrence = SYSTEMS["ABCD"](TRANSITIONS["dense"]())
    module = linrec.nn.Recurrence(recurrence, trainable=list("ABCD"), executor=executor)
    module(data(recurrence, 0, 2)[0]).outputs.sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


@pytest.mark.parametrize("trained", [False, True], ids=["inputs", "system"])
@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.sampled(2)
def test_outputs_may_be_written_into_in_training(executor: linrec.Executor, trained: bool) -> None:
    for name in ("dense", "diagonal", "dense batch", "blocks", "companion"):
        for around in ("A", "ABCD", "AC, 2 copies", "AB, 3 copies"):
            for steps in (1, 7, 24):
                recurrence = SYSTEMS[around](TRANSITIONS[name]())
                inputs, state = data(recurrence, steps, 2)
                gradients = []
                for in_place in (False, True):
                    leaves = {
                        leaf: value.clone().requires_grad_(trained)
                        for leaf, value in recurrence.leaves().items()
                    }
                    given = [inputs.clone().requires_grad_(), state.clone().requires_grad_()]
                    outputs, end = linrec.run(
                        recurrence.with_leaves(leaves), *given, executor=executor
                    )
                    if in_place:
                        written, end = outputs.mul_(3.0).relu_(), end.mul_(2.0)
                    else:
                        written, end = (3.0 * outputs).relu(), 2.0 * end
                    over = [*given, *(leaves.values() if trained else ())]
                    loss = (written**2).sum() + (end**3).sum()
                    gradients.append(torch.autograd.grad(loss, over))
                torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


@pytest.mark.parametrize("around", ["A", "AD", "ABCD"])
@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize("executor", ["recurrent", "scan", "chunked", "auto"])
def test_outputs_of_varying_systems_may_be_written_into_in_training(
    executor: str, name: str, around: str
) -> None:
    """The gradient through what is written in place of outputs is that of the same sum."""
    recurrence = SYSTEMS[around](VARYING[name](6))
    run = EXECUTORS[executor]
    if run.why_not(recurrence, 6) is not None:
        pytest.skip("it cannot run this recurrence")
    gradients = []
    for write in (lambda y: y.mul_(2.0).add_(1.0), lambda y: y * 2.0 + 1.0):
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in recurrence.leaves().items()}
        inputs, state = data(recurrence, 6, 2)
        inputs, state = inputs.requires_grad_(), state.requires_grad_()
        result = linrec.run(recurrence.with_leaves(leaves), inputs, state, executor=run)
        loss = write(result.outputs).abs().square().sum() + result.final_state.abs().square().sum()
        wanted = [*leaves.values(), inputs, state]
        gradients.append(torch.autograd.grad(loss, wanted, allow_unused=True))
    for mine, expected in zip(*gradients, strict=True):
        assert (mine is None) == (expected is None)
        assert mine is None or torch.equal(mine, expected)


def test_a_step_returns_a_state() -> None:
    average = linrec.LinearRecurrence([[0.5]], [[0.5]])
    result = linrec.step(average, torch.ones(1))
    assert result.state is result.final_state and linrec.step(average, torch.ones(1), result.state)
