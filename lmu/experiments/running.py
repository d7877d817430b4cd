"""Run an experiment: train one of its models, or evaluate a trained one."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmu.experiments.data import Dataset, Split
from lmu.experiments.experiment import Budget, Experiment
from lmu.experiments.models import Network
from lmu.experiments.record import Record, commit, hardware, total_cpu, versions
from lmu.experiments.training import BEST, RESULT, Outcome, RunFolder, predictions
from lmu.experiments.training import train as train_network
from lmu.files import read_checkpoint
from lmu.files.entries import SEED, is_text

# Entries of the configuration that a record repeats, besides its own.
RECIPE = ("examples", "batch_size", "optimizer", "learning_rate")

AnyPath = str | os.PathLike[str]


class NeedsData(ValueError):
    """A network cannot be built without its data."""


class Run:
    """A run of an experiment, checked and ready to train.

    Args:
        experiment: the experiment.
        folder: the run folder; None is `runs/NAME-MODEL-BUDGET-seedSEED`.
        model: the name of one of its models; None is the paper's.
        budget: the effort of the run.
        seed: seed of the data, of the weights, of the order of the examples and of dropout.
        epochs: how many; None takes the recipe's number.
        learning_rate: the optimiser's rate; None takes the recipe's.
        data_folder: where the data set's files are; None is `LMU_DATA`, or downloads.
        device: torch's name of the device to train on.
        resume: True continues the run in the folder, if there is one.

    Pretraining, if there is any, has the folder `pretraining` in the run folder.

    Raises:
        FileExistsError: the folder holds something and `resume` is False.
        FileNotFoundError: the data are missing and cannot be downloaded.
        ValueError: there is no such model, the data are damaged, or the folder's run is of another
            configuration.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: AnyPath | None = None,
        *,
        model: str | None = None,
        budget: Budget = Budget.FULL,
        seed: int = 0,
        epochs: int | None = None,
        learning_rate: float | None = None,
        data_folder: AnyPath | None = None,
        device: str = "cpu",
        resume: bool = False,
    ) -> None:
        if not SEED.test(seed):
            raise ValueError(f"`seed` is {seed!r}: expected {SEED.name}.")
        self.experiment = experiment
        self.model = model or experiment.model
        self.budget = budget
        self.seed = seed
        self.device = torch.device(device)
        setting = experiment.setting(model, budget)
        self.recipe = setting.recipe.with_epochs(epochs).with_learning_rate(learning_rate)
        self.data = experiment.data(seed, data_folder, budget)
        self.digest = self.data.digest()
        with _seed(seed, self.device):
            self.network = setting.network(self.data)
        self.folder = RunFolder(
            folder or Path("runs", f"{experiment.name}-{self.model}-{budget}-seed{seed}"),
            self.configuration(),
            resume=resume,
        )
        self.pretraining = setting.pretraining
        self.before: Run | None = None
        if self.pretraining is not None:
            self.before = Run(
                self.pretraining.experiment,
                self.folder.path / "pretraining",
                model=self.pretraining.model,
                budget=budget,
                seed=seed,
                data_folder=data_folder,
                device=device,
                resume=resume,
            )

    def configuration(self) -> dict[str, Any]:
        """Return everything that determines the result, as JSON values."""
        optimizer = self.recipe.optimizer(self.network.parameters())
        return {
            "experiment": self.experiment.name,
            "model": self.model,
            "budget": self.budget,
            "seed": self.seed,
            "data": self.digest,
            "epochs": self.recipe.epochs,
            "examples": self.recipe.examples,
            "batch_size": self.recipe.batch_size,
            "optimizer": type(optimizer).__name__,
            "learning_rate": optimizer.defaults["lr"],
            "parameters": count_parameters(self.network),
            **self.recipe.describe(),
        }

    def train(self, *, progress: bool = False, tensorboard: bool = False) -> tuple[Record, Outcome]:
        """Train to the end and score the test examples, by the best validation epoch's weights.

        Args:
            progress: whether to show progress bars.
            tensorboard: whether to write the metrics for TensorBoard, too.

        Returns:
            The result, which is also written into the run folder, and the outcome of the training.
        """
        network = self.network.to(self.device)
        earlier = None
        if self.before is not None and self.pretraining is not None:
            earlier, _ = self.before.train(progress=progress, tensorboard=tensorboard)
            self.pretraining.hand_over(self.before.network, network)
        training, validation, test = (self._features(split) for split in self.data.splits)
        if self.recipe.with_validation:
            training, validation = training.join(validation), None
        with _seed(self.seed, self.device):
            outcome = train_network(
                network,
                training,
                validation,
                self.recipe,
                self.folder,
                seed=self.seed,
                forward=network.head,
                progress=progress,
                tensorboard=tensorboard,
            )
        batches = predictions(network, network.head, test, self.recipe.batch_size)
        figures = {self.recipe.metric.name: self.recipe.metric.score(batches)}
        if self.experiment.examine is not None:
            figures = {**self.experiment.examine(network, self.data), **figures}
        record = self._record(figures, outcome).after(earlier)
        self.folder.write(RESULT, record.to_json().encode())
        return record, outcome

    def _features(self, split: Split) -> Split:
        split = Split(*(part.to(self.device) for part in split))
        if self.network.features(first := split.inputs[:1]) is first:  # nothing to compute once
            return split
        batches = predictions(self.network, self.network.features, split, self.recipe.batch_size)
        return Split(torch.cat([features for features, _ in batches]), split.targets)

    def _record(self, figures: dict[str, float], outcome: Outcome) -> Record:
        train, validation, test = (len(split.targets) for split in self.data.splits)
        if self.recipe.with_validation:
            train, validation = train + validation, 0
        return Record(
            experiment=self.experiment.name,
            model=self.model,
            budget=self.budget,
            seed=self.seed,
            figures=figures,
            best_epoch=outcome.best_epoch,
            epochs=len(outcome.history),
            parameters=count_parameters(self.network) if outcome.history else self.network.fitted,
            seconds=round(sum(entry["seconds"] for entry in outcome.history), 1),
            examples=(train, validation, test),
            data=self.digest,
            reduced=self.data.reduced,
            versions=versions() | self.experiment.versions(),
            hardware=hardware(self.device),
            validation=outcome.best_score,
            cpu_seconds=total_cpu(outcome.history) if self.device.type == "cpu" else None,
            recipe={name: self.configuration()[name] for name in RECIPE} | self.recipe.describe(),
            commit=commit(),
        )


