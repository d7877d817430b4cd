"""Layouts of files of keras-lmu beside the plain one, as Keras 2.15 and 3.15 were seen to write."""

# Options and configurations are dictionaries of anything.
# pyright: reportArgumentType=false

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmu

h5py = pytest.importorskip("h5py")

from keras_files import INPUTS, Case, outputs, write  # noqa: E402
from test_from_keras import CELLS  # noqa: E402

from lmu.keras.cells import ACTIVATIONS, activation  # noqa: E402

X = np.random.default_rng(1).normal(0, 1, (2, 200, INPUTS)).astype(np.float32)


def difference(layer: Any, case: Case, x: np.ndarray = X) -> float:
    return np.abs(layer(torch.from_numpy(x)).outputs.detach().numpy() - outputs(case, x)).max()


def as_of_keras_2(path: Path) -> None:
    """Number the hidden cell under what runs it, and drop the names, as Keras 2 does."""
    with h5py.File(path, "a") as file:
        layers = file["layers"]
        layers.visititems(lambda _, group: group.attrs.pop("name", None))
        for name in [name for name in layers if name.startswith("lmu") and "feed" not in name]:
            group = layers[name]
            if "hidden_cell" in group:
                group.move("hidden_cell", "layer/cell/hidden_cell" if "cell" in group["layer"]
                           else "layer/hidden_cell")  # fmt: skip


