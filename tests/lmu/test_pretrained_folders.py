"""Modules into folders and back: the same function, and a sentence for what is something else."""

import copy
import errno
import json
import os
import pickle
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import linrec
import lmu
from tests import forked
from tests.linrec.layers import LAYERS
from tests.lmu.hub_server import COMMIT, Hub

pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")

from linrec.nn import hub
from linrec.nn.arguments import decode, encode

FULL = "LINREC_FULL" in os.environ
UNIT = {"order": 4, "theta": 9.0}
swing = linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], [[1.0], [0.0]], [[0.0, 1.0]])
turning = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.5j, 0.9 + 0j])), copies=2)
delays = linrec.LinearRecurrence(linrec.Companion(torch.tensor([0.1, -0.2]), transposed=True))

MODULES: dict[str, Callable[[], linrec.nn.Pretrained]] = {
    "memory": lambda: lmu.LegendreMemory(2, **UNIT, method="bilinear"),
    "trained window": lambda: lmu.LegendreMemory(2, 4, 9.0, trainable_theta=True),
    "parallel": lambda: lmu.ParallelLMU(2, 5, 3, **UNIT, activation=torch.tanh),
    "parallel, module": lambda: lmu.ParallelLMU(
        2, 5, 2, **UNIT, activation=nn.GELU(), input_projection=False, executor=linrec.Chunked(3)
    ),
    "unit of 2019": lambda: lmu.LMU.original(2, 5, **UNIT),
    "unit with an LSTM cell": lambda: lmu.LMU(2, 2, **UNIT, hidden=nn.LSTMCell(8, 5)),
    "unit with layers": lambda: lmu.LMU(
        2, 2, **UNIT, hidden=nn.Sequential(nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Dropout(0.1))
    ),
    "cell": lambda: lmu.LMUCell.original(2, 5, **UNIT),
    "blocks": lambda: lmu.layers.window_blocks(2, 2),
    "stack": lambda: linrec.nn.Stack(lmu.layers.LSTM(2, 2) for _ in range(2)),
    "recurrence": lambda: linrec.nn.Recurrence(swing, trainable=["A"], executor=linrec.Toeplitz()),
    "chosen among two": lambda: linrec.nn.Recurrence(
        swing, executor=linrec.Auto(candidates=(linrec.Recurrent(), linrec.Chunked(3)))
    ),
    "complex recurrence": lambda: linrec.nn.Recurrence(turning),
    "companion": lambda: linrec.nn.Recurrence(delays.to(torch.float64)),
    **{name: layer for name, (layer, _) in LAYERS.items()},
}


def outputs(module: linrec.nn.Pretrained) -> torch.Tensor:
    assert isinstance(module, nn.Module)
    size = module.channels if isinstance(module, lmu.LegendreMemory) else None
    if isinstance(module, linrec.nn.Recurrence):
        size = module.recurrence.input_size
    size = size or module.input_size
    assert isinstance(size, int)
    generator = torch.Generator().manual_seed(0)
    dtype = next(leaf.real.dtype for leaf in module.state_dict().values())
    with torch.no_grad():
        return module.eval()(torch.randn(3, size, generator=generator).to(dtype))[0]


