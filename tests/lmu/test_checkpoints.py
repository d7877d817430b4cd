"""Checkpoints: what they hold comes back, and one flipped bit anywhere is found."""

import io
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lmu.experiments.training import RunFolder
from lmu.files import read_checkpoint, write, written_checkpoint

WEIGHTS = torch.arange(4096.0)
CHECKPOINT = written_checkpoint({"w": WEIGHTS})


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def pickled(value: object = WEIGHTS) -> bytes:
    content = io.BytesIO()
    torch.save({"w": value}, content)
    return content.getvalue()


def spoiled() -> bytes:
    """A file of torch with one bit of its numbers flipped, which `torch.load` takes."""
    content = pickled()
    return flipped(content, 8 * content.find(WEIGHTS.numpy().tobytes()[:64]) + 3)


CHECKPOINTS: dict[str, tuple[bytes, str]] = {
    "a flipped bit": (flipped(CHECKPOINT, 8 * 9000 + 3), "checksum is wrong"),
    "truncated": (CHECKPOINT[:-1], "checksum is wrong"),
    "cut off in its header": (CHECKPOINT[:100], "cut off"),
    "longer": (CHECKPOINT + b"0", "checksum is wrong"),
    "without a seal": (safetensors.torch.save({"w": WEIGHTS}), "no checksum"),
    "a pickle that is executed": (pickled(print), "more than tensors"),
    "a flipped bit of torch's": (spoiled(), "checksum of its part"),
    "empty": (b"", "cut off"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_not_believed(name: str, tmp_path: Path) -> None:
    content, reason = CHECKPOINTS[name]
    write(tmp_path / "best.safetensors", content)
    with pytest.raises(ValueError, match=reason):
        read_checkpoint(tmp_path / "best.safetensors")


def test_what_torch_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(pickled())
    assert torch.equal(read_checkpoint(tmp_path / "best.pt")["w"], WEIGHTS)
    folder = RunFolder(tmp_path / "run", {"seed": 0})
    folder.save("last.pt", {"w": WEIGHTS})
    folder.load("last.pt", lambda held: torch.testing.assert_close(held["w"], WEIGHTS))


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    """In the length, in the header, in the seal itself, in the numbers: every one of them."""
    path = tmp_path / "last.safetensors"
    content = written_checkpoint({"w": torch.arange(8.0), "epoch": 3, "kept": [True, None]})
    for bit in range(8 * len(content)):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(Exception, match=r"\w"):
            read_checkpoint(path)
    path.write_bytes(content)
    assert read_checkpoint(path)["epoch"] == 3


def test_what_a_checkpoint_holds_comes_back(tmp_path: Path) -> None:
    optimizer = torch.optim.Adam([WEIGHTS.clone().requires_grad_()], lr=0.1)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(4096)
    optimizer.step()
    shared = torch.rand(2, 3)
    held = {
        "optimizer": optimizer.state_dict(),
        "shared": [shared, shared, shared.T],
        "complex": torch.tensor([1 + 2j, 3 - 1j]),
        "numbers": (1, -2.5, float("inf"), True, None, "a/b"),
        "states": {0: torch.tensor(3), 7: torch.empty(0, 2, dtype=torch.bfloat16)},
        "random": torch.get_rng_state(),
    }
    write(tmp_path / "last.safetensors", written_checkpoint(held))
    found = read_checkpoint(tmp_path / "last.safetensors")
    assert json.dumps(str(found)) == json.dumps(str(held))
    assert torch.equal(found["random"], held["random"])
    torch.optim.Adam([WEIGHTS.clone()], lr=1.0).load_state_dict(found["optimizer"])
    with safetensors.safe_open(tmp_path / "last.safetensors", "pt") as file:  # by anybody
        assert torch.equal(file.get_tensor("shared/0"), shared)


@pytest.mark.parametrize(
    "held, reason",
    [
        ({"w": print}, "`w` is a builtin_function"),
        ({(1, 2): 3}, "keys other than"),
        ({"a": {"b/c": WEIGHTS}, "a/b": {"c": WEIGHTS}}, "two tensors have the path `a/b/c`"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_refused(held: dict, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        written_checkpoint(held)
