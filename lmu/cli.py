"""The command `lmu`."""

import sys
from importlib.util import find_spec

# The packages of the extra `experiments`, by the names under which they are imported.
NEEDED = ("matplotlib", "pooch", "rich", "tqdm", "typer")


def main() -> None:
    """Run the command, or name a missing package."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(
            f"lmu needs {', '.join(missing)}, which are not installed: type\n"
            "  pip install 'linrec[experiments]'"
        )
    from linrec.reporting import replace_unprintable
    from lmu.commands import app

    replace_unprintable()
    app()


if __name__ == "__main__":
    main()
