"""Gates that are the same at all steps, as in retention: chunks agree with gates for every step."""

import pytest
import torch

import linrec
from tests.cases import normal


@pytest.mark.parametrize("lasting", [(3, 1, 1), (1, 1, 1)], ids=["one each", "one for all"])
def test_a_gate_that_lasts_is_as_if_given_at_every_step(lasting: tuple[int, ...]) -> None:
    """Retention: one number for each head. Values to the last bit, and gradients."""
    rate = 1 - normal(*lasting).sigmoid() / 8
    B, C = normal(3, 32, 2, 1, seed=1), normal(3, 32, 1, 2, seed=2)
    inputs = normal(3, 32, 4, seed=3)
    found = []
    for steps in (1, 32):
        given = rate.clone().requires_grad_()
        gates = given.expand(3, steps, 1).clone().expand(3, steps, 2)
        system = linrec.LinearRecurrence(linrec.Diagonal(gates), B, C, time_varying=True, copies=4)
        outputs = linrec.run(system, inputs, executor=linrec.Chunked(8)).outputs
        gradient = torch.autograd.grad(outputs.square().sum(), given)[0]
        with torch.no_grad():  # all chunks in one tile
            outputs = linrec.run(system, inputs, executor=linrec.Chunked(8)).outputs
        found.append((outputs, gradient))
    assert torch.equal(found[0][0], found[1][0])
    # The same terms, some hundred for each number, in another order.
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=0)
