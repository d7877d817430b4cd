"""`from_keras`: layers of keras-lmu as layers of ours."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import linrec
from lmu.files import DamagedFile, explain_parser_errors, refuse_devices
from lmu.initializers import KERAS_LMU
from lmu.keras.cells import HIDDEN, dense, fill
from lmu.keras.files import (
    KerasFile,
    KerasLayer,
    base_name,
    hidden_kind,
    holds_lmu,
    read,
    read_config,
)
from lmu.layers import LMU
from lmu.legendre import delay_system

# The options of keras-lmu that determine what a layer computes, and their defaults.
DEFAULTS: dict[str, Any] = {
    "hidden_cell": None,
    "trainable_theta": False,
    "hidden_to_memory": False,
    "memory_to_memory": False,
    "input_to_hidden": False,
    "discretizer": "zoh",
    "kernel_initializer": "glorot_uniform",
    "use_bias": False,
    "dropout": 0,
    "recurrent_dropout": 0,
    "conv_mode": "fft",
    "truncate_ir": 1e-4,
}
NEEDED = ("memory_d", "order", "theta")

# A file says these in a few letters, and the memory's matrices take their squares.
HIGHEST_ORDER = 2_048
MOST_CHANNELS = 4_096

HIGHEST_ORDER_CUT = 64  # memories of higher orders have forgotten all before they are cut
SMALLEST_CUT = 1e-6  # the smallest share of the memory whose cut is reported

# Those that say how weights begin or are punished, how a layer is called, or how it is computed.
PASSED_OVER = {
    "name", "trainable", "dtype", "seed", "input_d", "registered_name", "build_config",
    "return_sequences", "return_state", "stateful", "unroll", "time_major", "zero_output_for_mask",
    "recurrent_initializer", "bias_initializer",
    "kernel_regularizer", "recurrent_regularizer", "bias_regularizer",
}  # fmt: skip


def from_keras(
    path: str | PathLike[str],
    *,
    layer: str | None = None,
    config: Mapping[str, Any] | str | PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Load layers from a file of keras-lmu, in evaluation mode, with the same outputs.

    Neither TensorFlow nor Keras is needed, and nothing in the file is executed. `LMU`,
    `LMUFeedforward` and `RNN(LMUCell)` all become `lmu.LMU`, which runs in parallel over time
    where possible, and one step at a time by `step`. `return_sequences=False` is its `final`.

    Args:
        path: a `.keras` archive, a legacy `.h5` model, or weights, `.weights.h5` or `.h5`.
        layer: the name of one layer, which may also be a `Dense` layer. None: all layers of
            keras-lmu.
        config: for a file that holds only weights, the configuration of its model: a `.keras` or
            JSON file, or a dictionary as `json.loads(model.to_json())` returns it.
        options: for a file that holds only weights of one layer, in place of `config`: the
            layer's options under keras-lmu's names, `memory_d`, `order`, `theta` and those that
            differ from keras-lmu's defaults. `hidden_cell` is a class's name, such as "LSTMCell",
            or a dictionary `{"class_name": ..., "config": {...}}`.

    Returns:
        An `lmu.LMU`, or a dictionary of them by name if the file has several layers. With `layer`,
        that layer; a `Dense` becomes an `nn.Linear`, in an `nn.Sequential` with its activation if
        it has one.

    Raises:
        ValueError: a damaged file, a file of other layers, options that do not fit the weights, or
            options without an equivalent here, such as `go_backwards`. The message names the file.
        ModuleNotFoundError: h5py is missing: `pip install 'linrec[keras]'`.

    Warns:
        UserWarning: keras-lmu truncates a layer's memory, so that its outputs differ from ours.

    Numerical error: outputs of 200 steps agree to 1e-5 up to order 16. keras-lmu discretises in
    single precision, linrec in double, and for high orders keras-lmu's own error is larger: 2e-5
    for order 32, 4e-4 for order 256. Two truncations are not copied. Without a static number of
    steps, keras-lmu cuts the memory's response after int(5 theta) steps; with `conv_mode="raw"`,
    it cuts it where less than `truncate_ir` of it is left. Here the memory is never cut.

    Variables are read from the file itself, as Keras stores them. A variable that is in another
    file, is compressed, or is larger than its stored content is refused, so that a small file
    takes little memory. A `.keras` archive has checksums, so that damage is found. Plain HDF5 as
    Keras writes it has none: a changed number is noticed only if it is not finite or over 1e12,
    and libhdf5 may crash or never return if its own tables are damaged. Checksums added by another
    program (`h5repack -f FLET`) are compared. Read files of unknown origin in a process of their
    own.

    Example:
        >>> import torch, lmu
        >>> layer = lmu.from_keras("model.keras")  # doctest: +SKIP
        >>> outputs, state = layer(torch.randn(8, 200, 3))  # doctest: +SKIP
        >>> layer = lmu.from_keras(
        ...     "model.weights.h5", memory_d=2, order=6, theta=40, hidden_cell="LSTMCell"
        ... )  # doctest: +SKIP
    """
    path = Path(path)
    if config is not None and options:
        raise ValueError(f"{path}: got `config` and {sorted(options)}: expected one of the two.")
    refuse_devices(path)
    described: Mapping[str, Any] | None = None
    if isinstance(config, Mapping):
        described = config
    elif config is not None:
        refuse_devices(config)
        with explain_parser_errors(config, "a configuration of Keras, as a `.keras` or JSON file"):
            described = read_config(Path(config))
    with name_file_in_errors(path):
        if described is not None and base_name(described) in ("LMU", "LMUFeedforward", "LMUCell"):
            described = described["config"]
        if described is not None and "class_name" not in described:
            described, options = None, dict(described)
        with explain_parser_errors(path, "a `.keras`, `.weights.h5` or `.h5` file of keras-lmu"):
            file = read(path, described, layer)
        chosen = select_layers(file, layer)
        if options:
            if any(each.config is not None for each in file.layers):
                raise ValueError(
                    f"it says itself what its layers are, and got {sorted(options)}: expected no "
                    "options"
                )
            if len(chosen) > 1:
                raise ValueError(f"its layers are {names(chosen)}: pass one as `layer`")
        made = dict[str, nn.Module]()
        for each in chosen:
            made[each.name] = convert_layer(each, options, file.keras_2)
    return made if len(made) > 1 else next(iter(made.values()))


