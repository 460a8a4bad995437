"""`longhaul send`: one message, and the turn that answers it, shown as it streams."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from cli.client import ApiUrl, CommandClient, Token, api_url
from cli.conversation import as_json
from longhaul.db.busy import OnBusy
from longhaul_client import (
    Aborted,
    Data,
    Event,
    Failed,
    Finished,
    Joined,
    ReasoningDelta,
    Reconnecting,
    TextDelta,
    ToolCalled,
    ToolFailed,
    ToolReturned,
    Voided,
)

_LINE_CHARS = 160
EXIT_CODES = {"completed": 0, "failed": 3, "cancelled": 4}


class Renderer:
    """Shows the events of a turn: text as it arrives, reasoning dim, one line for each tool call and result."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open: tuple[str, str] | None = None  # kind and id of the block whose line is not ended yet
        self._calls: dict[str, ToolCalled] = {}
        self._last_text: list[str] = []
        self.finished = False
        self.failed = False
        self.stopped = False

    @property
    def last_text(self) -> str:
        """The text block shown last, to compare with the stored answer."""
        return "".join(self._last_text)

    def show(self, event: Event) -> None:
        """Show one event; kinds that a terminal cannot show are passed over."""
        match event:
            case TextDelta():
                if self._delta("text", event.block, event.text, style=""):
                    self._last_text = []
                self._last_text.append(event.text)
            case ReasoningDelta():
                self._delta("reasoning", event.block, event.text, style="dim italic")
            case ToolCalled():
                self._calls[event.call_id] = event
                self._line(f"→ {event.tool} {_short(event.arguments)}", "cyan")
            case ToolReturned():
                self._line(f"← {self._tool(event.call_id)} {_short(event.output)}", "green")
            case ToolFailed():
                self._line(f"← {self._tool(event.call_id)} failed: {_short(event.error)}", "red")
            case Failed():
                self.failed = True
                self._line(f"error: {event.error}", "bold red")
            case Aborted():
                self.stopped = True
                self._line("stopped", "yellow")
            case Finished():
                self.finished = True
                self.end_line()
            case Data(name="approval"):
                self._approval(event.data or {})
            case Data(name="follow-up"):
                self._line("(your message has been taken)", "dim")
            case Voided():
                self._line("(the model call is repeated; the text above is void)", "yellow")
            case Joined():
                self.note("the message joins the turn that is running")
            case Reconnecting():
                self.note(f"({event.why}; connecting again)")

    def _approval(self, data: Mapping[str, Any]) -> None:
        """A call that waits for a person: what is asked, and how to answer."""
        name, call = data.get("tool_name"), self._calls.get(str(data.get("tool_call_id")))
        asked = call.arguments if call is not None else None
        if data.get("status") != "waiting":
            self._line(f"({name}: {data.get('status')})", "dim")
        elif data.get("kind") == "question" and isinstance(asked, dict):
            self._line(f"? {asked.get('question')}", "bold yellow")
            for choice in asked.get("choices") or ():
                self._line(f"  · {choice}", "yellow")
            self._line("  type your answer, or /deny", "dim")
        elif data.get("kind") == "client_tool":
            self._line(f"({name} runs in the client that declared it; /deny WHY goes on without it)", "dim")
        elif isinstance(connect := data.get("connect"), Mapping):
            credential, url = connect.get("credential"), connect.get("url")
            self._line(f"? {name} needs your {connect.get('provider') or credential}", "bold yellow")
            where = f"open {url} at the API's address" if url else f"give a token: PUT /v1/credentials/{credential}"
            self._line(f"  {where}, or /deny WHY", "yellow")
        else:
            self._line(f"? may {name} be run? /allow, /allow session, or /deny WHY", "bold yellow")

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

    def _delta(self, kind: str, id_: str, text: str, style: str) -> bool:
        """Show more of a block; whether the block begins with it."""
        block = (kind, id_)
        begins = self._open != block
        if begins:
            self.end_line()
            self._open = block
        self._console.print(Text(text, style=style), end="", soft_wrap=True)
        return begins

    def _line(self, text: str, style: str) -> None:
        self.end_line()
        self._console.print(Text(text, style=style), soft_wrap=True)

    def _tool(self, call_id: str) -> str:
        call = self._calls.get(call_id)
        return call.tool if call is not None else "tool"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= _LINE_CHARS else text[: _LINE_CHARS - 1] + "…"


def send(
    message: Annotated[str, typer.Argument(help="Text of the message.")],
    session: Annotated[str, typer.Option("--session", "-s", help="Session to send it to. Default: a new one.")] = "",
    on_busy: Annotated[
        OnBusy, typer.Option("--on-busy", help="What becomes of the message if a turn of the session runs.")
    ] = OnBusy.JOIN,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object for programs, when the turn has ended.")
    ] = False,
    url: ApiUrl = "",
    token: Token = "",
) -> None:
    """Send a message and show the answer as it streams. Ctrl-C leaves; the turn goes on.

    Exit codes: 0 the turn is completed, 3 it failed, 4 it was stopped; 1 the API cannot be reached or refuses,
    2 wrong usage, 130 left by Ctrl-C.
    """
    client = CommandClient(api_url(url), token)
    try:
        send_with = _send_for_programs if json else _send_and_show
        status = send_with(client, session, message, {"on_busy": on_busy.value})
    finally:
        client.close()
    if status != 0:
        raise typer.Exit(status)


def _send_for_programs(client: CommandClient, session: str, message: str, choice: Mapping[str, str]) -> int:
    """Print the turn's end as the API tells it; the exit code."""
    asked = client.ask(session or client.create_session(), message, choice)
    typer.echo(as_json(asked), nl=False)
    return EXIT_CODES[asked["status"]]


def _send_and_show(client: CommandClient, session: str, message: str, choice: Mapping[str, str]) -> int:
    """Show the answer as it streams; the exit code."""
    show = Renderer(Console(highlight=False))
    session = session or client.create_session()
    try:
        for event in client.send(session, message, choice):
            show.show(event)
        if not show.finished and not show.failed:
            _show_stored(client, session, show)
    except KeyboardInterrupt:
        show.note("left; the turn goes on")
        return 130
    finally:
        show.end_line()
        Console(stderr=True, highlight=False).print(f"session {session}", style="dim", soft_wrap=True)
    return EXIT_CODES["failed" if show.failed else "cancelled" if show.stopped else "completed"]


def _show_stored(client: CommandClient, session: str, show: Renderer) -> None:
    """Show the stored answer of a turn that ended while we were not connected."""
    show.note("the turn has ended; its stored answer:")
    if (stored := client.last_answer(session)) != show.last_text:
        show.whole_text(stored)
