"""Programs in processes of their own, forked from one that has imported torch.

A fresh process spends three seconds on importing torch. These begin where that is done, and have
imported nothing else of what a program may ask for.
"""

import io
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from subprocess import CompletedProcess, TimeoutExpired
from threading import Thread
from typing import Self

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["torch"])


def _begin(
    program: str,
    arguments: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    encoding: str,
    *ends: Connection,
) -> None:
    """Take the pipes for what is read, written and told, and run the program."""
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding=encoding, errors=errors, closefd=False)
        for number, mode, errors in ((0, "r", None), (1, "w", None), (2, "w", "backslashreplace"))
    )
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, "")
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})


class Forked:
    """A running process, and the other ends of its pipes.

    Args:
        program: what it runs.
        arguments: what the program finds in `sys.argv`.
        environment: its environment variables; None for those of the test.
        encoding: of what it writes.
    """

    def __init__(
        self,
        program: str,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        encoding: str = "utf-8",
    ) -> None:
        pipes = [FORKS.Pipe(duplex=False) for _ in range(3)]
        (reads, given), (output, writes), (errors, tells) = pipes
        words = [str(each) for each in arguments]
        settings = (os.getcwd(), dict(os.environ if environment is None else environment))
        ends = (reads, writes, tells)
        self.process = FORKS.Process(
            target=_begin, args=(program, words, *settings, encoding, *ends), daemon=True
        )
        self.process.start()
        for end in ends:
            end.close()
        self.stdin, self.stdout, self.stderr = (
            io.FileIO(os.dup(end.fileno()), mode)
            for end, mode in ((given, "w"), (output, "r"), (errors, "r"))
        )
        for end in (given, output, errors):
            end.close()

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = 300) -> int:
        """Wait for its end, and return its status: minus the signal that ended it."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutExpired("a program", timeout)
        return self.process.exitcode

    def communicate(self, given: str = "", timeout: float = 300) -> tuple[str, str]:
        """Write all that it reads, and return all that it writes and tells."""
        said = [b"", b""]

        def read(number: int, end: io.FileIO) -> None:
            said[number] = end.readall()

        readers = [Thread(target=read, args=each) for each in enumerate([self.stdout, self.stderr])]
        for reader in readers:
            reader.start()
        self.stdin.write(given.encode())
        self.stdin.close()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return said[0].decode(), said[1].decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.exitcode is None:
            self.process.kill()
        self.process.join()
        for end in (self.stdin, self.stdout, self.stderr):
            end.close()


def run(
    program: str,
    *arguments: object,
    given: str = "",
    environment: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> "CompletedProcess[str]":
    """Run a program to its end, as `subprocess.run` does."""
    with Forked(program, *arguments, environment=environment, encoding=encoding) as forked:
        output, errors = forked.communicate(given)
        return CompletedProcess([program], forked.wait(), output, errors)
