"""The files of Keras: configurations as JSON and variables as HDF5; nothing is executed."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmu.files import decode, parse_json, read_bytes, zip_member
from lmu.keras.hdf5 import Group, Room, find_below, list_children, open_hdf5, text

CONFIGURATION = 2**24  # bytes of a configuration, at most
LARGEST = 2**30  # bytes of an archive and of its weights, at most
MODELS = ("Functional", "Sequential", "Model")
READ = ("LMU", "LMUFeedforward", "RNN", "Dense")  # whose variables are read


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """A layer of a file.

    Args:
        name: its own, unique in its model.
        kind: its class, without the package's name.
        config: its options; None in a file that has weights alone.
        own: its variables: of a cell that it runs, the cell's. By position.
        hidden: those of its hidden cell.
        input_shape: what it was built for, if that is known.
    """

    name: str
    kind: str
    config: Mapping[str, Any] | None
    own: Sequence[np.ndarray]
    hidden: Sequence[np.ndarray] = ()
    input_shape: Sequence[int | None] | None = None


@dataclass(frozen=True, eq=False)
class KerasFile:
    """All layers of a file, and whether Keras 2 wrote it."""

    layers: Sequence[KerasLayer] = field(default_factory=tuple)
    keras_2: bool = False


def read(path: Path, config: Mapping[str, Any] | None) -> KerasFile:
    """Read all layers of a file.

    Args:
        path: a `.keras` archive, a `.weights.h5` or a legacy `.h5`; which, is seen in its content.
        config: the model's configuration, for a file that has none.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        return read_archive(path)
    if start != b"\x89HDF\r\n\x1a\n":
        raise ValueError("it is neither a zip archive nor HDF5")
    with open_hdf5(path) as root:
        room = Room(path.stat().st_size)
        stored = text(root.attrs["model_config"]) if "model_config" in root.attrs else None
        if stored is not None:
            config = parse_config(stored)
        keras_2 = text(root.attrs.get("keras_version", "3")).startswith("2")
        weights = find_below(root, "model_weights")
        weights = root if weights is None else weights
        if "layer_names" in weights.attrs:
            return KerasFile(tuple(legacy_layers(weights, config, room)), keras_2)
        return KerasFile(tuple(positional_layers(root, config, room)), keras_2)


def read_archive(path: Path) -> KerasFile:
    """Read a `.keras` file."""
    config = member_config(path, "config.json")
    metadata = member_config(path, "metadata.json")
    with zip_member(path, "model.weights.h5", LARGEST) as stream:
        weights = stream.read()
    with open_hdf5(io.BytesIO(weights)) as root:
        layers = tuple(positional_layers(root, config, Room(len(weights))))
    return KerasFile(layers, text(metadata.get("keras_version", "3")).startswith("2"))


def read_config(path: Path) -> Mapping[str, Any]:
    """Read a configuration from a `.keras` file or from JSON."""
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        return member_config(path, "config.json")
    return parse_config(decode(read_bytes(path, CONFIGURATION), path))


def member_config(path: Path, name: str) -> Mapping[str, Any]:
    """Read a configuration from a `.keras` file."""
    with zip_member(path, name, LARGEST) as stream:
        content = stream.read(CONFIGURATION + 1)
    if len(content) > CONFIGURATION:
        raise ValueError(f"its `{name}` has more than {CONFIGURATION:,} bytes")
    return parse_config(decode(content, path))


def parse_config(content: str) -> Mapping[str, Any]:
    """Parse a configuration."""
    config = parse_json(content)
    if not isinstance(config, dict):
        raise ValueError(f"its configuration is a {type(config).__name__} and not an object")
    return config


def base_name(record: Mapping[str, Any]) -> str:
    """Say the class of a record without its package: `keras-lmu>LMU` is `LMU`."""
    return text(record.get("class_name", "")).rpartition(">")[2]


def model_layers(config: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]] | None:
    """List the records of a model's layers; None where that is no model's configuration."""
    if config is None or "class_name" not in config:
        return None
    inner = config.get("config", {})
    layers = inner if isinstance(inner, list) else inner.get("layers")
    if not isinstance(layers, list):
        raise ValueError(
            f"its model is a {base_name(config)} without a list of layers: expected a functional "
            "or sequential model. Save the layers' weights, and give their options"
        )
    return layers


def positional_layers(
    root: Group, config: Mapping[str, Any] | None, room: Room
) -> Iterator[KerasLayer]:
    """Read the layers of a file of Keras 3, whose groups are numbered classes."""
    records = model_layers(config)
    if records is None:
        yield from layers_by_structure(root, room)
        return
    groups = find_below(root, "layers")
    groups = root if groups is None else groups
    held, numbered = list_children(groups), dict[str, int]()
    for record in records:
        kind, options = base_name(record), record.get("config", {})
        key = snake_case(kind)
        count = numbered[key] = numbered.get(key, -1) + 1
        name = text(options.get("name", record.get("name", key)))
        group = held.get(f"{key}_{count}" if count else key)
        if group is None or find_name(group, name) != name:
            # Of a model that was put together otherwise than it is described.
            group = next((each for each in held.values() if find_name(each) == name), None)
        if kind in MODELS:
            if group is not None:
                yield from positional_layers(group, record, room)
        elif group is not None:
            shape = (record.get("build_config") or {}).get("input_shape")
            yield layer_at(group, room, name, kind, options, shape)


