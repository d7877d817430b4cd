"""Constructor arguments of modules, converted to JSON values and back.

Nothing is evaluated: classes are looked up by name in linrec, lmu and a table of torch modules.
"""

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

import linrec.executors
import linrec.structures
from linrec.executors import Executor
from linrec.planner import Auto
from linrec.structures import Structure
from linrec.systems import LinearRecurrence, StateSpace

OURS = ("linrec.", "lmu.")  # where classes are looked up

# Modules of torch, with the attributes that hold their constructor arguments.
TORCHS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.RNNCell: ("input_size", "hidden_size", "bias", "nonlinearity"),
    nn.GRUCell: ("input_size", "hidden_size", "bias"),
    nn.LSTMCell: ("input_size", "hidden_size", "bias"),
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.Dropout: ("p",),
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GELU: ("approximate",),
    nn.Hardtanh: ("min_val", "max_val"),
    nn.LeakyReLU: ("negative_slope",),
    nn.Softplus: ("beta", "threshold"),
    **dict.fromkeys((nn.CELU, nn.ELU), ("alpha",)),
    **dict.fromkeys((nn.GLU, nn.LogSoftmax, nn.Softmax), ("dim",)),
    **dict.fromkeys((nn.Hardshrink, nn.Softshrink), ("lambd",)),
    **dict.fromkeys((nn.Hardsigmoid, nn.Hardswish, nn.Identity, nn.LogSigmoid, nn.Mish), ()),
    **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softsign), ()),
    **dict.fromkeys((nn.Tanh, nn.Tanhshrink), ()),
}
FUNCTIONS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in ((torch, ("relu", "sigmoid", "tanh")), (functional, ("gelu", "silu")))
    for name in names
}
EXECUTORS = {
    each.__name__: each
    for each in (Auto, *vars(linrec.executors).values())
    if isinstance(each, type) and issubclass(each, Executor) and each is not Executor
}
STRUCTURES = {
    each.__name__: each
    for each in vars(linrec.structures).values()
    if isinstance(each, type) and issubclass(each, Structure) and each is not Structure
}


class Remembered:
    """A module that remembers its constructor arguments."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments before the constructor runs."""
        made = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(made, *args, **kwargs)
        except TypeError:  # the constructor says so; or a copy is made, which gets its attributes
            return made
        given = {name: value for name, value in list(bound.arguments.items())[1:] if plain(value)}
        made.__dict__["_arguments"] = given
        return made

    def arguments(self) -> Mapping[str, object]:
        """Return the constructor arguments of a module of the same form."""
        return self.__dict__.get("_arguments", {})


def plain(value: object) -> bool:
    """Whether an argument may be kept: not a tensor, which is large, and not an iterator."""
    return not isinstance(value, Tensor | Iterator)


def encode(value: object) -> Any:
    """Convert an argument to JSON values."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [encode(each) for each in value]
    if isinstance(value, Remembered):
        skipped = getattr(type(value), "only_first", ())  # they affect initial weights only
        given = {n: encode(v) for n, v in value.arguments().items() if n not in skipped}
        return {"class": name_of(type(value)), "arguments": given}
    if isinstance(value, nn.Sequential):
        return {"torch": "Sequential", "arguments": [encode(each) for each in value]}
    if type(value) in TORCHS:
        given = {name: getattr(value, name) for name in TORCHS[cast(type[nn.Module], type(value))]}
        given = {n: v is not None if isinstance(v, Tensor | None) else v for n, v in given.items()}
        return {"torch": type(value).__name__, "arguments": given}
    if type(value) in EXECUTORS.values():
        return {"executor": type(value).__name__, "arguments": options_of(value)}
    for name, function in FUNCTIONS.items():
        if value is function:
            return {"function": name}
    if isinstance(value, LinearRecurrence) and type(value.A) in STRUCTURES.values():
        return encode_form(value)
    if isinstance(value, StateSpace) and type(value.A) in STRUCTURES.values():
        return {"state_space": encode_form(LinearRecurrence(value.A, *value.matrices()))}
    raise ValueError(
        f"{value!r} cannot be written down: expected numbers, words, executors, and modules of "
        f"linrec, lmu or of torch ({', '.join(kind.__name__ for kind in TORCHS)}, Sequential). "
        "Pass a module in its place, such as `torch.nn.Tanh()`."
    )


def encode_form(recurrence: LinearRecurrence) -> dict[str, Any]:
    """Encode a recurrence's structure and options, without its numbers."""
    given = dict(zip("BCD", recurrence.matrices(), strict=True)) | recurrence.A.leaves()
    tensors = {name: tensor for name, tensor in given.items() if tensor is not None}
    return {
        "recurrence": type(recurrence.A).__name__,
        "shapes": {n: [list(t.shape), str(t.dtype)[len("torch.") :]] for n, t in tensors.items()},
        "structure": options_of(recurrence.A, but=recurrence.A.core_axes),
        "copies": recurrence.copies,
        "time_varying": recurrence.time_varying,
    }


