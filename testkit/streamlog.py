"""What a client saw on a stream: every event, and the text it adds up to."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

DONE = "[DONE]"


@dataclass(frozen=True)
class StreamEvent:
    """One event: its id, the part (None for `[DONE]`), and when it came (monotonic seconds)."""

    id: str | None
    part: dict[str, Any] | None
    at: float

    @property
    def type(self) -> str:
        return str(self.part["type"]) if self.part is not None else DONE


@dataclass
class StreamLog:
    """All events that came, over several connections where it was resumed. `began`: monotonic seconds."""

    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    events: list[StreamEvent] = field(default_factory=list)
    comments: int = 0
    connections: int = 0
    began: float = field(default_factory=time.monotonic)
    after: str | None = None  # the last id that came, also one without data: so a browser keeps it

    @property
    def streamed(self) -> bool:
        """Whether the answer was a stream at all; else `body` is its JSON."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def finished(self) -> bool:
        """Whether `[DONE]` came."""
        return bool(self.events) and self.events[-1].part is None

    @property
    def last_id(self) -> str | None:
        return self.after or next((event.id for event in reversed(self.events) if event.id), None)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def valid(self) -> list[StreamEvent]:
        """The events behind the last `data-voided` with `all`: with it a stream begins anew."""
        anew = [n for n, event in enumerate(self.events, 1) if event.part and event.part.get("data", {}).get("all")]
        return self.events[anew[-1] if anew else 0 :]

    def parts(self, *types: str) -> list[dict[str, Any]]:
        """The valid parts of these types (of all, if none is named), in order."""
        return [e.part for e in self.valid if e.part is not None and (not types or e.type in types)]

    def count(self, kind: str) -> int:
        return self.types.count(kind)

    @property
    def voided(self) -> set[str]:
        """Ids of text and reasoning that a retried model call has taken back."""
        return {str(id_) for part in self.parts("data-voided") for id_ in part["data"]["ids"]}

    def blocks(self, kind: str) -> dict[str, str]:
        """The joined deltas of each block of a kind (`text`, `reasoning`) that still holds, in order of appearance."""
        found: dict[str, str] = {}
        for part in self.parts(f"{kind}-start", f"{kind}-delta"):
            found.setdefault(str(part["id"]), "")
            found[str(part["id"])] += str(part.get("delta", ""))
        void = self.voided
        return {id_: text for id_, text in found.items() if id_ not in void}

    def text(self) -> str:
        """All text that holds."""
        return "".join(self.blocks("text").values())

    def reasoning(self) -> str:
        return "".join(self.blocks("reasoning").values())

    def outputs(self) -> dict[str, dict[str, Any]]:
        """The output event of each tool call."""
        return {str(part["toolCallId"]): part for part in self.parts("tool-output-available", "tool-output-error")}

    @property
    def turn_id(self) -> str:
        """The turn: its answer is one UI message, which `start` names by the turn's id."""
        return next((str(part["messageId"]) for part in self.parts("start")), "")

    def __iter__(self) -> Iterator[StreamEvent]:
        return iter(self.events)
