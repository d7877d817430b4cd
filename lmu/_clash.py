"""A warning where another distribution claims the folder `lmu`."""

import warnings
from importlib.metadata import PackageNotFoundError, version


def warn_of_clash() -> None:
    """Warn if PyPI's `lmu` is installed, a metapackage by the authors of keras-lmu.

    It writes the same `lmu/__init__.py`, and uninstalling it deletes ours.
    """
    try:
        found = version("lmu")
    except PackageNotFoundError:
        return
    warnings.warn(
        f"The distribution `lmu` {found} is installed, which is not linrec's `lmu` and writes into "
        "the same folder: uninstalling it deletes files of ours. Type `pip uninstall lmu` and then "
        "`pip install --force-reinstall --no-deps linrec`; keras-lmu itself does not need it.",
        stacklevel=3,
    )