def layers_by_structure(root: Group, room: Room) -> Iterator[KerasLayer]:
    """Find layers of keras-lmu by their layout, in a file without a configuration."""
    for key, group in list_children(root).items():
        if not hasattr(group, "keys"):
            continue
        if find_below(group, "layer/vars") is not None:
            yield layer_at(group, room, find_name(group, key), "LMU", None)
        elif find_below(group, "delay_layer") is not None:
            yield layer_at(group, room, find_name(group, key), "LMUFeedforward", None)
        elif find_below(group, "cell/vars") is not None:
            yield layer_at(group, room, find_name(group, key), "RNN", None)
        elif room.is_new(group):
            yield from layers_by_structure(group, room)


def layer_at(
    group: Group,
    room: Room,
    name: str,
    kind: str,
    config: Mapping[str, Any] | None,
    input_shape: Sequence[int | None] | None = None,
) -> KerasLayer:
    """Read the variables of a layer, wherever its kind has them; of other kinds none."""
    if kind not in READ:
        return KerasLayer(name, kind, config, ())
    own = room.variables(group, "layer/cell", "layer", "cell", "")
    hidden = room.variables(group, "hidden_cell", "cell/hidden_cell")
    return KerasLayer(name, kind, config, own, hidden, input_shape)


def find_name(group: Any, default: str = "") -> str:
    """Say the name that a layer gave itself."""
    held = find_below(group, "vars") if hasattr(group, "keys") else None
    return default if held is None else text(held.attrs.get("name", default))


def snake_case(name: str) -> str:
    """Write a class's name as Keras 3 does: `LMUFeedforward` is `lmu_feedforward`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


# The order in which Keras 3 numbers what its older files name.
ORDER = ("kernel", "recurrent_kernel", "bias")
ORDER_OF_LMU = ("kernel", "bias", "theta_inv", "recurrent_kernel")


def legacy_layers(
    weights: Group, config: Mapping[str, Any] | None, room: Room
) -> Iterator[KerasLayer]:
    """Read the layers of an older file, which names its variables."""
    held = list_children(weights)
    records = model_layers(config)
    if records is None:
        names = [text(name) for name in weights.attrs["layer_names"]]
        records = [{"class_name": "", "config": {"name": name}} for name in names]
    for record in records:
        kind, options = base_name(record), record.get("config", {})
        name = text(options.get("name", record.get("name", "")))
        group = held.get(name)
        if kind in MODELS:
            raise ValueError(f"its layer `{name}` is a model: expected layers in one model alone")
        if kind not in ("", *READ):
            yield KerasLayer(name, kind, options, ())
            continue
        if group is None:
            continue
        found: dict[str, dict[str, np.ndarray]] = {}
        for path in (text(path) for path in group.attrs["weight_names"]):
            parent, _, last = path.partition(":")[0].rpartition("/")
            dataset = find_below(group, path)
            if dataset is None:
                raise ValueError(f"`{name}` has no variable `{path}`, though it lists it")
            found.setdefault(parent, {})[last] = room.array(dataset)
        if config is None and not any("lmu" in parent for parent in found):
            continue
        own, hidden = tell_apart(found, options, kind)
        own_order = ORDER if kind == "Dense" else ORDER_OF_LMU
        shape = (record.get("build_config") or {}).get("input_shape")
        yield KerasLayer(
            name,
            kind or "LMU",
            None if config is None else options,
            sort_variables(own, own_order, name),
            sort_variables(hidden, ORDER, name),
            shape,
        )


def tell_apart(
    found: dict[str, dict[str, np.ndarray]], options: Mapping[str, Any], kind: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Separate a layer's own variables from its hidden cell's, one group further in."""
    cell = (options.get("cell") or {}).get("config", {}) if kind == "RNN" else options
    hidden = cell.get("hidden_cell")
    hidden_name = hidden.get("config", {}).get("name") if isinstance(hidden, Mapping) else None
    parents = sorted(found, key=lambda parent: parent.count("/"))
    inner = next((p for p in parents if hidden_name and p.rpartition("/")[2] == hidden_name), None)
    if inner is None and len(parents) > 1:
        inner = parents[-1]
    outer = [found[parent] for parent in parents if parent != inner]
    if len(outer) > 1:
        raise ValueError(f"its variables lie in {parents}: expected a layer's and a hidden cell's")
    return (outer[0] if outer else {}), (found[inner] if inner is not None else {})


def sort_variables(
    held: dict[str, np.ndarray], order: Sequence[str], layer: str
) -> Sequence[np.ndarray]:
    """Put variables in the order of Keras 3."""
    unknown = sorted(set(held) - set(order))
    if unknown:
        raise ValueError(f"`{layer}` has variables {unknown}: expected some of {list(order)}")
    return tuple(held[name] for name in order if name in held)
