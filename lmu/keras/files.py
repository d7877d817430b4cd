"""The files of Keras: configurations as JSON and variables as HDF5; nothing is executed."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmu.files import decode, parse_json, read_bytes, zip_member
from lmu.keras.hdf5 import Group, Room, find_below, list_children, open_hdf5, text

CONFIGURATION = 2**24  # bytes of a configuration, at most
LARGEST = 2**30  # bytes of an archive and of its weights, at most
MODELS = ("Functional", "Sequential", "Model")
OF_LMU = ("LMU", "LMUFeedforward", "LMUCell")  # classes of keras-lmu
CELLS = ("Dense", "SimpleRNNCell", "LSTMCell", "GRUCell")  # hidden cells that are known here


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """A layer in a file.

    Args:
        name: its name, unique in its model.
        kind: its class, without the package's name.
        config: its options; None in a file that holds only weights.
        own: its variables, or those of the cell that it runs, in Keras' order.
        hidden: the variables of its hidden cell.
        input_shape: the shape that it was built for, if that is known.
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


def read(path: Path, config: Mapping[str, Any] | None, layer: str | None = None) -> KerasFile:
    """Read the layers of a file.

    Args:
        path: a `.keras` archive, a `.weights.h5` or a legacy `.h5`, told apart by their content.
        config: the model's configuration, for a file that has none.
        layer: the layer whose variables are read; None: all layers of keras-lmu. No variables of
            other layers are read, so that those may be of any kind.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        return read_archive(path, layer)
    if start != b"\x89HDF\r\n\x1a\n":
        raise ValueError("it is neither a zip archive nor HDF5")
    with open_hdf5(path) as root:
        reader = Reader(Room(path.stat().st_size), layer)
        stored = text(root.attrs["model_config"]) if "model_config" in root.attrs else None
        if stored is not None:
            config = parse_config(stored)
        keras_2 = is_keras_2(root.attrs if "keras_version" in root.attrs else config or {})
        weights = find_below(root, "model_weights")
        weights = root if weights is None else weights
        if "layer_names" in weights.attrs:
            return KerasFile(tuple(legacy_layers(weights, config, reader)), keras_2)
        return KerasFile(tuple(positional_layers(root, config, reader)), keras_2)


def read_archive(path: Path, layer: str | None) -> KerasFile:
    """Read a `.keras` file."""
    config = member_config(path, "config.json")
    metadata = member_config(path, "metadata.json")
    with zip_member(path, "model.weights.h5", LARGEST) as stream:
        weights = stream.read()
    with open_hdf5(io.BytesIO(weights)) as root:
        layers = tuple(positional_layers(root, config, Reader(Room(len(weights)), layer)))
    return KerasFile(layers, is_keras_2(metadata))


def is_keras_2(described: Mapping[str, Any]) -> bool:
    """Return whether Keras 2 wrote a file, by the version number in it."""
    return text(described.get("keras_version", "3")).startswith("2")


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
    """Return the class of a record without its package: `LMU` for `keras-lmu>LMU`."""
    return text(record.get("class_name", "")).rpartition(">")[2]


def model_layers(config: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]] | None:
    """List the records of a model's layers; None if this is not the configuration of a model."""
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


@dataclass
class Reader:
    """A reader of the variables of one layer, or of all layers of keras-lmu.

    Args:
        room: the reader of the file's variables.
        layer: the name of the layer; None: all layers of keras-lmu.
    """

    room: Room
    layer: str | None

    def reads(self, name: str, kind: str, options: Mapping[str, Any]) -> bool:
        """Return whether a layer is to be read, and of a kind whose variables are known."""
        cell: Mapping[str, Any] = options
        if kind == "RNN":
            held = options.get("cell")
            if not isinstance(held, Mapping) or base_name(held) != "LMUCell":
                return False
            cell = held.get("config") or {}
        if kind != "Dense" and hidden_kind(cell) not in (None, *CELLS):
            return False
        kinds = ("LMU", "LMUFeedforward", "RNN", "Dense")[: 4 if self.layer is not None else 3]
        return kind in kinds and self.layer in (None, name)


def hidden_kind(cell: Mapping[str, Any]) -> str | None:
    """Return the class of the hidden cell of a layer of keras-lmu."""
    hidden = cell.get("hidden_cell")
    return base_name(hidden) if isinstance(hidden, Mapping) else hidden


def holds_lmu(setting: Any) -> bool:
    """Return whether an option contains a layer of keras-lmu, at any depth."""
    if isinstance(setting, Mapping):
        return base_name(setting) in OF_LMU or any(map(holds_lmu, setting.values()))
    return isinstance(setting, list) and any(map(holds_lmu, setting))


