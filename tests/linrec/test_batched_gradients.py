"""Gradients of many cotangents at once: each equals the gradient of its cotangent alone."""

import pytest
import torch
from torch import Tensor

import linrec
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, data, normal

STRUCTURES = ("dense", "dense complex", "dense batch", "diagonal", "diagonal complex", "blocks")


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("trained", [False, True], ids=["inputs", "system"])
@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.sampled(3)
def test_batched_gradients(name: str, executor: linrec.Executor, trained: bool) -> None:
    for around in ("A", "ABCD", "ABCD, 2 copies"):
        recurrence = SYSTEMS[around](TRANSITIONS[name]())
        for steps in (1, 7, 40):
            leaves = {
                leaf: value.clone().requires_grad_(trained)
                for leaf, value in recurrence.leaves().items()
            }
            over = [each.requires_grad_() for each in data(recurrence, steps, 2)]
            outputs, end = linrec.run(recurrence.with_leaves(leaves), *over, executor=executor)
            over += list(leaves.values()) if trained else []
            cotangents = [
                normal(3, *each.shape, seed=9, dtype=each.dtype) for each in (outputs, end)
            ]

            def gradient(*given: Tensor, batched: bool, of=(outputs, end), over=over):
                return torch.autograd.grad(
                    of, over, given, True, is_grads_batched=batched, materialize_grads=True
                )

            together = gradient(*cotangents, batched=True)
            alone = [gradient(*each, batched=False) for each in zip(*cotangents, strict=True)]
            for got, *expected in zip(together, *alone, strict=True):
                # The same sums in another order, of at most some hundred terms.
                torch.testing.assert_close(got, torch.stack(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
def test_jacobians_of_three_kinds_are_the_loops(executor: linrec.Executor) -> None:
    for name in ("dense", "diagonal"):
        recurrence = SYSTEMS["ABCD"](TRANSITIONS[name]())
        inputs, state = data(recurrence, 7)

        def outputs_of(
            inputs: Tensor, recurrence=recurrence, state=state, executor=executor
        ) -> Tensor:
            return linrec.run(recurrence, inputs, state, executor=executor).outputs

        expected = torch.autograd.functional.jacobian(
            lambda inputs, run=outputs_of: run(inputs, executor=linrec.Recurrent()), inputs
        )
        for got in (
            torch.autograd.functional.jacobian(outputs_of, inputs, vectorize=True),
            torch.func.jacrev(outputs_of)(inputs),
        ):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


LAYERS = {
    "Retention": lambda: linrec.nn.Retention(4, 2),
    "GatedLinearAttention": lambda: linrec.nn.GatedLinearAttention(4, 2),
    "LRU": lambda: linrec.nn.LRU(4, 4),
    "S4D": lambda: linrec.nn.S4D(4, states=2),
    "MinGRU": lambda: linrec.nn.MinGRU(4, 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_under_transforms(name: str) -> None:
    """Jacobians of runs and steps, and the gradients of each sequence, as autograd has them."""
    layer = LAYERS[name]().double()
    inputs = normal(3, 9, 4)

    def outputs_of(each: Tensor) -> Tensor:
        return layer(each)[0]

    def output_of(each: Tensor) -> Tensor:
        return layer.step(each)[0]

    for function, given in ((outputs_of, inputs[0]), (output_of, inputs[0, 0])):
        right = torch.autograd.functional.jacobian(function, given)
        torch.testing.assert_close(torch.func.jacrev(function)(given), right)
    parameters = {key: each.detach() for key, each in layer.named_parameters()}

    def loss(values: dict[str, Tensor], each: Tensor) -> Tensor:
        return torch.func.functional_call(layer, values, (each,))[0].square().sum()

    mapped = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, inputs)
    for place, each in enumerate(inputs):
        layer.zero_grad()
        layer(each)[0].square().sum().backward()
        for key, parameter in layer.named_parameters():
            torch.testing.assert_close(mapped[key][place], parameter.grad)
