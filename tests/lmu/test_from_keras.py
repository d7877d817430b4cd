"""What comes out of a file of keras-lmu computes what keras-lmu computes."""

# Options and configurations are dictionaries of anything.
# pyright: reportArgumentType=false

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmu
from tests import forked

h5py = pytest.importorskip("h5py")

from keras_files import FORMATS, INPUTS, UNITS, Case, outputs, write  # noqa: E402

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "keras-lmu"
STEPS = 200

CELLS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "none": (None, {}),
    "dense": ("Dense", {}),
    "dense relu, no bias": ("Dense", {"activation": "relu", "use_bias": False}),
    "rnn": ("SimpleRNNCell", {"activation": "tanh"}),
    "rnn relu, no bias": ("SimpleRNNCell", {"activation": "relu", "use_bias": False}),
    "rnn sigmoid": ("SimpleRNNCell", {"activation": "sigmoid"}),
    "lstm": ("LSTMCell", {}),
    "lstm, no bias": ("LSTMCell", {"use_bias": False}),
    "lstm, other functions": (
        "LSTMCell",
        {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    ),
    "gru": ("GRUCell", {"reset_after": True}),
    "gru, no bias": ("GRUCell", {"use_bias": False}),
    "gru, reset before": ("GRUCell", {"reset_after": False}),
    "gru, reset before, no bias": ("GRUCell", {"reset_after": False, "use_bias": False}),
    "gru, other functions": ("GRUCell", {"activation": "softsign"}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "bias": {"use_bias": True},
    "input": {"input_to_hidden": True},
    "no kernel": {"kernel_initializer": None, "memory_d": INPUTS},
    "no kernel, bias": {"kernel_initializer": None, "memory_d": INPUTS, "use_bias": True},
    "euler": {"discretizer": "euler", "theta": 40},
    "memory": {"memory_to_memory": True, "use_bias": True},
    "theta": {"trainable_theta": True},
    "theta, euler": {"trainable_theta": True, "discretizer": "euler", "memory_to_memory": True},
    "hidden": {"hidden_to_memory": True},
    "hidden, no kernel": {
        "hidden_to_memory": True, "kernel_initializer": None, "memory_d": INPUTS + UNITS,
    },
    "all": {
        "hidden_to_memory": True, "memory_to_memory": True, "input_to_hidden": True,
        "use_bias": True, "trainable_theta": True,
    },
}  # fmt: skip
FEEDBACK = ("memory", "theta", "theta, euler", "hidden", "hidden, no kernel", "all")
# Every cell meets few options and every option few cells, and of each kind of layer some.
CASES = [
    (kind, cell, options)
    for kind in ("LMU", "LMUFeedforward", "RNN")
    for cell in CELLS
    for options in OPTIONS
    if cell in ("none", "dense", "lstm") or (kind == "LMU" and options in ("defaults", "all"))
    if not (cell == "none" and ("hidden" in options or options == "all"))
    if not (kind == "LMUFeedforward" and options in FEEDBACK)
]


def case_of(kind: str, cell: str, options: str) -> Case:
    hidden, settings = CELLS[cell]
    return Case(kind, hidden, settings, OPTIONS[options])


def inputs() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (2, STEPS, INPUTS)).astype(np.float32)


def given(case: Case) -> dict[str, Any]:
    """The options of a layer, as they are passed for a file of weights."""
    return {**case.config, "hidden_cell": case.hidden_record}


@pytest.mark.parametrize(("kind", "cell", "options"), CASES)
@pytest.mark.sampled(2)
def test_outputs(kind: str, cell: str, options: str, tmp_path: Path) -> None:
    """In every format, and all formats the same layer."""
    case, x = case_of(kind, cell, options), inputs()
    made = []
    for ending in FORMATS:
        path = write(tmp_path / f"model{ending}", {"it": case})
        made.append(lmu.from_keras(path, **given(case) if ending == ".weights.h5" else {}))
    with torch.no_grad():
        got = made[0](torch.from_numpy(x)).outputs.numpy()
    assert np.abs(got - outputs(case, x)).max() <= 1e-5
    for other in made[1:]:
        assert str(other) == str(made[0])
        for one, another in zip(made[0].state_dict().values(), other.state_dict().values(),
                                strict=True):  # fmt: skip
            assert torch.equal(one, another)
    trained = sum(p.numel() for p in made[0].parameters() if p.requires_grad)
    assert trained == sum(w.size for w in (*case.own.values(), *case.inner.values()))


