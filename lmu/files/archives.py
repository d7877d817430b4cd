"""Unpack archives as a stream, counting bytes and refusing more than a limit.

A kilobyte of an archive can become a megabyte, and 10 MB can fill any memory. So everything is
read in pieces, a declared size is only ever used to refuse an archive, and nothing is unpacked
onto the disk.
"""

import gzip
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, BinaryIO, cast

from lmu.files.refusals import DamagedFile, explain_os_errors, explain_parser_errors

HEADER = 2**16  # bytes of data about members: an extended header of tar, a zip's directory


class Unpacked(io.RawIOBase):
    """A stream that is counted while it is read, and checked at its end.

    Args:
        source: the stream that is read.
        name: the file's name, for messages.
        largest: bytes, at most.
        expected: what the file should be.
        mend: what to do if it is not.
        checksum: SHA-256 of the whole, in hexadecimal; None: not known.

    Raises:
        DamagedFile: while reading: the source is damaged, too large, or not what was expected.
    """

    def __init__(
        self,
        source: IO[bytes],
        name: str,
        largest: int,
        expected: str,
        mend: str,
        checksum: str | None = None,
    ) -> None:
        self.source = source
        self.name = name
        self.largest = largest
        self.expected = expected
        self.mend = mend
        self.checksum = checksum
        self.digest = sha256()
        self.count = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride] (typeshed's Buffer has no length)
        """Read as many bytes as there is room for, and return their number."""
        with explain_parser_errors(self.name, self.expected, self.mend, "uncompressed"):
            content = self.source.read(len(buffer))
        self.count += len(content)
        if self.count > self.largest:
            raise too_large(self.name, f"unpacks to more than {self.largest:,} bytes", self.mend)
        if self.checksum is not None:
            self.digest.update(content)
            if not content and self.digest.hexdigest() != self.checksum:
                raise DamagedFile(
                    f"The content of `{self.name}` has SHA-256 {self.digest.hexdigest()}: expected "
                    f"{self.checksum}. {self.mend}"
                )
        buffer[: len(content)] = content
        return len(content)


def too_large(name: str, what: str, mend: str) -> DamagedFile:
    """Make the error for a file that holds more than it should."""
    return DamagedFile(f"`{name}` {what}: expected no more. {mend}")


@contextmanager
def unpack(
    path: Path, largest: int, *, checksum: str | None = None, mend: str = "Replace it."
) -> Iterator[BinaryIO]:
    """Open a file for reading, uncompressed if its name ends in `.gz`.

    Args:
        path: the file.
        largest: bytes of the uncompressed content, at most.
        checksum: SHA-256 of the uncompressed content, compared once all of it has been read.
        mend: what to do if it is damaged.

    Yields:
        The stream; its `name` is the path.

    Raises:
        DamagedFile: here or while reading: it is damaged, too large, or has another checksum.
        OSError: it cannot be read.
    """
    whole = "a whole gzip file" if path.suffix == ".gz" else "a file"
    expected = whole + (f" of content with SHA-256 {checksum}" if checksum else "")
    with explain_os_errors(path, "read"):
        file: IO[bytes] = path.open("rb")
    with file:
        if os.fstat(file.fileno()).st_size > largest:
            raise too_large(str(path), f"has more than {largest:,} bytes", mend)
        source = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
        raw = Unpacked(source, str(path), largest, expected, mend, checksum)
        yield io.BufferedReader(raw, buffer_size=2**16)


@contextmanager
def zip_member(path: Path, member: str, largest: int) -> Iterator[BinaryIO]:
    """Open a member of a zip archive for reading.

    Args:
        path: the archive.
        member: the member's name.
        largest: bytes of its content, at most.

    Yields:
        The stream; its `name` is the path. Its checksum is compared once all of it has been read.

    Raises:
        DamagedFile: here or while reading: there is no such archive or member, it is encrypted or
            compressed in another way than zip files are, or too large.
        OSError: it cannot be read.
    """
    expected, mend = f"a zip archive with one member, `{member}`", "Replace it."
    with explain_os_errors(path, "read"):
        file = path.open("rb")
    with file:
        if os.fstat(file.fileno()).st_size > largest:
            raise too_large(str(path), f"has more than {largest:,} bytes", mend)
        check_directory(file, str(path), HEADER)
        with explain_parser_errors(path, expected, mend):
            archive = zipfile.ZipFile(file)
            found = [info for info in archive.infolist() if info.filename == member]
            if len(found) != 1:
                raise ValueError(f"it has {len(found)} members `{member}`")
            info = found[0]
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its member is compressed by method {info.compress_type}")
            source = archive.open(info)
        if info.file_size > largest:
            what = f"declares {info.file_size:,} bytes, more than {largest:,}"
            raise too_large(str(path), what, mend)
        raw = Unpacked(source, str(path), largest, expected, mend)
        yield io.BufferedReader(raw, buffer_size=2**16)


def zip_members(
    path: Path, wanted: Callable[[str], bool], *, most: int, largest: int, mend: str = "Replace it."
) -> Iterator[tuple[str, bytes]]:
    """Read files from a zip archive into memory, in the order of its directory.

    Args:
        path: the archive.
        wanted: from a member's name to whether it is read.
        most: how many members are read, at most.
        largest: bytes of each, at most.
        mend: what to do if it is damaged.

    Yields:
        The name and the content of each wanted member.

    Raises:
        DamagedFile: while reading: it is no archive, is cut off, or has more or larger members.
        OSError: it cannot be read.
    """
    expected = "a zip archive"
    with explain_os_errors(path, "read"):
        file = path.open("rb")
    with file:
        check_directory(file, str(path), 2**8 * most + HEADER)  # an entry: 46 bytes and its name
        with explain_parser_errors(path, expected, mend):
            archive = zipfile.ZipFile(file)
            members = [each for each in archive.infolist() if wanted(each.filename)]
        if len(members) > most:
            raise too_large(str(path), f"has {len(members):,} members, more than {most:,}", mend)
        for member in members:
            name = f"{path}: {member.filename[:80]}"
            if member.file_size > largest:
                what = f"declares {member.file_size:,} bytes, more than {largest:,}"
                raise too_large(name, what, mend)
            with explain_parser_errors(name, "a member of a zip archive", mend):
                raw = Unpacked(archive.open(member), name, largest, expected, mend)
                content = raw.readall()
            yield member.filename, content or b""


def check_directory(file: BinaryIO, name: str, largest: int) -> None:
    """Refuse a zip archive whose directory is so large that reading it takes much memory.

    The directory's size is in the last 22 bytes before the archive's comment, 12 bytes from their
    beginning, and in a record before them if the archive is in the format for large files.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - 2**16 - 128))
    tail = file.read()
    file.seek(0)
    found = tail.rfind(b"PK\5\6")
    sizes = [int.from_bytes(tail[found + 12 : found + 16], "little")] if found >= 0 else []
    for record in re.finditer(rb"PK\x06\x06", tail):
        sizes.append(int.from_bytes(tail[record.start() + 40 : record.start() + 48], "little"))
    if max(sizes, default=0) > largest:
        raise too_large(name, f"has a directory of {max(sizes):,} bytes", "Replace it.")


class _Member(tarfile.TarInfo):
    """A header of a tar archive that is checked before it is used."""

    LARGEST = 2**24  # bytes of a member

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        # tarfile takes a header that it cannot read for the end of the archive. It skips content of
        # the declared size without checking that there is any: a huge size keeps it busy forever.
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # the end
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise ValueError(f"{error}, where a member or the end was expected") from None
        extended = member.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME)
        if not (extended or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)):
            raise ValueError(
                f"member `{member.name[:80]}` is a link, a device or the like (type "
                f"{member.type.decode('latin-1')!r}), and not a file or a folder"
            )
        if not 0 <= member.size <= (HEADER if extended else cls.LARGEST):
            raise ValueError(f"member `{member.name[:80]}` declares {member.size:,} bytes")
        return member


def tar_members(
    stream: BinaryIO, name: str, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """Read files from a tar archive into memory, in the archive's order.

    Args:
        stream: the archive, uncompressed.
        name: the name of its file.
        wanted: from a member's name to whether it is read.

    Yields:
        The name and the content of each wanted member.

    Raises:
        DamagedFile: while reading: it is no archive, is cut off, or has members that an archive of
            data never has: links, devices, paths that lead out of it, files of more than 16 MiB.
    """
    expected = "a tar archive of files and folders"
    with explain_parser_errors(name, expected):
        archive = tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member)
    while True:
        with explain_parser_errors(name, expected):
            member = archive.next()
            if member is None:
                return
            archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] (it keeps them all)
            _check(member)
            content = _content(archive, member) if wanted(member.name) else None
        if content is not None:
            yield member.name, content


def _check(member: tarfile.TarInfo) -> None:
    # An extended header can change names and sizes after the plain header was checked.
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise ValueError(f"member `{member.name[:80]}` leads out of the archive")
    if not 0 <= member.size <= _Member.LARGEST or member.issparse():
        raise ValueError(f"member `{member.name[:80]}` declares {member.size:,} bytes")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"member `{member.name[:80]}` is no file")
    content = file.read()
    if len(content) != member.size:
        raise ValueError(f"member `{member.name[:80]}` is cut off")
    return content
