"""text8: running text of 27 letters, to be continued letter by letter."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmu.experiments.data.files import DataFile, find
from lmu.experiments.data.splits import Dataset, Split
from lmu.files import DamagedFile, zip_member

LETTERS = " abcdefghijklmnopqrstuvwxyz"  # numbered by position
LENGTH = 100_000_000  # letters of the published text
LARGEST = 2 * LENGTH  # letters of a text in its place, at most
PUBLISHED = DataFile(
    "text8/text8.zip", urls=("http://mattmahoney.net/dc/text8.zip",), largest=LARGEST
)
WINDOW = 180  # letters
BEGINNING = " anarchism originated as a term of abuse"  # of the published text


def encode_letters(text: str) -> Tensor:
    """Encode a text of the 27 letters as numbers `(len(text))`, uint8.

    Raises:
        ValueError: the text has another letter.
    """
    content = text.encode("utf-8", "surrogatepass")
    numbers = _NUMBERS[np.frombuffer(content, np.uint8)]
    if (numbers > len(LETTERS)).any():
        # All letters before the first such byte have one byte each.
        odd = text[int((numbers > len(LETTERS)).argmax())]
        raise ValueError(
            f"The text has the letter {odd!r}: expected small letters a … z and spaces alone, as "
            "the rules of text8 make them."
        )
    return torch.from_numpy(numbers)


def decode_letters(numbers: Tensor) -> str:
    """Decode `numbers (time)` as a text."""
    return "".join(LETTERS[number] for number in numbers.tolist())


def text8(
    folder: str | os.PathLike[str] | None = None,
    *,
    most: tuple[int | None, int | None] = (None, None),
) -> Dataset:
    """Return the task: at each letter of a window of 180, predict the next one.

    Nine tenths of the text are for training, a twentieth for validation and the last twentieth for
    test: 90, 5 and 5 million letters of the published text.

    Args:
        folder: the data folder, which holds `text8/text8.zip`; None takes `LMU_DATA` or downloads.
        most: how many windows for validation and for test, at most, the first ones; None: all.

    Returns:
        The task: inputs and targets `(windows, 180)`, numbers of letters, uint8. Letters after the
        last whole window of a part are left out.

    Raises:
        FileNotFoundError: the file is missing and cannot be downloaded.
        ValueError: the file is not an archive of a text of these letters.

    References:
        Mahoney 2011, About the Test Data. Mikolov et al. 2012 for the parts.
    """
    numbers = _text(find(PUBLISHED, folder))
    tenth = len(numbers) // 20
    parts = numbers.split([len(numbers) - 2 * tenth, tenth, tenth])
    train, validation, test = (
        _windows(part, count) for part, count in zip(parts, (None, *most), strict=True)
    )
    reduced = ""
    if len(numbers) != LENGTH or decode_letters(numbers[: len(BEGINNING)]) != BEGINNING:
        reduced = (
            f"{len(numbers):,} letters of another text stand for the {LENGTH:,} of Wikipedia: bits "
            "per character do not compare with published ones."
        )
    return Dataset(train, validation, test, reduced=reduced)


def _text(path: Path) -> Tensor:
    """Read the numbers of all letters in pieces: the whole text is never in memory."""
    pieces, count = [], 0
    with zip_member(path, "text8", LARGEST) as stream:
        while content := stream.read(2**20):
            try:
                pieces.append(encode_letters(content.decode("latin-1")))
            except ValueError as error:
                raise DamagedFile(
                    f"`{path}`, after letter {count:,}: {error} Replace it."
                ) from None
            count += len(content)
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.uint8)


def _windows(part: Tensor, most: int | None) -> Split:
    # Views of one tensor, not copies: a letter takes one byte.
    whole = (len(part) - 1) // WINDOW
    if whole < 1:
        raise ValueError(
            f"A part of the text has {len(part)} letters: expected more than {WINDOW}. Replace "
            f"`{PUBLISHED.path}` by a longer text."
        )
    kept = min(whole, most or whole) * WINDOW
    return Split(part[:kept].view(-1, WINDOW), part[1 : kept + 1].view(-1, WINDOW))


_NUMBERS = np.full(256, 255, np.uint8)
_NUMBERS[np.frombuffer(LETTERS.encode(), np.uint8)] = np.arange(len(LETTERS))
