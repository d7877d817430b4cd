"""Ways in which files are damaged, forged, or of another kind than they should be."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable

from hypothesis import strategies as st

Change = Callable[[bytes], bytes]

# What readers of text, JSON and numbers stumble over.
TOKENS = [
    *(b"\0", b"\t", b"\n", b"\r", b" ", b'"', b"\\", b"{", b"[" * 2_000, b'{"a":' * 2_000),
    *(
        b"NaN",
        b"Infinity",
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"1" * 5_000,
        b"1180591620717411303424",
    ),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\x1b[2J", b"..", b"/", b"<end>"),
    *(b"\xff" * 8, b"\x80" + b"\xff" * 11, b"PK\5\6", b"PK\6\6", b"\x1f\x8b", b"0" * 600),
]
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "utf-7")


def reencoded(content: bytes, encoding: str) -> bytes:
    return content.decode("utf-8", "replace").encode(encoding, "replace")


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Draw a way to change bytes: a flip, a cut, something put in, moved, repeated or recoded."""
    start, stop = sorted(draw(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2)))
    kind = draw(st.sampled_from(KINDS))
    token = draw(st.one_of(st.sampled_from(TOKENS), st.binary(min_size=1, max_size=12)))
    bit, encoding = draw(st.integers(0, 7)), draw(st.sampled_from(ENCODINGS))

    def change(content: bytes) -> bytes:
        first, last = int(start * len(content)), int(stop * len(content))
        head, middle, tail = content[:first], content[first:last], content[last:]
        match kind:
            case "flip" if content:
                return head + bytes([content[first] ^ 1 << bit]) + content[first + 1 :]
            case "truncate":
                return content[:last]
            case "insert":
                return head + token + content[first:]
            case "replace":
                return head + token + content[first + len(token) :]
            case "cut out":
                return head + tail
            case "repeat":
                return head + middle + middle + tail
            case "swap":
                return middle + head + tail
            case "zero":
                return head + bytes(len(middle)) + tail
            case "recode":
                return reencoded(content, encoding)
            case "line ends":
                return content.replace(b"\n", b"\r\n")
        return token  # instead of everything

    return change


KINDS = (
    *("flip", "flip", "truncate", "insert", "replace", "replace", "cut out", "repeat", "swap"),
    *("zero", "recode", "line ends", "other"),
)


def inside_gzip(content: bytes, change: Change) -> bytes:
    return gzip.compress(change(gzip.decompress(content)), 1)


def inside_zip(content: bytes, change: Change, member: int = 0) -> bytes:
    """Change a member's content, whose checksum is right again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for number, info in enumerate(old.infolist()):
            inner = old.read(info)
            inner = change(inner) if number == member % len(old.infolist()) else inner
            new.writestr(info.filename, inner, info.compress_type)
    return packed.getvalue()


def inside_tar(content: bytes, change: Change, member: int = 0) -> bytes:
    """Change a member's header, whose checksum is right again."""
    start = 512 * (member % max(1, len(content) // 512))
    header = bytearray(change(content[start : start + 512])[:512].ljust(512, b"\0"))
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header) % 8**6:06o}\0 ".encode()
    return content[:start] + bytes(header) + content[start + 512 :]


def with_odd_members(content: bytes, kind: bytes, name: str) -> bytes:
    """Add a member of another kind to a tar archive."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        tarfile.open(fileobj=packed, mode="w") as new,
    ):
        odd = tarfile.TarInfo(name)
        odd.type, odd.linkname = kind, "aclImdb/train/pos/0_9.txt"
        new.addfile(odd)
        for member in old:
            new.addfile(member, old.extractfile(member))
    return packed.getvalue()
