"""Modules in folders and repositories, through huggingface_hub's own mixin.

A folder has `config.json`, with the class and its constructor arguments, and `model.safetensors`,
with the weights. Nothing in it is unpickled or evaluated.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from linrec._files import SEAL, bytes_of, read, seal_tensors, unseal_tensors, write
from linrec.nn.arguments import Remembered, decode, encode

try:
    from huggingface_hub import PyTorchModelHubMixin
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "Folders of pretrained modules need huggingface_hub: type\n  pip install 'linrec[hub]'",
        name="huggingface_hub",
    ) from None

Module = TypeVar("Module", bound=Remembered)

VERSION = 1  # of the format of a folder
WEIGHTS = "model.safetensors"
CARD = "README.md"  # never overwritten: the user may have edited it


class Folder(PyTorchModelHubMixin):
    """A module on its way into a folder, or out of one.

    Args:
        module: the module.
        config: its class and constructor arguments.
    """

    def __init__(self, module: nn.Module, config: Mapping[str, Any]) -> None:
        self.module, self.config = module, config

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {name: copy_tensor(leaf) for name, leaf in self.module.state_dict().items()}
        complexes = [n for n, leaf in self.module.state_dict().items() if leaf.is_complex()]
        metadata = {
            "format": "pt",
            "complex": json.dumps(complexes),
            "frozen": json.dumps([n for n, p in self.module.named_parameters() if frozen(p)]),
            "shared": json.dumps(shared_names(self.module)),
            "config": digest_of_config(self.config),
        }
        write(save_directory / WEIGHTS, seal_tensors(state, metadata))

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # with fewer options: there is one form
        cls,
        *,
        model_id: str,
        config: dict[str, Any] | None = None,
        expected: type[Remembered],
        **options: Any,
    ) -> "Folder":
        module = make_module(config, expected, model_id)
        path = Path(model_id) / WEIGHTS
        if not Path(model_id).is_dir():
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(model_id, WEIGHTS, **options))
        assert config is not None  # or there would be no module
        load_weights(module, path, config)
        return cls(module.eval(), config)


def save(module: Remembered, folder: str | PathLike[str], options: Mapping[str, Any]) -> None:
    """Write a module into a folder."""
    config, folder, given = config_of(module), Path(folder), dict(options)
    own = Folder(cast(nn.Module, module), config)
    pushed, repo_id = given.pop("push_to_hub", False), given.pop("repo_id", None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The mixin deletes a configuration before it writes one: on a full disk both would be lost.
        with TemporaryDirectory(prefix=".", dir=folder) as made:
            card = given.get("model_card_kwargs")
            own.save_pretrained(made, config=config, model_card_kwargs=card)
            for path in Path(made).iterdir():
                if path.name != CARD or not (folder / CARD).exists():
                    path.replace(folder / path.name)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        said = f"`{folder}` cannot be written ({reason}): expected a folder with room, which may be"
        told = type(error)(f"{said} written. Free some space there, or name another folder.")
        told.errno = error.errno
        raise told from None
    if pushed:
        own.push_to_hub(repo_id or folder.name, config=config, **given)


def push(module: Remembered, repo_id: str, options: Mapping[str, Any]) -> object:
    """Write a module into a repository."""
    config = config_of(module)
    own = Folder(cast(nn.Module, module), config)
    return own.push_to_hub(repo_id, config=config, **options)


def load(expected: type[Module], folder: str | PathLike[str], options: Mapping[str, Any]) -> Module:
    """Read a module of a class, or of one derived from it."""
    if Path(folder).is_dir():
        check_configuration(Path(folder) / "config.json", expected)
    found = cast(Any, Folder).from_pretrained(folder, expected=expected, **options)
    return cast(Module, found.module)


def check_configuration(path: Path, expected: type[Remembered]) -> None:
    """Check that a configuration is a JSON object, before huggingface_hub assumes so."""
    try:
        if path.exists() and not isinstance(json.loads(read(path)), dict):
            raise ValueError("it holds no object")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"`{path}` cannot be read ({error}): expected what "
            f"`{expected.__name__}.save_pretrained` wrote."
        ) from None


def config_of(module: Remembered) -> dict[str, Any]:
    """Encode a module's class and arguments, and check that they make the same module."""
    config = {"linrec_version": VERSION, **encode(module)}
    again = decode(config, type(module))
    shapes, mine = (
        {name: list(leaf.shape) for name, leaf in cast(nn.Module, each).state_dict().items()}
        for each in (again, module)
    )
    if shapes != mine:
        wrong = sorted(
            name for name in shapes.keys() | mine.keys() if shapes.get(name) != mine.get(name)
        )
        raise ValueError(
            f"`{type(module).__name__}` was changed after it was made: made again of its arguments "
            f"it has other tensors ({', '.join(wrong[:5])}). Make it with the parts that it has."
        )
    return config


