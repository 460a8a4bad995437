"""What the API answers. Fields that a newer server adds are kept as attributes."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

TurnStatus = Literal["running", "waiting_for_approval", "completed", "failed", "cancelled"]
RUNNING: frozenset[TurnStatus] = frozenset({"running", "waiting_for_approval"})


class ApiModel(BaseModel):
    """Base of what the API answers."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Usage(ApiModel):
    """Of one or more model calls. 1,000,000 microdollars are one US dollar; `None`: the price is not known."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cost_microdollars: int | None = None


class SessionInfo(ApiModel):
    """A conversation."""

    id: str
    title: str | None = None
    parent_session_id: str | None = None
    root_session_id: str | None = None
    agent: str | None = None
    created_at: datetime
    updated_at: datetime


class Message(ApiModel):
    """One row of a conversation. `sequence` counts from 0 without gaps."""

    id: str
    sequence: int
    role: str
    content: str
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    turn_id: str | None = None
    is_error: bool = False
    created_at: datetime
    duration_ms: int | None = None


class SessionPage(SessionInfo):
    """A session with one page of its messages, in order. Page back with `before_sequence=oldest_sequence`."""

    messages: list[Message]
    oldest_sequence: int | None = None
    has_more_messages: bool = False


class Sent(ApiModel):
    """A message has been accepted."""

    session_id: str
    turn_id: str
    message_id: str
    disposition: Literal["started", "queued"]


class ToolCall(ApiModel):
    """A tool call of a turn, with its result. `arguments` is JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str
    output: str | None = None
    is_error: bool = False


class Answer(ApiModel):
    """The answer to a question: that of the whole turn. `text` is the last text of the assistant."""

    session_id: str
    turn_id: str
    message_id: str
    status: TurnStatus
    text: str
    tool_calls: list[ToolCall] = []
    usage: Usage = Usage()
    duration_ms: int | None = None
    error: str | None = None


class Progress(ApiModel):
    """How a turn stands."""

    turn_id: str
    session_id: str
    status: TurnStatus
    round: int = 0
    model: str = ""
    tools_done: int = 0
    usage: Usage = Usage()
    started_at: datetime
    ended_at: datetime | None = None
    duration_ms: int | None = None
    error: str | None = None

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self.status in RUNNING


class Turn(ApiModel):
    """One turn in a session's list."""

    turn_id: str
    status: TurnStatus
    started_at: datetime
    ended_at: datetime | None = None
    duration_ms: int | None = None
    model: str = ""
    rounds: int = 0
    usage: Usage = Usage()
    error: str | None = None
    message_id: str | None = None


class Cancelled(ApiModel):
    """The result of Stop. `cancelled` is false when nothing ran, or the turn ended by itself first."""

    cancelled: bool
    turn_id: str | None = None
    status: TurnStatus | None = None
