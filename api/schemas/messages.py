"""The JSON of messages, and of conversations that are changed afterwards."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.chat_body import ClientSessionId
from api.dependencies import ID
from api.request_body import MODEL_CHOICE, ModelName, Text
from api.schemas.base import A_MESSAGE, A_SESSION, A_TURN, SAME_AS_DATA, Answer, Page
from longhaul.contracts import TurnStatus, Usage
from longhaul.llm.models import Effort
from longhaul.settings.models import Tier
from longhaul.turns.deliver import Mode


class NewFork(BaseModel):
    """Where to fork. Every field is optional."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"message_id": A_MESSAGE}]})

    message_id: str | None = Field(None, max_length=140, pattern=ID, description="The last message of the fork.")
    before: bool = Field(default=False, description="Leave that message out: the fork ends before it.")
    id: ClientSessionId | None = Field(None, description="Of the new session. One that exists already is not changed.")
    title: str | None = Field(None, min_length=1, max_length=300)


class AddedMessage(BaseModel):
    """A message that is stored and starts no turn."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"role": "user", "content": "Hello"}]})

    role: Literal["user", "assistant", "system"]
    content: Text
    message_id: UUID | None = Field(None, description="Yours, so that a repeated POST is one message.")


class AnswerAgain(BaseModel):
    """How to answer again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tier": "advanced"}]})

    message_id: UUID | None = Field(None, description="Of the new version, so that a repeated POST is one version.")
    mode: Mode | None = None
    tier: Tier | None = None
    model: ModelName | None = Field(None, description=MODEL_CHOICE)
    effort: Effort | None = None


class StoredMessage(Answer):
    """One row of a conversation. `sequence` counts from 0 without gaps."""

    id: str
    sequence: int
    role: str = Field(json_schema_extra={"enum": ["user", "assistant", "tool", "reasoning", "system"]})
    kind: str = Field(
        description="`follow_up`: it joined its turn. `notice`: a closing text that no model wrote. `partial`: "
        "the text was cut off. `stop`: the turn was stopped. `error`: it failed. `summary`: of what came before.",
        json_schema_extra={"enum": ["message", "follow_up", "notice", "partial", "stop", "error", "summary"]},
    )
    content: str
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    tool_name: str | None
    turn_id: str | None
    round: int | None
    client_message_id: str | None
    is_error: bool
    context: Any = Field(
        description="`{url, content}`: the page that the user was looking at. `files`: those of the message. "
        "`at`: how many characters of the round's text come before this reasoning."
    )
    finish_reason: str | None
    usage: Any = Field(description="Of the model call that this row answers.")
    created_at: datetime
    duration_ms: int | None
    model: str | None = Field(None, description="The model that wrote it.", examples=["gpt-4.1-2025-04-14"])
    version_of: str | None = Field(
        None, description="The message that this one is a later version of: edited, or answered again."
    )


class MessageVersion(Answer):
    """One version of a message, with the answer that it got."""

    message_id: str = Field(examples=[A_MESSAGE])
    content: str
    turn_id: str | None = Field(examples=[A_TURN])
    current: bool = Field(description="It is part of the conversation; the others were replaced.")
    created_at: datetime
    messages: list[StoredMessage] = Field(description="The rows of its turn.")
    ui_messages: list[dict[str, Any]] = Field(
        description="If it was replaced: it and what followed it then, as the AI SDK's `UIMessage[]`."
    )


class MessageVersions(Page):
    """The versions of a message on one page, oldest first."""

    data: list[MessageVersion]
    versions: list[MessageVersion] = Field(description=SAME_AS_DATA, deprecated=True)


class PendingMessage(Answer):
    """A message that waits for the running turn to take it. `queued`: it waits for a turn of its own instead."""

    id: str = Field(examples=[A_MESSAGE])
    content: str = Field(examples=["and in euros, please"])
    files: list[dict[str, Any]] = Field([], description="Its files, as the AI SDK's `file` parts.")
    received_at: datetime
    queued: bool = False


class Pending(Answer):
    """Messages that wait; reading consumes nothing."""

    messages: list[PendingMessage]
    count: int


class Queued(Answer):
    """The message has joined the running turn."""

    turn_id: str = Field(examples=[A_TURN])
    message_id: str = Field(examples=[A_MESSAGE])
    turn_in_flight: Literal[True] = True
    buffer_length: int = Field(examples=[1])
    max_buffer_length: int = Field(examples=[10])


class Taken(Answer):
    """The message has been accepted; the turn's progress can be polled."""

    session_id: str = Field(examples=[A_SESSION])
    turn_id: str = Field(examples=[A_TURN])
    message_id: str = Field(examples=[A_MESSAGE])
    disposition: Literal["started", "queued"]
    progress_url: str
    buffer_length: int
    max_buffer_length: int


class AskedCall(Answer):
    """One tool call of a turn, with its result."""

    id: str
    name: str = Field(examples=["calculator"])
    arguments: str = Field(description="JSON, as the model wrote it.", examples=['{"expression":"17*23"}'])
    output: str | None = Field(examples=["391"])
    is_error: bool


class Asked(Answer):
    """The answer to a question: that of the whole turn."""

    session_id: str = Field(examples=[A_SESSION])
    turn_id: str = Field(examples=[A_TURN])
    message_id: str = Field(examples=[A_MESSAGE])
    status: TurnStatus = Field(description="`completed`, `failed` or `cancelled`.")
    text: str = Field(description="The last text of the assistant.", examples=["17 * 23 is 391."])
    tool_calls: list[AskedCall]
    usage: Usage
    duration_ms: int | None
    error: str | None
