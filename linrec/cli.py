"""The command `linrec`."""

import sys
from importlib.util import find_spec

# The packages of the extra `cli`, by import name.
NEEDED = ("matplotlib", "rich", "typer")


def main() -> None:
    """Run the command, or name the missing package."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(
            f"The command `linrec` needs {', '.join(missing)}, which are not installed: "
            "type\n  pip install 'linrec[cli]'"
        )
    from linrec.commands import app
    from linrec.reporting import replace_unprintable

    replace_unprintable()
    app()


if __name__ == "__main__":  # python -m linrec.cli
    main()
