"""Schedules of users, and what became of their runs."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import delete, func, insert, select, tuple_, update

from longhaul.contracts import TurnStatus
from longhaul.db.connection import Connection
from longhaul.db.messages import replace_unstorable
from longhaul.db.models import TurnRow, columns_of, utc_now
from longhaul.db.schedule_tables import RunStatus, ScheduleRow, ScheduleRunRow
from longhaul.errors import NotFoundError, TooManyError
from longhaul.llm.models import Effort
from longhaul.settings.models import Tier

RUNS_KEPT = timedelta(days=90)
Overlap = Literal["skip", "queue", "allow"]


class Schedule(NamedTuple):
    """A schedule. See `ScheduleRow`."""

    id: str
    user_id: str
    session_id: str | None
    title: str | None
    message: str
    mode: Literal["fast", "extended_thinking"] | None
    tier: Tier | None
    model: str | None
    effort: Effort | None
    cron: str | None
    every_seconds: int | None
    time_zone: str
    overlap: Overlap
    paused: bool
    created_at: datetime
    updated_at: datetime


class ScheduleRun(NamedTuple):
    """A run of a schedule, with the status of its turn as its row has it; None: it has not begun."""

    id: str
    status: RunStatus
    reason: str | None
    session_id: str | None
    turn_id: str | None
    message_id: str
    scheduled_at: datetime
    created_at: datetime
    turn_status: TurnStatus | None = None


class Place(NamedTuple):
    """A place in a list that is sorted by creation."""

    created_at: datetime
    id: str


SCHEDULES = select(*columns_of(ScheduleRow, Schedule))
_RUN_FIELDS = [getattr(ScheduleRunRow, name) for name in ScheduleRun._fields if name != "turn_status"]
RUNS = select(*_RUN_FIELDS, TurnRow.status.label("turn_status")).outerjoin(
    TurnRow, TurnRow.turn_id == ScheduleRunRow.turn_id
)


async def add(connection: Connection, schedule: Schedule, most: int) -> None:
    """Store a schedule.

    Raises:
        TooManyError: its user has `most` (0: no limit) already.
    """
    await connection.lock_name(f"schedules of {schedule.user_id}")
    await check_count(connection, schedule.user_id, most)
    await connection.execute(insert(ScheduleRow), _storable(schedule)._asdict())


async def check_count(connection: Connection, user_id: str, most: int) -> None:
    """Refuse one schedule more than a user may have.

    Raises:
        TooManyError: there are `most` (0: no limit) already.
    """
    count = await connection.scalar(select(func.count()).where(ScheduleRow.user_id == user_id))
    if most and count >= most:
        raise TooManyError("schedules", most, "DELETE /v1/schedules/{id}")


async def save(connection: Connection, schedule: Schedule) -> None:
    """Store what was changed in a schedule."""
    values = _storable(schedule)._replace(updated_at=utc_now())._asdict()
    await connection.execute(update(ScheduleRow).where(ScheduleRow.id == schedule.id).values(values))


def _storable(schedule: Schedule) -> Schedule:
    title = replace_unstorable(schedule.title) if schedule.title is not None else None
    return schedule._replace(message=replace_unstorable(schedule.message), title=title)


async def find(connection: Connection, schedule_id: str) -> Schedule | None:
    """A schedule, or None."""
    row = (await connection.execute(SCHEDULES.where(ScheduleRow.id == schedule_id))).first()
    return Schedule._make(row) if row is not None else None


async def get(connection: Connection, user_id: str, schedule_id: str) -> Schedule:
    """A schedule of a user.

    Raises:
        NotFoundError: there is none, or it is another user's.
    """
    schedule = await find(connection, schedule_id)
    if schedule is None or schedule.user_id != user_id:
        raise NotFoundError(f"There is no schedule {schedule_id}.")
    return schedule


async def list_of_user(
    connection: Connection, user_id: str, limit: int, before: Place | None = None, session_id: str | None = None
) -> list[Schedule]:
    """A user's schedules behind a place, newest first; with `session_id`, only those of this session."""
    statement = SCHEDULES.where(ScheduleRow.user_id == user_id)
    if session_id is not None:
        statement = statement.where(ScheduleRow.session_id == session_id)
    if before is not None:
        statement = statement.where(tuple_(ScheduleRow.created_at, ScheduleRow.id) < tuple(before))
    statement = statement.order_by(ScheduleRow.created_at.desc(), ScheduleRow.id.desc()).limit(limit)
    return [Schedule._make(row) for row in await connection.execute(statement)]


async def remove(connection: Connection, schedule_id: str) -> None:
    """Forget a schedule and its runs."""
    await connection.execute(delete(ScheduleRunRow).where(ScheduleRunRow.schedule_id == schedule_id))
    await connection.execute(delete(ScheduleRow).where(ScheduleRow.id == schedule_id))


async def remove_of_sessions(connection: Connection, session_ids: Sequence[str]) -> list[str]:
    """Forget the schedules of these sessions; their ids."""
    of_sessions = ScheduleRow.session_id.in_(session_ids)
    doomed = list(await connection.scalars(select(ScheduleRow.id).where(of_sessions)))
    for schedule_id in doomed:
        await remove(connection, schedule_id)
    return doomed


async def run_of(connection: Connection, run_id: str) -> ScheduleRun | None:
    """A run that is stored, or None."""
    row = (await connection.execute(RUNS.where(ScheduleRunRow.id == run_id))).first()
    return _run(row) if row is not None else None


async def note_run(connection: Connection, schedule_id: str, run: ScheduleRun) -> None:
    """Store what became of a run, unless it is stored already. Runs that are older than `RUNS_KEPT` are forgotten."""
    if await run_of(connection, run.id) is not None:
        return
    values = {name: value for name, value in run._asdict().items() if name != "turn_status"}
    await connection.execute(insert(ScheduleRunRow), {**values, "schedule_id": schedule_id})
    old = ScheduleRunRow.created_at < utc_now() - RUNS_KEPT
    await connection.execute(delete(ScheduleRunRow).where(ScheduleRunRow.schedule_id == schedule_id, old))


async def runs_of(
    connection: Connection, schedule_id: str, limit: int, before: Place | None = None
) -> list[ScheduleRun]:
    """The runs of a schedule behind a place, newest first."""
    statement = RUNS.where(ScheduleRunRow.schedule_id == schedule_id)
    if before is not None:
        statement = statement.where(tuple_(ScheduleRunRow.created_at, ScheduleRunRow.id) < tuple(before))
    statement = statement.order_by(ScheduleRunRow.created_at.desc(), ScheduleRunRow.id.desc()).limit(limit)
    return [_run(row) for row in await connection.execute(statement)]


def _run(row: object) -> ScheduleRun:
    run = ScheduleRun._make(row)  # type: ignore[arg-type]
    return run._replace(status=RunStatus(run.status))
