"""Files: what is damaged, forged or foreign is refused by its name, and ours are written whole."""

import ast
import errno
import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from lmu.files import (
    DamagedFile,
    decode,
    explain_os_errors,
    iterate_lines,
    parse_json,
    read_bytes,
    read_json,
    tar_members,
    unpack,
    write,
    zip_member,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", ""), ("a ä\n".encode(), "a ä\n"), (b"\xef\xbb\xbfabc", "abc")],
)
def test_text_is_utf_8_with_or_without_a_mark(content: bytes, text: str) -> None:
    assert decode(content, "file.txt") == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a\nKäse".encode("latin-1"), "byte 0xe4 in line 2"),
        ("a\nKäse".encode()[:4] + b"\n", "byte 0xc3 in line 2"),
        ("Käse".encode("utf-16"), "mark of UTF-16"),
        ("Käse".encode("utf-32"), "mark of UTF-32"),
        ("a\nb".encode("utf-16-le"), "zero byte in line 1"),
        (b"\xed\xa0\x80", "byte 0xed in line 1"),  # half a letter
    ],
)
def test_other_encodings_are_refused_by_name_and_line(content: bytes, reason: str) -> None:
    for read in (lambda: decode(content, "file.txt"), lambda: [*lines(content)]):
        with pytest.raises(DamagedFile, match=reason) as refusal:
            read()
        assert "file.txt" in str(refusal.value) and "iconv" in str(refusal.value)


def lines(content: bytes, longest: int = 100) -> list[str]:
    return list(iterate_lines(io.BytesIO(content), "file.txt", longest))