@contextlib.contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Name the file in the message of any error about its content."""
    try:
        yield
    except (DamagedFile, OSError, ModuleNotFoundError):
        raise
    except Exception as error:  # options may be of any type
        said = str(error) or type(error).__name__
        raise ValueError(
            f"{path}: {said.rstrip('.')}. Give another file, or other options."
        ) from error


def select_layers(file: KerasFile, name: str | None) -> Sequence[KerasLayer]:
    """Find the layer with this name, or all layers of keras-lmu if there is none."""
    if name is None:
        chosen = [each for each in file.layers if is_lmu(each)]
        inside = [each for each in file.layers if not is_lmu(each) and holds_lmu(each.config)]
        if inside:
            others = f"Pass `layer`, one of {names(chosen)}" if chosen else "Save that one alone"
            raise ValueError(
                f"its layers {names(inside)} have a layer of keras-lmu inside: expected LMU, "
                f"LMUFeedforward or RNN(LMUCell) without another layer around it. {others}"
            )
        if not chosen:
            raise ValueError(f"it has no layer of keras-lmu, but {names(file.layers) or 'none'}")
        return chosen
    chosen = [each for each in file.layers if each.name == name]
    if not chosen:
        raise ValueError(f"it has no layer `{name}`: expected one of {names(file.layers)}")
    if not (is_lmu(chosen[0]) or chosen[0].kind == "Dense"):
        raise ValueError(
            f"its layer `{name}` is a {chosen[0].kind}: expected LMU, LMUFeedforward, RNN(LMUCell) "
            "or Dense"
        )
    return chosen[:1]


def names(layers: Sequence[KerasLayer]) -> str:
    """List layers for a message."""
    return ", ".join(f"`{each.name}` ({each.kind})" for each in layers)


def is_lmu(layer: KerasLayer) -> bool:
    """Return whether a layer is of keras-lmu."""
    if layer.kind == "RNN" and layer.config is not None:
        return base_name(layer.config.get("cell") or {}) == "LMUCell"
    return layer.kind in ("LMU", "LMUFeedforward", "RNN")


def convert_layer(layer: KerasLayer, options: Mapping[str, Any], keras_2: bool) -> nn.Module:
    """Make one layer."""
    try:
        if layer.kind == "Dense":
            return dense(layer.config or {}, layer.own, keras_2)
        return unit(layer, collect_settings(layer, options), keras_2)
    except ValueError as error:
        raise ValueError(f"layer `{layer.name}`: {error}") from error


def collect_settings(layer: KerasLayer, options: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the options of a layer, and refuse unknown ones that would change its outputs."""
    config = options if layer.config is None else layer.config
    if layer.kind == "RNN" and layer.config is not None:
        if layer.config.get("go_backwards"):
            raise ValueError(
                "go_backwards=True is not known here: expected False. Flip the inputs in time"
            )
        config = layer.config["cell"]["config"]
    unknown = sorted(set(config) - set(DEFAULTS) - set(NEEDED) - PASSED_OVER)
    if unknown:
        raise ValueError(f"the options {unknown} are not those of keras-lmu")
    kind = hidden_kind(config)
    if kind not in (None, *HIDDEN):
        raise ValueError(f"the hidden cell {kind} is not known here: expected {', '.join(HIDDEN)}")
    missing = [name for name in NEEDED if name not in config]
    if missing:
        raise ValueError(
            f"the options {missing} are missing: a file of weights does not say them. Pass them, "
            "or the model's configuration as `config`"
        )
    return {**DEFAULTS, **config}