def make_module(config: object, expected: type[Remembered], folder: str) -> nn.Module:
    """Make a module from the configuration in a folder."""
    version = config.get("linrec_version") if isinstance(config, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise ValueError(
            f"`{folder}` has version {version}, and this linrec reads up to {VERSION}: expected an "
            "older folder. Install the linrec that wrote it, or a newer one."
        )
    try:
        if version != VERSION:
            raise ValueError("its `config.json` is missing, or not one of linrec")
        return cast(nn.Module, decode(config, expected))
    except Exception as error:  # with a stranger's arguments, constructors may fail in any way
        raise ValueError(
            f"`{folder}` cannot be read ({error}): expected what "
            f"`{expected.__name__}.save_pretrained` wrote."
        ) from None


def load_weights(module: nn.Module, path: Path, config: Mapping[str, Any]) -> None:
    """Load weights in their own dtype; every name and shape has to fit."""
    try:
        state, metadata = unseal_tensors(read(path))
        check_sums(metadata, config, state)
        complexes = json.loads(metadata["complex"])
        state = {n: torch.view_as_complex(t) if n in complexes else t for n, t in state.items()}
        still = [name for name, parameter in module.named_parameters() if frozen(parameter)]
        still = json.loads(metadata["frozen"]) if "frozen" in metadata else still
        module.load_state_dict(state, assign=True)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in still)
        for names in json.loads(metadata.get("shared", "[]")):
            share(module, names)
    except OSError:
        raise
    except Exception as error:  # readers of damaged files may fail in any way
        raise ValueError(
            f"`{path}` cannot be read ({error}): expected the weights that `save_pretrained` "
            "wrote. Take another copy of the folder."
        ) from None


def shared_names(module: nn.Module) -> list[list[str]]:
    """List the names of parameters that have several, as in a stack of one layer twice."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [each for each in names.values() if len(each) > 1]


def share(module: nn.Module, names: list[str]) -> None:
    """Make one parameter of several."""
    first, *others = names
    parameter = module.get_parameter(first)
    for name in others:
        if module.get_parameter(name).shape != parameter.shape:
            raise ValueError(f"`{name}` has another shape than `{first}`, which it is to be")
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, parameter)


def frozen(parameter: Tensor) -> bool:
    """Whether a parameter is not trained."""
    return not parameter.requires_grad


def copy_tensor(tensor: Tensor) -> Tensor:
    """Copy a tensor into memory of its own, complex numbers as pairs."""
    tensor = tensor.detach().cpu().resolve_conj()
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def check_sums(
    metadata: Mapping[str, str], config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Compare the checksum of the configuration.

    (Folders of early versions have only a checksum of the weights' names and numbers.)
    """
    if SEAL not in metadata:
        if metadata.get("sha256") != digest(state):
            raise ValueError("the checksum of its weights is wrong")
    elif metadata.get("config") != digest_of_config(config):
        raise ValueError("`config.json` is not the one that it was written with")


def digest_of_config(config: Mapping[str, Any]) -> str:
    """Compute the checksum of our part of a configuration; the Hub may add to it."""
    own = {name: config.get(name) for name in ("linrec_version", "class", "arguments")}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def digest(state: Mapping[str, Tensor]) -> str:
    """Compute a checksum of names and numbers."""
    summed = hashlib.sha256()
    for name in sorted(state):
        summed.update(f"{name}{state[name].dtype}{tuple(state[name].shape)}".encode())
        summed.update(bytes_of(state[name]))
    return summed.hexdigest()
