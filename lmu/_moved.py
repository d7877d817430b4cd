"""Old names of moved modules: parts of the experiments, once in `lmu` itself, and layers."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    **{
        f"lmu.{part}": f"lmu.experiments.{part}"
        for part in ("data", "models", "pictures", "speedup", "tables", "training")
    },
    "lmu.layers.layer": "lmu.layers.padding",
    "lmu.layers.parallel": "lmu.layers.parallel_lmu",
    "lmu.layers.recurrent": "lmu.layers.lmu",
}
RENAMED = {
    "lmu.experiments.tables": {
        "recorded": "read_records",
        "measured": "read_measured",
        "written_into": "fill_page_tables",
    },
}


class _Finder(MetaPathFinder, Loader):
    """A finder that imports modules such as `lmu.data` from their new places, with a warning."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find modules whose names begin with an old one."""
        if name_of_today(fullname) is None:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module by its present name."""
        name = name_of_today(spec.name)
        assert name is not None
        warnings.warn(
            f"`{spec.name}` is `{name}` now: expected imports from there.",
            DeprecationWarning,
            stacklevel=2,
        )
        module = import_module(name)
        for old, new in RENAMED.get(name, {}).items():
            setattr(module, old, getattr(module, new))
        self.own = module.__spec__  # (which the import system is about to overwrite)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute nothing: the module is already imported."""
        module.__spec__ = self.own


def name_of_today(name: str) -> str | None:
    """Return the present name of a moved module, or of one below it; None: it was not moved."""
    for old, new in MOVED.items():
        if f"{name}.".startswith(f"{old}."):
            return new + name.removeprefix(old)
    return None


def find_moved() -> None:
    """Make the old names importable."""
    if not any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
