"""The tasks of the speed-up: the unit of 2019 and the forms of the simplified one.

The simplified networks have the paper's trained encoder u = U_x x + b_u, so that their memories
have to be run and differentiated in every training step. The last form leaves it out, as our
experiments do (`experiments.models.SequenceClassifier` explains why nothing is lost). Then the
memory is the same in every epoch: it is computed once, and costs nothing in a training step.

Nothing is compiled: everything runs on PyTorch's eager operators. On a GPU, most of a short step
is the time in which Python launches its kernels; there, steps are timed as CUDA graphs as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from linrec import Auto, Executor, Recurrent
from lmu.experiments import mackey_glass, psmnist
from lmu.experiments.data import Dataset
from lmu.experiments.models import LayerClassifier, LayerPredictor, Network
from lmu.layers import LMU, ParallelLMU


class Way(StrEnum):
    """A way to train; the first is the baseline for the others."""

    ORIGINAL = "LMU of 2019, step by step"
    STEPPED = "simplified LMU, step by step"
    PARALLEL = "simplified LMU, parallel"
    FROZEN = "simplified LMU, memory once"
    LSTM = "torch.nn.LSTM"
    ORIGINAL_GRAPH = "LMU of 2019, as a CUDA graph"
    PARALLEL_GRAPH = "simplified LMU, parallel, as a CUDA graph"
    FROZEN_GRAPH = "simplified LMU, memory once, as a CUDA graph"
    LSTM_GRAPH = "torch.nn.LSTM, as a CUDA graph"


GRAPHS = {
    Way.ORIGINAL: Way.ORIGINAL_GRAPH,
    Way.PARALLEL: Way.PARALLEL_GRAPH,
    Way.FROZEN: Way.FROZEN_GRAPH,
    Way.LSTM: Way.LSTM_GRAPH,
}


class Task(NamedTuple):
    """A network in training: its inputs, targets and loss.

    Args:
        network: owns the parameters.
        forward: from inputs to predictions: the network, or the part of it that is trained.
        inputs (batch, ...): the inputs of one step.
        targets (batch, ...): the targets of one step.
        loss: from predictions and targets to a number.
    """

    network: nn.Module
    forward: Callable[[Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]

    def to(self, device: str) -> "Task":
        """Move the network, its inputs and its targets to a device."""
        self.network.to(device)
        return self._replace(inputs=self.inputs.to(device), targets=self.targets.to(device))

    def training_step(self, *, recorded: bool = False) -> Callable[[], object]:
        """Return a function that takes one step of Adam at each call.

        Args:
            recorded: whether the step becomes a CUDA graph. It repeats what the GPU does, so Adam
                has to count its steps there.
        """
        optimizer = torch.optim.Adam(
            self.network.parameters(), lr=1e-3, fused=True, capturable=recorded
        )
        self.network.train()

        def step() -> None:
            optimizer.zero_grad()
            self.loss(self.forward(self.inputs), self.targets).backward()
            optimizer.step()

        return step


@dataclass(frozen=True)
class Case:
    """A shape on which training steps are timed.

    Args:
        name: its name on the command line.
        title: a description in a few words.
        batch: sequences in a step.
        length: time steps in a sequence.
        steps: training steps in an epoch.
        tasks: the tasks to time.
    """

    name: str
    title: str
    batch: int
    length: int
    steps: int
    tasks: Mapping[Way, Callable[["Case"], Task]]


Build = Callable[[Dataset], Network]


def classification_task(build: Build, classes: int = 10) -> Callable[[Case], Task]:
    """Return a maker of tasks that classify noise, with inputs or precomputed features."""

    def task(case: Case) -> Task:
        network = build(Dataset.empty())
        features = network.features(torch.randn(case.batch, case.length, 1))
        classes_of = torch.randint(classes, (case.batch,))
        return Task(network, network.head, features, classes_of, cross_entropy)

    return task


def prediction_task(build: Build) -> Callable[[Case], Task]:
    """Return a maker of tasks that predict noise, with inputs or precomputed features."""

    def task(case: Case) -> Task:
        network = build(Dataset.empty())
        series = torch.randn(case.batch, case.length, 1)
        return Task(network, network.head, network.features(series), series, mse_loss)

    return task


def digits(executor: Executor) -> LayerClassifier:
    """Make the paper's network for psMNIST, of 166,092 parameters."""
    return LayerClassifier(
        ParallelLMU(1, 346, 1, 468, 784.0, memory_dropout=0.5, executor=executor), classes=10
    )


def chaos(executor: Executor) -> LayerPredictor:
    """Make the paper's network for Mackey-Glass, of 17,243 parameters."""
    return LayerPredictor(ParallelLMU(1, 140, 1, 40, 50.0, executor=executor), dense_size=80)


PSMNIST: Mapping[Way, Callable[[Case], Task]] = {
    Way.ORIGINAL: classification_task(psmnist.lmu_2019),
    Way.STEPPED: classification_task(lambda data: digits(Recurrent())),
    Way.PARALLEL: classification_task(lambda data: digits(Auto())),
    Way.FROZEN: classification_task(psmnist.parallel_lmu),
    Way.LSTM: classification_task(psmnist.lstm),
}
MACKEY_GLASS: Mapping[Way, Callable[[Case], Task]] = {
    Way.ORIGINAL: prediction_task(mackey_glass.lmu_2019),
    Way.STEPPED: prediction_task(lambda data: chaos(Recurrent())),
    Way.PARALLEL: prediction_task(lambda data: chaos(Auto())),
    Way.FROZEN: prediction_task(mackey_glass.parallel_lmu),
    Way.LSTM: prediction_task(mackey_glass.lstm),
}
CASES = (
    Case("psmnist", "psMNIST, 100 images a step", 100, 784, 500, PSMNIST),
    Case("mackey-glass", "Mackey-Glass, 32 series a step", 32, 5_000, 1, MACKEY_GLASS),
    Case("mackey-glass-1", "Mackey-Glass, one series a step", 1, 5_000, 32, MACKEY_GLASS),
)
LENGTHS = (64, 256, 1_024, 4_096, 16_384)


def over_length(length: int) -> Case:
    """Make a case of any length: a window as long as the sequence, read at its end.

    Both units have 128 hidden units and a memory of order 64; a step has 16 sequences.

    Args:
        length: time steps in a sequence.

    Returns:
        The case; an epoch is one step.
    """

    def simplified(executor: Executor) -> LayerClassifier:
        unit = ParallelLMU(1, 128, 1, 64, float(length), executor=executor)
        return LayerClassifier(unit, classes=10)

    def original(data: Dataset) -> LayerClassifier:
        return LayerClassifier(LMU.original(1, 128, 64, float(length)), classes=10)

    tasks = {
        Way.ORIGINAL: classification_task(original),
        Way.STEPPED: classification_task(lambda data: simplified(Recurrent())),
        Way.PARALLEL: classification_task(lambda data: simplified(Auto())),
    }
    return Case(f"length-{length}", f"{length:,} time steps", 16, length, 1, tasks)
