"""Show a stream of AI SDK UI-message events (protocol v1) on a terminal."""

from collections.abc import Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

_LINE_CHARS = 160


class Renderer:
    """Text as it comes, reasoning dim, one line for each tool call and each result."""

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
        """Show one event; kinds that a terminal has no use for are passed over."""
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
            case "data-void" | "data-voided":
                self._line("(the model call is done again; what it wrote last does not count)", "yellow")
            case _:
                return

    def note(self, text: str) -> None:
        """A line of our own."""
        self._line(text, "dim")

    def whole_text(self, text: str) -> None:
        """An answer that was stored while we were away."""
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


__all__ = ["Renderer"]
