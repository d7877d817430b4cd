"""The small models of the benchmark: the plain torch code agrees with linrec's layers."""

import pytest
import torch

from linrec.benchmark import small_models


@pytest.mark.parametrize("name", small_models.MODELS)
@pytest.mark.parametrize("steps", [2, 20])
def test_plain_forms_are_the_small_models(name: str, steps: int) -> None:
    """Outputs, and gradients in inputs and parameters, to single precision."""
    torch.manual_seed(0)
    model = small_models.MODELS[name]
    layer, forms = small_models.forms_of(model, steps)
    inputs = torch.randn(3, steps, model.inputs, requires_grad=True)
    weights = torch.randn_like(forms["ours"](inputs))
    found = {}
    for which, form in forms.items():
        small_models.train(form, layer, inputs, weights)
        gradients = [each.grad for each in (inputs, *layer.parameters())]
        found[which] = [form(inputs), *gradients]
    assert len(found) > 1
    for form, tensors in found.items():
        for got, expected in zip(tensors, found["ours"], strict=True):
            assert expected is not None and expected.abs().max() > 0
            scale = expected.abs().max().item()
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * scale, msg=form)
