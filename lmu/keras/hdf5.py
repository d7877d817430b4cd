"""Variables in HDF5, read from the file itself into no more memory than the file takes."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LARGEST_NUMBER = 1e12  # weights are only larger if a bit was flipped

Group = Any  # of h5py, which is only imported when a file is opened


def text(value: Any) -> str:
    """Take an attribute as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def open_hdf5(file: Path | io.BytesIO) -> Group:
    """Open HDF5."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Files of Keras are read by h5py, which is missing: `pip install 'linrec[keras]'`."
        ) from None
    return h5py.File(file, "r")


def list_children(group: Group) -> dict[str, Any]:
    """List the members of a group; links to elsewhere are refused."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"`{group.name}/{name}` is a link: expected the variable itself")
    return dict(group.items())


def find_below(group: Group, path: str) -> Any | None:
    """Find the group or variable at a path of groups; None if there is none."""
    for part in path.split("/"):
        found = list_children(group) if hasattr(group, "keys") else {}
        if part not in found:
            return None
        group = found[part]
    return group


def filters(dataset: Any) -> list[int]:
    """List the filters that a variable goes through, such as compression or a checksum."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(place)[0] for place in range(properties.get_nfilters())]


@dataclass
class Room:
    """A reader of variables that counts how many bytes of a file are left to be read.

    A variable that was never written reads as zeros, one with many names is read many times, and
    compressed zeros expand a thousandfold: a file of kilobytes could fill the memory. Keras writes
    none of these, and each is refused before it is read.

    Args:
        left: the bytes that are left of the file, for all its variables together.
        seen: the groups that have been searched.
    """

    left: int
    seen: set[Group] = field(default_factory=set)

    def is_new(self, group: Group) -> bool:
        """Return whether a group is new: it may have many names, and even contain itself."""
        seen = group in self.seen  # under any name
        self.seen.add(group)
        return not seen

    def array(self, dataset: Any) -> np.ndarray:
        """Read a variable of real numbers, in single or double precision."""
        import h5py

        if getattr(dataset, "shape", None) is None or dataset.dtype.kind != "f":
            raise ValueError(f"`{dataset.name}` is {dataset!r}: expected real numbers")
        if dataset.is_virtual or dataset.external:
            raise ValueError(f"`{dataset.name}` lies in another file: expected the variable itself")
        if any(kind != h5py.h5z.FILTER_FLETCHER32 for kind in filters(dataset)):
            raise ValueError(
                f"`{dataset.name}` is compressed: expected numbers as Keras stores them, which "
                "`h5repack -f NONE FILE NEW` writes"
            )
        size, stored = dataset.nbytes, dataset.id.get_storage_size()
        if size > stored:
            raise ValueError(f"`{dataset.name}` has {size:,} bytes, of which {stored:,} are stored")
        self.left -= stored
        if self.left < 0:
            raise ValueError("its variables are larger together than the file")
        values = np.asarray(dataset[()])
        largest = float(np.abs(values).max(initial=0))
        if not largest <= LARGEST_NUMBER:  # also true for NaN
            raise ValueError(
                f"`{dataset.name}` has {largest:.3g} in it: expected finite numbers of at most "
                f"{LARGEST_NUMBER:g}"
            )
        return values.astype(np.promote_types(values.dtype.newbyteorder("="), np.float32))

    def variables(self, group: Group, *paths: str) -> tuple[np.ndarray, ...]:
        """Read the variables `0`, `1`, … in order, at the first of some paths that exists."""
        for path in paths:
            found = find_below(group, f"{path}/vars" if path else "vars")
            if found is not None:
                held = list_children(found)
                return tuple(self.array(held[key]) for key in sorted(held, key=int))
        return ()
