"""Finding a data set's files, in a folder of yours or by download, and checking them."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lmu.files import iterate_lines, unpack

GIBIBYTE = 2**30
REMEDY = "Replace it, or delete it to have it downloaded."


@dataclass(frozen=True)
class DataFile:
    """One file of a data set, as its publisher distributes it.

    Args:
        path: its path below a data folder. A `.gz` file is uncompressed when it is read; the data
            folder may also hold it uncompressed (without the `.gz`).
        sha256: checksum of the uncompressed content, in hexadecimal. A checksum of the `.gz` would
            not do: its header holds a time and a name, which differ between mirrors. None: a part
            of the file will do as well, and its reader reports what is missing.
        urls: where to download it, in the order to try.
        source: for a file that cannot be downloaded automatically, where to get it.
        largest: bytes of the uncompressed content, at most. A larger file is refused before it is
            read, and one that unpacks to more as soon as it does.
    """

    path: str
    sha256: str | None = None
    urls: tuple[str, ...] = ()
    source: str = ""
    largest: int = GIBIBYTE


def find(file: DataFile, folder: str | os.PathLike[str] | None = None) -> Path:
    """Find a file in the data folder, without any network, or download it into the user's cache.

    Args:
        file: the file.
        folder: the data folder; None takes the environment variable `LMU_DATA`, if it is set.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: the data folder does not exist, or the file is missing and cannot be
            downloaded.
    """
    place = data_folder(folder)
    if place is None:
        return _download(file, "no data folder was given")
    for path in (place / file.path, place / file.path.removesuffix(".gz")):
        if path.is_file():
            return path
    return _download(file, f"`{place / file.path}` does not exist")


def open_file(
    file: DataFile, folder: str | os.PathLike[str] | None = None
) -> AbstractContextManager[BinaryIO]:
    """Open a file for reading, uncompressed. Its checksum is compared at its end.

    Args:
        file: the file.
        folder: the data folder; None takes the environment variable `LMU_DATA`, if it is set.

    Returns:
        The stream, to be used in a `with`; its `name` is the path.

    Raises:
        FileNotFoundError: as `find` does.
        ValueError: here or while reading: the file is damaged, too large, or not the published one.
        OSError: it cannot be read.
    """
    return unpack(find(file, folder), file.largest, checksum=file.sha256, mend=REMEDY)


def read(file: DataFile, folder: str | os.PathLike[str] | None = None) -> bytes:
    """Return a file's content, uncompressed and checked.

    The data folder is searched first, without any network; a missing file is downloaded once, into
    the user's cache folder.

    Args:
        file: the file.
        folder: the data folder; None takes the environment variable `LMU_DATA`, if it is set.

    Returns:
        The uncompressed content.

    Raises:
        FileNotFoundError: the data folder does not exist, or the file is missing and cannot be
            downloaded.
        ValueError: the file is truncated, too large, or its content is not the published one.
        OSError: it cannot be read.
    """
    with open_file(file, folder) as stream:
        return stream.read()


def read_lines(file: DataFile, folder: str | os.PathLike[str] | None = None) -> Iterator[str]:
    """Read a text file in UTF-8 line by line.

    Raises:
        FileNotFoundError: as `find` does.
        ValueError: as `open_file` does, or the text has another encoding.
    """
    with open_file(file, folder) as stream:
        yield from iterate_lines(stream, stream.name)


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the data folder: the given one, or else the one named by `LMU_DATA`.

    Raises:
        FileNotFoundError: it does not exist.
    """
    folder = folder or os.environ.get("LMU_DATA")
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"The data folder `{folder}` does not exist: expected a folder of data sets, as "
            "docs/lmu.md lays it out. Correct `--data-dir` (or the environment variable "
            "LMU_DATA), or leave it out to download."
        )
    return Path(folder)


def _download(file: DataFile, why: str) -> Path:
    # pooch is needed for nothing else: users who have the files need not install it.
    import pooch

    cache = Path(os.fspath(pooch.os_cache("linrec")), file.path)
    pooch.get_logger().setLevel("WARNING")  # it advises to record the checksum of the .gz
    failures = []
    for url in file.urls:
        try:
            pooch.retrieve(
                url,
                known_hash=None,  # would be of the .gz; the content is checked below
                fname=cache.name,
                path=cache.parent,
                progressbar=sys.stderr.isatty(),
            )
            mend = "The next address is tried."
            with unpack(cache, file.largest, checksum=file.sha256, mend=mend) as stream:
                while stream.read(2**20):
                    pass  # the check is at the end
            return cache
        except (OSError, ValueError) as error:
            cache.unlink(missing_ok=True)
            failures.append(f"\n  {url}: {error}")
    raise FileNotFoundError(
        f"`{file.path}` is not here ({why}) and was not downloaded:"
        + ("".join(failures) or f" {file.source or 'No address is known for it.'}")
        + "\nPass a folder that holds it with `--data-dir FOLDER` (or the environment variable "
        "LMU_DATA), or run this once with a network connection."
    )
