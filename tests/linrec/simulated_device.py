"""A simulated device: CPU memory, numbers included, that claims to be on another device.

Fake tensors have no numbers, so that nothing that looks at numbers runs with them. Here everything
runs as on a device; whatever would wait for one can be made an error, and double precision too.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

NAME = "simulated"

# What hands numbers of a device to the program, which has to wait for them.
WAITING = {
    "_linalg_check_errors",
    "_local_scalar_dense",
    "_unique2",
    "argwhere",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
}
DOUBLE = (torch.float64, torch.complex128)


class Waited(AssertionError):
    """The program waited for the device."""


class NoDouble(AssertionError):
    """The device was given double precision, which it has none of."""


class Device(TorchDispatchMode):
    """Runs operations of the device on the CPU.

    Attributes:
        may_wait: whether the program may wait for the device.
        has_double: whether the device has double precision.
    """

    may_wait, has_double = True, True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run(func, args, kwargs or {})


DEVICE = Device()


class Held(Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Held":
        if held.dtype in DOUBLE and not DEVICE.has_double:
            raise NoDouble(f"{held.dtype} {tuple(held.shape)}")
        held = held.resolve_conj().resolve_neg()  # (here below nothing would look at the mark)
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        return self.cpu().numpy(force=force)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"on {NAME}: {self.held!r}"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run(func, args, kwargs or {})


def on_cpu(value: Any) -> Any:
    return value.held if isinstance(value, Held) else value


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run one operation, on the device if a tensor of its own is there."""
    given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    name, here = func.__name__.partition(".")[0], any(isinstance(each, Held) for each in given)
    wanted = kwargs.get("device")
    wanted = None if wanted is None else torch.device(wanted).type
    goes = wanted == NAME or (here and wanted is None)
    if not DEVICE.may_wait:
        check_waiting(name, given, args, kwargs, here, wanted)
    if here and wanted is None and name not in ("copy_", "_to_copy", "index", "_index_put_impl_"):
        strange = [
            e for e in given if not isinstance(e, Held) and e.ndim and e.device.type == "cpu"
        ]
        assert not strange, f"{name} got tensors of two devices"
    inner = {k: "cpu" if k == "device" and v is not None else v for k, v in kwargs.items()}
    found = func(*tree_map(on_cpu, args), **tree_map(on_cpu, inner))
    if not goes:
        return found
    found = tree_map_only(Tensor, Held, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if here else found


def check_waiting(
    name: str, given: list[Tensor], args: Any, kwargs: dict[str, Any], here: bool, wanted: Any
) -> None:
    """Refuse what waits for the device."""
    masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
        isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8)
        for each in tree_leaves(args[1])
    )
    moved = name == "_to_copy" and wanted is not None and (wanted == NAME) != here
    if name == "copy_":
        moved = isinstance(args[0], Held) != isinstance(args[1], Held)
    # What is sent to the device need not be waited for; what comes from it has to be.
    sent = moved and (wanted == NAME or (name == "copy_" and isinstance(args[0], Held)))
    waits = kwargs.get("non_blocking") or (name == "copy_" and args[2:3] == (True,))
    if (here and (name in WAITING or masks)) or (moved and not (sent and waits)):
        raise Waited(f"{func_text(name, given)}")


def func_text(name: str, given: list[Tensor]) -> str:
    return f"{name} of {', '.join(f'{each.dtype} {tuple(each.shape)}' for each in given)}"


@functools.cache
def register() -> None:
    """Tell torch that there is such a device; it stays so until the process ends."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)


@contextmanager
def device(*, has_double: bool = True) -> Iterator[str]:
    """Have the device, with or without double precision."""
    from linrec._tensors import devices

    register()
    DEVICE.has_double = has_double
    if not has_double:
        devices.WITHOUT_DOUBLE.add(NAME)
    try:
        with DEVICE:
            yield NAME
    finally:
        DEVICE.has_double = True
        devices.WITHOUT_DOUBLE.discard(NAME)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Make it an error to wait for the device."""
    DEVICE.may_wait = False
    try:
        yield
    finally:
        DEVICE.may_wait = True
