"""The tables of schedules."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from longhaul.db.models import Base, utc_now


class RunStatus(StrEnum):
    """Whether a run of a schedule delivered its message. How its turn went is in the turn's row."""

    DELIVERED = "delivered"
    REFUSED = "refused"


class ScheduleRow(Base):
    """A message that a user wants to be delivered again and again. The times are kept by a Schedule in Temporal.

    `session_id` is null if each run makes a session of its own, with this `title`. One of `cron` and `every_seconds`
    is null.
    """

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    title: Mapped[str | None] = mapped_column(String(300))
    message: Mapped[str] = mapped_column(Text)
    mode: Mapped[str | None] = mapped_column(String(32))
    tier: Mapped[str | None] = mapped_column(String(32))
    model: Mapped[str | None] = mapped_column(String(200))
    effort: Mapped[str | None] = mapped_column(String(16))
    cron: Mapped[str | None] = mapped_column(String(200))
    every_seconds: Mapped[int | None] = mapped_column(Integer)
    time_zone: Mapped[str] = mapped_column(String(64))
    overlap: Mapped[str] = mapped_column(String(16))
    paused: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        Index("ix_schedules_user", "user_id", "created_at", "id"),
        Index("ix_schedules_session", "session_id"),
    )


class ScheduleRunRow(Base):
    """One run of a schedule. `reason`: why its message was refused."""

    __tablename__ = "schedule_runs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    session_id: Mapped[str | None] = mapped_column(String(64))
    turn_id: Mapped[str | None] = mapped_column(String(64))
    message_id: Mapped[str] = mapped_column(String(64))
    scheduled_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (Index("ix_schedule_runs_schedule", "schedule_id", "created_at", "id"),)