def count_parameters(network: Network) -> int:
    """Count the trained numbers."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@dataclass(frozen=True)
class Evaluation:
    """A trained network's score on the test examples, in one form or in both.

    Args:
        model: the name of the experiment's model.
        score: the score of the parallel form.
        examples: how many test examples were scored.
        streaming_score: the score of the recurrent form, one time step at a time; None if not
            requested.
        differing: how many decisions of the two forms differ; None if there are none to compare.
        decisions: how many decisions were compared.
        largest_difference: the largest difference of the two forms' outputs; None if not requested.
        figures: the experiment's further figures, by name; empty if not requested.
    """

    model: str
    score: float
    examples: int
    streaming_score: float | None = None
    differing: int | None = None
    decisions: int | None = None
    largest_difference: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


def evaluate(
    experiment: Experiment,
    checkpoint: AnyPath,
    *,
    data_folder: AnyPath | None = None,
    streaming: bool = False,
    limit: int | None = None,
    device: str = "cpu",
    figures: bool = False,
) -> Evaluation:
    """Score a trained network on the test examples.

    Args:
        experiment: the experiment that it was trained for.
        checkpoint: the `best.safetensors` of its run folder.
        data_folder: where the data set's files are; None is `LMU_DATA`, or downloads.
        streaming: True runs the recurrent form too, one time step at a time, and compares.
        limit: how many test examples to score, the first ones; None scores all.
        device: torch's name of the device to run on.
        figures: True computes the experiment's further figures too, on all test examples.

    Returns:
        The scores, and how far apart the two forms are.

    Raises:
        FileNotFoundError: there is no such checkpoint, or the data are missing.
        ValueError: the file is not a checkpoint of this experiment, or the data are damaged.
    """
    network, trained, data = restore(experiment, checkpoint, data_folder=data_folder)
    network = network.to(device)
    recipe = experiment.setting(trained["model"], Budget(trained["budget"])).recipe
    metric, size = recipe.metric, recipe.batch_size
    test = Split(*(part[:limit].to(device) for part in data.test))
    parallel = predictions(network, network, test, size)
    more = experiment.examine(network, data) if figures and experiment.examine else {}
    if not streaming:
        score = metric.score(parallel)
        return Evaluation(trained["model"], score, len(test.targets), figures=more)
    streamed = predictions(network, network.stream, test, size)
    sums, streaming_sums = torch.zeros(()), torch.zeros(())
    differing, decisions, largest = 0, 0, 0.0
    for (outputs, targets), (others, _) in zip(parallel, streamed, strict=True):
        sums = sums + metric.accumulate(outputs, targets)
        streaming_sums = streaming_sums + metric.accumulate(others, targets)
        largest = max(largest, (outputs - others).abs().max().item())
        if experiment.decide is not None:
            differ = experiment.decide(outputs) != experiment.decide(others)
            differing, decisions = differing + int(differ.sum()), decisions + differ.numel()
    return Evaluation(
        trained["model"],
        metric.finalize(sums),
        len(test.targets),
        metric.finalize(streaming_sums),
        differing if decisions else None,
        decisions or None,
        largest,
        more,
    )


def restore(
    experiment: Experiment, checkpoint: AnyPath, *, data_folder: AnyPath | None = None
) -> tuple[Network, dict[str, Any], Dataset]:
    """Rebuild a trained network with its weights, and load its data.

    Args:
        experiment: the experiment that it was trained for.
        checkpoint: the `best.safetensors` of its run folder.
        data_folder: where the data set's files are; None is `LMU_DATA`, or downloads.

    Returns:
        The network, the run's configuration and the data that it was trained on.

    Raises:
        FileNotFoundError: there is no such checkpoint, or the data are missing.
        ValueError: the file is not a checkpoint of this experiment, or was trained on other data.
    """
    path = Path(checkpoint)
    trained, weights = _read(experiment, path)
    data = experiment.data(trained["seed"], data_folder, Budget(trained["budget"]))
    if trained["data"] != data.digest():
        raise ValueError(
            f"`{path}` was trained on data of checksum {trained['data']}, and these have "
            f"{data.digest()}: expected the same files. Name their folder by `--data-dir FOLDER`."
        )
    return _network(experiment, path, trained, weights, data), trained, data


def restore_alone(experiment: Experiment, checkpoint: AnyPath) -> Network:
    """Rebuild a trained network with its weights, without loading its data.

    Args:
        experiment: the experiment that it was trained for.
        checkpoint: the `best.safetensors` of its run folder.

    Returns:
        The network.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        NeedsData: the network's sizes depend on its data, such as the number of words.
        ValueError: the file is not a checkpoint of this experiment.
    """
    path = Path(checkpoint)
    trained, weights = _read(experiment, path)
    try:
        # Any length will do: matrices made for the true one are loaded with the weights.
        return _network(experiment, path, trained, weights, Dataset.empty(200))
    except (AttributeError, LookupError, TypeError):
        raise NeedsData(
            f"The model `{trained['model']}` of `{experiment.name}` has the sizes of its data: "
            "expected one that can be built without them."
        ) from None


def _network(
    experiment: Experiment,
    path: Path,
    trained: dict[str, Any],
    weights: dict[str, Tensor],
    data: Dataset,
) -> Network:
    """Build the network of a run, and load its weights."""
    try:
        setting = experiment.setting(trained["model"], Budget(trained["budget"]))
    except ValueError as error:
        raise ValueError(
            f"`{path}` was trained by another version ({error}). Train again, or install it."
        ) from None
    with _seed(trained["seed"], torch.device("cpu")):
        network = setting.network(data)
    try:
        network.load_state_dict(weights)
    except Exception as error:  # untrusted weights can make it fail in any way
        raise ValueError(
            f"The weights in `{path}` do not fit the network: {error}. Expected those of this "
            "version's network: train again, or install the version that trained them."
        ) from None
    return network


def _read(experiment: Experiment, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint's configuration and weights."""
    if not path.is_file():
        raise FileNotFoundError(
            f"`{path}` is no file: expected the `{BEST}` of a run folder, as "
            f"`lmu train {experiment.name}` writes it."
        )
    try:
        checkpoint = read_checkpoint(path)
        trained, weights = checkpoint["configuration"], checkpoint["network"]
        name = trained["experiment"]
        _ = Budget(trained["budget"])
        if not all(map(is_text, (name, trained["model"], trained["data"]))):
            raise ValueError("its configuration is of another kind")
        if not SEED.test(trained["seed"]):
            raise ValueError(f"its seed is {repr(trained['seed'])[:60]}, and not {SEED.name}")
        if not isinstance(weights, dict):
            raise ValueError(f"its weights are a {type(weights).__name__}")
    except Exception as error:  # a file of another kind can make the reader fail in any way
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise ValueError(
            f"`{path}` is not a checkpoint of trained weights ({reason}): expected the `{BEST}` of "
            f"a run folder. Give the one that `lmu train {experiment.name}` wrote."
        ) from None
    if name != experiment.name:
        raise ValueError(
            f"`{path}` was trained for `{name}`: expected a checkpoint of `{experiment.name}`. "
            f"Type `lmu evaluate {name} --checkpoint {path}`."
        )
    return trained, weights


@contextmanager
def _seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, and restore them afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
