"""The events of a turn's stream, typed, and the text that they make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Joined:
    """A turn was running when the message arrived: the message joins it, and its stream follows from its start."""

    turn_id: str
    message_id: str


@dataclass(frozen=True)
class Reconnecting:
    """The connection broke, or the API is away for now: `why`. The stream goes on behind the last event."""

    why: str


@dataclass(frozen=True)
class Started:
    """The turn's stream begins. It can come again: what was shown of the turn is then to be shown anew."""

    turn_id: str


@dataclass(frozen=True)
class TextDelta:
    """More text of the answer. `block`: an answer has one or more blocks of text, each with an id."""

    block: str
    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """More of what the model thinks."""

    block: str
    text: str


@dataclass(frozen=True)
class ToolCalled:
    """The model calls a tool."""

    call_id: str
    tool: str
    arguments: Any


@dataclass(frozen=True)
class ToolReturned:
    """A tool's output."""

    call_id: str
    output: Any


@dataclass(frozen=True)
class ToolFailed:
    """A tool failed, or was stopped."""

    call_id: str
    error: str


@dataclass(frozen=True)
class Voided:
    """These blocks and tool calls do not hold any more: their model call is made again. `all`: all that was seen."""

    ids: frozenset[str]
    all: bool


@dataclass(frozen=True)
class Data:
    """A part of Longhaul's own, such as `progress`, `usage`, `follow-up` or `title`."""

    name: str
    data: Any


@dataclass(frozen=True)
class Failed:
    """The turn failed."""

    error: str


@dataclass(frozen=True)
class Aborted:
    """The turn was stopped."""


@dataclass(frozen=True)
class Finished:
    """The turn has ended: completed, unless `Failed` or `Aborted` came before."""


@dataclass(frozen=True)
class Other:
    """A part that this version has no type for."""

    part: Mapping[str, Any]


Event = (
    Joined
    | Reconnecting
    | Started
    | TextDelta
    | ReasoningDelta
    | ToolCalled
    | ToolReturned
    | ToolFailed
    | Voided
    | Data
    | Failed
    | Aborted
    | Finished
    | Other
)


def event_of(part: Mapping[str, Any]) -> Event:
    """A part of the AI SDK's UI message stream as an event."""
    match part:
        case {"type": "start", "messageId": str(turn_id)}:
            return Started(turn_id)
        case {"type": "text-delta", "id": str(block), "delta": str(text)}:
            return TextDelta(block, text)
        case {"type": "reasoning-delta", "id": str(block), "delta": str(text)}:
            return ReasoningDelta(block, text)
        case {"type": "tool-input-available", "toolCallId": str(call_id), "toolName": str(tool)}:
            return ToolCalled(call_id, tool, part.get("input"))
        case {"type": "tool-output-available", "toolCallId": str(call_id)}:
            return ToolReturned(call_id, part.get("output"))
        case {"type": "tool-output-error", "toolCallId": str(call_id)}:
            return ToolFailed(call_id, str(part.get("errorText", "")))
        case {"type": "data-voided", "data": dict(data)}:
            return Voided(frozenset(map(str, data.get("ids", ()))), bool(data.get("all")))
        case {"type": "error"}:
            return Failed(str(part.get("errorText", "")))
        case {"type": "abort"}:
            return Aborted()
        case {"type": "finish"}:
            return Finished()
        case {"type": str(type_)} if type_.startswith("data-"):
            return Data(type_.removeprefix("data-"), part.get("data"))
    return Other(part)


@dataclass
class Transcript:
    """The text of a turn as its events build it, what is void left out."""

    _blocks: dict[str, list[str]] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take an event in."""
        match event:
            case Started() | Voided(all=True):
                self._blocks.clear()
            case Voided(ids=ids):
                for block in ids:
                    self._blocks.pop(block, None)
            case TextDelta(block=block, text=text):
                self._blocks.setdefault(block, []).append(text)

    @property
    def text(self) -> str:
        """All texts so far, with an empty line between blocks."""
        return "\n\n".join("".join(pieces) for pieces in self._blocks.values())

    @property
    def last_text(self) -> str:
        """The last block of text: the answer, where blocks before it accompany tool calls."""
        return "".join(next(reversed(self._blocks.values()), []))