def unit(layer: KerasLayer, settings: Mapping[str, Any], keras_2: bool) -> LMU:
    """Make an `LMU` from the options and variables of a layer of keras-lmu."""
    memory_d = size(settings["memory_d"], "memory_d", MOST_CHANNELS)
    order = size(settings["order"], "order", HIGHEST_ORDER)
    to_memory, of_memory = settings["hidden_to_memory"], settings["memory_to_memory"]
    trained, biased = settings["trainable_theta"], settings["use_bias"]
    projected = settings["kernel_initializer"] is not None
    wanted = ["kernel"] * projected + ["bias"] * biased + ["theta_inv"] * trained
    wanted += ["recurrent_kernel"] * of_memory
    if len(layer.own) != len(wanted):
        raise ValueError(
            f"it has {len(layer.own)} variables of shapes {[w.shape for w in layer.own]}: expected "
            f"{len(wanted)}, {wanted}, by its options use_bias={biased}, "
            f"trainable_theta={trained}, memory_to_memory={of_memory} and kernel_initializer="
            f"{settings['kernel_initializer']!r}"
        )
    held = dict(zip(wanted, layer.own, strict=True))
    hidden, units = hidden_cell(settings["hidden_cell"], layer.hidden, keras_2)
    told = units if to_memory else 0
    kernel = held.get("kernel")
    if kernel is None:
        # The memory's input is then x, followed by h, as they are.
        kernel = np.eye(memory_d, dtype=np.float32)
    if kernel.ndim != 2 or kernel.shape[1] != memory_d or kernel.shape[0] <= told:
        raise ValueError(
            f"the kernel has shape {kernel.shape}: expected (inputs + {told}, {memory_d}), with "
            f"memory_d={memory_d} and hidden_to_memory={to_memory}"
        )
    theta = 1 / float(held["theta_inv"].squeeze()) if trained else float(settings["theta"])
    input_size = len(kernel) - told
    plain = not (projected or biased or to_memory)
    made = LMU(
        input_size,
        memory_d,
        order,
        theta,
        hidden,
        hidden_to_memory=to_memory,
        memory_to_memory=of_memory,
        input_to_hidden=settings["input_to_hidden"],
        input_projection=not plain,
        bias=biased,
        trainable_theta=trained,
        method=settings["discretizer"],
        input_dropout=settings["dropout"],
        recurrent_dropout=settings["recurrent_dropout"],
        initializers=KERAS_LMU,
    )
    for connection, values, name in (
        (made.input_to_memory, kernel[:input_size], "kernel"),
        (made.hidden_to_memory, kernel[input_size:], "kernel"),
        (made.memory_to_memory, held.get("recurrent_kernel"), "recurrent_kernel"),
    ):
        if connection is not None:
            fill(connection.weight, None if values is None else values.T, f"the {name}")
            connection.weight.requires_grad_(projected or name != "kernel")
    if biased and made.input_to_memory is not None:
        fill(made.input_to_memory.bias, held["bias"], "the bias")
    if any(values.dtype == np.float64 for values in (*layer.own, *layer.hidden)):
        made.double()
        if not trained:  # not by way of float32
            discrete = linrec.discretize(delay_system(order, theta), method=settings["discretizer"])
            assert discrete.B is not None
            made.memory.A, made.memory.B = discrete.A.to_dense(), discrete.B
    warn_of_cut(layer, settings)
    return made.eval()


