"""The files of Keras: configurations as JSON and variables as HDF5; nothing is executed."""

import contextlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Group = Any  # of h5py, which is imported where a file is opened
LARGEST = 4 << 30  # bytes that a member of an archive or a variable may have
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


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Make errors of readers ValueErrors that name the file."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (
        ValueError,  # with those of JSON and of text
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RuntimeError,  # with NotImplementedError and RecursionError
        EOFError,
        MemoryError,
        OverflowError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        said = str(error) or type(error).__name__
        if not isinstance(error, ValueError):
            said = f"it is damaged, or no file of keras-lmu ({type(error).__name__}: {said})"
        raise ValueError(f"{path}: {said.rstrip('.')}.") from error


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
        raise ValueError(
            "it is neither a zip archive nor HDF5: expected a `.keras`, `.weights.h5` or `.h5` file"
        )
    with opened(path) as root:
        stored = text(root.attrs["model_config"]) if "model_config" in root.attrs else None
        if stored is not None:
            config = parsed(stored)
        keras_2 = text(root.attrs.get("keras_version", "3")).startswith("2")
        weights = root["model_weights"] if "model_weights" in root else root
        if "layer_names" in weights.attrs:
            return KerasFile(tuple(legacy_layers(weights, config)), keras_2)
        return KerasFile(tuple(positional_layers(root, config)), keras_2)


def read_archive(path: Path) -> KerasFile:
    """Read a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        config = parsed(member(archive, "config.json"))
        metadata = parsed(member(archive, "metadata.json"))
        with opened(io.BytesIO(member(archive, "model.weights.h5"))) as root:
            layers = tuple(positional_layers(root, config))
    return KerasFile(layers, text(metadata.get("keras_version", "3")).startswith("2"))


def read_config(path: Path) -> Mapping[str, Any]:
    """Read a configuration from a `.keras` file or from JSON."""
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        with zipfile.ZipFile(path) as archive:
            return parsed(member(archive, "config.json"))
    return parsed(path.read_bytes())


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member of an archive, of a size that is bounded."""
    if name not in archive.namelist():
        raise ValueError(f"it has no `{name}`: expected a model that Keras 3 saved as `.keras`")
    size = archive.getinfo(name).file_size
    if size > LARGEST:
        raise ValueError(f"its `{name}` has {size} bytes: expected {LARGEST} at most")
    return archive.read(name)


def parsed(content: str | bytes) -> Mapping[str, Any]:
    """Parse a configuration."""
    config = json.loads(content)
    if not isinstance(config, dict):
        raise ValueError(f"its configuration is a {type(config).__name__}: expected an object")
    return config


def text(value: Any) -> str:
    """Take an attribute as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def opened(file: Path | io.BytesIO) -> Group:
    """Open HDF5."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Files of Keras are read by h5py, which is missing: `pip install 'linrec[keras]'`."
        ) from None
    return h5py.File(file, "r")


