"""The step of whole modules in C: it compiles without a warning and equals the step in torch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import linrec
import lmu
from linrec.export import Form, to_c
from linrec.export.writing import exported
from lmu.experiments.models import LayerClassifier, SequenceClassifier, SeriesPredictor
from tests.linrec.layers import LAYERS
from tests.linrec.test_c_source import needs_compiler, run_in_c

STEPS = 40
EVERY_TIME = {"MinGRU", "S5", "GatedDeltaNet"}
LAYERS_OF_LMU: dict[str, Callable[[], nn.Module]] = {
    "parallel": lambda: lmu.ParallelLMU(3, 5, channels=2, order=4, theta=8),
    "around a cell": lambda: lmu.LMU(3, 2, 4, 8, hidden=nn.RNNCell(8, 5)),
    "of 2019": lambda: lmu.LMU.original(2, 5, order=4, theta=8),
    "LSTM": lambda: lmu.layers.LSTM(2, 5, depth=2),
    "series": lambda: SeriesPredictor(hidden_size=6, dense_size=4, order=5, theta=9.0),
    "sequence": lambda: SequenceClassifier(classes=3, hidden_size=6, order=5, theta=9.0),
    "classifier": lambda: LayerClassifier(lmu.layers.LSTM(1, 4), classes=3),
}


def in_torch(module: nn.Module, inputs: Tensor) -> Tensor:
    """Step through inputs `(time, …)`, and list all outputs and the last state."""
    state, found = None, []
    with torch.no_grad():
        for input in inputs:
            outputs, state = module.step(input.unsqueeze(0), state)  # type: ignore[operator]  # a method
            found.append(outputs.flatten())
    assert isinstance(state, Tensor)
    return torch.cat([*found, state.flatten()])


def check(module: nn.Module, size: int, folder: Path) -> None:
    """Compare C and torch in double precision, in which order and functions matter in 1e-12."""
    module = module.double().eval()
    inputs = torch.randn(STEPS, size, dtype=torch.float64)
    source = to_c(module, "memory", example=inputs[None], dtype=torch.float64)
    got = torch.from_numpy(run_in_c(source, inputs.numpy(), folder).copy())
    right = in_torch(module, inputs)
    assert got.shape == right.shape
    assert (got - right).abs().max() <= 1e-12 * right.abs().max().clamp(min=1)


def every(name: str) -> object:
    """Mark the layers that are compiled in full runs alone."""
    return pytest.param(name, marks=[] if name in EVERY_TIME else [pytest.mark.slow])


@needs_compiler
@pytest.mark.parametrize("name", [every(name) for name in LAYERS])
def test_layers_in_c_are_those_in_torch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = LAYERS[name][0]()
    check(module, module.input_size, tmp_path)  # type: ignore[arg-type]  # a number


@needs_compiler
@pytest.mark.parametrize("name", LAYERS_OF_LMU)
def test_units_and_networks_in_c_are_those_in_torch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = LAYERS_OF_LMU[name]()
    check(module, module.input_size, tmp_path)  # type: ignore[arg-type]  # a number


class Mixed(nn.Module):
    """Operations that no layer of ours has: softmax, norms, GELUs, clamps, words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 6)
        self.norm, self.line = nn.LayerNorm(6), nn.Linear(6, 4)

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read one word."""
        state = self.line.weight.new_zeros(*input.shape, 4) if state is None else state
        read = nn.functional.gelu(self.line(self.norm(self.words(input))))
        after = 0.5 * state + nn.functional.gelu(read, approximate="tanh").clamp(-0.1, 1.5)
        chances = torch.softmax(torch.where(after > 0, after, -2 * after), -1)
        return torch.cat([chances, after.mean(-1, keepdim=True).abs()], -1), after.roll(1, -1)


@needs_compiler
def test_words_and_other_operations_in_c(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, words = Mixed().double().eval(), torch.randint(7, (STEPS,))
    source = to_c(module, "memory", example=words[None], dtype=torch.float64)
    got = run_in_c(source, words.int().numpy(), tmp_path, "f8")
    right = in_torch(module, words)
    assert (torch.from_numpy(got.copy()) - right).abs().max() <= 1e-13


class Sorting(nn.Module):
    """A module with an operation that is not written in C."""

    input_size = 3

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sort."""
        after = input.sort(-1).values
        return after, after if state is None else after + state


class FromOnes(nn.Module):
    """A module whose state begins as ones."""

    input_size = 3

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Add."""
        after = input + (torch.ones_like(input) if state is None else state)
        return after, after


class Turning(nn.Module):
    """A module that multiplies by a complex number."""

    input_size = 3

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Turn."""
        after = (input * torch.tensor(1j)).imag
        return after, after if state is None else after + state


class Constant(nn.Module):
    """A module that uses neither its input nor its state."""

    input_size = 3

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Say the same."""
        return torch.full_like(input, 0.25), torch.full_like(input, 0.5)


@needs_compiler
def test_what_is_not_used_is_no_error_of_the_compiler(tmp_path: Path) -> None:
    check(Constant(), 3, tmp_path)


@needs_compiler
@pytest.mark.parametrize("make", [lmu.layers.Encoder, lmu.layers.FeedForward])
def test_modules_without_a_state(make: Callable[[int, int], nn.Module], tmp_path: Path) -> None:
    """C has no arrays of no numbers."""
    torch.manual_seed(0)
    check(make(3, 5), 3, tmp_path)


class Squashed(linrec.nn.Recurrence):
    """A recurrence whose outputs are squashed: a subclass with a step of its own."""

    def step(self, input: Tensor, state: Tensor | None = None) -> linrec.Result:
        """Run one step."""
        outputs, after = super().step(input, state)
        return linrec.Result(torch.tanh(outputs), after)


class Around(nn.Module):
    """The same as a module that holds a recurrence under the name `recurrence`."""

    def __init__(self, recurrence: linrec.LinearRecurrence) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.input_size, self.state_size = recurrence.input_size, recurrence.state_size

    def step(self, input: Tensor, state: Tensor | None = None) -> linrec.Result:
        """Run one step."""
        outputs, after = linrec.step(self.recurrence, input, state)
        return linrec.Result(torch.tanh(outputs), after)


@needs_compiler
@pytest.mark.parametrize("kind", [Squashed, Around])
def test_a_step_around_a_recurrence_is_written_too(
    kind: Callable[[linrec.LinearRecurrence], nn.Module], tmp_path: Path
) -> None:
    growing = linrec.LinearRecurrence([[0.5, 0.1], [0.0, 0.9]], [[3.0], [1.0]])
    check(kind(growing.to(torch.float64)), 1, tmp_path)
    with pytest.raises(ValueError, match="is more than one"):
        exported(kind(growing), Form.STEP, "c", weights="int8", length=10)


def test_what_cannot_be_written_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="complex"):
        to_c(Turning())
    with pytest.raises(ValueError, match=r"`Sorting` has the operation `aten\.sort"):
        to_c(Sorting())
    with pytest.raises(ValueError, match="does not begin as zeros"):
        to_c(FromOnes())
    with pytest.raises(ValueError, match="identifier of C"):
        to_c(linrec.nn.MinGRU(2, 3), "my net")
    with pytest.raises(ValueError, match=r"torch\.float32 or torch\.float64"):
        to_c(linrec.nn.MinGRU(2, 3), dtype=torch.float16)
    with pytest.raises(ValueError, match="has no `step"):
        to_c(nn.Linear(2, 3), example=torch.ones(1, 4, 2))