@pytest.mark.parametrize("ending", FORMATS)
def test_several_layers(ending: str, tmp_path: Path) -> None:
    """Classes are numbered each for itself, and named otherwise."""
    cases = {
        "lmu_7": Case("LMU", "Dense", seed=1),
        "between": Case("RNN", "LSTMCell", seed=2),
        "lmu_3": Case("LMU", "GRUCell", options={"hidden_to_memory": True}, seed=3),
        "last": Case("LMUFeedforward", None, seed=4),
    }
    path, x = write(tmp_path / f"model{ending}", cases), inputs()
    config = write(tmp_path / "whole.keras", cases)
    options = {"config": config} if ending == ".weights.h5" else {}
    made = lmu.from_keras(path, **options)
    assert list(made) == list(cases)
    for name, case in cases.items():
        alone = lmu.from_keras(path, layer=name, **options)
        for layer in (made[name], alone):
            got = layer(torch.from_numpy(x)).outputs.detach().numpy()
            assert np.abs(got - outputs(case, x)).max() <= 1e-5
    readout = lmu.from_keras(path, layer="readout", **options)
    expected = np.tanh(x.mean() * 4 + np.arange(2))
    assert np.allclose(readout(torch.full((4,), float(x.mean()))).detach(), expected, atol=1e-6)


def test_configurations_of_weights_can_be_given_in_any_form(tmp_path: Path) -> None:
    case = Case("LMU", "LSTMCell", options={"use_bias": True})
    weights = write(tmp_path / "model.weights.h5", {"it": case})
    archive = write(tmp_path / "model.keras", {"it": case})
    with zipfile.ZipFile(archive) as opened:
        text = opened.read("config.json").decode()
    (tmp_path / "model.json").write_text(text)
    expected = lmu.from_keras(archive).state_dict()
    short = {"memory_d": 2, "order": 4, "theta": 25, "hidden_cell": "LSTMCell", "use_bias": True}
    for how in (
        {"config": archive},
        {"config": str(tmp_path / "model.json")},
        {"config": json.loads(text)},
        {"config": case.layer_record("it", legacy=False)},
        {"config": short},
        short,
    ):
        made = lmu.from_keras(str(weights), **how)
        assert all(map(torch.equal, made.state_dict().values(), expected.values()))


@pytest.mark.parametrize("dtype", [np.float16, ">f4", np.float64], ids=str)
def test_other_precisions(dtype: Any, tmp_path: Path) -> None:
    case, x = Case("LMU", "GRUCell", options={"hidden_to_memory": True}), inputs()
    made = lmu.from_keras(write(tmp_path / "model.keras", {"it": case}, dtype))
    wide = dtype is np.float64
    got = made(torch.from_numpy(x.astype(np.float64 if wide else np.float32))).outputs
    assert got.dtype == (torch.float64 if wide else torch.float32)
    limit = {np.float16: 1e-2, np.float64: 1e-12}.get(dtype, 1e-5)  # 11 bits of each weight
    assert np.abs(got.detach().numpy() - outputs(case, x)).max() <= limit


def test_dropout_is_carried_over(tmp_path: Path) -> None:
    case = Case(options={"dropout": 0.25, "recurrent_dropout": 0.5, "memory_to_memory": True})
    made = lmu.from_keras(write(tmp_path / "model.keras", {"it": case}))
    assert (made.input_dropout, made.recurrent_dropout) == (0.25, 0.5)


