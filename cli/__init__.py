"""The `longhaul` command."""

import sys

from longhaul.settings import SettingsError


class CommandError(Exception):
    """A command cannot do its work. The text names the cause and the remedy, and is shown without a traceback."""


def main() -> None:
    """Run the command line. Exit code 2: a wrong setting; 1: another failure that the user can mend."""
    from cli.app import app  # here, because building the commands takes time that `import cli` must not take

    try:
        app(prog_name="longhaul")
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except CommandError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
