"""The JSON of schedules."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from api.dependencies import ID
from api.request_body import MODEL_CHOICE, ModelName, Text
from api.schemas.base import A_SESSION, A_TURN, Answer
from longhaul.contracts import TurnStatus
from longhaul.db.schedule_tables import RunStatus
from longhaul.db.schedules import Overlap
from longhaul.llm.models import Effort
from longhaul.settings.models import Tier
from longhaul.turns.deliver import Mode

#: Temporal reads the fields. Its seconds, years, `@every` and `CRON_TZ=` would be second ways to say a thing.
CRON = re.compile(r"@(?:yearly|annually|monthly|weekly|daily|midnight|hourly)|[\w*/,?-]+(?: +[\w*/,?-]+){4}", re.ASCII)
A_SCHEDULE = "3d0d3c6e-7d0f-4a55-9a55-1f4f7d8f9a22"
EVERY_MAX = 366 * 24 * 3600
OVERLAP = (
    "When the turn of the run before still runs: `skip` this run, `queue` it (one at most), or `allow` it; then its "
    "message joins the turn, if it is for the same session."
)


def _five_fields(cron: str) -> str:
    if not CRON.fullmatch(cron.strip()):
        raise ValueError("should have five fields (minute, hour, day, month, day of week), or be like @daily")
    return cron.strip()


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone; write it like Europe/Vienna, or UTC") from None
    return name


Cron = Annotated[
    str,
    Field(min_length=1, max_length=200, examples=["0 9 * * 1-5"], description="Minute, hour, day, month, weekday."),
    AfterValidator(_five_fields),
]
Every = Annotated[int, Field(ge=1, le=EVERY_MAX, description="Seconds between two runs, in place of `cron`.")]
Zone = Annotated[
    str,
    Field(min_length=1, max_length=64, pattern=ID, examples=["Europe/Vienna"], description="Of `cron`."),
    AfterValidator(_known_zone),
]
Title = Annotated[str, Field(min_length=1, max_length=300)]


class NewSchedule(BaseModel):
    """A message that is to be sent at certain times: by `cron`, or every so many seconds."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"message": "What happened since yesterday?", "cron": "0 9 * * 1-5", "time_zone": "UTC"}]
        },
    )

    message: Text
    cron: Cron | None = None
    every_seconds: Every | None = None
    time_zone: Zone = "UTC"
    session_id: str | None = Field(
        None, max_length=64, pattern=ID, description="Where each message goes. Unset: each run makes a session."
    )
    title: Title | None = Field(None, description="Of the sessions that runs make. Unset: as for any session.")
    mode: Mode | None = None
    tier: Tier | None = None
    model: ModelName | None = Field(None, description=MODEL_CHOICE)
    effort: Effort | None = None
    overlap: Overlap = Field("skip", description=OVERLAP)
    paused: bool = False

    @model_validator(mode="after")
    def _has_times(self) -> "NewSchedule":
        if (self.cron is None) == (self.every_seconds is None):
            raise ValueError("should have either `cron` or `every_seconds`")
        return self


class ScheduleChange(BaseModel):
    """What is left out stays as it is. `cron` replaces `every_seconds`, and the other way round."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"paused": True}], "minProperties": 1})

    message: Text = Field("")
    cron: Cron = Field("")
    every_seconds: Every = Field(0)
    time_zone: Zone = Field("")
    title: Title | None = None
    mode: Mode | None = None
    tier: Tier | None = None
    model: ModelName | None = Field(None, description=MODEL_CHOICE)
    effort: Effort | None = None
    overlap: Overlap = Field("skip", description=OVERLAP)
    paused: bool = Field(default=False, description="Without effect on runs that are at work.")

    @model_validator(mode="after")
    def _changes_something(self) -> "ScheduleChange":
        if not self.model_fields_set:
            raise ValueError("should change something")
        if {"cron", "every_seconds"} <= self.model_fields_set:
            raise ValueError("should have either `cron` or `every_seconds`")
        return self


class Schedule(Answer):
    """A message that is sent at certain times."""

    id: str = Field(examples=[A_SCHEDULE])
    message: str
    cron: str | None
    every_seconds: int | None
    time_zone: str
    session_id: str | None = Field(examples=[A_SESSION])
    title: str | None
    mode: Mode | None
    tier: Tier | None
    model: str | None
    effort: Effort | None
    overlap: Overlap
    paused: bool
    created_at: datetime
    updated_at: datetime


class ScheduleWithTimes(Schedule):
    """A schedule, and what Temporal knows of it; null while Temporal is away."""

    next_runs: list[datetime] | None = Field(description="At most ten; none while it is paused.")
    skipped_runs: int | None = Field(description="Runs that were left out because the run before was at work.")
    missed_runs: int | None = Field(description="Runs that were due while Temporal was away, and are not made up for.")


class Schedules(Answer):
    """One page of schedules, newest first."""

    data: list[Schedule]
    has_more: bool
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class ScheduleRun(Answer):
    """One run of a schedule."""

    id: str
    status: RunStatus = Field(description="Whether its message was delivered, or refused for `reason`.")
    reason: str | None = Field(examples=["20 of your turns run already, the limit is 20."])
    session_id: str | None = Field(examples=[A_SESSION])
    turn_id: str | None = Field(examples=[A_TURN])
    turn_status: TurnStatus | None = Field(description="Null while its turn has not begun.")
    message_id: str
    scheduled_at: datetime
    created_at: datetime


class ScheduleRuns(Answer):
    """One page of runs, newest first."""

    data: list[ScheduleRun]
    has_more: bool
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class Triggered(Answer):
    """A run begins; it appears among the runs."""

    schedule_id: str = Field(examples=[A_SCHEDULE])
    triggered: Literal[True] = True


def values_of(body: NewSchedule | ScheduleChange) -> dict[str, Any]:
    """What a body sets."""
    return body.model_dump(exclude_unset=isinstance(body, ScheduleChange))
