"""Running an experiment: train it, or evaluate what was trained."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmu.data import Dataset, Split
from lmu.experiments.experiment import Experiment
from lmu.models import Network
from lmu.training import BEST, RESULT, Outcome, Recipe, RunFolder, predict
from lmu.training import train as train_network

AnyPath = str | os.PathLike[str]


class Run:
    """A run of an experiment, ready to train: what could refuse it has had its chance.

    Args:
        experiment: which.
        folder: the run folder; None is `runs/NAME-seedSEED`.
        seed: seed of the data, of the weights, of the order of the examples and of dropout.
        epochs: how many; None are the recipe's.
        data_folder: where the data set's files are; None is `LMU_DATA`, or downloads.
        device: where to train, as torch calls it.
        resume: True goes on with the run that the folder holds, if it holds one.

    Raises:
        FileExistsError: the folder holds something and `resume` is False.
        FileNotFoundError: the data are neither here nor can they be downloaded.
        ValueError: the data are damaged, or the folder's run is of another configuration.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: AnyPath | None = None,
        *,
        seed: int = 0,
        epochs: int | None = None,
        data_folder: AnyPath | None = None,
        device: str = "cpu",
        resume: bool = False,
    ) -> None:
        self.experiment = experiment
        self.seed = seed
        self.device = torch.device(device)
        self.recipe = experiment.recipe.with_epochs(epochs)
        with _seeded(seed, self.device):
            self.network = experiment.network()
        self.data = experiment.data(seed, data_folder)
        self.folder = RunFolder(
            folder or Path("runs", f"{experiment.name}-seed{seed}"),
            configuration(experiment, self.recipe, self.network, seed),
            resume=resume,
        )

    def train(self, *, progress: bool = False) -> tuple[float, Outcome]:
        """Train to the end and score the test examples, by the best validation epoch's weights.

        Args:
            progress: whether to show progress bars.

        Returns:
            The test score, and what came of the training.
        """
        network = self.network.to(self.device)
        features = Dataset(*(_features(network, split, self.device) for split in self.data))
        with _seeded(self.seed, self.device):
            outcome = train_network(
                network,
                features.train,
                features.validation,
                self.recipe,
                self.folder,
                seed=self.seed,
                forward=network.head,
                progress=progress,
            )
        predictions = predict(network, network.head, features.test.inputs)
        score = self.recipe.metric.function(predictions, features.test.targets)
        result = {"test_score": score, "best_epoch": outcome.best_epoch}
        self.folder.write(RESULT, (json.dumps(result) + "\n").encode())
        return score, outcome


def configuration(
    experiment: Experiment, recipe: Recipe, network: Network, seed: int
) -> dict[str, Any]:
    """Write down what decides a run's result, in values that JSON knows."""
    optimizer = recipe.optimizer(network.parameters())
    return {
        "experiment": experiment.name,
        "seed": seed,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "optimizer": type(optimizer).__name__,
        "learning_rate": optimizer.defaults["lr"],
        "parameters": parameter_count(network),
    }


def parameter_count(network: Network) -> int:
    """Count the numbers that are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@dataclass(frozen=True)
class Evaluation:
    """A trained network's score on the test examples, in one form or in both.

    Args:
        score: of the parallel form.
        streaming_score: of the recurrent form, one time step at a time; None if not asked for.
        differing: how many decisions of the two differ; None where there are none to compare.
        largest_difference: of the two forms' outputs; None if not asked for.
        examples: how many test examples were scored.
    """

    score: float
    examples: int
    streaming_score: float | None = None
    differing: int | None = None
    largest_difference: float | None = None


def evaluate(
    experiment: Experiment,
    checkpoint: AnyPath,
    *,
    data_folder: AnyPath | None = None,
    streaming: bool = False,
    limit: int | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Score a trained network on the test examples.

    Args:
        experiment: what it was trained for.
        checkpoint: the `best.pt` of its run folder.
        data_folder: where the data set's files are; None is `LMU_DATA`, or downloads.
        streaming: True runs the recurrent form too, one time step at a time, and compares.
        limit: score only so many test examples, the first ones; None scores all.
        device: where to run, as torch calls it.

    Returns:
        The scores and how far the two forms are apart.

    Raises:
        FileNotFoundError: there is no such checkpoint, or the data are missing.
        ValueError: the file is not a checkpoint of this experiment, or the data are damaged.
    """
    network = experiment.network()
    seed = _load(network, experiment, Path(checkpoint))
    network = network.to(device)
    inputs, targets = (part[:limit].to(device) for part in experiment.data(seed, data_folder).test)
    score = experiment.recipe.metric.function
    outputs = predict(network, network, inputs)
    if not streaming:
        return Evaluation(score(outputs, targets), len(inputs))
    streamed = predict(network, network.stream, inputs)
    return Evaluation(
        score(outputs, targets),
        len(inputs),
        score(streamed, targets),
        _differing(experiment, outputs, streamed),
        (outputs - streamed).abs().max().item(),
    )


def _differing(experiment: Experiment, one: Tensor, other: Tensor) -> int | None:
    if experiment.decide is None:
        return None
    return int((experiment.decide(one) != experiment.decide(other)).sum())


def _load(network: Network, experiment: Experiment, path: Path) -> int:
    """Load weights and return the seed of the data that they were trained on."""
    if not path.is_file():
        raise FileNotFoundError(
            f"`{path}` is no file: expected the `{BEST}` of a run folder, as "
            f"`lmu train {experiment.name}` writes it."
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        trained = checkpoint["configuration"]
        name, seed, weights = trained["experiment"], trained["seed"], checkpoint["network"]
    except Exception as error:  # a file of something else makes the reader fail in any way
        raise ValueError(
            f"`{path}` is not a checkpoint of trained weights ({type(error).__name__}): expected "
            f"the `{BEST}` of a run folder."
        ) from None
    if name != experiment.name:
        raise ValueError(
            f"`{path}` was trained for `{name}`: expected a checkpoint of `{experiment.name}`. "
            f"Type `lmu evaluate {name} --checkpoint {path}`."
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"The weights in `{path}` do not fit the network: {error}. Expected those of this "
            "version's network: train again, or install the version that trained them."
        ) from None
    return seed


def _features(network: Network, split: Split, device: torch.device) -> Split:
    inputs, targets = (part.to(device) for part in split)
    return Split(predict(network, network.features, inputs), targets)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, and put them back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
