"""Streams saved in files of safetensors, with a fingerprint of their system."""

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from linrec._files import SEAL, bytes_of, read, safetensors, seal_tensors, unseal_tensors, write
from linrec._tensors.dtypes import double_dtype
from linrec.stream.frozen_copy import Held

VERSION = 1  # of the file format
FORM = "linrec.stream"


def fingerprint(held: Held) -> dict[str, Any]:
    """Identify a system by its classes, the shapes and dtypes of its tensors, and a digest.

    Two systems with the same fingerprint have the same numbers, bit for bit, on any device.
    """
    digest = hashlib.sha256()
    leaves = {name: leaf.detach().cpu().resolve_conj() for name, leaf in held.leaves().items()}
    for name, leaf in leaves.items():
        digest.update(name.encode())
        digest.update(bytes_of(leaf))
    shapes = {name: [str(leaf.dtype), list(leaf.shape)] for name, leaf in leaves.items()}
    return {
        "classes": held.kinds(),
        "states": held.state_size,
        "shapes": shapes,
        "digest": digest.hexdigest(),
    }


def save(
    path: str | PathLike[str], system: dict[str, Any], state: Tensor, streams: torch.Size
) -> None:
    """Write a state to a file, completely or not at all."""
    stored = state.detach().cpu().resolve_conj()
    stored = (torch.view_as_real(stored) if stored.is_complex() else stored).contiguous()
    metadata = {
        "form": FORM,
        "version": str(VERSION),
        "system": json.dumps(system),
        "streams": json.dumps(list(streams)),
        "dtype": str(state.dtype),
    }
    write(Path(path), seal_tensors({"state": stored}, metadata))


def load(path: str | PathLike[str], system: dict[str, Any]) -> tuple[torch.Size, Tensor]:
    """Read streams and states; refuse a file of another system."""
    path = Path(path)
    safetensors()
    try:
        tensors, metadata = unseal_tensors(read(path))
        if metadata.get("form") != FORM:
            raise ValueError("it has no state of a stream")
        version = int(metadata["version"])
        parts = None
        if version <= VERSION:
            streams = torch.Size(json.loads(metadata["streams"]))
            parts = json.loads(metadata["system"]), streams, tensors["state"].clone()
    except OSError:
        raise
    except Exception as error:  # readers of damaged files may fail in any way
        raise ValueError(
            f"`{path}` cannot be read ({type(error).__name__}: {error}): expected what "
            "`Stream.save` wrote."
        ) from None
    if parts is None:
        raise ValueError(
            f"`{path}` has version {version}, and this linrec reads up to {VERSION}: expected an "
            "older file. Install the linrec that wrote it, or a newer one."
        )
    found, streams, state = parts
    difference = first_difference(found, system)
    if difference is not None:
        raise ValueError(
            f"`{path}` belongs to another system: {difference}. Make the stream of the system that "
            "it was saved by."
        )
    own = hashlib.sha256(bytes_of(state)).hexdigest()
    if SEAL not in metadata and own != metadata.get("state_sha256"):  # an older file
        raise ValueError(
            f"`{path}` is damaged: the checksum of its state is wrong. Take another copy of it."
        )
    dtype = metadata.get("dtype")
    if state.ndim and dtype == str(double_dtype(torch.complex64)):
        return streams, torch.view_as_complex(state)
    return streams, torch.view_as_complex(state) if dtype == str(torch.complex64) else state


def first_difference(found: object, system: dict[str, Any]) -> str | None:
    """Name the first difference between two fingerprints; None if they are equal."""
    if not isinstance(found, dict):
        return "it says not which"
    found = cast("dict[str, Any]", found)
    for key, told in (("classes", "it is of"), ("states", "it has"), ("shapes", "it has")):
        if found.get(key) != system[key]:
            theirs, ours = (json.dumps(each.get(key))[:200] for each in (found, system))
            return f"{told} {key} {theirs}, and this one {ours}"
    if found.get("digest") != system["digest"]:
        return "its tensors have the same shapes and other numbers"
    return None
