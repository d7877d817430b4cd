"""How many weights a unit has, and how they begin."""

# What is known to be there is used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportOperatorIssue=false

import math

import torch
from torch import Tensor, nn

import lmu
from lmu.initializers import CHILKURI_2021, KERAS_LMU, PSMNIST_2019, VOELKER_2019
from lmu.layers import LSTM


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def test_parameter_counts() -> None:
    """psMNIST 102,027 with the readout; Mackey-Glass 4 × LMU 49: 2,700 and 5,100 each."""
    assert count(lmu.LMUCell.original(1, 212, 256, 784.0), nn.Linear(212, 10)) == 102_027
    assert count(lmu.LMUCell.original(1, 49, 4, 4.0)) == 2_700
    assert count(lmu.LMUCell.original(49, 49, 4, 4.0)) == 5_100
    assert count(LSTM(1, 25, depth=4), nn.Linear(25, 1)) == 18_026


def test_initializers() -> None:
    torch.manual_seed(0)
    many = {"input_size": 400, "hidden_size": 300, "order": 200, "theta": 1000.0}
    cell = lmu.LMUCell.original(**many)
    weights = {name: p.detach() for name, p in cell.named_parameters()}
    within(weights["input_to_memory.weight"], math.sqrt(3 / 400), math.sqrt(1 / 400))
    within(weights["hidden_to_memory.weight"], math.sqrt(3 / 300), math.sqrt(1 / 300))
    assert not weights["memory_to_memory.weight"].any()
    below, before = weights["hidden.weight_ih"], weights["hidden.weight_hh"]
    for weight, size in ((below[:, :200], 200), (below[:, 200:], 400), (before, 300)):
        deviation = math.sqrt(2 / (300 + size))
        assert abs(float(weight.std()) / deviation - 1) < 5 / math.sqrt(2 * weight.numel())

    cell = lmu.LMUCell.original(1, 30, 8, 100.0, initializers=PSMNIST_2019)
    assert cell.input_to_memory.weight.eq(1).all()
    for weight in (cell.hidden_to_memory.weight, cell.memory_to_memory.weight):
        assert not weight.any()
    assert not cell.hidden.weight_hh.any() and not cell.hidden.weight_ih[:, 8:].any()
    assert cell.hidden.weight_ih[:, :8].ne(0).all()


def within(weight: Tensor, bound: float, deviation: float) -> None:
    """Uniform of this bound: none beyond, and the spread that goes with it, to five sigma."""
    assert float(weight.abs().max()) <= bound
    assert abs(float(weight.std()) / deviation - 1) < 5 / math.sqrt(2 * weight.numel())


def test_initializers_of_keras_and_of_the_second_paper() -> None:
    options = {"hidden_to_memory": True, "memory_to_memory": True, "input_to_hidden": True}
    made = lmu.LMU(
        400, 3, 50, 300.0, nn.Linear(550, 60), **options, initializers=KERAS_LMU, bias=True
    )
    assert float(made.input_to_memory.weight.detach().abs().max()) <= math.sqrt(6 / 403)
    weight = made.memory_to_memory.weight
    torch.testing.assert_close(weight @ weight.mT, torch.eye(3))
    assert not made.input_to_memory.bias.any()
    torch.manual_seed(5)
    untouched = nn.Linear(550, 60)
    torch.manual_seed(5)
    made = lmu.LMU(400, 3, 50, 300.0, nn.Linear(550, 60), input_to_hidden=True)
    assert not torch.equal(made.hidden.weight, untouched.weight)
    assert torch.equal(made.hidden.bias, untouched.bias)
    torch.manual_seed(5)
    keras = lmu.LMU(
        400, 3, 50, 300.0, nn.Linear(550, 60), input_to_hidden=True, initializers=KERAS_LMU
    )
    assert torch.equal(keras.hidden.weight, untouched.weight)
    second = lmu.LMU(400, 3, 50, 300.0, nn.Linear(150, 60), initializers=CHILKURI_2021)
    assert float(second.input_to_memory.weight.detach().abs().max()) <= 1 / math.sqrt(400)
    assert VOELKER_2019 == lmu.Initializers(
        input_to_hidden=nn.init.xavier_normal_,
        hidden_to_hidden=nn.init.xavier_normal_,
        memory_to_hidden=nn.init.xavier_normal_,
    )
