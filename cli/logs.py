"""`longhaul logs`."""

import contextlib
import time
from pathlib import Path
from typing import Annotated, TextIO

import typer

from cli import CommandError
from cli.stack.process import tail
from longhaul.settings import load_settings

_POLL = 0.3


class Follower:
    """Reads what is added to a log, also after it has been rotated."""

    def __init__(self, path: Path, label: str) -> None:
        self._path = path
        self._label = label
        self._file: TextIO | None = None
        self._inode = 0
        with contextlib.suppress(FileNotFoundError):
            self._open(at_end=True)

    def _open(self, *, at_end: bool) -> None:
        file = self._path.open(encoding="utf-8", errors="replace")
        if at_end:
            file.seek(0, 2)
        self._file, self._inode = file, self._path.stat().st_ino

    def show(self) -> None:
        """Print the lines that were added since the last call."""
        if self._file is not None:
            for line in self._file:
                typer.echo(f"{self._label}{line.rstrip()}")
        with contextlib.suppress(FileNotFoundError):  # between a rotation and the next start
            if self._path.stat().st_ino != self._inode:
                if self._file is not None:
                    self._file.close()
                self._open(at_end=False)


def logs(
    name: Annotated[str, typer.Argument(help="api, worker, temporal, redis, model or supervisor. Default: all.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show new lines as well, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines from the end of each.")] = 50,
) -> None:
    """Show the logs of the local stack."""
    folder = load_settings().home.absolute() / "logs"
    known = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if name and name not in known:
        raise CommandError(f"no log {name!r} in {folder}; there is {', '.join(known) or 'none yet'}")
    chosen = {name: known[name]} if name else known
    width = max((len(one) for one in chosen), default=0)
    labels = {one: "" if name else f"{one:<{width}} | " for one in chosen}
    followers = [Follower(path, labels[one]) for one, path in chosen.items()] if follow else []
    for one, path in chosen.items():
        for line in tail(path, lines).splitlines() if lines else []:
            typer.echo(f"{labels[one]}{line}")
    try:
        while followers:
            for follower in followers:
                follower.show()
            time.sleep(_POLL)
    except KeyboardInterrupt:
        return