def children(group: Group) -> dict[str, Any]:
    """List what lies in a group itself; links to elsewhere are refused."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"`{group.name}/{name}` is a link: expected the variable itself")
    return dict(group.items())


def below(group: Group, path: str) -> Any | None:
    """Find what lies at a path of groups; None if there is nothing."""
    for part in path.split("/"):
        found = children(group) if hasattr(group, "keys") else {}
        if part not in found:
            return None
        group = found[part]
    return group


def array(dataset: Any) -> np.ndarray:
    """Read a variable: a few real numbers."""
    if not hasattr(dataset, "shape") or dataset.dtype.kind != "f":
        raise ValueError(f"`{dataset.name}` is {dataset!r}: expected real numbers")
    if dataset.nbytes > LARGEST:
        raise ValueError(f"`{dataset.name}` has {dataset.nbytes} bytes: expected {LARGEST} at most")
    values = np.asarray(dataset[()])
    return values.astype(np.promote_types(values.dtype.newbyteorder("="), np.float32))


def variables(group: Group, *paths: str) -> Sequence[np.ndarray]:
    """Read the variables at the first of some paths that is there, `0`, `1`, … in order."""
    for path in paths:
        found = below(group, f"{path}/vars" if path else "vars")
        if found is not None:
            held = children(found)
            return tuple(array(held[key]) for key in sorted(held, key=int))
    return ()


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


def positional_layers(root: Group, config: Mapping[str, Any] | None) -> Iterator[KerasLayer]:
    """Read the layers of a file of Keras 3, whose groups are numbered classes."""
    records = model_layers(config)
    if records is None:
        yield from layers_by_structure(root)
        return
    groups = below(root, "layers")
    groups = root if groups is None else groups
    held, numbered = children(groups), dict[str, int]()
    for record in records:
        kind, options = base_name(record), record.get("config", {})
        key = snake_case(kind)
        count = numbered[key] = numbered.get(key, -1) + 1
        name = text(options.get("name", record.get("name", key)))
        group = held.get(f"{key}_{count}" if count else key)
        if group is None or name_of(group, name) != name:
            # Of a model that was put together otherwise than it is described.
            group = next((each for each in held.values() if name_of(each) == name), None)
        if kind in MODELS:
            if group is not None:
                yield from positional_layers(group, record)
        elif group is not None:
            shape = (record.get("build_config") or {}).get("input_shape")
            yield layer_at(group, name, kind, options, shape)


def layers_by_structure(root: Group) -> Iterator[KerasLayer]:
    """Find what is laid out as a layer of keras-lmu is, where nothing says what it is."""
    for key, group in children(root).items():
        if not hasattr(group, "keys"):
            continue
        if below(group, "layer/vars") is not None:
            yield layer_at(group, name_of(group, key), "LMU", None)
        elif below(group, "delay_layer") is not None:
            yield layer_at(group, name_of(group, key), "LMUFeedforward", None)
        elif below(group, "cell/vars") is not None:
            yield layer_at(group, name_of(group, key), "RNN", None)
        else:
            yield from layers_by_structure(group)


def layer_at(
    group: Group,
    name: str,
    kind: str,
    config: Mapping[str, Any] | None,
    input_shape: Sequence[int | None] | None = None,
) -> KerasLayer:
    """Read the variables of a layer, wherever its kind has them; of other kinds none."""
    if kind not in READ:
        return KerasLayer(name, kind, config, ())
    own = variables(group, "layer/cell", "layer", "cell", "")
    hidden = variables(group, "hidden_cell", "cell/hidden_cell")
    return KerasLayer(name, kind, config, own, hidden, input_shape)


def name_of(group: Any, default: str = "") -> str:
    """Say the name that a layer gave itself."""
    held = below(group, "vars") if hasattr(group, "keys") else None
    return default if held is None else text(held.attrs.get("name", default))


def snake_case(name: str) -> str:
    """Write a class's name as Keras 3 does: `LMUFeedforward` is `lmu_feedforward`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


# The order in which Keras 3 numbers what its older files name.
ORDER = ("kernel", "recurrent_kernel", "bias")
ORDER_OF_LMU = ("kernel", "bias", "theta_inv", "recurrent_kernel")


def legacy_layers(weights: Group, config: Mapping[str, Any] | None) -> Iterator[KerasLayer]:
    """Read the layers of an older file, which names its variables."""
    held = children(weights)
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
            dataset = below(group, path)
            if dataset is None:
                raise ValueError(f"`{name}` has no variable `{path}`, though it lists it")
            found.setdefault(parent, {})[last] = array(dataset)
        if config is None and not any("lmu" in parent for parent in found):
            continue
        own, hidden = told_apart(found, options, kind)
        own_order = ORDER if kind == "Dense" else ORDER_OF_LMU
        shape = (record.get("build_config") or {}).get("input_shape")
        yield KerasLayer(
            name,
            kind or "LMU",
            None if config is None else options,
            in_order(own, own_order, name),
            in_order(hidden, ORDER, name),
            shape,
        )


def told_apart(
    found: dict[str, dict[str, np.ndarray]], options: Mapping[str, Any], kind: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Tell a layer's own variables from those of its hidden cell, one group further in."""
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


def in_order(held: dict[str, np.ndarray], order: Sequence[str], layer: str) -> Sequence[np.ndarray]:
    """Put variables in the order of Keras 3."""
    unknown = sorted(set(held) - set(order))
    if unknown:
        raise ValueError(f"`{layer}` has variables {unknown}: expected some of {list(order)}")
    return tuple(held[name] for name in order if name in held)
