"""The JSON of turns, their timelines, and the tree of sub-sessions."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.schemas.base import A_TURN, SAME_AS_DATA, Answer, Page
from longhaul.contracts import TurnStatus, Usage


class Turn(Answer):
    """One turn of a session."""

    turn_id: str = Field(examples=[A_TURN])
    status: TurnStatus
    started_at: datetime
    ended_at: datetime | None
    duration_ms: int | None
    model: str
    mode: str
    tier: str
    rounds: int
    usage: Usage
    error: str | None
    message_id: str | None = Field(description="The message that it started with.")
    retry_of: str | None = Field(None, description="The failed turn that it took up again.")


class Turns(Page):
    """One page of turns, newest first."""

    data: list[Turn]
    turns: list[Turn] = Field(description=SAME_AS_DATA, deprecated=True)


class Span(Answer):
    """A model call or a tool call that has ended, or a follow-up, which takes no time."""

    kind: Literal["model", "tool", "follow_up"]
    name: str = Field(description="Of the tool.", examples=["calculator"])
    round: int | None
    tool_call_id: str | None
    started_at: datetime
    duration_ms: int
    is_error: bool


class Timeline(Answer):
    """What a turn has spent its time on."""

    turn_id: str = Field(examples=[A_TURN])
    started_at: datetime
    ended_at: datetime | None
    spans: list[Span]


class Cancelled(Answer):
    """The result of Stop. `cancelled` is false when nothing ran, or the turn ended by itself first."""

    cancelled: bool
    turn_id: str | None = Field(examples=[A_TURN])
    status: TurnStatus | None = Field(description="`running`: asked to stop, and still running after 10 s.")


class NodeProgress(Answer):
    """The progress of the newest turn of a session in the tree."""

    round: int
    tools_running: list[str] = Field(description="Their names.", examples=[["calculator"]])
    tools_done: int
    started_at: datetime
    duration_ms: int | None
    error: str | None


class TreeNode(Answer):
    """A session and those below it. `usage` is its own, `total_usage` with all below; `status`, `turn_id` and
    `progress` are its newest turn's, if any."""

    session_id: str
    title: str | None
    depth: int = Field(description="0 for a session that is no sub-session.")
    status: TurnStatus | None
    turn_id: str | None
    progress: NodeProgress | None
    usage: Usage
    total_usage: Usage
    children: list["TreeNode"]
