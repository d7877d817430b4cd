"""The meta device and fake tensors: shapes without numbers."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import linrec
import lmu
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, data


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("name", ["dense", "diagonal", "blocks", "companion", "low rank"])
@pytest.mark.sampled(2)
def test_shapes_on_the_meta_device(name: str, executor: linrec.Executor) -> None:
    for around in ("A", "ABCD", "AB, 3 copies"):
        recurrence = SYSTEMS[around](TRANSITIONS[name]())
        frozen = linrec.nn.Recurrence(recurrence, executor=executor).to("meta")
        trained = linrec.nn.Recurrence(recurrence, trainable=["A"], executor=executor).to("meta")
        meta = recurrence.to("meta")
        assert all("meta" in repr(each) for each in (meta, meta.A))
        assert repr(frozen)
        for steps in (0, 1, 9):
            inputs, state = data(recurrence, steps, 2)
            expected = [each.shape for each in linrec.run(recurrence, inputs, state)]
            inputs, state = inputs.to("meta"), state.to("meta")
            plan = executor.prepare(meta, steps) if steps else None
            for start in (None, state):
                for result in (
                    linrec.run(meta, inputs, start, executor=executor),
                    linrec.run(meta, inputs, start, plan=plan),
                    frozen(inputs, start),
                    frozen(inputs, start),  # with what was kept
                    trained(inputs, start),
                ):
                    assert [each.shape for each in result] == expected
                    assert all(each.is_meta for each in result)
                for result in (
                    linrec.final(meta, inputs, start, executor=executor),
                    frozen.final(inputs, start),
                    frozen.final(inputs, start),
                ):
                    assert result.final_state.shape == expected[1]
            if steps:
                for result in (
                    linrec.step(meta, inputs[:, 0], state),
                    linrec.step(meta, inputs[:, 0]),
                    frozen.step(inputs[:, 0], state),
                ):
                    assert result.final_state.shape == expected[1]


def test_gradients_on_the_meta_device() -> None:
    for executor in EXECUTORS.values():
        recurrence = SYSTEMS["ABCD"](TRANSITIONS["dense"]())
        module = linrec.nn.Recurrence(recurrence, trainable=list("ABCD"), executor=executor)
        module = module.to("meta")
        inputs = data(recurrence, 9, 2)[0].to("meta").requires_grad_()
        module(inputs).outputs.sum().backward()
        assert inputs.grad is not None and inputs.grad.shape == inputs.shape
        assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
def test_shapes_of_fake_tensors(executor: linrec.Executor) -> None:
    for name in ("dense", "diagonal"):
        recurrence = SYSTEMS["ABC"](TRANSITIONS[name]())
        inputs, state = data(recurrence, 40, 2)
        expected = [each.shape for each in linrec.run(recurrence, inputs, state)]
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = recurrence.with_leaves(
                {leaf: mode.from_tensor(value) for leaf, value in recurrence.leaves().items()}
            )
            module = linrec.nn.Recurrence(fake, executor=executor)
            inputs, state = mode.from_tensor(inputs), mode.from_tensor(state)
            plan = executor.prepare(fake, 40)
            for result in (
                linrec.run(fake, inputs, state, executor=executor),
                linrec.run(fake, inputs, state, plan=plan),
                module(inputs, state),
                module(inputs, state),
            ):
                assert [each.shape for each in result] == expected
            assert linrec.step(fake, inputs[:, 0], state).outputs.shape == (2, 1)


def test_layers_on_the_meta_device() -> None:
    inputs, lengths = torch.ones(2, 9, 3, device="meta"), torch.tensor([9, 4])
    for layer in (
        lmu.ParallelLMU(3, 5, channels=2, order=4, theta=8),
        lmu.LMU(3, channels=2, order=4, theta=8, hidden=torch.nn.RNNCell(8, 5)),
        lmu.LegendreMemory(3, order=4, theta=8),
    ):
        layer = layer.to("meta")
        for given in (None, lengths.to("meta")):
            outputs = layer(inputs, lengths=given).outputs
            assert outputs.is_meta and outputs.shape[:2] == (2, 9)
        assert layer.step(inputs[:, 0]).outputs.is_meta
        assert repr(layer)


def test_what_looks_at_values_goes_without_on_the_meta_device() -> None:
    recurrence = linrec.LinearRecurrence([[0.9]], [[0.1]])
    explained = linrec.explain(recurrence.to("meta"), 1000)
    assert explained.warning is None
    lag = linrec.StateSpace([[-1.0]], [[1.0]], [[1.0]], [[0.0]]).to("meta")
    for method in ("zoh", "foh", "bilinear", "impulse"):
        assert linrec.discretize(lag, 0.1, method).A.to_dense().is_meta


def test_impulse_invariance_inside_vmap() -> None:
    """Whether there is a D cannot be seen there."""
    D = torch.zeros(3, 1, 1)

    def kernel(D: torch.Tensor) -> torch.Tensor:
        lag = linrec.StateSpace([[-1.0]], [[1.0]], [[1.0]], D)
        return linrec.impulse_response(linrec.discretize(lag, 0.1, "impulse"), 4)

    alone = kernel(D[0])
    assert torch.equal(torch.func.vmap(kernel)(D), alone.expand(3, *alone.shape))
