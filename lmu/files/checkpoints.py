"""Checkpoints: files of safetensors with a seal, so that one flipped bit anywhere is found.

Tensors are stored under the paths that lead to them, and everything else as JSON next to them.
Nothing is pickled, and any reader of safetensors can read the tensors. Files of `torch.save` can be
read too.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmu.files.refusals import explain_os_errors, refuse_devices
from lmu.files.torch_checkpoints import read_torch_checkpoint

FORM, VERSION = "lmu.checkpoint", 1
NO_SEAL = b"0" * 64
SEALED = re.compile(rb'"sha256":"([0-9a-f]{64})"')
HEADER = 2**26  # bytes of a header, at most


def written_checkpoint(checkpoint: dict[str, Any]) -> bytes:
    """Serialise tensors, numbers, strings, None, lists, tuples and dictionaries.

    The seal is the SHA-256 of the whole file, with zeros in its own place.

    Raises:
        TypeError: a value of another type, or a key that is neither a string nor a whole number.
    """
    from safetensors.torch import save  # an extra; other files can be read without it

    tensors: dict[str, Tensor] = {}
    content = json.dumps(outline(checkpoint, (), tensors))
    metadata = {"form": FORM, "version": str(VERSION), "content": content}
    written = save(tensors, {**metadata, "sha256": NO_SEAL.decode()})
    start = place_of_seal(written)
    seal = hashlib.sha256(written).hexdigest().encode()
    return written[:start] + seal + written[start + len(seal) :]


def read_checkpoint(path: Path) -> Any:
    """Read what `written_checkpoint` wrote; nothing in it is executed.

    Args:
        path: the file.

    Returns:
        The content, with its tensors on the CPU.

    Raises:
        Exception: any error in reading a damaged file; the caller explains it.
        OSError: it cannot be read.
    """
    from safetensors.torch import load

    refuse_devices(path)
    with explain_os_errors(path, "read"):
        content = path.read_bytes()
    if content.startswith(b"PK"):  # from earlier versions
        return read_torch_checkpoint(path)
    size = int.from_bytes(content[:8], "little")
    if size > min(HEADER, len(content) - 8):
        raise ValueError("it is cut off, or no file of safetensors")
    start = place_of_seal(content)
    seal = content[start : start + len(NO_SEAL)]
    unsealed = hashlib.sha256(content[:start])
    unsealed.update(NO_SEAL)
    unsealed.update(memoryview(content)[start + len(seal) :])
    if unsealed.hexdigest().encode() != seal:
        raise ValueError("its checksum is wrong: some of its bits are not as they were written")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    if metadata["form"] != FORM:
        raise ValueError("it holds no checkpoint")
    if int(metadata["version"]) > VERSION:
        raise ValueError(f"a newer lmu wrote it, version {metadata['version']}: install that one")
    return fill_in(json.loads(metadata["content"]), load(content))


def place_of_seal(content: bytes) -> int:
    """Find the place of the checksum in the header."""
    found = list(SEALED.finditer(content, 8, 8 + int.from_bytes(content[:8], "little")))
    if len(found) != 1:
        raise ValueError("it has no checksum, or more than one")
    return found[0].start(1)


def outline(value: object, path: tuple[str, ...], tensors: dict[str, Tensor]) -> object:
    """Write a value as JSON, and collect its tensors by the paths that lead to them."""
    if isinstance(value, Tensor):
        stored = value.detach().cpu().resolve_conj()
        form = "complex" if stored.is_complex() else "tensor"
        stored = torch.view_as_real(stored) if stored.is_complex() else stored
        name = "/".join(path)
        if name in tensors:
            raise TypeError(f"two tensors have the path `{name}`")
        # A copy in its own memory: safetensors refuses shared memory.
        tensors[name] = stored.clone(memory_format=torch.contiguous_format)
        return {form: name}
    if isinstance(value, dict):
        if not all(type(key) in (str, int) for key in value):
            raise TypeError(f"`{'/'.join(path)}` has keys other than strings and whole numbers")
        items = value.items()
        return {"dict": [[key, outline(each, (*path, str(key)), tensors)] for key, each in items]}
    if isinstance(value, list | tuple):
        items = [outline(each, (*path, str(at)), tensors) for at, each in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"`{'/'.join(path)}` is a {type(value).__name__}: expected tensors, numbers, strings, "
        "lists and dictionaries"
    )


def fill_in(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Rebuild a value from its outline and its tensors."""
    if isinstance(value, list):
        return [fill_in(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "dict":
        return {key: fill_in(each, tensors) for key, each in inner}
    if kind == "tuple":
        return tuple(fill_in(each, tensors) for each in inner)
    return torch.view_as_complex(tensors[inner]) if kind == "complex" else tensors[inner]