@pytest.mark.parametrize("hidden", ["Dense", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("options", [{}, {"hidden_to_memory": True, "use_bias": True}])
def test_keras_2_has_the_hidden_cell_elsewhere_and_another_hard_sigmoid(
    hidden: str, options: dict[str, Any], tmp_path: Path
) -> None:
    key = "activation" if hidden == "Dense" else "recurrent_activation"
    case = Case("LMU", hidden, {key: "hard_sigmoid"}, options)
    path = write(tmp_path / "model.weights.h5", {"it": case})
    as_of_keras_2(path)
    config = {
        "class_name": "Sequential",
        "keras_version": "2.15.0",
        "config": {"layers": [case.layer_record("it", legacy=False)]},
    }
    case.cell[key] = "hard_sigmoid of Keras 2"  # the reference's
    if hidden == "GRUCell":  # Keras 2 resets before unless told
        config["config"]["layers"][0]["config"]["hidden_cell"]["config"]["reset_after"] = True
    assert difference(lmu.from_keras(path, config=config), case) <= 1e-5


def nested(folder: Path, cases: dict[str, Case]) -> Path:
    """A legacy file whose model has a model, and that one another: all in one group."""
    path = write(folder / "model.h5", cases)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        records = config["config"]["layers"]
        inner = {"class_name": "Functional", "config": {"name": "inner", "layers": records[1:]}}
        outer = {"class_name": "Sequential", "config": {"name": "outer", "layers": [inner]}}
        config["config"]["layers"] = [records[0], outer]
        file.attrs["model_config"] = json.dumps(config)
        top, paths = file["model_weights"], []
        made = top.create_group("outer")
        for name in (*cases, "readout"):
            for each in top[name].attrs["weight_names"]:
                paths.append(f"inner/{each}")
                made[paths[-1]] = top[name][each][()]
            del top[name]
        made.attrs["weight_names"] = np.array(paths, h5py.string_dtype())
    return path


def test_models_in_models_of_older_files(tmp_path: Path) -> None:
    cases = {"a": Case("LMU", "LSTMCell"), "b": Case("RNN", "GRUCell"), "c": Case("LMUFeedforward")}
    path = nested(tmp_path, cases)
    made = lmu.from_keras(path)
    assert made.keys() == cases.keys()
    for name, case in cases.items():
        assert difference(made[name], case) <= 1e-5
    assert lmu.from_keras(path, layer="readout")[0].weight.shape == (2, 4)


@pytest.mark.parametrize("format", [".keras", ".weights.h5", ".h5"])
def test_layers_that_are_not_asked_for_may_be_of_any_kind(format: str, tmp_path: Path) -> None:
    """A `Dense` layer of whole numbers, or with more variables than it should have."""
    case = Case("LMU", "SimpleRNNCell")
    path = write(tmp_path / f"model{format}", {"it": case})

    def change(weights: Any) -> None:
        with h5py.File(weights, "a") as file:
            at = "model_weights/readout/readout" if format == ".h5" else "layers/dense/vars"
            for name in list(file[at]):
                del file[at][name]
                file[at][name] = np.ones((4, 2), np.int8)

    if format == ".keras":
        with zipfile.ZipFile(path) as archive:
            held = {name: archive.read(name) for name in archive.namelist()}
        (tmp_path / "inner").write_bytes(held["model.weights.h5"])
        change(tmp_path / "inner")
        held["model.weights.h5"] = (tmp_path / "inner").read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in held.items():
                archive.writestr(name, content)
    else:
        change(path)
    given = {}
    if format == ".weights.h5":
        with zipfile.ZipFile(write(tmp_path / "whole.keras", {"it": case})) as archive:
            given = {"config": json.loads(archive.read("config.json"))}
    assert difference(lmu.from_keras(path, **given), case) <= 1e-5
    with pytest.raises(ValueError, match="expected real numbers"):
        lmu.from_keras(path, layer="readout", **given)


def with_config(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> Path:
    """Change the records of the layers of a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(held["config.json"])
    change(config["config"]["layers"])
    held["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    return path


def wrapped(layers: list[dict[str, Any]]) -> None:
    last = layers[-2]
    layers[-2] = {
        "class_name": "Bidirectional",
        "config": {"name": "both", "layer": last, "merge_mode": "concat"},
    }


def stacked(layers: list[dict[str, Any]]) -> None:
    cell = {"class_name": "keras-lmu>LMUCell", "config": layers[-2]["config"]}
    cells = {"class_name": "StackedRNNCells", "config": {"cells": [cell, cell]}}
    layers[-2] = {"class_name": "RNN", "config": {"name": "both", "cell": cells}}


@pytest.mark.parametrize("change", [wrapped, stacked])
def test_layers_within_others_are_refused_by_name(change: Any, tmp_path: Path) -> None:
    """Also beside layers that can be had: they are not left out without a word."""
    alone = with_config(write(tmp_path / "model.keras", {"it": Case()}), change)
    with pytest.raises(ValueError, match=r"`both` \(\w+\) have a layer of keras-lmu inside"):
        lmu.from_keras(alone)
    case = Case("LMU", "Dense")
    path = write(tmp_path / "beside.keras", {"first": case, "it": Case()})
    with pytest.raises(ValueError, match=r"Pass `layer`, one of `first` \(LMU\)"):
        lmu.from_keras(with_config(path, change))
    assert difference(lmu.from_keras(path, layer="first"), case) <= 1e-5


def test_layers_come_in_evaluation_mode(tmp_path: Path) -> None:
    case = Case("LMU", "LSTMCell", options={"dropout": 0.5, "hidden_to_memory": True})
    layer = lmu.from_keras(write(tmp_path / "model.keras", {"it": case}))
    assert not layer.training and difference(layer, case) <= 1e-5


@pytest.mark.parametrize(
    ("kind", "options", "steps", "said"),
    [
        ("LMUFeedforward", {"conv_mode": "raw", "truncate_ir": 1e-4}, 200, "truncate_ir=0.0001"),
        ("LMUFeedforward", {"conv_mode": "raw", "truncate_ir": None}, 200, None),
        ("LMUFeedforward", {"conv_mode": "fft", "truncate_ir": 1e-4}, 200, None),
        # exp(-5) of a memory of one state is left when it is cut, and 10^-7 of one of four
        ("LMU", {"order": 1}, None, r"after 125 steps.* about 0\.007 of the memory"),
        ("LMU", {"order": 1}, 200, None),
        ("LMU", {"order": 4}, None, None),
        ("LMU", {"order": 1, "trainable_theta": True}, None, None),
        ("RNN", {"order": 1}, None, None),
    ],
)
def test_memories_that_keras_lmu_cuts_are_told_of(
    kind: str, options: dict[str, Any], steps: int | None, said: str | None, tmp_path: Path
) -> None:
    own = {name: options[name] for name in options.keys() - {"conv_mode", "truncate_ir"}}
    path = write(tmp_path / "model.keras", {"it": Case(kind, options=own)})

    def change(layers: list[dict[str, Any]]) -> None:
        layers[1]["build_config"] = {"input_shape": [None, steps, INPUTS]}
        if kind == "LMUFeedforward":
            layers[1]["config"].update(options)

    with_config(path, change)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lmu.from_keras(path)
    assert len(caught) == (said is not None)
    if said is not None:
        with pytest.warns(UserWarning, match=said):
            lmu.from_keras(path)
        assert caught[0].filename == __file__


def squashed(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


NUMPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "celu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "glu": lambda x: x[..., :4] * squashed(x[..., 4:]),
    "hard_shrink": lambda x: np.where(abs(x) > 0.5, x, 0),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "log_sigmoid": lambda x: -np.log1p(np.exp(-x)),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "relu6": lambda x: np.clip(x, 0, 6),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(abs(x) - 0.5, 0),
    "tanh_shrink": lambda x: x - np.tanh(x),
}


@pytest.mark.parametrize("name", NUMPY)
def test_activations_are_those_of_keras_3(name: str) -> None:
    x = np.linspace(-8, 8, 48).reshape(6, 8)
    found = activation(name)(torch.from_numpy(x)).numpy()
    assert np.allclose(found, NUMPY[name](x), atol=1e-12)
    assert name in ACTIVATIONS


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e37])
@pytest.mark.parametrize("format", [".keras", ".weights.h5", ".h5"])
def test_numbers_that_no_training_leaves_are_refused(
    number: float, format: str, tmp_path: Path
) -> None:
    case = Case("LMU", "LSTMCell")
    case.inner["kernel"][2, 3] = number
    path = write(tmp_path / f"model{format}", {"it": case})
    given = {}
    if format == ".weights.h5":
        given = {**case.config, "hidden_cell": case.hidden_record}
    with pytest.raises(ValueError, match="expected finite numbers") as raised:
        lmu.from_keras(path, **given)
    assert str(path) in str(raised.value)


def test_checksums_that_were_added_are_compared(tmp_path: Path) -> None:
    """HDF5 of Keras has none; `h5repack -f FLET` adds Fletcher's to each variable."""
    case = Case("LMU", "LSTMCell")
    plain, path = (tmp_path / f"{name}.weights.h5" for name in ("plain", "with sums"))
    write(plain, {"it": case})
    with h5py.File(plain) as old, h5py.File(path, "w") as new:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                new.create_dataset(name, data=item[()], chunks=item.shape, fletcher32=True)
            else:
                new.create_group(name)

        old["layers/lmu"].visititems(lambda name, item: copy(f"layers/lmu/{name}", item))
        kernel = new["layers/lmu/hidden_cell/vars/0"].id.get_chunk_info(0)
    given = {**case.config, "hidden_cell": case.hidden_record}
    assert difference(lmu.from_keras(path, **given), case) <= 1e-5
    whole = path.read_bytes()
    for bit in np.random.default_rng(0).integers(8 * (kernel.size - 4), size=50):
        place = kernel.byte_offset + int(bit) // 8
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << int(bit) % 8]) + whole[place + 1 :]
        )
        with pytest.raises((ValueError, OSError), match=r"with sums\.weights\.h5"):
            lmu.from_keras(path, **given)


@pytest.mark.parametrize("cell", [name for name in CELLS if name != "none"])
def test_what_came_in_goes_into_a_folder_and_back(cell: str, tmp_path: Path) -> None:
    """With whatever hidden cell; and what is not trained stays so."""
    pytest.importorskip("huggingface_hub")
    pytest.importorskip("safetensors")
    hidden, settings = CELLS[cell]
    options = {"kernel_initializer": None, "memory_d": INPUTS, "use_bias": True}
    layer = lmu.from_keras(
        write(tmp_path / "model.keras", {"it": Case("LMU", hidden, settings, options)})
    )
    layer.save_pretrained(tmp_path / "folder")
    again = lmu.LMU.from_pretrained(tmp_path / "folder")
    assert torch.equal(again(torch.from_numpy(X)).outputs, layer(torch.from_numpy(X)).outputs)
    trained = [{n: p.requires_grad for n, p in m.named_parameters()} for m in (layer, again)]
    assert trained[0] == trained[1] and not all(trained[0].values())