def test_lines_end_in_either_way() -> None:
    assert lines(b"\xef\xbb\xbfa\r\nb\n\nc") == ["a", "b", "", "c"]
    assert lines(b"") == []
    assert lines(b"a\n" * 3, longest=2) == ["a"] * 3
    with pytest.raises(DamagedFile, match=r"Line 2 of `file.txt` has more than 2 bytes"):
        lines(b"a\nbcd\n", longest=2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("NaN", "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ("[1e999]", "larger than any number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "`c` is there twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 5_000, "limit"),
    ],
    ids=lambda value: value[:20],
)
def test_json_is_no_more_than_its_standard(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_a_json_file_is_an_object(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write(path, b'{"a": [1, null]}')
    assert read_json(path, "configuration", "Do this.") == {"a": [1, None]}
    for content, reason in ((b"[]", "holds a list"), (b"{", "Expecting"), (b"\xff\xfe{", "UTF-16")):
        write(path, content)
        with pytest.raises(DamagedFile, match=reason) as refusal:
            read_json(path, "configuration", "Do this.")
        assert str(path) in str(refusal.value)
    write(path, b" " * 101)
    with pytest.raises(DamagedFile, match="more than 100 bytes"):
        read_json(path, "configuration", "Do this.", largest=100)


def test_a_pipe_is_no_file_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(FileNotFoundError, match="is a pipe or a device"):
        read_bytes(tmp_path / "result.json")


def test_what_unpacks_is_counted_whatever_is_declared(tmp_path: Path) -> None:
    content = bytes(100_000)
    packed = gzip.compress(content)
    path = tmp_path / "zeros.gz"
    write(path, packed)
    with unpack(path, 100_000) as stream:
        assert stream.read() == content and stream.name == str(path)
    with unpack(path, 99_999) as stream, pytest.raises(DamagedFile, match="more than 99,999"):
        stream.read()
    # The length that stands at the end of a gzip file is that of its last part.
    write(path, packed + gzip.compress(b""))
    with unpack(path, 99_999) as stream, pytest.raises(DamagedFile, match="unpacks to more"):
        stream.read()
    write(path.with_suffix(""), content)
    with (
        pytest.raises(DamagedFile, match="has more than 99,999"),
        unpack(path.with_suffix(""), 99_999),
    ):
        pass


@pytest.mark.parametrize("place", [3, 40, -5, -1])
def test_a_damaged_gzip_file_is_refused_by_its_name(place: int, tmp_path: Path) -> None:
    content = bytearray(gzip.compress(bytes(range(256)) * 20))
    content[place] ^= 255
    write(tmp_path / "things.gz", bytes(content))
    mend = "Do this."
    with unpack(tmp_path / "things.gz", 10_000, mend=mend) as stream:
        with pytest.raises(DamagedFile, match=r"things\.gz.*uncompressed.*Do this\."):
            stream.read()


def zipped(content: bytes, name: str = "text8", compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as file:
        file.writestr(name, content)
    return archive.getvalue()


def changed(content: bytes, places: dict[bytes, tuple[int, bytes]]) -> bytes:
    """Write bytes so far behind a mark."""
    new = bytearray(content)
    for mark, (offset, what) in places.items():
        start = new.find(mark) + offset
        new[start : start + len(what)] = what
    return bytes(new)


TWICE = io.BytesIO()
with zipfile.ZipFile(TWICE, "w") as both, pytest.warns(UserWarning, match="Duplicate"):
    both.writestr("text8", "a")
    both.writestr("text8", "b")
LOCAL, CENTRAL, LAST = b"PK\3\4", b"PK\1\2", b"PK\5\6"
ZIPS = {
    "no archive": (b"no archive", "not a zip file"),
    "another member": (zipped(b"a", "text9"), "0 members"),
    "twice": (TWICE.getvalue(), "2 members"),
    "encrypted": (changed(zipped(b"a"), {LOCAL: (6, b"\1"), CENTRAL: (8, b"\1")}), "encrypted"),
    "bzip2": (zipped(b"a", compression=zipfile.ZIP_BZIP2), "method 12"),
    "method": (changed(zipped(b"a"), {CENTRAL: (10, b"\x63")}), "method 99"),
    "declared": (zipped(bytes(2_000)), "declares 2,000 bytes, more than 1,000"),
    "less declared": (changed(zipped(bytes(2_000)), {CENTRAL: (24, b"\1\0")}), "CRC"),
    "directory": (changed(zipped(b"a"), {LAST: (12, b"\0\0\2\0")}), "directory of 131,072"),
    "truncated": (zipped(bytes(range(256)))[:100], "not a zip file"),
    "checksum": (changed(zipped(b"a"), {CENTRAL: (16, b"\1")}), "CRC"),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_zip_archive_is_not_believed(name: str, tmp_path: Path) -> None:
    content, reason = ZIPS[name]
    write(tmp_path / "text8.zip", content)
    with pytest.raises(DamagedFile, match=reason) as refusal:
        with zip_member(tmp_path / "text8.zip", "text8", 1_000) as stream:
            stream.read()
    assert str(tmp_path / "text8.zip") in str(refusal.value)


def test_a_zip_member_is_read(tmp_path: Path) -> None:
    write(tmp_path / "text8.zip", zipped(bytes(1_000)))
    with zip_member(tmp_path / "text8.zip", "text8", 1_000) as stream:
        assert stream.read() == bytes(1_000)


def tar(*members: tuple[str, dict[str, object]], form: int = tarfile.PAX_FORMAT) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form) as file:
        for name, settings in members:
            member = tarfile.TarInfo(name)
            member.size = 3
            for key, value in settings.items():
                setattr(member, key, value)
            file.addfile(member, io.BytesIO(b"abc") if member.isreg() else None)
    return archive.getvalue()


ONE = ("one.txt", {})
LONG = ("a/" * 80 + "long.txt", {})
TARS = {
    "link": (tar(ONE, ("x.txt", {"type": tarfile.SYMTYPE, "linkname": "one.txt"})), "is a link"),
    "hard link": (tar(ONE, ("x", {"type": tarfile.LNKTYPE, "linkname": "one.txt"})), "is a link"),
    "device": (tar(("x.txt", {"type": tarfile.CHRTYPE})), "a device"),
    "pipe": (tar(("x.txt", {"type": tarfile.FIFOTYPE})), "or the like"),
    "absolute": (tar(("/etc/passwd.txt", {})), "leads out"),
    "above": (tar(("a/../../x.txt", {})), "leads out"),
    "above by a long name": (tar(("../" * 60 + "x.txt", {})), "leads out"),
    "cut in a member": (tar(ONE)[:513], "unexpected end|cut off"),
    "cut after a member": (tar(ONE)[:1024], "the end was expected"),
    "cut in a header": (tar(ONE, ONE)[:1100], "the end was expected"),
    "second header damaged": (changed(tar(ONE, ("two", {})), {b"two": (0, b"x")}), "the end was"),
    "size by an extended header": (
        tar(("one.txt", {"pax_headers": {"size": str(2**60)}})),
        "declares 1,152,921,504,606,846,976",
    ),
    "sparse by an extended header": (
        tar(("one.txt", {"pax_headers": {"GNU.sparse.size": "9", "GNU.sparse.map": "0,1"}})),
        "declares",
    ),
    "empty": (b"", "empty"),
}


def sized(content: bytes, size: int) -> bytes:
    """Declare another size in the first header, in the way of large ones, with its checksum."""
    header = bytearray(content[:512])
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + content[512:]


TARS["huge"] = (sized(tar(ONE), 2**70), "declares 1,180,591,620,717,411,303,424 bytes")
TARS["long name of a gigabyte"] = (
    sized(tar(LONG, form=tarfile.GNU_FORMAT), 2**30),
    "declares 1,073,741,824 bytes",
)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("name", TARS)
def test_a_tar_archive_is_not_believed(name: str, wanted: bool) -> None:
    content, reason = TARS[name]
    with pytest.raises(DamagedFile, match=reason) as refusal:
        list(tar_members(io.BytesIO(content), "things.tar", lambda member: wanted))
    assert "things.tar" in str(refusal.value)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_archives_of_all_forms_are_read(form: int) -> None:
    folder = ("a", {"type": tarfile.DIRTYPE, "size": 0})
    names = [ONE[0], *([LONG[0]] * (form != tarfile.USTAR_FORMAT))]
    content = tar(folder, *((name, {}) for name in names), form=form)
    found = tar_members(io.BytesIO(content), "things.tar", lambda name: name.endswith(".txt"))
    assert list(found) == [(name, b"abc") for name in names]


MENDS = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EROFS: "name a folder on another",
    errno.EACCES: "Change its permissions",
    errno.ENAMETOOLONG: "Name another place",
}


@pytest.mark.parametrize("code", MENDS, ids=errno.errorcode.get)
def test_what_the_system_refuses_is_said_with_what_to_do(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    write(path, b"before")

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=MENDS[code]) as refusal:
        write(path, b"after")
    assert refusal.value.errno == code and f"`{path}` cannot be written" in str(refusal.value)
    assert isinstance(refusal.value, type(OSError(code, "")))
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("place", ["file/below", "folder"])
def test_a_place_that_is_none_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=f"{place}` cannot be written"):
        write(tmp_path / place, b"")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_what_is_not_of_the_system_is_left_as_it_is() -> None:
    with pytest.raises(OSError, match=r"^my own$"), explain_os_errors("file", "read"):
        raise OSError("my own")


def test_files_are_written_with_the_permissions_that_are_usual(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


TEXT_OPENERS = {"read_text", "write_text", "open", "fdopen"}
OTHERS = {"read_text", "tarfile.open", "archive.open", "sympy.Interval.open", "os.open"}


def openings_without_encoding(source: str) -> list[str]:
    """Find the calls that open text in the encoding of whatever machine they run on."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name.rpartition(".")[2] not in TEXT_OPENERS or name in OTHERS:
            continue
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        modes = [
            v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)
        ]
        binary = any("b" in mode and set(mode) <= set("rwxab+") for mode in modes)
        if not binary and "encoding" not in {keyword.arg for keyword in node.keywords}:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("package", ["linrec", "lmu"])
def test_text_is_opened_in_an_encoding(package: str) -> None:
    sources = sorted((ROOT / package).rglob("*.py"))
    found = {p: openings_without_encoding(p.read_text(encoding="utf-8")) for p in sources}
    assert not {str(path): calls for path, calls in found.items() if calls}


def test_openings_without_an_encoding_are_seen() -> None:
    def count(source: str) -> int:
        return len(openings_without_encoding(source))

    assert count("path.read_text()\nopen(path)\npath.open('a')\npath.write_text(text)") == 4
    assert not count("path.read_text(encoding='utf-8')\nopen(path, 'rb')\npath.open(mode='xb')")
