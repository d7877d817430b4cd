"""Files of keras-lmu that are damaged or forged are refused by name, in bounded time and memory."""

# Options and configurations are dictionaries of anything.
# pyright: reportArgumentType=false

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lmu
from tests import forked

h5py = pytest.importorskip("h5py")

from keras_files import Case, write  # noqa: E402

# What a file of weights alone does not say.
OPTIONS = {"memory_d": 2, "order": 4, "theta": 25.0}


def with_kernel(path: Path, make: Callable[[Any], object]) -> Path:
    """Put another kernel into a file of weights."""
    write(path, {"it": Case()})
    with h5py.File(path, "a") as file:
        held = file["layers/lmu/layer/vars"]
        del held["0"]
        make(held)
    return path


@pytest.mark.parametrize("way", ["link", "external", "virtual"])
def test_a_link_to_another_file_is_not_followed(way: str, tmp_path: Path) -> None:
    other = write(tmp_path / "other.weights.h5", {"it": Case()})
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(24)))
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource(other, "layers/lmu/layer/vars/0", (3, 2))
    make: dict[str, Callable[[Any], object]] = {
        "link": lambda held: held.__setitem__(
            "0", h5py.ExternalLink(other, "layers/lmu/layer/vars/0")
        ),
        "external": lambda held: held.create_dataset(
            "0", (3, 2), "f4", external=[(str(secret), 0, 24)]
        ),
        "virtual": lambda held: held.create_virtual_dataset("0", layout),
    }
    path = with_kernel(tmp_path / "model.weights.h5", make[way])
    with pytest.raises(ValueError, match=r"is a link|lies in another file") as raised:
        lmu.from_keras(path, **OPTIONS)
    assert str(path) in str(raised.value)


LARGE = (2**10, 2**16)  # 256 MiB
NOT_STORED: dict[str, dict[str, Any]] = {
    "contiguous": {"shape": LARGE},
    "chunked": {"shape": LARGE, "chunks": (2**8, 2**8)},
    "compressed": {"shape": LARGE, "chunks": (2**8, 2**8), "compression": "gzip"},
    "compressed zeros": {"data": np.zeros((2**10, 2**10)), "compression": "gzip"},
    "compressed twice": {"data": np.zeros((3, 2)), "compression": "lzf", "shuffle": True},
    "a chunk of 64 MiB": {
        "data": np.zeros((3, 2)),
        "maxshape": (None, None),
        "chunks": (2**12, 2**12),
        "compression": "gzip",
    },
}


@pytest.mark.parametrize("name", NOT_STORED)
def test_what_is_larger_than_it_is_stored_is_not_read(name: str, tmp_path: Path) -> None:
    options = {"dtype": "f4", **NOT_STORED[name]}
    path = with_kernel(
        tmp_path / "model.weights.h5", lambda held: held.create_dataset("0", **options)
    )
    with pytest.raises(ValueError, match=r"stored|h5repack -f NONE") as raised:
        lmu.from_keras(path, **OPTIONS)
    assert str(path) in str(raised.value)


def test_groups_with_many_names_are_searched_once(tmp_path: Path) -> None:
    """Forty groups, each twice in the one before it, are 2^40 paths; the last holds the first."""
    path = write(tmp_path / "model.weights.h5", {"it": Case()})
    with h5py.File(path, "a") as file:
        first = group = file.create_group("many")
        for _ in range(40):
            group["left"] = group["right"] = inner = file.create_group(None)
            group = inner
        group["again"] = first
    assert isinstance(lmu.from_keras(path, **OPTIONS), lmu.LMU)


def test_variables_together_are_no_larger_than_their_file(tmp_path: Path) -> None:
    """One kernel under many names takes the memory of many."""

    def make(held: Any) -> None:
        held["0"] = np.zeros((100, 100), np.float32)
        for number in range(1, 20):
            held[str(number)] = held["0"]

    path = with_kernel(tmp_path / "model.weights.h5", make)
    with pytest.raises(ValueError, match="together"):
        lmu.from_keras(path, **OPTIONS)


NO_JSON = {
    "NaN": "NaN",
    "a name twice": '{"a": 1, "a": 1}',
    "infinite": "1e999",
    "deep": "[" * 10**5,
    "zero byte": "\0",
    "long": " " * 2**24 + "1",
}


@pytest.mark.parametrize("what", NO_JSON)
def test_configurations_are_strict_json(what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(f'{{"memory_d": 2, "order": 4, "theta": 25, "name": {NO_JSON[what]}}}')
    weights = write(tmp_path / "model.weights.h5", {"it": Case()})
    with pytest.raises(ValueError, match=re.escape(str(path))):
        lmu.from_keras(weights, config=path)


def cuts(content: bytes) -> list[bytes]:
    return [content[:end] for end in (100, len(content) // 2, len(content) - 1)]


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    """Cut short anywhere, or with bytes overwritten: a layer, or an error with the file's name."""
    case = Case("LMU", "LSTMCell", options={"hidden_to_memory": True})
    whole = write(tmp_path / "model.keras", {"it": case}).read_bytes()
    path, random = tmp_path / "damaged.keras", np.random.default_rng(0)
    spoiled = []
    for _ in range(40):
        start = int(random.integers(len(whole)))
        spoiled.append((whole[:start] + random.bytes(16) + whole[start + 16 :])[: len(whole)])
    for content in [b"", b"PK", b"pickle", *cuts(whole), *spoiled]:
        path.write_bytes(content)
        try:
            made = lmu.from_keras(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert isinstance(made, lmu.LMU)


def test_truncated_hdf5_is_named(tmp_path: Path) -> None:
    """In a process of its own: HDF5 has no checksums, and libhdf5 may crash or never return."""
    whole = write(tmp_path / "model.h5", {"it": Case()}).read_bytes()
    for number, content in enumerate([b"", whole[:7], whole[:8], *cuts(whole)]):
        (tmp_path / f"cut {number}.h5").write_bytes(content)
    code = """
import pathlib, sys, lmu
for path in sorted(pathlib.Path(sys.argv[1]).glob("cut *.h5")):
    try:
        lmu.from_keras(path)
    except ValueError as error:
        assert str(path) in str(error), error
        print(path.name)
"""
    ran = forked.run(code, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 6


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.keras")
    for path in (tmp_path / "model.keras", Path("/dev/zero")):
        with pytest.raises(FileNotFoundError, match="pipe or a device"):
            lmu.from_keras(path)