def warn_of_cut(layer: KerasLayer, settings: Mapping[str, Any]) -> None:
    """Warn where keras-lmu cuts the memory's response and ours goes on."""
    recurrent = ("hidden_to_memory", "memory_to_memory", "trainable_theta")
    if layer.kind == "RNN" or any(settings[name] for name in recurrent):
        return
    share, why = 0.0, ""
    steps = 0 if layer.input_shape is None else layer.input_shape[1]
    if steps is None and settings["order"] <= HIGHEST_ORDER_CUT:
        cut = int(5 * settings["theta"])
        system = delay_system(settings["order"], float(settings["theta"]))
        left = linrec.discretize(system, method=settings["discretizer"]).A.to_dense()
        left = torch.linalg.matrix_power(left, cut)
        share, why = float(left.abs().sum(-1).max()), f"after {cut} steps, of an unknown number"
    if settings.get("conv_mode") == "raw" and settings.get("truncate_ir") is not None:
        share = max(share, float(settings["truncate_ir"]))
        why = f"by truncate_ir={settings['truncate_ir']}"
    if share > SMALLEST_CUT:
        warnings.warn(
            f"keras-lmu cuts the memory of `{layer.name}` {why}, and lmu does not: their outputs "
            f"differ by up to about {share:.1g} of the memory.",
            stacklevel=5,
        )


def size(value: Any, name: str, largest: int) -> int:
    """Check a whole number that is one of a layer's sizes."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise ValueError(f"{name} is {value!r}: expected a whole number from 1 to {largest:,}")
    return value


def hidden_cell(
    setting: Any, weights: Sequence[np.ndarray], keras_2: bool
) -> tuple[nn.Module | None, int]:
    """Make a hidden cell, and return its number of units too."""
    if setting is None:
        if weights:
            raise ValueError(
                f"its hidden cell has {len(weights)} variables: expected none with "
                "hidden_cell=None. Pass `hidden_cell`"
            )
        return None, 0
    record: Mapping[str, Any]
    record = {"class_name": setting} if isinstance(setting, str) else setting
    kind = base_name(record)
    settings = record.get("config") or {}
    module = HIDDEN[kind](settings, weights, keras_2)
    units = len(weights[0].T) if kind == "Dense" else len(weights[1])
    if settings.get("units", units) != units:
        raise ValueError(f"its hidden cell has {units} units: expected {settings['units']}")
    return module, units
