"""The command `linrec`."""

import sys
from importlib.util import find_spec

# What the extra `cli` brings, by the names under which it is imported.
NEEDED = ("matplotlib", "rich", "typer")


def main() -> None:
    """Run the command, or name the package that it needs."""
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
