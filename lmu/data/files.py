"""Finding a data set's files: in a folder of yours or downloaded, and checked in both cases."""

import gzip
import os
import sys
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True)
class DataFile:
    """One file of a data set, as its publisher distributes it.

    Args:
        path: where it lies below a data folder. What ends in `.gz` is uncompressed when it is
            read, and may lie there uncompressed (without the `.gz`) too.
        sha256: checksum of the uncompressed content, in hexadecimal. That of a `.gz` would not do:
            its header holds a time and a name, and mirrors differ in them. None: a part of the
            file will do as well, and who reads it says what is missing.
        urls: where to download it, in the order to try.
        source: what to say of a file that cannot be downloaded by itself: where it can be had.
    """

    path: str
    sha256: str | None = None
    urls: tuple[str, ...] = ()
    source: str = ""


def read(file: DataFile, folder: str | os.PathLike[str] | None = None) -> bytes:
    """Return a file's content, uncompressed and checked.

    It is looked for in the data folder first, without any network; what the folder lacks is
    downloaded once, into the user's cache folder.

    Args:
        file: which one.
        folder: the data folder; None takes the environment variable `LMU_DATA`, if it is set.

    Returns:
        The uncompressed content.

    Raises:
        FileNotFoundError: the data folder does not exist, or the file is in none and cannot be
            downloaded.
        ValueError: the file is truncated or its content is not the published one.
    """
    place = data_folder(folder)
    if place is None:
        return _downloaded(file, "no data folder was given")
    for path in (place / file.path, place / file.path.removesuffix(".gz")):
        if path.is_file():
            return _checked(file, path, "Replace it, or delete it to have it downloaded.")
    return _downloaded(file, f"`{place / file.path}` does not exist")


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the data folder: the one given, else that of the environment variable `LMU_DATA`.

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


def _checked(file: DataFile, path: Path, remedy: str) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"`{path}` cannot be uncompressed ({error}): expected a whole gzip file"
                + (f" of content with SHA-256 {file.sha256}. " if file.sha256 else ". ")
                + remedy
            ) from None
    got = sha256(content).hexdigest()
    if file.sha256 not in (None, got):
        raise ValueError(
            f"The content of `{path}` has SHA-256 {got}: expected {file.sha256}. {remedy}"
        )
    return content


def _downloaded(file: DataFile, why: str) -> bytes:
    # pooch is needed for nothing else: who has the files need not have it.
    import pooch

    cache = Path(os.fspath(pooch.os_cache("linrec")), file.path)
    pooch.get_logger().setLevel("WARNING")  # it advises to write down the .gz's checksum
    failures = []
    for url in file.urls:
        try:
            pooch.retrieve(
                url,
                known_hash=None,  # of the .gz; the content is checked below
                fname=cache.name,
                path=cache.parent,
                progressbar=sys.stderr.isatty(),
            )
            return _checked(file, cache, "The next address is tried.")
        except (OSError, ValueError) as error:
            cache.unlink(missing_ok=True)
            failures.append(f"\n  {url}: {error}")
    raise FileNotFoundError(
        f"`{file.path}` is not here ({why}) and was not downloaded:"
        + ("".join(failures) or f" {file.source or 'No address is known for it.'}")
        + "\nPass a folder that holds it with `--data-dir FOLDER` (or the environment variable "
        "LMU_DATA), or run this once with a network connection."
    )