def positional_layers(
    root: Group, config: Mapping[str, Any] | None, reader: Reader
) -> Iterator[KerasLayer]:
    """Read the layers of a file of Keras 3, whose groups are numbered classes."""
    records = model_layers(config)
    if records is None:
        yield from layers_by_structure(root, reader.room)
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
            # The model was put together in another way than its configuration describes.
            group = next((each for each in held.values() if find_name(each) == name), None)
        if kind in MODELS:
            if group is not None:
                yield from positional_layers(group, record, reader)
        elif not reader.reads(name, kind, options):
            yield KerasLayer(name, kind, options, ())
        elif group is not None:
            yield layer_at(group, reader.room, name, kind, options, input_shape(record))


def input_shape(record: Mapping[str, Any]) -> Sequence[int | None] | None:
    """Return the input shape that a layer was built for, if its record has one."""
    return (record.get("build_config") or {}).get("input_shape")


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
    """Read the variables of a layer, from the places where its kind keeps them."""
    own = room.variables(group, "layer/cell", "layer", "cell", "")
    # (Keras 2 numbers the hidden cell under the layer that runs it.)
    places = ("", "cell/", "layer/", "layer/cell/")
    hidden = room.variables(group, *(f"{place}hidden_cell" for place in places))
    return KerasLayer(name, kind, config, own, hidden, input_shape)


def find_name(group: Any, default: str = "") -> str:
    """Return the name that a layer gave itself."""
    held = find_below(group, "vars") if hasattr(group, "keys") else None
    return default if held is None else text(held.attrs.get("name", default))


def snake_case(name: str) -> str:
    """Write a class's name as Keras 3 does: `LMUFeedforward` becomes `lmu_feedforward`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


# The order in which Keras 3 numbers what its older files name.
ORDER = ("kernel", "recurrent_kernel", "bias")
ORDER_OF_LMU = ("kernel", "bias", "theta_inv", "recurrent_kernel")


def legacy_layers(
    weights: Group, config: Mapping[str, Any] | None, reader: Reader
) -> Iterator[KerasLayer]:
    """Read the layers of an older file, which names its variables."""
    held = list_children(weights)
    records = model_layers(config)
    if records is None:
        for name in (text(each) for each in weights.attrs["layer_names"]):
            paths = list_paths(held.get(name))
            if any("lmu" in path for path in paths):
                yield named_layer(held[name], paths, {"config": {"name": name}}, reader.room)
        return
    for record in records:
        group = held.get(name_of(record))
        paths = list_paths(group)
        # A model inside the model lists the variables of all its layers.
        leaves = list(leaves_of(record))
        inner = {name_of(leaf) for leaf in leaves} if leaves != [record] else None
        for leaf in leaves:
            name, kind, options = name_of(leaf), base_name(leaf), leaf.get("config", {})
            own = paths if inner is None else [p for p in paths if owner(p, inner) == name]
            if not reader.reads(name, kind, options):
                yield KerasLayer(name, kind, options, ())
            elif group is not None:
                yield named_layer(group, own, leaf, reader.room)


def name_of(record: Mapping[str, Any]) -> str:
    """Return the name of a layer."""
    return text(record.get("config", {}).get("name", record.get("name", "")))


def list_paths(group: Group | None) -> list[str]:
    """List the paths of the variables of a layer of an older file."""
    return [] if group is None else [text(path) for path in group.attrs["weight_names"]]


def leaves_of(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """List the layers of a model and of the models in it, or a layer itself."""
    if base_name(record) not in MODELS:
        yield record
        return
    for inner in model_layers(record) or ():
        yield from leaves_of(inner)


def owner(path: str, names: Set[str]) -> str | None:
    """Find the layer that a variable of an inner model belongs to, by its path."""
    return next((part for part in path.split("/")[:-1] if part in names), None)


def named_layer(
    group: Group, paths: Sequence[str], record: Mapping[str, Any], room: Room
) -> KerasLayer:
    """Read the variables of a layer at their paths; a record without a class is an LMU's."""
    name, kind, options = name_of(record), base_name(record), record.get("config", {})
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in paths:
        parent, _, last = path.partition(":")[0].rpartition("/")
        dataset = find_below(group, path)
        if dataset is None:
            raise ValueError(f"`{name}` has no variable `{path}`, though it lists it")
        found.setdefault(parent, {})[last] = room.array(dataset)
    own, hidden = tell_apart(found, options, kind)
    return KerasLayer(
        name,
        kind or "LMU",
        options if kind else None,
        sort_variables(own, ORDER if kind == "Dense" else ORDER_OF_LMU, name),
        sort_variables(hidden, ORDER, name),
        input_shape(record),
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
