"""What stands around the memory of 2019's unit: its methods, its dtypes, and any hidden module."""

# Wrong arguments are passed on purpose.
# pyright: reportArgumentType=false

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lmu

INPUTS, CHANNELS, ORDER, THETA, STEPS = 3, 2, 4, 30.0, 9
MEMORY = CHANNELS * ORDER


def unit(hidden: nn.Module | None = None, **options: object) -> lmu.LMU:
    torch.manual_seed(0)
    return lmu.LMU(INPUTS, CHANNELS, ORDER, THETA, hidden, **options)


def inputs(*batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*batch, STEPS, INPUTS, generator=generator)


def by_steps(made: lmu.LMU, x: Tensor) -> Tensor:
    """Run one step after the other."""
    outputs, state = [], None
    for input in x.unbind(-2):
        output, state = made.step(input, state)
        outputs.append(output)
    return torch.stack(outputs, -2)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("method", ["zoh", "foh", "bilinear", "euler", "backward_diff", "impulse"])
def test_a_memory_told_of_itself_runs_in_parallel_by_every_method(
    method: str, trained: bool
) -> None:
    made = unit(memory_to_memory=True, method=method, trainable_theta=trained)
    assert made.explain(STEPS).parallel
    torch.testing.assert_close(made(inputs(2)).outputs, by_steps(made, inputs(2)))
    made(inputs(2)).outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters())


def softmax() -> nn.Module:
    return nn.Sequential(nn.Linear(MEMORY, 5), nn.Softmax(dim=1))


def normalised() -> nn.Module:
    """What it subtracts and divides by differs from feature to feature."""
    norm = nn.BatchNorm1d(MEMORY)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean += torch.linspace(-1, 1, MEMORY)
    norm.running_var += torch.linspace(0, 1, MEMORY)
    return norm


BY_AXIS: dict[str, Callable[[], nn.Module]] = {
    "softmax": softmax,
    "batch norm": normalised,
    "flatten": lambda: nn.Sequential(nn.Linear(MEMORY, 6), nn.Unflatten(1, (2, 3)), nn.Flatten()),
}


@pytest.mark.parametrize("batch", [(), (4,), (2, 2)], ids=str)
@pytest.mark.parametrize("name", BY_AXIS)
def test_a_hidden_module_that_names_an_axis_means_the_features(
    name: str, batch: tuple[int, ...]
) -> None:
    """In every form, and told of the memory or not."""
    x = inputs(*batch)
    lengths = torch.tensor([STEPS, 4, 0, 1])[: x.shape[:-2].numel()].view(batch)
    own = torch.arange(STEPS) < lengths.unsqueeze(-1)
    for options in ({}, {"hidden_to_memory": True}):
        made = unit(BY_AXIS[name](), **options).eval()
        expected = by_steps(made, x)
        torch.testing.assert_close(made(x).outputs, expected)
        torch.testing.assert_close(made.final(x).outputs, expected[..., -1, :])
        padded = made(x, lengths=lengths).outputs
        torch.testing.assert_close(padded, torch.where(own[..., None], expected, 0))


def test_batch_norm_is_trained_over_all_steps_of_all_sequences() -> None:
    outputs = unit(nn.BatchNorm1d(MEMORY, eps=1e-12))(inputs(4)).outputs.flatten(0, 1)
    torch.testing.assert_close(outputs.mean(0), torch.zeros(MEMORY), rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.std(0, correction=0), torch.ones(MEMORY))


@pytest.mark.parametrize("lengths", [None, [STEPS, 4, 0]], ids=["whole", "padded"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", ["none", "feed-forward", "input"])
def test_the_last_step_has_the_dtypes_of_all_steps(
    hidden: str, dtype: torch.dtype, lengths: list[int] | None
) -> None:
    seen = MEMORY + INPUTS * (hidden == "input")
    module = None if hidden == "none" else nn.Sequential(nn.Linear(seen, 5), nn.Tanh())
    made, x = unit(module, input_to_hidden=hidden == "input").to(dtype), inputs(3).to(dtype)
    middle = made(x).final_state
    outputs, end = made(x, middle, lengths)
    last = made.final(x, middle, lengths)
    assert last.outputs.dtype == outputs.dtype == dtype
    assert last.final_state.dtype == end.dtype
    ends = torch.as_tensor(lengths or [STEPS] * 3)
    expected = outputs[range(3), ends - 1] * (ends > 0).unsqueeze(-1)
    torch.testing.assert_close(last.outputs, expected)
    torch.testing.assert_close(last.final_state, end)


def test_a_cell_drops_other_entries_in_each_call_and_the_unit_the_same_in_all_steps() -> None:
    options = {"input_dropout": 0.5, "method": "euler"}
    cell = lmu.LMUCell(INPUTS, CHANNELS, ORDER, THETA, **options)
    first, then = (cell(torch.ones(50, INPUTS)).outputs for _ in range(2))
    assert not torch.equal(first, then)
    made = unit(**options)
    told = made.drive(torch.ones(50, STEPS, INPUTS))
    torch.testing.assert_close(told, told[:, :1].expand_as(told))
    assert not torch.equal(told[:-1], told[1:])


class Pair(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, x]


NOT_STEPS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lstm": (
        lambda: nn.LSTM(MEMORY, 5),
        r"type LSTM and returns a tuple.*`nn.LSTMCell\(8, size\)`",
    ),
    "gru": (lambda: nn.GRU(MEMORY, 5), "type GRU and returns a tuple"),
    "pair": (Pair, "type Pair and returns a list: expected a module of single steps"),
}


@pytest.mark.parametrize("name", NOT_STEPS)
def test_a_hidden_module_that_is_not_of_steps_is_refused(name: str) -> None:
    hidden, message = NOT_STEPS[name]
    for kind in (lmu.LMU, lmu.LMUCell):
        with pytest.raises(TypeError, match=message):
            kind(INPUTS, CHANNELS, ORDER, THETA, hidden())


@pytest.mark.parametrize("hidden", [8, "gru", nn.GRUCell])
def test_what_is_no_module_is_refused(hidden: object) -> None:
    for make in (lmu.LMU, lmu.LMUCell):
        with pytest.raises(TypeError, match=r"`hidden` is of type .*: expected an `nn\.Module`"):
            make(3, 2, 4, 8.0, hidden)
