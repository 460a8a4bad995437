"""The JSON of sessions."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.chat_body import ClientSessionId
from api.ownership import SessionRecord
from api.request_body import MODEL_CHOICE, ModelName
from api.schemas.base import A_SESSION, A_TURN, SAME_AS_DATA, Answer, Labels, Page, ToolNames
from api.schemas.messages import Pending, StoredMessage
from longhaul.contracts import Scope, TurnStatus
from longhaul.db import sessions
from longhaul.settings import Settings
from longhaul.temporal import workflow_url


class NewSession(BaseModel):
    """Every field is optional. Limits apply to the session and all sub-sessions below it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "Order 17"}]})

    id: ClientSessionId | None = Field(None, description="Yours. A session of this id is answered as it is, with 200.")
    title: str | None = Field(None, min_length=1, max_length=300)
    metadata: Labels = Field({}, description="What you want to note about it. The list can be filtered by it.")
    max_cost_microdollars: int | None = Field(None, ge=1, le=2**62, description="Budget; 1,000,000 is one US dollar.")
    max_seconds: int | None = Field(None, ge=1, le=2**31 - 1, description="Time budget.")
    allow_tools: ToolNames | None = Field(None, description="Only these tools. Unset: all.")
    deny_tools: ToolNames = Field([], description="Tools that it must not use.")
    dry_run: bool = Field(default=False, description="Tools that change something only say what they would do.")
    model: ModelName | None = Field(None, description=MODEL_CHOICE)


class Profile(BaseModel):
    """What the copilot is told about a user, in every session."""

    model_config = ConfigDict(extra="forbid")

    content: str = Field(min_length=1, max_length=8_000, examples=["I am Ada, a data engineer. Answer briefly."])


class SessionChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    title: str = Field("", min_length=1, max_length=300, description="For good.", examples=["Order 17"])
    model: ModelName | None = Field(None, description=f"{MODEL_CHOICE} Null: the model of each message's tier.")
    metadata: Labels | None = Field(None, description="In place of all that there is; `{}` removes it.")

    @model_validator(mode="after")
    def _changes_something(self) -> "SessionChange":
        if not self.model_fields_set:
            raise ValueError("should have `title`, `model` or `metadata`")
        return self


class Session(Answer):
    """A conversation."""

    id: str = Field(examples=[A_SESSION])
    title: str | None = Field(examples=["Order 17"])
    parent_session_id: str | None
    root_session_id: str | None
    agent: str | None
    max_cost_microdollars: int | None
    max_seconds: int | None
    allow_tools: list[str] | None = None
    deny_tools: list[str] = Field([])
    dry_run: bool = False
    forked_from: str | None = Field(None, description="The session that this one is a fork of.")
    model: str | None = None
    metadata: dict[str, str] = Field({})
    workflow_url: str | None = Field(
        None, description="Its turns in Temporal's Web UI, if `LONGHAUL_TEMPORAL_UI_URL` is set."
    )
    created_at: datetime
    updated_at: datetime


def session_fields(row: sessions.Session | SessionRecord, settings: Settings) -> dict[str, Any]:
    """A session as the fields of `Session`."""
    record = SessionRecord.model_validate(row)
    scope = Scope.model_validate(record.scope or {})
    return {
        **record.model_dump(),
        **scope.model_dump(include={"allow_tools", "deny_tools", "dry_run"}),
        "metadata": record.labels or {},
        "workflow_url": workflow_url(settings, record.id),
    }


class ListedSession(Session):
    """A session in a list."""

    running: bool = Field(description="A turn runs, or is about to.")
    last_message_at: datetime | None = Field(description="When something was last said; null: not yet.")


class Sessions(Page):
    """One page of sessions, newest first."""

    data: list[ListedSession]
    sessions: list[ListedSession] = Field(description=SAME_AS_DATA, deprecated=True)


class ActiveTurn(Answer):
    """The turn that runs now. `last_event_id` is the newest of its stream; null while there is none."""

    turn_id: str = Field(examples=[A_TURN])
    status: TurnStatus
    started_at: datetime
    last_event_id: str | None = Field(examples=["1795228072399-0"])


class SessionPage(Session):
    """A session with one page of its messages, in order; the first page is the newest."""

    messages: list[StoredMessage]
    oldest_sequence: int | None = Field(description="Send it as `before_sequence` for the page before this one.")
    has_more_messages: bool
    active_turn: ActiveTurn | None
    pending: Pending
