"""The console script `longhaul`."""

import sys

from copilot.settings import SettingsError
from copilot.stack.errors import StackError


def main() -> None:
    """Run the command line; what a person can mend is said in words, without a traceback."""
    from copilot.cli.app import app  # so that importing the package does not build the commands

    try:
        app(prog_name="longhaul")
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


__all__ = ["main"]
