"""`lmu stream`: a trained network in a pipe, with samples in and outputs out."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from torch import Tensor

from linrec import Stream
from lmu.commands.options import Name, Threads, report_errors
from lmu.commands.samples import FORMATS, BadSample, Format, Read
from lmu.experiments import Experiment, NeedsData, restore_alone
from lmu.experiments.models import SampleNetwork
from lmu.files import explain_os_errors


class Stopped(Exception):
    """A request by a signal to stop, while nothing was being computed."""


class Signals:
    """Signals that stop the program between samples, not within one."""

    def __init__(self) -> None:
        self.caught, self.waits = 0, False

    def take(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal, and end a wait for samples."""
        self.caught = number
        if self.waits:
            raise Stopped

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT within the `with`, and restore their handlers afterwards."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [(number, signal.signal(number, self.take)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def between(self, read: Read) -> Read:
        """Make a reader that ends when a signal comes, before or while it waits."""

        def interrupted(count: int) -> bytes:
            try:
                self.waits = True
                return b"" if self.caught else read(count)
            except Stopped:
                return b""
            finally:
                self.waits = False

        return interrupted


def stream(
    experiment: Name,
    checkpoint: Annotated[Path, typer.Option(help="The best.safetensors of a run folder.")],
    format: Annotated[
        Format, typer.Option(help="Samples as lines of numbers with commas, or raw float32.")
    ] = Format.CSV,
    block: Annotated[
        int, typer.Option(min=1, help="Samples read at once, where so many are waiting.")
    ] = 1,
    state: Annotated[
        Path | None,
        typer.Option(help="A file of states to go on from, if it is there; written at the end."),
    ] = None,
    threads: Threads = None,
) -> None:
    """Read samples from standard input, and write a line of outputs for each.

    A line of output comes as soon as its sample is there. The end of the input, SIGTERM and a
    closed output end it with status 0, SIGINT with 130, and a bad sample with 1.
    """
    signals = Signals()
    wrong: Exception | None = None
    with report_errors():
        network = sample_network(experiment, checkpoint)
        fed, samples = Stream(network), FORMATS[format](network.input_size)
        if state is not None:  # report a file that cannot be written before there is work to lose
            check_installed()
            fed.load(state) if state.exists() else fed.save(state)
        with signals.taken():
            read = signals.between(sys.stdin.buffer.read1)  # type: ignore[attr-defined]  # it has
            try:
                for rows in samples.waiting(read, block):
                    if signals.caught:
                        break
                    print_rows(fed.push(rows) if len(rows) > 1 else fed.push(rows[0])[None])
            except BrokenPipeError:  # the reader has closed the pipe
                silence_output()
            except OSError as error:  # a full disk, as a rule
                silence_output()
                wrong = error
            except BadSample as error:  # or a sample that a signal cut off
                wrong = None if signals.caught else error
            if state is not None:
                fed.save(state)
        if wrong is not None:
            raise wrong
    if signals.caught == signal.SIGINT:
        raise typer.Exit(128 + signal.SIGINT)


def sample_network(experiment: Experiment, checkpoint: Path) -> SampleNetwork:
    """Restore a network that reads samples."""
    try:
        network = restore_alone(experiment, checkpoint)
    except NeedsData:
        network = None
    if isinstance(network, SampleNetwork):
        return network
    raise ValueError(
        f"`{experiment.name}` trains a network of words: expected one that reads samples. Type "
        "`mackey-glass`, `psmnist` or `capacity`; `lmu write` and `lmu translate` are for words."
    )


def check_installed() -> None:
    """Check that safetensors is installed."""
    if find_spec("safetensors") is None:
        raise ValueError("`--state` needs safetensors. Type `pip install 'linrec[safetensors]'`.")


def silence_output() -> None:
    """Discard unwritten output, so that Python does not fail on it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_rows(outputs: Tensor) -> None:
    """Print each row as a line, with all digits of float32, and flush at once."""
    lines = [",".join(f"{value:.9g}" for value in row) for row in outputs.tolist()]
    with explain_os_errors("standard output", "written"):
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