@pytest.mark.skipif(not SAMPLES.exists(), reason="the sample models are not here")
@pytest.mark.parametrize("name", ["lmu_dense_h2m", "lmu_none_bias_m2m"])
def test_outputs_that_keras_lmu_computed(name: str) -> None:
    with np.load(SAMPLES / f"{name}.npz", allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x"]), held["y"]
    for path, options in (
        (SAMPLES / f"{name}.keras", {}),
        (SAMPLES / f"{name}.weights.h5", {"config": SAMPLES / f"{name}.keras"}),
    ):
        made = lmu.from_keras(path, **options)
        assert np.abs(made(x).outputs.detach().numpy() - y).max() <= 1e-5


@pytest.mark.skipif(not SAMPLES.exists(), reason="the sample models are not here")
@pytest.mark.parametrize("name", ["ff_dense", "ff_nohidden", "orig", "rnn_cell", "unknown_len"])
def test_formats_that_keras_wrote_give_one_layer(name: str) -> None:
    archive = SAMPLES / f"{name}.keras"
    expected = lmu.from_keras(archive)
    for other in (
        lmu.from_keras(SAMPLES / f"{name}.h5"),
        lmu.from_keras(SAMPLES / f"{name}.weights.h5", config=archive),
    ):
        assert str(other) == str(expected)
        assert all(map(torch.equal, other.state_dict().values(), expected.state_dict().values()))


def changed(change: Callable[[dict[str, Any]], object], case: Case | None = None) -> Any:
    """A `.keras` file whose layer has another configuration."""

    def make(folder: Path) -> Path:
        path = write(folder / "model.keras", {"it": case or Case("LMU", "GRUCell")})
        with zipfile.ZipFile(path) as archive:
            held = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(held["config.json"])
        change(config["config"]["layers"][1])
        held["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in held.items():
                archive.writestr(name, content)
        return path

    return make


def option(**options: Any) -> Any:
    return changed(lambda layer: layer["config"].update(options))


def cell_option(**options: Any) -> Any:
    return changed(lambda layer: layer["config"]["hidden_cell"]["config"].update(options))


REFUSED: dict[str, tuple[Any, str]] = {
    "another kind of layer": (
        changed(lambda layer: layer.update(class_name="LSTM")),
        "no layer of",
    ),
    "wrapped": (
        changed(lambda layer: layer.update(class_name="Bidirectional")),
        r"no layer of keras-lmu, but .*`it` \(Bidirectional\)",
    ),
    "another hidden cell": (
        changed(lambda layer: layer["config"]["hidden_cell"].update(class_name="Lambda")),
        "layer `it`: the hidden cell Lambda is not known here: expected Dense, SimpleRNNCell",
    ),
    "another activation": (cell_option(activation="cubed"), "the activation 'cubed' is not known"),
    "code": (
        cell_option(activation={"class_name": "__lambda__", "config": {"value": "4wEAAA=="}}),
        "the activation .*__lambda__.* is not known",
    ),
    "other units": (cell_option(units=6), "has 5 units: expected 6"),
    "other bias": (cell_option(reset_after=False), r"bias of GRUCell has shape \(2, 15\)"),
    "other order": (option(order=5), "`hidden` does not take 10 numbers"),
    "huge order": (option(order=10**9), "order is 1000000000: expected a whole number from 1 to"),
    "no order": (option(order=4.5), "order is 4.5: expected a whole number"),
    "huge memory_d": (
        option(memory_d=10**6, kernel_initializer=None),
        "memory_d is 1000000: expected",
    ),
    "other memory_d": (
        option(memory_d=3),
        r"kernel has shape \(3, 2\): expected \(inputs \+ 0, 3\)",
    ),
    "bias": (option(use_bias=True), r"has 1 variables .*expected 2, \['kernel', 'bias'\]"),
    "discretizer": (option(discretizer="exact"), "discretizer|method"),
    "theta": (option(theta="long"), "could not convert"),
    "unknown option": (
        option(fraction=2),
        r"the options \['fraction'\] are not those of keras-lmu",
    ),
    "backwards": (
        changed(lambda layer: layer["config"].update(go_backwards=True), Case("RNN", "Dense")),
        "go_backwards=True is not known here",
    ),
    "no layers": (changed(lambda layer: layer.clear()), "no layer of keras-lmu"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_had_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        lmu.from_keras(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_calls_that_do_not_fit_a_file(tmp_path: Path) -> None:
    weights = write(tmp_path / "model.weights.h5", {"a": Case(), "b": Case("LMU", "Dense")})
    archive = write(tmp_path / "model.keras", {"a": Case()})
    size = {"memory_d": 2, "order": 4, "theta": 25}
    for path, options, message in (
        (weights, {}, r"layer `a`: the options \['memory_d', 'order', 'theta'\] are missing"),
        (weights, size, r"its layers are `a` \(LMU\), `b` \(LMU\): pass one as `layer`"),
        (weights, {**size, "layer": "b"}, "hidden cell has 2 variables: expected none"),
        (weights, {**size, "layer": "c"}, "no layer `c`: expected one of `a`"),
        (weights, {**size, "config": archive}, "expected one of the two"),
        (archive, size, "says itself what its layers are"),
        (archive, {"layer": "start"}, "is a InputLayer"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            lmu.from_keras(path, **options)
        assert str(path) in str(raised.value)
    with pytest.raises(FileNotFoundError):
        lmu.from_keras(tmp_path / "nowhere.keras")


def test_what_is_imported_needs_no_h5py() -> None:
    code = "import sys; sys.modules['h5py'] = None; import lmu; lmu.LMU(1, 1, 4, 9.0)"
    done = forked.run(code)
    assert done.returncode == 0, done.stderr