@pytest.mark.parametrize("name", MODULES)
def test_what_is_read_is_what_was_written(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = MODULES[name]()
    assert isinstance(module, nn.Module)
    module.save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {file.name for file in tmp_path.iterdir()}
    again = type(module).from_pretrained(tmp_path)
    assert type(again) is type(module) and isinstance(again, nn.Module) and not again.training
    assert torch.equal(outputs(again), outputs(module))
    trained = [{n: p.requires_grad for n, p in m.named_parameters()} for m in (module, again)]
    assert trained[0] == trained[1]
    again.save_pretrained(tmp_path / "again")
    ours, theirs = (tmp_path / each / "config.json" for each in ("again", "."))
    assert ours.read_text() == theirs.read_text()


@pytest.mark.parametrize(
    "module",
    [
        nn.CELU(0.5), nn.ELU(0.5), nn.GELU("tanh"), nn.GLU(-2), nn.Hardshrink(0.3),
        nn.Hardsigmoid(), nn.Hardswish(), nn.Hardtanh(-2.0, 3.0), nn.LayerNorm(7, eps=1e-3),
        nn.LeakyReLU(0.3), nn.LayerNorm([2, 3], bias=False), nn.LogSigmoid(), nn.LogSoftmax(-1),
        nn.Mish(), nn.ReLU6(), nn.RNNCell(2, 3, nonlinearity="relu"), nn.SELU(), nn.Softmax(0),
        nn.Softplus(2.0, 10.0), nn.Softshrink(0.1), nn.Softsign(), nn.Tanhshrink(),
        nn.Linear(2, 3, bias=False),
    ],
    ids=str,
)  # fmt: skip
def test_modules_of_torch_keep_what_they_were_made_with(module: nn.Module) -> None:
    again = decode(json.loads(json.dumps(encode(module))))
    assert str(again) == str(module) and type(again) is type(module)
    shapes = [{n: p.shape for n, p in each.named_parameters()} for each in (again, module)]
    assert shapes[0] == shapes[1]


def test_the_dtype_is_kept_and_a_base_class_can_be_asked_for(tmp_path: Path) -> None:
    module = lmu.ParallelLMU(2, 5, 3, **UNIT).double()
    module.save_pretrained(tmp_path)
    again = linrec.nn.Layer.from_pretrained(tmp_path)
    assert isinstance(again, lmu.ParallelLMU)
    assert torch.equal(outputs(again), outputs(module)) and outputs(again).dtype == torch.float64


def test_copies_know_their_arguments(tmp_path: Path) -> None:
    module = lmu.LMU(2, 2, **UNIT, hidden=nn.GRUCell(8, 5))
    for each in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert each.arguments()["hidden"] is each.hidden
        each.save_pretrained(tmp_path)
        assert torch.equal(outputs(lmu.LMU.from_pretrained(tmp_path)), outputs(module))


def test_wrappers_are_written_with_what_they_wrap(tmp_path: Path) -> None:
    for name, module in (
        ("outputs", linrec.nn.Outputs(lmu.ParallelLMU(2, 5, 3, **UNIT))),
        ("online", linrec.nn.OnlineLayer(linrec.nn.LRU(2, 3))),
    ):
        module.save_pretrained(tmp_path / name)
        again = type(module).from_pretrained(tmp_path / name)
        assert str(again) == str(module.eval())
        both = zip(again.state_dict().values(), module.state_dict().values(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in both)


class Mine(linrec.nn.Layer):
    """A layer of a user's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_size = self.output_size = width
        self.state_size = 0
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, inputs, initial_state=None, lengths=None) -> linrec.Result:
        return linrec.Result(inputs * self.scale, inputs.new_zeros(*inputs.shape[:-2], 0))

    def step(self, input, state=None) -> linrec.Result:
        return linrec.Result(input * self.scale, input.new_zeros(*input.shape[:-1], 0))


def test_a_class_of_ones_own_is_read_by_that_class_alone(tmp_path: Path) -> None:
    Mine(3).save_pretrained(tmp_path)
    assert Mine.from_pretrained(tmp_path).scale.shape == (3,)
    with pytest.raises(ValueError, match="is no class of linrec or lmu"):
        linrec.nn.Layer.from_pretrained(tmp_path)


def test_what_cannot_be_written_is_refused_before(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lambda.*cannot be written down.*torch.nn.Tanh"):
        lmu.ParallelLMU(2, 5, 3, **UNIT, activation=lambda x: x.sin()).save_pretrained(tmp_path)
    changed = lmu.LMU(2, 2, **UNIT, hidden=nn.RNNCell(8, 5))
    changed.hidden = nn.RNNCell(8, 7)
    with pytest.raises(ValueError, match=r"was changed after it was made.*hidden.bias_hh"):
        changed.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:`lmu.layers.parallel` is")
def test_a_folder_that_names_a_class_by_its_old_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = lmu.ParallelLMU(2, 5, 3, **UNIT)
    with monkeypatch.context() as patched:
        before = hub.config_of(layer) | {"class": "lmu.layers.parallel.ParallelLMU"}
        patched.setattr(hub, "config_of", lambda module: before)
        layer.save_pretrained(tmp_path)
    assert "layers.parallel.ParallelLMU" in (tmp_path / "config.json").read_text()
    sys.modules.pop("lmu.layers.parallel", None)
    again = lmu.ParallelLMU.from_pretrained(tmp_path)
    assert again.state_dict().keys() == layer.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"linrec_version": 2}, "version 2, and this linrec reads up to 1"),
        ({"linrec_version": None}, "not one of linrec"),
        ({"class": "os.system"}, "no class of linrec or lmu"),
        ({"class": "linrec.nn.recurrence.nn.Module"}, "no class of linrec or lmu"),
        (
            {"class": "lmu.memory.LegendreMemory"},
            "a `lmu.layers.parallel_lmu.ParallelLMU` was asked",
        ),
        ({"arguments": {"order": 4}}, "cannot be read"),
        ({"arguments": {"order": {"function": "os.system"}}}, "nothing that linrec knows"),
        ({"arguments": 3}, "cannot be read"),
    ],
)
def test_another_configuration_is_refused(change: dict, said: str, tmp_path: Path) -> None:
    lmu.ParallelLMU(2, 5, 3, **UNIT).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=said):
        lmu.ParallelLMU.from_pretrained(tmp_path)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    lmu.ParallelLMU(2, 5, 3, **UNIT).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors.*its checksum is wrong"):
        lmu.ParallelLMU.from_pretrained(tmp_path)
    lmu.ParallelLMU(2, 6, 3, **UNIT).save_pretrained(tmp_path / "larger")
    path.write_bytes((tmp_path / "larger" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"`config\.json` is not the one"):
        lmu.ParallelLMU.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        lmu.ParallelLMU.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"`config\.json` is missing"):
        lmu.ParallelLMU.from_pretrained(tmp_path)


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    module = linrec.nn.Recurrence(linrec.LinearRecurrence([[0.5]], [[0.5]]))
    module.save_pretrained(tmp_path)
    for name in ("model.safetensors", "config.json"):
        path = tmp_path / name
        content = path.read_bytes()
        for place in range(0, 8 * len(content), 1 if FULL else 5):
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            with pytest.raises(ValueError):  # of damage of any kind
                type(module).from_pretrained(tmp_path)
        path.write_bytes(content)
    type(module).from_pretrained(tmp_path)


def test_weights_with_the_checksum_of_before_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    module = linrec.nn.Recurrence(linrec.LinearRecurrence([[0.5]], [[0.5]]))
    module.save_pretrained(tmp_path)
    state = {name: leaf.clone() for name, leaf in module.state_dict().items()}
    metadata = {"format": "pt", "sha256": hub.digest(state), "complex": "[]"}
    save_file(state, tmp_path / "model.safetensors", metadata)
    assert type(module).from_pretrained(tmp_path).state_dict().keys() == state.keys()
    save_file({n: leaf + 1 for n, leaf in state.items()}, tmp_path / "model.safetensors", metadata)
    with pytest.raises(ValueError, match="checksum of its weights is wrong"):
        type(module).from_pretrained(tmp_path)


@pytest.mark.parametrize("place", ["config.json", "model.safetensors"])
def test_a_full_disk_takes_nothing_away(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file finds no room: what was there before is there, and can be read."""
    before, after = (lmu.LegendreMemory(1, order, 9.0) for order in (4, 5))
    before.save_pretrained(tmp_path)
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    original = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        part = place == "model.safetensors" and path.name.endswith(".part")
        if mode[0] in "wx" and (part or path.name == place):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return original(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    said = re.escape(f"`{tmp_path}` cannot be written (No space left on device)")
    with pytest.raises(OSError, match=said):
        after.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == held
    monkeypatch.undo()
    after.save_pretrained(tmp_path)
    assert lmu.LegendreMemory.from_pretrained(tmp_path).order == 5


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/folder` cannot be written \(Not a directory\)"):
        lmu.LegendreMemory(1, **UNIT).save_pretrained(tmp_path / "file" / "folder")


def test_configurations_that_are_no_object_and_pipes_are_refused(tmp_path: Path) -> None:
    lmu.LegendreMemory(1, **UNIT).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ValueError, match="pipe or a device"):
        lmu.LegendreMemory.from_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for content in ("[1]", "null", "[" * 100_000, "{", "\xff", '{"linrec_version": NaN}'):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match="cannot be read"):
            lmu.LegendreMemory.from_pretrained(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="pipe or a device"):
        lmu.LegendreMemory.from_pretrained(tmp_path)


def test_pushing_is_huggingface_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = []
    monkeypatch.setattr(
        hub.Folder,
        "push_to_hub",
        lambda self, repo_id, **options: pushed.append((repo_id, options)),
    )
    lmu.LegendreMemory(1, **UNIT).push_to_hub("me/memory", private=True)
    ((repo_id, options),) = pushed
    assert repo_id == "me/memory" and options["private"]
    assert options["config"]["class"] == "lmu.memory.LegendreMemory"


UPLOADED = """
import torch, lmu
torch.manual_seed(0)
memory = lmu.ParallelLMU(2, 5, channels=2, order=4, theta=10).eval()
print(memory.push_to_hub("user/memory", token="hf_any"))
again = lmu.ParallelLMU.from_pretrained("user/memory")
inputs = torch.randn(3, 9, 2)
assert torch.equal(again(inputs)[0], memory(inputs)[0])
"""


def test_what_is_uploaded_is_what_is_downloaded(tmp_path: Path) -> None:
    """(In a process of its own: the address of the Hub is read when its library is imported.)"""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    try:
        done = forked.run(UPLOADED, environment=os.environ | settings)
    finally:
        hub.shutdown()
        hub.server_close()
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"{hub.address}/user/memory/commit/{COMMIT}"
    assert {"config.json", "model.safetensors", "README.md"} <= hub.files.keys()
    assert "GET /user/memory/resolve/main/model.safetensors" in hub.asked
