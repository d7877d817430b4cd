"""Models of keras-lmu in its three formats, written from their layout, and what they compute."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.linalg import expm

INPUTS, UNITS = 3, 5
FORMATS = (".keras", ".weights.h5", ".h5")
GATES = {"Dense": 1, "SimpleRNNCell": 1, "LSTMCell": 4, "GRUCell": 3}
FUNCTIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid of Keras 2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "softsign": lambda x: x / (1 + abs(x)),
}


@dataclass
class Case:
    """A layer: its kind, its hidden cell, the options that differ from the defaults; weights."""

    kind: str = "LMU"
    hidden: str | None = None
    cell: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self.config: dict[str, Any] = {
            "memory_d": 2, "order": 4, "theta": 25.0, "trainable_theta": False,
            "hidden_to_memory": False, "memory_to_memory": False, "input_to_hidden": False,
            "discretizer": "zoh", "kernel_initializer": "glorot_uniform", "use_bias": False,
            "dropout": 0, "recurrent_dropout": 0, "return_sequences": True,
        } | self.options  # fmt: skip
        c, random = self.config, np.random.default_rng(self.seed)
        width = c["memory_d"] * c["order"]
        self.seen = width + INPUTS * c["input_to_hidden"]
        told = UNITS * c["hidden_to_memory"]

        def drawn(*shape: int) -> np.ndarray:
            return random.normal(0, 0.4 / max(shape[0], 1) ** 0.5, shape).astype(np.float32)

        self.own: dict[str, np.ndarray] = {}
        if c["kernel_initializer"] is not None:
            self.own["kernel"] = drawn(INPUTS + told, c["memory_d"])
        if c["use_bias"]:
            self.own["bias"] = drawn(c["memory_d"])
        if c["trainable_theta"]:
            self.own["theta_inv"] = np.array(1 / 31.0, np.float32)  # not the initial one
        if c["memory_to_memory"]:
            self.own["recurrent_kernel"] = drawn(width, c["memory_d"])
        self.inner: dict[str, np.ndarray] = {}
        if self.hidden:
            columns = GATES[self.hidden] * UNITS
            self.inner["kernel"] = drawn(self.seen, columns)
            if self.hidden != "Dense":
                self.inner["recurrent_kernel"] = drawn(UNITS, columns)
            if self.cell.get("use_bias", True):
                both = self.hidden == "GRUCell" and self.cell.get("reset_after", True)
                self.inner["bias"] = drawn(2, columns) if both else drawn(columns)

    @property
    def hidden_record(self) -> dict[str, Any] | None:
        if self.hidden is None:
            return None
        config = {"name": "inner", "units": UNITS, **self.cell}
        return {"module": "keras.layers", "class_name": self.hidden, "config": config}

    def layer_record(self, name: str, legacy: bool) -> dict[str, Any]:
        config = {**self.config, "name": name, "hidden_cell": self.hidden_record}
        kind = self.kind
        if kind == "RNN":
            cell = {"class_name": "LMUCell", "config": {**config, "name": "cell_of_it"}}
            cell["config"].pop("return_sequences")
            config = {"name": name, "cell": cell, "return_sequences": True, "go_backwards": False}
        elif kind == "LMUFeedforward":
            for option in ("trainable_theta", "hidden_to_memory", "memory_to_memory"):
                config.pop(option)
            config |= {"conv_mode": "fft", "truncate_ir": 1e-4}
        if legacy and kind != "RNN":
            kind = f"keras-lmu>{kind}"
        return {"class_name": kind, "config": config, "build_config": {}}

    @property
    def recurrent(self) -> bool:
        return any(
            self.config[name]
            for name in ("trainable_theta", "hidden_to_memory", "memory_to_memory")
        )


def write(path: Path, cases: dict[str, Case], dtype: Any = np.float32) -> Path:
    """Write a model of some layers, each under its name, with a `Dense` layer after them."""
    legacy = path.suffix == ".h5" and not path.name.endswith(".weights.h5")
    records = [{"class_name": "InputLayer", "config": {"name": "start"}}]
    records += [case.layer_record(name, legacy) for name, case in cases.items()]
    records.append({"class_name": "Dense", "config": {"name": "readout", "activation": "tanh"}})
    config = json.dumps({"class_name": "Functional", "config": {"layers": records}})
    after = {"kernel": np.ones((4, 2), np.float32), "bias": np.arange(2, dtype=np.float32)}
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
            archive.writestr("config.json", config)
            inner = path.with_suffix(".inner")
            write_positional(inner, cases, after, dtype)
            archive.write(inner, "model.weights.h5")
            inner.unlink()
    elif legacy:
        write_named(path, cases, after, config, dtype)
    else:
        write_positional(path, cases, after, dtype)
    return path


def write_positional(
    path: Path, cases: dict[str, Case], after: dict[str, np.ndarray], dtype: Any
) -> None:
    snake = {"LMU": "lmu", "LMUFeedforward": "lmu_feedforward", "RNN": "rnn"}
    count: dict[str, int] = {}
    with h5py.File(path, "w") as file:

        def put(group: str, name: str, values: dict[str, np.ndarray]) -> None:
            made = file.create_group(f"{group}/vars")
            made.attrs["name"] = name
            for number, value in enumerate(values.values()):
                made[str(number)] = value.astype(dtype)

        for name, case in cases.items():
            key = snake[case.kind]
            number = count[key] = count.get(key, -1) + 1
            at = f"layers/{key}" + f"_{number}" * bool(number)
            own = {"LMU": "layer/cell" if case.recurrent else "layer", "RNN": "cell"}.get(case.kind)
            put(at, name, {} if own else case.own)
            if own:
                put(f"{at}/{own}", "own", case.own)
            if own == "layer/cell":
                put(f"{at}/layer", "rnn", {})
            if own != "layer/cell" and case.kind != "RNN":
                inside = f"{at}/layer/delay_layer" if own else f"{at}/delay_layer"
                put(inside, "delay", {})
                put(f"{inside}/cell", "delay_cell", {})
            if case.hidden:
                inside = f"{at}/cell" if case.kind == "RNN" else at
                put(f"{inside}/hidden_cell", "inner", case.inner)
        put("layers/dense", "readout", after)
        put("layers/input_layer", "start", {})


def write_named(
    path: Path, cases: dict[str, Case], after: dict[str, np.ndarray], config: str, dtype: Any
) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"], file.attrs["keras_version"] = config, "3.15.1"
        top = file.create_group("model_weights")
        top.attrs["layer_names"] = ["start", *cases, "readout"]

        def put(layer: str, values: dict[str, np.ndarray]) -> None:
            group = top.create_group(layer)
            group.attrs["weight_names"] = np.array(list(values), h5py.string_dtype())
            for name, value in values.items():
                group[name] = value.astype(dtype)

        put("start", {})
        put("readout", {f"readout/{name}": value for name, value in after.items()})
        for name, case in cases.items():
            inside = {"LMU": f"{name}/rnn_3", "LMUFeedforward": name, "RNN": name}[case.kind]
            at = f"{inside}/cell_of_it" if case.kind != "LMUFeedforward" else inside
            inner = {f"{at}/inner/{key}": value for key, value in case.inner.items()}
            put(name, inner | {f"{at}/{key}": value for key, value in case.own.items()})


def outputs(case: Case, x: np.ndarray) -> np.ndarray:
    """Compute all steps for `x (batch, time, inputs)` in double precision, from the equations."""
    c, w = case.config, {name: value.astype(np.float64) for name, value in case.own.items()}
    order, channels = c["order"], c["memory_d"]
    i, j = np.arange(order)[:, None], np.arange(order)[None, :]
    A = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    B = (2 * i + 1) * (-1.0) ** i
    theta = 1 / w["theta_inv"] if "theta_inv" in w else c["theta"]
    if c["discretizer"] == "euler":
        A, B = np.eye(order) + A / theta, B / theta
    else:
        both = expm(np.block([[A, B], [np.zeros((1, order + 1))]]) / theta)
        A, B = both[:order, :order], both[:order, order:]
    m = np.zeros((len(x), channels, order))
    h = state = np.zeros((len(x), UNITS))
    said = []
    for x_t in x.swapaxes(0, 1):
        u = np.concatenate([x_t, h], -1) if c["hidden_to_memory"] else x_t
        u = u @ w["kernel"] if "kernel" in w else u
        u = u + w.get("bias", 0.0)
        if "recurrent_kernel" in w:
            u = u + m.reshape(len(x), -1) @ w["recurrent_kernel"]
        m = m @ A.T + u[..., None] * B[:, 0]
        seen = m.reshape(len(x), -1)
        seen = np.concatenate([seen, x_t], -1) if c["input_to_hidden"] else seen
        if case.hidden:
            h, state = hidden_step(case, seen, h, state)
        said.append(h if case.hidden else seen)
    return np.stack(said, 1)


def hidden_step(
    case: Case, seen: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    w = {name: value.astype(np.float64) for name, value in case.inner.items()}
    f = FUNCTIONS[case.cell.get("activation", "linear" if case.hidden == "Dense" else "tanh")]
    σ = FUNCTIONS[case.cell.get("recurrent_activation", "sigmoid")]
    bias = w.get("bias", np.zeros(1))
    first, second = bias if bias.ndim == 2 else (bias, np.zeros(1))
    below = seen @ w["kernel"] + first
    if case.hidden == "Dense":
        return f(below), c
    U = w["recurrent_kernel"]
    if case.hidden == "SimpleRNNCell":
        return f(below + h @ U), c
    if case.hidden == "LSTMCell":
        i, forget, g, o = np.split(below + h @ U, 4, -1)
        c = σ(forget) * c + σ(i) * f(g)
        return σ(o) * f(c), c
    z, r, n = np.split(below, 3, -1)
    if case.cell.get("reset_after", True):
        z_h, r_h, n_h = np.split(h @ U + second, 3, -1)
        z, r = σ(z + z_h), σ(r + r_h)
        n = f(n + r * n_h)
    else:
        U_z, U_r, U_n = np.split(U, 3, -1)
        z, r = σ(z + h @ U_z), σ(r + h @ U_r)
        n = f(n + (r * h) @ U_n)
    return z * h + (1 - z) * n, c
