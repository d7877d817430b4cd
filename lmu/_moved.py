"""Old names: parts of the experiments that were imported from `lmu` itself before 0.1."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = ("data", "models", "pictures", "speedup", "tables", "training")
RENAMED = {
    "lmu.experiments.tables": {
        "recorded": "read_records",
        "measured": "read_measured",
        "written_into": "fill_page_tables",
    },
}


class _Finder(MetaPathFinder, Loader):
    """A finder that imports `lmu.data` and its like by their names of today, with a warning."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Take the names that begin with an old one."""
        package, _, rest = fullname.partition(".")
        if package != "lmu" or rest.partition(".")[0] not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module by its name of today."""
        name = spec.name.replace("lmu.", "lmu.experiments.", 1)
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
        """Execute nothing: the module is one that has been imported."""
        module.__spec__ = self.own


def find_moved() -> None:
    """Let old names be imported."""
    if not any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
