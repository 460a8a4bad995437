"""`longhaul send`."""

from typing import Annotated

import typer
from rich.console import Console

from cli.client import ApiClient
from cli.render import Renderer
from cli.stack.errors import StackError
from cli.stack.state import read_state
from longhaul.settings import load_settings


def api_url(given: str) -> str:
    """The API to talk to: the option or LONGHAUL_API_URL, else the stack of this home."""
    if given:
        return given
    home = load_settings().home.absolute()
    state = read_state(home)
    if state is None or not state.endpoints.api_url:
        raise StackError(f"no stack has run in {home}: `longhaul up`, or give --api-url or LONGHAUL_API_URL")
    return state.endpoints.api_url


def send(
    message: Annotated[str, typer.Argument(help="What to say.")],
    session: Annotated[str, typer.Option("--session", "-s", help="Session to say it in; none: a new one.")] = "",
    url: Annotated[str, typer.Option("--api-url", envvar="LONGHAUL_API_URL", help="API to talk to.")] = "",
    token: Annotated[str, typer.Option(envvar="LONGHAUL_TOKEN", help="Bearer token, with LONGHAUL_AUTH=jwt.")] = "",
) -> None:
    """Send a message and show the answer as it streams. Ctrl-C leaves; the turn goes on."""
    show = Renderer(Console(highlight=False))
    client = ApiClient(api_url(url), token)
    try:
        session = session or client.create_session()
        try:
            for event in client.send(session, message, show.note):
                show.show(event)
            if not show.finished and not show.failed:
                _show_stored(client, session, show)
        except KeyboardInterrupt:
            show.note("left; the turn goes on")
            raise typer.Exit(130) from None
        finally:
            show.end_line()
            Console(stderr=True, highlight=False).print(f"session {session}", style="dim", soft_wrap=True)
    finally:
        client.close()
    if show.failed:
        raise typer.Exit(1)


def _show_stored(client: ApiClient, session: str, show: Renderer) -> None:
    """The turn ended while we were not connected: its rows have what the stream no longer has."""
    show.note("the turn has ended meanwhile; its stored answer:")
    if (stored := client.last_answer(session)) != show.last_text:
        show.whole_text(stored)


__all__ = ["api_url", "send"]
