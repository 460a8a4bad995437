"""The tables of events, and of the webhooks that they are sent to."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from longhaul.db.models import Base, utc_now


class EventType(StrEnum):
    """What users are told of. `turn.ended` is about turns of sessions that are not sub-sessions."""

    TURN_ENDED = "turn.ended"
    SUB_SESSION_ENDED = "sub_session.ended"
    APPROVAL_WANTED = "approval.wanted"
    BUDGET_REACHED = "budget.reached"


class AttemptKind(StrEnum):
    """Why an event was sent: in its order, because somebody asked for it again, or as a test."""

    DELIVERY = "delivery"
    REDELIVERY = "redelivery"
    TEST = "test"


class EventPositionRow(Base):
    """How many events a user has had. Its lock puts the transactions that add one in order.

    `watched`: the user has a webhook, so that somebody waits for the events.
    """

    __tablename__ = "event_positions"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    watched: Mapped[bool] = mapped_column(Boolean)


class EventRow(Base):
    """Something that happened, stored by the transaction in which it did. It outlives its session.

    `position` counts the events of a user in the order of their commits. `details`: what only some types have.
    """

    __tablename__ = "events"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    position: Mapped[int] = mapped_column(BigInteger)
    type: Mapped[str] = mapped_column(String(32))
    session_id: Mapped[str] = mapped_column(String(64))
    parent_session_id: Mapped[str | None] = mapped_column(String(64))
    turn_id: Mapped[str] = mapped_column(String(64))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        UniqueConstraint("user_id", "position", name="uq_events_position"),
        Index("ix_events_created", "created_at"),
    )


class WebhookRow(Base):
    """An address to which a user's events are sent.

    `event_types`: with a comma before and behind each. `position`: of the last event that was sent, given up or left
    out. `old_secret` signs beside `secret` until `old_secret_until`. `disabled_because`: why Longhaul turned it off.
    """

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    url: Mapped[str] = mapped_column(String(2000))
    event_types: Mapped[str] = mapped_column(String(300))
    secret: Mapped[str] = mapped_column(Text)
    old_secret: Mapped[str | None] = mapped_column(Text)
    old_secret_until: Mapped[datetime | None]
    enabled: Mapped[bool] = mapped_column(Boolean)
    disabled_because: Mapped[str | None] = mapped_column(Text)
    position: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (Index("ix_webhooks_user", "user_id", "created_at", "id"),)


class WebhookAttemptRow(Base):
    """One attempt to send an event. `status_code` is null if the receiver did not answer; `error` says why.

    `gave_up`: the event is not tried again by itself.
    """

    __tablename__ = "webhook_attempts"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(String(64))
    event_type: Mapped[str] = mapped_column(String(32))
    kind: Mapped[str] = mapped_column(String(16))
    delivered: Mapped[bool] = mapped_column(Boolean)
    gave_up: Mapped[bool] = mapped_column(Boolean)
    status_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    duration_ms: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        Index("ix_webhook_attempts_webhook", "webhook_id", "created_at", "id"),
        Index("ix_webhook_attempts_created", "created_at"),
    )
