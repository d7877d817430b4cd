"""The folder of a run: its configuration, metrics, results and checkpoints."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmu.files import (
    PART,
    DamagedFile,
    append,
    explain_os_errors,
    explain_parser_errors,
    read_checkpoint,
    read_json,
    write_torch_checkpoint,
    written_checkpoint,
)
from lmu.files import write as write
from lmu.files.locks import LOCK, FolderLock

CONFIGURATION = "config.json"
METRICS = "metrics.jsonl"
BEST = "best.safetensors"
LAST = "last.safetensors"
CURVE = "curve.png"
RESULT = "result.json"
RESTART = "Train again, in another folder, with `--output FOLDER`."


class RunFolder:
    """The files of one run.

    - `config.json` describes the run;
    - `metrics.jsonl` has a line per epoch;
    - `best.safetensors` has the weights of the best validation epoch;
    - `last.safetensors` has all that is needed to continue;
    - `curve.png` shows the learning curve;
    - `result.json` has the score on the test examples.

    Every file but `metrics.jsonl` is written next to its place and then moved to it, so that a run
    killed at any moment leaves whole files; `metrics.jsonl` is rewritten from the last state when a
    run continues.

    The folder is locked for other processes until this object is forgotten or its process ends.

    Args:
        path: the folder, which need not exist yet.
        configuration: the run's settings, as JSON values. A run continues only with its own.
        resume: True continues the run that the folder holds, if it holds one; False refuses a
            folder that holds anything.

    Raises:
        FileExistsError: the folder holds a run (or other files) and `resume` is False.
        BlockingIOError: another process trains there.
        OSError: the folder cannot be written.
        ValueError: the folder holds a run of another configuration, or one that cannot be read.
    """

    def __init__(
        self, path: str | os.PathLike[str], configuration: dict[str, Any], *, resume: bool = False
    ) -> None:
        self.path = Path(path)
        self.configuration = json.loads(json.dumps(configuration))
        if self._holds_files():
            self._refuse_others(resume)
        with explain_os_errors(self.path, "written"):
            self.path.mkdir(parents=True, exist_ok=True)
        self.lock = FolderLock(self.path)
        for part in self.path.glob(f"*{PART}"):  # left by processes that were killed
            part.unlink(missing_ok=True)
        if self._holds_files():  # checked again: now nobody else writes
            self._refuse_others(resume)
            self._compare()
        else:
            self.write(CONFIGURATION, (json.dumps(self.configuration, indent=2) + "\n").encode())

    def _holds_files(self) -> bool:
        with explain_os_errors(self.path, "read"):
            held = list(self.path.iterdir()) if self.path.exists() else []
        return any(file.suffix != PART and file.name != LOCK for file in held)

    def _refuse_others(self, resume: bool) -> None:
        if not (self.path / CONFIGURATION).is_file():
            raise FileExistsError(
                f"`{self.path}` holds files but no run (no {CONFIGURATION}): expected a folder "
                "that is empty or does not exist. Give another one with `--output FOLDER`."
            )
        if not resume:
            raise FileExistsError(
                f"`{self.path}` holds a run already: expected a folder that is empty or does not "
                "exist. Go on with that run by `--resume`, or give another folder with "
                "`--output FOLDER`."
            )

    def _compare(self) -> None:
        held = read_json(
            self.path / CONFIGURATION, "configuration of a run, a JSON object", RESTART
        )
        differences = [
            f"`{key}` is {repr(held.get(key))[:60]} there and {self.configuration.get(key)!r} here"
            for key in sorted(held.keys() | self.configuration.keys())
            if held.get(key) != self.configuration.get(key)
        ]
        if differences:
            raise ValueError(
                f"`{self.path}` holds a run of another configuration, as `{CONFIGURATION}` there "
                f"says: {'; '.join(differences)}. "
                "Expected the same, to go on with it. Ask for what it was started with, or give "
                "another folder with `--output FOLDER`."
            )

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        write(self.path / name, content)

    def save(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Write a checkpoint of tensors, numbers, strings, lists and dictionaries.

        The name decides the format: torch's for `.pt`, else safetensors.
        """
        write_form = write_torch_checkpoint if name.endswith(".pt") else written_checkpoint
        self.write(name, write_form(checkpoint))

    def load(self, name: str, take: Callable[[dict[str, Any]], object]) -> None:
        """Read a checkpoint; nothing in it is executed.

        Args:
            name: the name of its file.
            take: a function that is called with the content.

        Raises:
            ValueError: the file is missing, damaged, or no checkpoint.
        """
        path = self.path / name
        if not path.exists():
            raise DamagedFile(f"`{path}` is missing: expected what this run wrote. {RESTART}")
        with explain_parser_errors(path, "a checkpoint that this run wrote", RESTART):
            take(read_checkpoint(path))

    def log(self, metrics: dict[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        append(self.path / METRICS, json.dumps(metrics))

    def relog(self, history: list[dict[str, Any]]) -> None:
        """Rewrite `metrics.jsonl`, without lines that were cut off or belong to lost epochs."""
        self.write(METRICS, "".join(json.dumps(metrics) + "\n" for metrics in history).encode())
