"""The folder that a run leaves behind: what was asked, what came of it, where it can go on."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CONFIGURATION = "config.json"
METRICS = "metrics.jsonl"
BEST = "best.pt"
LAST = "last.pt"
CURVE = "curve.png"
RESULT = "result.json"
PART = ".part"  # of a file that is being written, or was when the process was killed


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the process is killed meanwhile.

    Args:
        path: where; the folders above it are made.
        content: what.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class RunFolder:
    """The files of one run.

    `config.json` says what was run, `metrics.jsonl` has a line an epoch, `best.pt` the weights of
    the best validation epoch, `last.pt` all that is needed to go on, `curve.png` the learning
    curve, `result.json` the score on the test examples. Every file but `metrics.jsonl` is written
    beside its place and then moved to it, so that a run killed at any moment leaves whole files;
    `metrics.jsonl` is written anew from `last.pt` when a run goes on.

    Args:
        path: where it is, or will be.
        configuration: what is run, in values that JSON knows. A run goes on only with its own.
        resume: True goes on with the run that the folder holds, if it holds one; False refuses
            a folder that holds anything.

    Raises:
        FileExistsError: the folder holds a run (or other files) and `resume` is False.
        ValueError: the folder holds a run of another configuration, or one that cannot be read.
    """

    def __init__(
        self, path: str | os.PathLike[str], configuration: dict[str, Any], *, resume: bool = False
    ) -> None:
        self.path = Path(path)
        self.configuration = json.loads(json.dumps(configuration))
        held = self.path.iterdir() if self.path.exists() else ()
        if any(file.suffix != PART for file in held):
            self._join(resume)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write(CONFIGURATION, (json.dumps(self.configuration, indent=2) + "\n").encode())

    def _join(self, resume: bool) -> None:
        if not (self.path / CONFIGURATION).is_file():
            raise FileExistsError(
                f"`{self.path}` holds files but no run (no {CONFIGURATION}): expected a folder "
                "that is empty or does not exist. Give another one with `--out FOLDER`."
            )
        if not resume:
            raise FileExistsError(
                f"`{self.path}` holds a run already: expected a folder that is empty or does not "
                "exist. Go on with that run by `--resume`, or give another folder with "
                "`--out FOLDER`."
            )
        try:
            held = json.loads((self.path / CONFIGURATION).read_text())
        except ValueError:
            held = None
        if not isinstance(held, dict):
            raise ValueError(
                f"`{self.path / CONFIGURATION}` is no configuration of a run: expected a JSON "
                "object, which the run wrote. Train again, in another folder, with `--out FOLDER`."
            )
        differences = [
            f"`{key}` is {held.get(key)!r} there and {self.configuration.get(key)!r} here"
            for key in sorted(held.keys() | self.configuration.keys())
            if held.get(key) != self.configuration.get(key)
        ]
        if differences:
            raise ValueError(
                f"`{self.path}` holds a run of another configuration: {'; '.join(differences)}. "
                "Expected the same, to go on with it. Ask for what it was started with, or give "
                "another folder with `--out FOLDER`."
            )

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        write(self.path / name, content)

    def save(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Write a checkpoint of tensors, numbers, strings, lists and dictionaries."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        self.write(name, content.getvalue())

    def load(self, name: str, take: Callable[[dict[str, Any]], object]) -> None:
        """Read a checkpoint, without unpickling.

        Args:
            name: of its file.
            take: is given what it holds.

        Raises:
            ValueError: the file is missing, damaged, or of something else.
        """
        path = self.path / name
        try:
            take(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # what is damaged makes its reader fail in any way
            raise ValueError(
                f"`{path}` is no checkpoint of this run ({type(error).__name__}): expected what "
                "the run wrote. Train again, in another folder, with `--out FOLDER`."
            ) from error

    def log(self, metrics: dict[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    def relog(self, history: list[dict[str, Any]]) -> None:
        """Write `metrics.jsonl` anew: a line that was cut off, or of a lost epoch, goes."""
        self.write(METRICS, "".join(json.dumps(metrics) + "\n" for metrics in history).encode())
