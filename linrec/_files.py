"""Files that are whole or not there, and the tensors in them."""

import os
import secrets
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def bytes_of(tensor: Tensor) -> bytes:
    """Give the numbers of a tensor as they lie in memory."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


PART = ".part"  # of a file that is being written, or was when the process was killed


def write(path: Path, content: bytes) -> None:
    """Write a file beside its place, and move it there."""
    part = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = os.fspath(path)
        raise


def safetensors() -> Any:
    """Import safetensors, or say how it is installed."""
    try:
        import safetensors.torch

        return safetensors
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Files of tensors need safetensors: type\n  pip install 'linrec[safetensors]'",
            name="safetensors",
        ) from None