def decode_form(form: dict[str, Any]) -> LinearRecurrence:
    """Make a recurrence of the encoded form, filled with zeros."""
    tensors = {
        name: torch.zeros(shape, dtype=getattr(torch, dtype))
        for name, (shape, dtype) in form["shapes"].items()
    }
    rest = [tensors.pop(name, None) for name in "BCD"]
    structure = STRUCTURES[form["recurrence"]](**tensors, **form["structure"])
    own = {name: form[name] for name in ("copies", "time_varying")}
    return LinearRecurrence(structure, *rest, **own)


def options_of(value: object, but: object = ()) -> dict[str, Any]:
    """List the fields of a frozen dataclass that differ from their defaults."""
    assert is_dataclass(value)
    given = {each.name: (getattr(value, each.name), each) for each in fields(value) if each.init}
    return {
        name: encode(own)
        for name, (own, field) in given.items()
        if name not in cast(Any, but) and own != field.default
    }


def decode(value: Any, expected: type[Remembered] | None = None) -> Any:
    """Make the value that `encode` converted.

    Raises:
        ValueError: a name that is not ours.
    """
    if isinstance(value, list):
        return [decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    given = value.get("arguments", {})
    if "class" in value:
        kind = class_of(value["class"], expected)
        return kind(**{name: decode(each) for name, each in given.items()})
    if value.get("torch") == "Sequential":
        return nn.Sequential(*map(decode, given))
    for kind in TORCHS:
        if value.get("torch") == kind.__name__:
            return kind(**given)
    if value.get("executor") in EXECUTORS:
        options: dict[str, Any] = {name: decode(option) for name, option in given.items()}
        options = {n: tuple(o) if isinstance(o, list) else o for n, o in options.items()}
        return EXECUTORS[value["executor"]](**options)
    if value.get("function") in FUNCTIONS:
        return FUNCTIONS[value["function"]]
    if value.get("recurrence") in STRUCTURES:
        return decode_form(value)
    if isinstance(form := value.get("state_space"), dict) and form.get("recurrence") in STRUCTURES:
        held = decode_form(form)
        return StateSpace(held.A, *held.matrices())
    raise ValueError(f"{json.dumps(value)[:80]} is nothing that linrec knows")


def class_of(name: str, expected: type[Remembered] | None) -> type[Remembered]:
    """Find the class with a name: the expected one, one derived from it, or one of ours."""
    if expected is not None and name == name_of(expected):
        return expected
    module, _, own = str(name).rpartition(".")
    found = None
    if f"{module}.".startswith(OURS):
        try:
            found = getattr(importlib.import_module(module), own, None)
        except ImportError:
            found = None
    if not isinstance(found, type) or not issubclass(found, Remembered):
        raise ValueError(f"`{name}` is no class of linrec or lmu")
    if expected is not None and not issubclass(found, expected):
        raise ValueError(f"it has a `{name}`, and a `{name_of(expected)}` was asked for")
    return found


def name_of(kind: type) -> str:
    """Return the full name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"
