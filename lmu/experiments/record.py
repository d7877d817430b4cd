"""The record of a run: its figures, and everything needed to judge and repeat it."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from linrec.reporting import processor
from lmu.experiments.experiment import Budget
from lmu.files import parse_json
from lmu.files.entries import (
    COUNT,
    FIGURES,
    NUMBER,
    SEED,
    TEXT,
    TEXTS,
    Kind,
    check_entries,
    is_count,
)


@dataclass(frozen=True)
class Record:
    """The result of one run.

    Args:
        experiment: its name.
        model: which of its models.
        budget: how much was spent.
        seed: of the data, the weights, the order of the examples and dropout.
        figures: on the test examples, by name; the first is the one that the paper reports.
        best_epoch: the epoch whose weights were scored: the best on the validation examples.
        epochs: how many there were.
        parameters: how many numbers were trained.
        seconds: of training, by the clock on the wall, whatever else the machine did.
        examples: how many to train on, to choose by, and to report.
        data: checksum of the examples (`Dataset.digest`).
        reduced: what is missing of the published data; empty if they are whole.
        versions: of Python, torch and linrec.
        hardware: where it was run.
    """

    experiment: str
    model: str
    budget: Budget
    seed: int
    figures: dict[str, float]
    best_epoch: int
    epochs: int
    parameters: int
    seconds: float
    examples: tuple[int, int, int]
    data: str
    reduced: str
    versions: dict[str, str]
    hardware: str

    @property
    def score(self) -> float:
        """The figure that the paper reports."""
        return next(iter(self.figures.values()))

    @property
    def path(self) -> Path:
        """Where it belongs in a folder of records."""
        return Path(self.experiment, f"{self.model}-{self.budget}-seed{self.seed}.json")

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "Record":
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        try:
            content = check_entries(parse_json(text), ENTRIES)
        except ValueError as error:
            raise ValueError(
                f"The text is no record of a run ({error}): expected the content of a "
                "`result.json`, as `lmu train` writes it."
            ) from None
        content["budget"] = Budget(content["budget"])
        content["examples"] = tuple(content["examples"])
        return Record(**content)


def is_examples(value: object) -> bool:
    """Tell whether these are three numbers of examples."""
    return isinstance(value, list) and len(value) == 3 and all(map(is_count, value))


ENTRIES = {
    "experiment": TEXT,
    "model": TEXT,
    "budget": Kind(lambda value: value in [*Budget], "`full` or `quick`"),
    "seed": SEED,
    "figures": FIGURES,
    "best_epoch": COUNT,
    "epochs": COUNT,
    "parameters": COUNT,
    "seconds": NUMBER,
    "examples": Kind(is_examples, "three whole numbers"),
    "data": TEXT,
    "reduced": TEXT,
    "versions": TEXTS,
    "hardware": TEXT,
}


def versions() -> dict[str, str]:
    """Return the versions of Python, torch and linrec."""
    try:
        own = version("linrec")
    except PackageNotFoundError:  # run from its sources
        own = "unknown"
    return {"python": platform.python_version(), "torch": torch.__version__, "linrec": own}


def hardware(device: torch.device) -> str:
    """Say where a run computes: the processor and its threads, or the accelerator."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
