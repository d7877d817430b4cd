"""Text and JSON with a known encoding, a bounded size, and strict adherence to the standards."""

import codecs
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lmu.files.refusals import AnyPath, DamagedFile, explain_os_errors, refuse_devices

MEBIBYTE = 2**20
LONGEST_LINE = 2**20  # bytes

# Longer marks first: the mark of UTF-32 begins with the mark of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_bytes(path: AnyPath, largest: int = MEBIBYTE) -> bytes:
    """Read a file of limited size.

    Args:
        path: the file.
        largest: bytes, at most.

    Raises:
        DamagedFile: the file is larger.
        FileNotFoundError: it does not exist, or is a pipe or a device.
        OSError: it cannot be read.
    """
    refuse_devices(path)
    with explain_os_errors(path, "read"), Path(path).open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise DamagedFile(
            f"`{path}` has more than {largest:,} bytes: expected fewer of such a file. Replace it."
        )
    return content


def decode(content: bytes, name: AnyPath, line: int | None = None) -> str:
    """Decode bytes as UTF-8, without a byte order mark at the beginning.

    Args:
        content: the bytes.
        name: the name of their file.
        line: the number of their line in it; None: they are the whole file.

    Raises:
        DamagedFile: they are text in another encoding, or not text.
    """
    if line in (None, 1):
        for mark, encoding in MARKS:
            if content.startswith(mark):
                raise DamagedFile(_other_encoding(name, f"starts with the mark of {encoding}"))
        content = content.removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        number = line or content[: content.index(b"\0")].count(b"\n") + 1
        raise DamagedFile(_other_encoding(name, f"has a zero byte in line {number}, as UTF-16 has"))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = line or content[: error.start].count(b"\n") + 1
        what = f"has the byte 0x{content[error.start]:02x} in line {number}, where no letter has it"
        raise DamagedFile(_other_encoding(name, what)) from None


def _other_encoding(name: AnyPath, what: str) -> str:
    return (
        f"`{name}` {what}: expected text in UTF-8. Replace the file if it is damaged; if it is of "
        "another encoding, say Latin-1, type `iconv -f LATIN1 -t UTF-8 FILE > NEW`."
    )


def iterate_lines(stream: BinaryIO, name: AnyPath, longest: int = LONGEST_LINE) -> Iterator[str]:
    r"""Read a text in UTF-8 line by line, without the \n or \r\n at the ends.

    Args:
        stream: the bytes.
        name: the name of their file.
        longest: bytes of a line, at most.

    Raises:
        DamagedFile: the text has another encoding, or a longer line.
    """
    number = 0
    while content := stream.readline(longest + 1):
        number += 1
        if len(content) > longest:
            raise DamagedFile(
                f"Line {number} of `{name}` has more than {longest:,} bytes: expected lines of "
                "text. Replace the file."
            )
        yield decode(content, name, number).removesuffix("\n").removesuffix("\r")


def read_text(path: AnyPath, largest: int = MEBIBYTE) -> str:
    """Read a text file in UTF-8."""
    return decode(read_bytes(path, largest), path)


def parse_json(text: str) -> Any:
    """Parse JSON as RFC 8259 defines it, without Python's extensions.

    Raises:
        ValueError: the text is not JSON, has NaN, an infinite number or a name twice in an object,
            or is nested too deeply to be read.
    """
    try:
        return json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_with_each_name_once,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: AnyPath, expected: str, mend: str, largest: int = MEBIBYTE) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: the file.
        expected: what it should be, after "expected".
        mend: what to do if it is not.
        largest: bytes, at most.

    Raises:
        DamagedFile: the file holds no JSON object, or is larger.
        OSError: it cannot be read.
    """
    text = read_text(path, largest)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DamagedFile(f"`{path}` is no {expected} ({error}). {mend}") from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DamagedFile(f"`{path}` is no {expected} (it holds a {kind}). {mend}")
    return content


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is larger than any number")
    return number


def _with_each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{twice}` is there twice")
    return found
