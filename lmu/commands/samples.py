"""Samples from a pipe: lines of numbers, or raw float32; errors name the line of a bad one.

Numbers have to be finite: a memory never forgets a NaN.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

Read = Callable[[int], bytes]  # waits for at least one byte, and returns no bytes at the end

CHUNK = 1 << 16  # bytes to read at once
LONGEST = 1 << 20  # bytes of a line, at most
LARGEST = torch.finfo(torch.float32).max
SHOWN = 40  # characters of a bad sample that a message repeats


class Format(StrEnum):
    """The format of samples."""

    CSV = "csv"
    F32 = "f32"


class BadSample(ValueError):
    """A sample that cannot be read; the message names it and the expected form."""


class Samples(ABC):
    """A reader that cuts bytes into samples, in the order of their arrival.

    Args:
        size: how many numbers a sample has.
    """

    def __init__(self, size: int) -> None:
        self.size, self.rest, self.count = size, b"", 0

    def waiting(self, read: Read, most: int) -> Iterator[Tensor]:
        """Yield samples as soon as they arrive: blocks `(time, size)` of up to `most`.

        Args:
            read: reads bytes.
            most: how many samples to yield at once, at most.

        Raises:
            BadSample: a sample cannot be read; those before it have been yielded.
        """
        while data := read(CHUNK):
            yield from self.blocks(self.rest + data, most)
            if len(self.rest) > LONGEST:
                raise BadSample(f"{self.place()} has more than {LONGEST} bytes: {self.expected()}.")
        if self.rest:
            yield self.last(self.rest)

    @abstractmethod
    def blocks(self, data: bytes, most: int) -> Iterator[Tensor]:
        """Cut whole samples into blocks, and keep the rest."""

    @abstractmethod
    def last(self, rest: bytes) -> Tensor:
        """Make a block of the remaining bytes."""

    @abstractmethod
    def place(self) -> str:
        """Name the next sample."""

    def expected(self) -> str:
        """Describe a sample."""
        return f"expected {self.size} number{'s' * (self.size > 1)}"


class Lines(Samples):
    """A reader of lines of numbers with commas between them."""

    def blocks(self, data: bytes, most: int) -> Iterator[Tensor]:
        """Cut whole samples into blocks, and keep the rest."""
        *lines, self.rest = data.split(b"\n")
        rows: list[list[float]] = []
        for line in lines:
            try:
                rows.append(self.row(line))
            except BadSample:
                if rows:
                    yield torch.tensor(rows)
                raise
            if len(rows) == most:
                yield torch.tensor(rows)
                rows = []
        if rows:
            yield torch.tensor(rows)

    def last(self, rest: bytes) -> Tensor:
        """Read a last line without a line end."""
        return torch.tensor([self.row(rest)])

    def row(self, line: bytes) -> list[float]:
        """Read the numbers of a line."""
        fields = line.split(b",") if line.strip() else []
        if len(fields) != self.size or len(line) > LONGEST:
            found = f"{len(fields)} fields" if fields else "nothing"
            raise BadSample(f"{self.place()} has {found} ({quote(line)}): {self.expected()}.")
        row = [self.number(field) for field in fields]
        self.count += 1
        return row

    def number(self, field: bytes) -> float:
        """Read a finite number."""
        try:
            value = float(field) if b"_" not in field else math.nan
        except ValueError:
            value = math.nan
        if not abs(value) <= LARGEST:
            raise BadSample(
                f"{self.place()} has {quote(field)}: {self.expected()}, finite in float32."
                + (" (A line of names is left out by `tail -n +2`.)" if not self.count else "")
            )
        return value

    def place(self) -> str:
        """Name the next line."""
        return f"line {self.count + 1}"


class Floats(Samples):
    """A reader of raw float32, the lowest byte first."""

    def blocks(self, data: bytes, most: int) -> Iterator[Tensor]:
        """Cut whole samples into blocks, and keep the rest."""
        each = 4 * self.size
        whole = len(data) - len(data) % each
        numbers = np.frombuffer(data[:whole], "<f4").astype(np.float32)
        self.rest = data[whole:]
        rows = torch.from_numpy(numbers.reshape(-1, self.size))
        finite = rows.isfinite().all(-1)
        stop = len(rows) if bool(finite.all()) else int(finite.int().argmin())
        for block in rows[:stop].split(most) if stop else ():
            self.count += len(block)
            yield block
        if stop < len(rows):
            raise BadSample(f"{self.place()} is {rows[stop].tolist()}: {self.expected()}, finite.")

    def last(self, rest: bytes) -> Tensor:
        """Refuse a sample that was cut off."""
        raise BadSample(
            f"{self.place()} ends after {len(rest)} bytes: {self.expected()} of 4 bytes each."
        )

    def place(self) -> str:
        """Say which sample comes next."""
        return f"sample {self.count + 1}"


FORMATS: dict[Format, type[Samples]] = {Format.CSV: Lines, Format.F32: Floats}


def quote(found: bytes) -> str:
    """Quote the beginning of a bad sample."""
    text = found.decode("utf-8", "replace")
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
