"""Loading of the user's object that `MODULE:NAME` in a command line names."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

import typer
from torch import nn

from linrec.discretization import discretize
from linrec.executors import Executor
from linrec.systems import LinearRecurrence, StateSpace


def load(target: str) -> object:
    """Import the object that `MODULE:NAME` or `FILE.py:NAME` names.

    The module is the user's own and is run as `python` would run it, with the current folder on
    the path. NAME may have dots.
    """
    source, colon, name = target.rpartition(":")
    if not (colon and source and name):
        raise typer.BadParameter(
            f"`{target}` names nothing: expected MODULE:NAME or FILE.py:NAME, as in "
            "`my_package.memories:memory` or `memories.py:memory`."
        )
    found: object = _module(source)
    for part in name.split("."):
        if not hasattr(found, part):
            known = [each for each in vars(found) if not each.startswith("_")]
            raise typer.BadParameter(
                f"`{source}` has no `{name}`: it has {', '.join(known) or 'no public names'}."
            )
        found = getattr(found, part)
    return found


def _module(source: str) -> ModuleType:
    if source.endswith(".py"):
        path = Path(source)
        if not path.is_file():
            raise typer.BadParameter(f"there is no file `{path}` in `{Path.cwd()}`.")
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise  # the user's module was found; something that it imports was not
        raise typer.BadParameter(
            f"there is no module `{source}` (looked in `{Path.cwd()}` and where Python looks): "
            "a file is given as FILE.py:NAME."
        ) from None


def call_factory(found: object) -> object:
    """Call the object if it is a function or a class; it must not need arguments."""
    known = (LinearRecurrence, StateSpace, Executor, nn.Module)
    if not callable(found) or isinstance(found, known):
        return found
    parameters = inspect.signature(found).parameters.values()
    needed = [each.name for each in parameters if is_needed(each)]
    if needed:
        raise typer.BadParameter(
            f"`{getattr(found, '__name__', found)}` needs {', '.join(needed)}: expected a function "
            "without arguments. Write one that calls it, `def mine(): return …`, and name that."
        )
    return found()


def is_needed(parameter: inspect.Parameter) -> bool:
    """Whether a function cannot be called without this argument."""
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variadic


def find_recurrence(module: nn.Module, target: str) -> LinearRecurrence:
    """Return the recurrence of a module, or of its only part that is one."""
    parts = {name: part for name, part in module.named_modules() if hasattr(part, "as_recurrence")}
    if "" in parts or len(parts) == 1:
        as_recurrence = cast(
            Callable[[], LinearRecurrence], next(iter(parts.values())).as_recurrence
        )
        return as_recurrence()
    own = getattr(module, "recurrence", None)
    if isinstance(own, LinearRecurrence):
        return own
    if callable(own) and not any(map(is_needed, inspect.signature(own).parameters.values())):
        return cast(LinearRecurrence, own())
    kind = type(module).__name__
    if parts:
        raise typer.BadParameter(
            f"`{target}` is a {kind} with {len(parts)} recurrences: expected one. Name a part: "
            f"{', '.join(f'{target}.{name}' for name in parts)}."
        )
    raise typer.BadParameter(
        f"`{target}` is a {kind}, which is no recurrence of fixed matrices, nor has one as a "
        "part: expected a `linrec.nn.Recurrence`, a memory, or a module with one of these."
    )


def recurrence(target: str, dt: float | None = None) -> LinearRecurrence:
    """Load a recurrence: given directly, held by a module, or a system discretised with dt."""
    found = call_factory(load(target))
    if isinstance(found, nn.Module):
        found = find_recurrence(found, target)
    if isinstance(found, StateSpace):
        try:
            found = discretize(found, 1.0 if dt is None else dt)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--dt") from None
    elif dt is not None:
        raise typer.BadParameter(
            f"--dt is the time step of a `StateSpace`, and `{target}` is no such: leave it out."
        )
    if not isinstance(found, LinearRecurrence):
        raise typer.BadParameter(
            f"`{target}` is a {type(found).__name__}: expected a `LinearRecurrence`, a "
            "`StateSpace`, an `nn.Module` with a `recurrence`, or a function that makes one."
        )
    return found
