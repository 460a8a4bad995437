"""`longhaul send`: one message, and the turn that answers it, shown as it streams."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from cli import CommandError
from cli.client import ReconnectingClient
from cli.stack.state import read_state
from longhaul.settings import load_settings

_LINE_CHARS = 160


class Renderer:
    """Shows AI SDK UI-message events: text as it arrives, reasoning dim, one line for each tool call and result."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open: tuple[str, str] | None = None  # kind and id of the block whose line is not ended yet
        self._tools: dict[str, str] = {}
        self._last_text: list[str] = []
        self.finished = False
        self.failed = False

    @property
    def last_text(self) -> str:
        """The text block shown last, to compare with the stored answer."""
        return "".join(self._last_text)

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event; kinds that a terminal cannot show are passed over."""
        match event.get("type"):
            case "text-delta":
                self._delta("text", event, style="")
            case "reasoning-delta":
                self._delta("reasoning", event, style="dim italic")
            case "tool-input-available":
                self._tools[str(event.get("toolCallId"))] = str(event.get("toolName"))
                self._line(f"→ {event.get('toolName')} {_short(event.get('input'))}", "cyan")
            case "tool-output-available":
                self._line(f"← {self._tool(event)} {_short(event.get('output'))}", "green")
            case "tool-output-error":
                self._line(f"← {self._tool(event)} failed: {_short(event.get('errorText'))}", "red")
            case "error":
                self.failed = True
                self._line(f"error: {event.get('errorText')}", "bold red")
            case "abort":
                self._line("stopped", "yellow")
            case "finish":
                self.finished = True
                self.end_line()
            case "data-follow-up":
                self._line("(your message has been taken)", "dim")
            case "data-voided":
                self._line("(the model call is repeated; the text above is void)", "yellow")
            case _:
                return

    def note(self, text: str) -> None:
        """A line that is not part of the answer."""
        self._line(text, "dim")

    def whole_text(self, text: str) -> None:
        """An answer that was stored while we were not connected."""
        self._line(text, "")

    def end_line(self) -> None:
        """Finish the line that deltas have left open."""
        if self._open is not None:
            self._console.print()
            self._open = None

    def _delta(self, kind: str, event: Mapping[str, Any], style: str) -> None:
        block = (kind, str(event.get("id")))
        if self._open != block:
            self.end_line()
            self._open = block
            if kind == "text":
                self._last_text = []
        delta = str(event.get("delta", ""))
        if kind == "text":
            self._last_text.append(delta)
        self._console.print(Text(delta, style=style), end="", soft_wrap=True)

    def _line(self, text: str, style: str) -> None:
        self.end_line()
        self._console.print(Text(text, style=style), soft_wrap=True)

    def _tool(self, event: Mapping[str, Any]) -> str:
        return self._tools.get(str(event.get("toolCallId")), "tool")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= _LINE_CHARS else text[: _LINE_CHARS - 1] + "…"


def api_url(option: str) -> str:
    """The API to talk to: the option or LONGHAUL_API_URL, else the stack of this home."""
    if option:
        return option
    home = load_settings().home.absolute()
    state = read_state(home)
    if state is None or not state.endpoints.api_url:
        raise CommandError(f"no stack has run in {home}: run `longhaul up`, or set --api-url or LONGHAUL_API_URL")
    return state.endpoints.api_url


def send(
    message: Annotated[str, typer.Argument(help="Text of the message.")],
    session: Annotated[str, typer.Option("--session", "-s", help="Session to send it to. Default: a new one.")] = "",
    url: Annotated[str, typer.Option("--api-url", envvar="LONGHAUL_API_URL", help="API to talk to.")] = "",
    token: Annotated[str, typer.Option(envvar="LONGHAUL_TOKEN", help="Bearer token, with LONGHAUL_AUTH=jwt.")] = "",
) -> None:
    """Send a message and show the answer as it streams. Ctrl-C leaves; the turn goes on."""
    show = Renderer(Console(highlight=False))
    client = ReconnectingClient(api_url(url), token)
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


def _show_stored(client: ReconnectingClient, session: str, show: Renderer) -> None:
    """Show the stored answer of a turn that ended while we were not connected."""
    show.note("the turn has ended; its stored answer:")
    if (stored := client.last_answer(session)) != show.last_text:
        show.whole_text(stored)
