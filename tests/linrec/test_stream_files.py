"""States in files: each is complete or absent, and refused for another system."""

import json
import os
from pathlib import Path

import pytest
import torch

import linrec
from linrec.stream import saved
from tests.cases import SYSTEMS, TRANSITIONS, normal

safetensors = pytest.importorskip("safetensors.torch")

swing = linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], [[1.0], [0.0]], [[0.0, 1.0]])


@pytest.mark.parametrize("name", ["dense", "diagonal complex", "companion", "low rank batch"])
@pytest.mark.parametrize("system", ["AB", "ABCD, 2 copies"])
@pytest.mark.parametrize("dtype", [None, torch.complex64])
def test_a_stream_goes_on_from_its_file(
    name: str, system: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[name]())
    recurrence = recurrence if dtype is None else recurrence.to(dtype)
    shape = (3, *recurrence.batch_shape)
    samples = normal(*shape, 5, recurrence.input_size, dtype=recurrence.dtype)
    first = linrec.Stream(recurrence, streams=shape)
    first.push(samples)
    first.save(tmp_path / "state.safetensors")
    second = linrec.Stream(recurrence, streams=(1, *recurrence.batch_shape))
    second.load(tmp_path / "state.safetensors")
    assert second.streams == shape and second.state.dtype == first.state.dtype
    assert torch.equal(second.state, first.state)
    assert torch.equal(second.push(samples), first.push(samples))
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_module_that_is_a_recurrence_has_the_file_of_that_recurrence(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    first = linrec.Stream(swing)
    first.push(torch.ones(3, 1))
    first.save(path)
    second = linrec.Stream(linrec.nn.Recurrence(swing, trainable=["A"]))
    second.load(path)
    assert torch.equal(first.state, second.state)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (swing.with_leaves(swing.leaves() | {"B": torch.tensor([[1.0], [1e-7]])}), "other numbers"),
        (swing.to(torch.float64), "shapes"),
        (linrec.LinearRecurrence(swing.A, swing.B, swing.C, torch.zeros(1, 1)), "shapes"),
        (linrec.LinearRecurrence(swing.A, swing.B, swing.C, copies=2), "classes.*copies=1"),
        (linrec.LinearRecurrence(linrec.Diagonal(torch.ones(2)), swing.B, swing.C), "Diagonal"),
        (linrec.nn.Recurrence(linrec.LinearRecurrence([[0.5]])), "states 2"),
    ],
)
def test_another_system_refuses_the_file(other: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    linrec.Stream(swing).save(path)
    stream = linrec.Stream(other)  # type: ignore[arg-type]  # a recurrence or a module
    with pytest.raises(ValueError, match=f"belongs to another system.*{said}"):
        stream.load(path)


def test_another_number_of_axes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    linrec.Stream(swing, streams=(2, 3)).save(path)
    with pytest.raises(ValueError, match=r"expected as many axes.*streams=\(2, 3\)"):
        linrec.Stream(swing, streams=2).load(path)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path, stream = tmp_path / "state.safetensors", linrec.Stream(swing, streams=2)
    stream.push(torch.ones(2, 3, 1))
    state = stream.state
    stream.save(path)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        try:
            stream.load(path)
        except ValueError as error:
            assert str(path) in str(error)
        # (What is left of the header, as the dtype of the state, may be spelled in two ways.)
        assert torch.equal(stream.state, state)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64, b"weights"])
def test_what_is_no_file_of_a_stream_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    weights = safetensors.save({"weight": torch.ones(2)})
    path.write_bytes(weights if content == b"weights" else content)
    with pytest.raises(ValueError, match=r"weights.safetensors` cannot be read.*`Stream.save`"):
        linrec.Stream(swing).load(path)


def test_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(saved, "VERSION", 2)
        linrec.Stream(swing).save(path)
    with pytest.raises(ValueError, match="version 2, and this linrec reads up to 1"):
        linrec.Stream(swing).load(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    stream = linrec.Stream(swing)
    with pytest.raises(FileNotFoundError, match="absent"):
        stream.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"state\.safetensors"):
        stream.save(tmp_path / "no folder" / "state.safetensors")
    with pytest.raises(OSError, match="folder"):
        (tmp_path / "folder").mkdir()
        stream.save(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_what_was_there_stays_if_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stream = tmp_path / "state.safetensors", linrec.Stream(swing)
    stream.save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"state.safetensors` cannot be written \(No space left.*room"
    ):
        stream.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_fingerprint_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    linrec.Stream(swing).save(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        system = json.loads(file.metadata()["system"])
    assert system["classes"] == ["LinearRecurrence", "Dense", "copies=1"]
    assert system["shapes"] == {
        name: ["torch.float32", shape]
        for name, shape in (("A", [2, 2]), ("B", [2, 1]), ("C", [1, 2]))
    }


def test_without_safetensors_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    stream = linrec.Stream(swing)
    for way in (stream.save, stream.load):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'linrec\[safetensors\]'"):
            way(tmp_path / "state.safetensors")


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """In the names and numbers of the header too: which streams, which dtype, which form."""
    path, stream = tmp_path / "state.safetensors", linrec.Stream(swing, streams=2)
    stream.push(torch.randn(2, 5, 1))
    stream.save(path)
    content, state = path.read_bytes(), stream.state
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError):
            stream.load(path)
    assert torch.equal(stream.state, state)  # as it was
    path.write_bytes(content)
    stream.load(path)


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    stream = linrec.Stream(swing)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="pipe or a device"):
            stream.load(path)


def test_files_with_the_checksum_of_before_are_read(tmp_path: Path) -> None:
    import hashlib

    from safetensors import safe_open
    from safetensors.torch import save_file

    path, stream = tmp_path / "state.safetensors", linrec.Stream(swing)
    stream.push(torch.randn(5, 1))
    stream.save(path)
    with safe_open(path, framework="pt") as file:
        metadata, state = dict(file.metadata()), file.get_tensor("state").clone()
    del metadata["sha256_of_file"]
    metadata["state_sha256"] = hashlib.sha256(state.numpy().tobytes()).hexdigest()
    save_file({"state": state}, path, metadata)
    again = linrec.Stream(swing)
    again.load(path)
    assert torch.equal(again.state, stream.state)
    save_file({"state": state + 1}, path, metadata)
    with pytest.raises(ValueError, match="checksum of its state"):
        again.load(path)
