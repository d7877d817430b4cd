"""MNIST as a task for memories: its pixels read one at a time, in a shuffled order (psMNIST)."""

import math
import os
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lmu.experiments.data.files import DataFile, read
from lmu.experiments.data.splits import Dataset, Split
from lmu.files import DamagedFile

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


MOST_AXES = 8


def _published(name: str, sha256: str) -> DataFile:
    urls = tuple(mirror + name for mirror in MIRRORS)
    return DataFile(f"mnist/{name}", sha256, urls, largest=2**26)  # the largest has 47,040,016


class MnistFiles(NamedTuple):
    """The four files of the database, in its idx format."""

    train_images: DataFile
    train_labels: DataFile
    test_images: DataFile
    test_labels: DataFile


PUBLISHED = MnistFiles(
    _published(
        "train-images-idx3-ubyte.gz",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    _published(
        "train-labels-idx1-ubyte.gz",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    _published(
        "t10k-images-idx3-ubyte.gz",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    _published(
        "t10k-labels-idx1-ubyte.gz",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


def parse_idx(content: bytes) -> NDArray[np.uint8]:
    """Read an array of bytes from the idx format.

    The format: two zero bytes, the type of the numbers (8: unsigned bytes), the number of axes;
    each axis's length as a big-endian 32-bit number; then the numbers, last axis fastest.

    Args:
        content: an uncompressed idx file.

    Returns:
        The array; it shares the content's memory and cannot be written to.

    Raises:
        ValueError: the content is not an idx file of unsigned bytes, or not a whole one.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(
            f"The content starts with the bytes {content[:4].hex(' ')}: expected 00 00 08 and the "
            "number of axes (an idx file of unsigned bytes). Uncompress a .gz file first."
        )
    start = 4 + 4 * content[3]
    if content[3] > MOST_AXES or len(content) < start:
        raise ValueError(
            f"The content has {len(content)} bytes and says it has {content[3]} axes: expected "
            f"at most {MOST_AXES}, each with its length. The file is damaged: download it again."
        )
    shape = tuple(int(length) for length in np.frombuffer(content[4:start], ">u4"))
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"The content has {len(content)} bytes: expected {start + math.prod(shape)} for an "
            f"array of shape {shape}. The file is truncated or damaged: download it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def permuted_mnist(
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    *,
    files: MnistFiles = PUBLISHED,
    validation: int = 10_000,
) -> Dataset:
    """Return psMNIST: recognise the digit from its pixels, one at a time, in an order drawn once.

    Args:
        seed: seed of the order, a permutation of the 784 pixels that all images share.
        folder: the data folder, which holds `mnist/`; None takes `LMU_DATA` or downloads.
        files: the files to read, with their checksums.
        validation: how many training images, the last ones, are set aside to choose by.

    Returns:
        The task: inputs `(images, 784, 1)` in [-1, 1] and targets `(images,)`, the digits 0 … 9;
        50,000 images to train on, 10,000 to choose by and 10,000 to report.

    Raises:
        FileNotFoundError: the files are missing and cannot be downloaded.
        ValueError: a file is damaged.

    References:
        LeCun, Cortes and Burges 1998; as a permuted sequence, Le, Jaitly and Hinton 2015.
    """
    images, labels = _images(files.train_images, files.train_labels, folder)
    test_images, test_labels = _images(files.test_images, files.test_labels, folder)
    if images.shape[1:] != test_images.shape[1:]:
        raise DamagedFile(
            f"The images of `{files.train_images.path}` have the shape {images.shape[1:]}, and "
            f"those of `{files.test_images.path}` {test_images.shape[1:]}: expected the same. "
            "Replace both."
        )
    pixels = math.prod(images.shape[1:])
    order = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
    whole = _split(images, labels, order)
    kept = len(whole.targets) - validation
    return Dataset(
        train=Split(whole.inputs[:kept], whole.targets[:kept]),
        validation=Split(whole.inputs[kept:], whole.targets[kept:]),
        test=_split(test_images, test_labels, order),
    )


def _images(
    images: DataFile, labels: DataFile, folder: str | os.PathLike[str] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the images and their labels, and check that there are as many of each."""
    found = []
    for file in (images, labels):
        try:
            found.append(parse_idx(read(file, folder)))
        except DamagedFile:
            raise
        except ValueError as error:
            raise DamagedFile(f"`{file.path}`: {error}") from None
    shapes = found[0].shape, found[1].shape
    if len(shapes[0]) != 3 or 0 in shapes[0] or shapes[1] != shapes[0][:1]:
        raise DamagedFile(
            f"`{images.path}` has the shape {shapes[0]} and `{labels.path}` {shapes[1]}: expected "
            "(images, rows, columns), none of them 0, and a label for each image. Replace both."
        )
    return found[0], found[1]


def _split(images: NDArray[np.uint8], labels: NDArray[np.uint8], order: torch.Tensor) -> Split:
    pixels = torch.from_numpy(images.reshape(len(images), -1).copy())[:, order]
    return Split(
        (pixels.float() / 127.5 - 1.0).unsqueeze(-1), torch.from_numpy(labels.astype(np.int64))
    )
