"""The record of a run: its figures, and everything needed to judge and repeat it."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from linrec.kernels import versions_of_loops
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
    is_number,
    is_text,
)

ACCELERATOR = "GPU"  # the last word of `hardware` for an accelerator


@dataclass(frozen=True)
class Record:
    """The result of one run.

    Args:
        experiment: the experiment's name.
        model: the name of one of its models.
        budget: the effort of the run.
        seed: of the data, the weights, the order of the examples and dropout.
        figures: results on the test examples, by name; the paper reports the first.
        best_epoch: the epoch whose weights were scored: the best on the validation examples, or the
            last if the network was trained on those too.
        epochs: how many there were.
        parameters: how many numbers were trained.
        seconds: wall-clock time of training and pretraining, including any time that the machine
            spent on other programs.
        examples: how many to train on, to choose by (0: none), and to report.
        data: checksum of the examples (`Dataset.digest`).
        reduced: what is missing of the published data; empty if they are whole.
        versions: of Python, torch, numpy and linrec, and of Numba if it runs loops.
        hardware: the processor and its number of threads, or the accelerator.
        validation: the score that chose the epoch; None: there was none, or it was not kept.
        cpu_seconds: the processor's time for the same, which excludes other programs. None: not
            kept, or trained on another device.
        recipe: how it was trained, as in the run folder. Empty: not kept.
        commit: the commit of the sources. Empty: they were not a clone, or it was not kept.
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
    validation: float | None = None
    cpu_seconds: float | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    commit: str = ""

    @property
    def score(self) -> float:
        """The figure that the paper reports."""
        return next(iter(self.figures.values()))

    @property
    def accelerated(self) -> bool:
        """Whether it was trained on an accelerator."""
        return self.hardware.endswith(ACCELERATOR)

    @property
    def path(self) -> Path:
        """The record's path within a folder of records."""
        return Path(self.experiment, f"{self.model}-{self.budget}-seed{self.seed}.json")

    def after(self, earlier: "Record | None") -> "Record":
        """Return the record with the time of an earlier training added, if there is one."""
        if earlier is None:
            return self
        cpu = (self.cpu_seconds, earlier.cpu_seconds)
        known = [each for each in cpu if each is not None]
        return replace(
            self,
            seconds=round(self.seconds + earlier.seconds, 1),
            cpu_seconds=round(sum(known), 1) if len(known) == len(cpu) else None,
        )

    def to_json(self) -> str:
        """Write the record as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "Record":
        """Read a record from the result of `to_json`.

        Raises:
            ValueError: the text is not a record.
        """
        try:
            content = parse_json(text)
            if isinstance(content, dict):
                content = LATER | content
            content = check_entries(content, ENTRIES)
        except ValueError as error:
            raise ValueError(
                f"The text is no record of a run ({error}): expected the content of a "
                "`result.json`, as `lmu train` writes it."
            ) from None
        content["budget"] = Budget(content["budget"])
        content["examples"] = tuple(content["examples"])
        return Record(**content)


def is_examples(value: object) -> bool:
    """Tell whether a value is three numbers of examples."""
    return isinstance(value, list) and len(value) == 3 and all(map(is_count, value))


def is_recipe(value: object) -> bool:
    """Tell whether a value is an object of settings by name."""
    return isinstance(value, dict) and all(
        is_text(name) and (each is None or is_number(each) or is_text(each))
        for name, each in value.items()
    )


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
    "validation": Kind(lambda value: value is None or is_number(value), "a finite number or null"),
    "cpu_seconds": Kind(lambda value: value is None or is_number(value), "a finite number or null"),
    "recipe": Kind(is_recipe, "numbers, lines of text or null by name"),
    "commit": TEXT,
}

# Entries that records of earlier versions lack.
LATER = {"validation": None, "cpu_seconds": None, "recipe": {}, "commit": ""}


def total_cpu(history: list[dict[str, Any]]) -> float | None:
    """Add up the processor's time for all epochs; None if an epoch has none."""
    seconds = [entry.get("cpu_seconds") for entry in history]
    known = [each for each in seconds if each is not None]
    return round(sum(known), 1) if len(known) == len(seconds) else None


def versions() -> dict[str, str]:
    """Return the versions of Python, torch, numpy, linrec, and of Numba if it runs loops."""
    try:
        own = version("linrec")
    except PackageNotFoundError:  # running from the sources
        own = "unknown"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "linrec": own,
        **versions_of_loops(),
    }


def commit() -> str:
    """Return the commit of the sources, or an empty string if git knows none."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def hardware(device: torch.device) -> str:
    """Name the hardware of a run: the processor and its threads, or the accelerator."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {ACCELERATOR}"
    return f"{processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
