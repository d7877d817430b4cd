"""Atomically written files, tensors in them, and their checksums."""

import hashlib
import json
import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def bytes_of(tensor: Tensor) -> bytes:
    """Return the numbers of a tensor as bytes, in memory order."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


PART = ".part"  # of a file still being written, or left over from a killed process


def write(path: Path, content: bytes) -> None:
    """Write a file next to its destination, then move it there."""
    part = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}{PART}")
    with explain_os_errors(path, "written", "in a folder with room, which may be written"):
        try:
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def read(path: Path) -> bytes:
    """Read a regular file; refuse pipes and devices, which may never end.

    Raises:
        ValueError: it is not a file.
        OSError: it cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"`{path}` is a pipe or a device: expected a file.")
    with explain_os_errors(path, "read", "that is there and may be read"):
        return path.read_bytes()


@contextmanager
def explain_os_errors(path: Path, verb: str, expected: str) -> Generator[None, None, None]:
    """Re-raise errors of the operating system with an explanation, keeping their types."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        told = type(error)(f"`{path}` cannot be {verb} ({reason}): expected a file {expected}.")
        told.errno = error.errno
        raise told from None


SEAL, UNSET = "sha256_of_file", "0" * 64  # of all bytes, computed with the checksum itself unset


def seal_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Write tensors as safetensors, with a checksum of the whole file in the metadata."""
    content = safetensors().torch.save(dict(tensors), {**metadata, SEAL: UNSET})
    return content.replace(UNSET.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def unseal_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata, and verify the checksum (older files have none).

    Raises:
        ValueError: the checksum is wrong.
        Exception: whatever the reader raises on a damaged file.
    """
    tensors = safetensors().torch.load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__", {})
    own = metadata.get(SEAL, "").encode()
    if own and hashlib.sha256(content.replace(own, UNSET.encode(), 1)).hexdigest() != own.decode():
        raise ValueError("its checksum is wrong")
    return tensors, metadata


def safetensors() -> Any:
    """Import safetensors, or say how to install it."""
    try:
        import safetensors.torch  # pyright: ignore[reportUnusedImport]  # the torch part

        return safetensors
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Files of tensors need safetensors: type\n  pip install 'linrec[safetensors]'",
            name="safetensors",
        ) from None
