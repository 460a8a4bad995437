"""The JSON of events and webhooks."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.dependencies import ID
from api.schemas.base import A_SESSION, A_TURN, Answer
from longhaul.db import webhooks
from longhaul.db.event_tables import AttemptKind, EventType
from longhaul.db.events import Event as StoredEvent

A_WEBHOOK = "5b1d3c6e-7d0f-4a55-9a55-1f4f7d8f9b33"
Url = Annotated[str, Field(min_length=1, max_length=2000, pattern=ID, examples=["https://hooks.example.com/longhaul"])]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=20)]


class NewWebhook(BaseModel):
    """An address that is told of what happens."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"url": "https://hooks.example.com/longhaul"}]}
    )

    url: Url = Field(description="A public https:// address. It is checked now and with each connection.")
    events: EventTypes = Field(list(EventType), description="What it is told of. Unset: everything.")


class WebhookChange(BaseModel):
    """What is left out stays as it is. What waits is sent at once after a change."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"enabled": False}], "minProperties": 1})

    url: Url = ""
    events: EventTypes = Field([])
    enabled: bool = Field(
        default=True, description="A webhook that is turned on again is not told of what happened meanwhile."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> "WebhookChange":
        if not self.model_fields_set:
            raise ValueError("should have `url`, `events` or `enabled`")
        return self


class Webhook(Answer):
    """An address that is told of what happens."""

    id: str = Field(examples=[A_WEBHOOK])
    url: str
    events: list[EventType]
    enabled: bool
    disabled_because: str | None = Field(description="Why Longhaul turned it off; null: it did not.")
    old_secret_until: datetime | None = Field(description="Until then the secret before the newest signs too.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: webhooks.Webhook) -> "Webhook":
        return cls(**webhook_fields(row))


def webhook_fields(row: webhooks.Webhook) -> dict[str, Any]:
    """A row as the fields of `Webhook`: without its secrets."""
    names = set(Webhook.model_fields) - {"events"}
    return {**{name: getattr(row, name) for name in names}, "events": sorted(row.event_types)}


class WebhookWithState(Webhook):
    """A webhook, and what waits for it."""

    waiting: int = Field(description="Events that it has not been sent yet.")


class WebhookWithSecret(Webhook):
    """A webhook whose secret is shown once."""

    secret: str = Field(description="The receiver verifies messages by it. Shown once.", examples=["whsec_…"])


class Webhooks(Answer):
    """One page of webhooks, newest first."""

    data: list[Webhook]
    has_more: bool
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class WebhookAttempt(Answer):
    """One attempt to send an event. `delivered`: the receiver answered 2xx."""

    id: str
    event_id: str
    event_type: str = Field(examples=["turn.ended"])
    kind: AttemptKind
    delivered: bool
    gave_up: bool = Field(description="The event is not tried again by itself.")
    status_code: int | None = Field(description="Null: the receiver did not answer.")
    error: str | None = Field(examples=["it answers 503"])
    duration_ms: int
    created_at: datetime


class WebhookAttempts(Answer):
    """One page of attempts, newest first."""

    data: list[WebhookAttempt]
    has_more: bool
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class SendingLater(Answer):
    """It will be sent when a worker comes; it appears among the attempts."""

    attempt_id: str


class UserEvent(Answer):
    """Something that happened. A webhook is sent the same, with `created_at` as `timestamp`."""

    id: str
    type: EventType
    created_at: datetime
    data: dict[str, Any] = Field(
        description="`session_id` (or `sub_session_id`), `parent_session_id`, `turn_id`; when something ended, its "
        "`status`; when an approval is wanted, `approval_id`, `kind`, `tool_name` and `expires_at`.",
        examples=[{"session_id": A_SESSION, "parent_session_id": None, "turn_id": A_TURN, "status": "completed"}],
    )

    @classmethod
    def of(cls, event: StoredEvent) -> "UserEvent":
        return cls(id=event.id, type=event.type, created_at=event.created_at, data=event.data)


class UserEvents(Answer):
    """One page of events, oldest first."""

    data: list[UserEvent]
    has_more: bool
    next_cursor: str = Field(
        description="The place behind this page: send it as `cursor`, also later, for what is new."
    )
