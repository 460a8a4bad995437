"""The console script `longhaul`."""

import sys

from cli.stack.errors import StackError
from longhaul.settings import SettingsError


def main() -> None:
    """Run the command line; what a person can mend is said in words, without a traceback."""
    from cli.app import app  # so that importing the package does not build the commands

    try:
        app(prog_name="longhaul")
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


__all__ = ["main"]
