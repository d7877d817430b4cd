"""Checkpoints of `torch.save`, read with their checksums compared and nothing executed."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from lmu.files.archives import check_directory
from lmu.files.refusals import explain_os_errors

DIRECTORY = 2**24  # bytes of a checkpoint's directory, at most: enough for some 200,000 tensors


def read_torch_checkpoint(path: Path) -> Any:
    """Read a file of `torch.save` with tensors, numbers, strings, lists and dictionaries.

    The file has a checksum for each of its parts, but `torch.load` does not compare them and would
    accept weights with a flipped bit. They are compared here first, at the cost of reading twice.

    Args:
        path: the file.

    Returns:
        The content, with its tensors on the CPU.

    Raises:
        Exception: any error in reading a damaged file; the caller explains it.
        OSError: it cannot be read.
    """
    with explain_os_errors(path, "read"), path.open("rb") as file:
        check_directory(file, str(path), DIRECTORY)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            size = os.fstat(file.fileno()).st_size
            if len({member.filename for member in members}) != len(members):
                raise ValueError("a part is there twice")
            # Tensors are stored uncompressed, so that reading never expands a file.
            if any(m.compress_type != zipfile.ZIP_STORED for m in members):
                raise ValueError("a part is compressed")
            if sum(member.file_size for member in members) > size:
                raise ValueError("its parts are larger than the file")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of its part `{damaged}` is wrong")
        file.seek(0)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # whose message explains how to execute it anyway
            raise ValueError(
                "it holds more than tensors, numbers, strings, lists and dictionaries"
            ) from None


def write_torch_checkpoint(checkpoint: dict[str, Any]) -> bytes:
    """Serialise tensors, numbers, strings, lists and dictionaries, with checksums."""
    content = io.BytesIO()
    torch.save(checkpoint, content)
    return content.getvalue()
