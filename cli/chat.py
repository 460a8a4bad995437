"""`longhaul chat`: a conversation in the terminal. What is typed while a turn runs joins that turn."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import CommandError
from cli.client import ApiUrl, CommandClient, Token, api_url
from cli.stack.state import write_whole
from longhaul.settings import load_settings


def chat(
    session: Annotated[str, typer.Option("--session", "-s", help="Session to go to. Default: the last one.")] = "",
    new: Annotated[bool, typer.Option("--new", help="Begin a new session.")] = False,
    url: ApiUrl = "",
    token: Token = "",
) -> None:
    """Talk to the copilot in this terminal. Type while it works: the message joins the turn. Ctrl-C stops the turn.

    The last session is taken up again, with the turn that runs in it. /help lists the commands.
    """
    if not sys.stdin.isatty():
        raise CommandError("`longhaul chat` needs a terminal; in scripts use `longhaul send`")
    from cli.terminal import Chat  # prompt_toolkit is slow to import, and only this command needs it

    client = CommandClient(api_url(url), token)
    last = LastSession(load_settings().home.absolute() / "last-session")
    try:
        Chat(client, last).run("" if new else session or last.read(), asked_for=bool(session))
    finally:
        client.close()


class LastSession:
    """The file that remembers which session this home talked to last."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """Its id, or an empty string."""
        return self._path.read_text(encoding="utf-8").strip() if self._path.exists() else ""

    def write(self, session: str) -> None:
        """Remember a session."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, f"{session}\n")
