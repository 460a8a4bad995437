"""Schedules: messages that are sent at certain times."""

from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Path, Query, Response

from api.cursors import CURSOR, cursor_of, position
from api.delivery import check_model
from api.dependencies import ID, CurrentUser, Dependencies, Deps, IdempotencyKey
from api.problems import RESPONSES, TOO_LARGE, described, invalid
from api.request_body import body_schema, json_body
from api.schemas.schedules import (
    NewSchedule,
    Schedule,
    ScheduleChange,
    ScheduleRun,
    ScheduleRuns,
    Schedules,
    ScheduleWithTimes,
    Triggered,
    values_of,
)
from longhaul.db import schedules, sessions
from longhaul.db.messages import row_id
from longhaul.db.models import utc_now
from longhaul.db.schedules import Place
from longhaul.errors import ScheduleRefusedError
from longhaul.turns.schedules import changed

router = APIRouter(prefix="/v1/schedules", tags=["schedules"], responses=RESPONSES)
ScheduleId = Annotated[str, Path(max_length=64, description="Id of a schedule.")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")]
FULL = described(409, "You have as many schedules as the limit allows.")


async def own_schedule(schedule_id: ScheduleId, user: CurrentUser, deps: Deps) -> schedules.Schedule:
    """The schedule that a path names if it is the caller's; otherwise the same 404 as for a missing one."""
    async with deps.database.read() as connection:
        return await schedules.get(connection, user, schedule_id)


OwnSchedule = Annotated[schedules.Schedule, Depends(own_schedule)]


@router.post(
    "",
    status_code=201,
    summary="Create a schedule",
    responses={
        200: {"description": "The same `Idempotency-Key` has made it before.", "model": ScheduleWithTimes},
        **FULL,
        **TOO_LARGE,
    },
    openapi_extra=body_schema(NewSchedule, required=True),
)
async def create(
    user: CurrentUser,
    deps: Deps,
    wanted: Annotated[NewSchedule, Depends(json_body(NewSchedule))],
    response: Response,
    key: IdempotencyKey = None,
) -> ScheduleWithTimes:
    """Each run delivers the message like one that you send: the same limits hold, and a refused run says why."""
    await _check(deps, user, wanted)
    schedule_id = row_id("schedule", user, key) if key is not None else str(uuid4())
    now = utc_now()
    schedule = schedules.Schedule(id=schedule_id, user_id=user, created_at=now, updated_at=now, **values_of(wanted))
    async with deps.database.read() as connection:
        if (known := await schedules.find(connection, schedule_id)) is not None:
            response.status_code = 200
            return await _shown(deps, known)
        if schedule.session_id is not None:
            await sessions.get(connection, schedule.session_id, user)
        await schedules.check_count(connection, user, deps.settings.max_schedules)
    await _put(deps, schedule)
    try:
        async with deps.database.write() as connection:
            await schedules.add(connection, schedule, deps.settings.max_schedules)
    except Exception:
        await deps.schedules.remove_all([schedule_id])
        raise
    return await _shown(deps, schedule)


async def _check(deps: Dependencies, user: str, wanted: NewSchedule | ScheduleChange) -> None:
    """Refuse what only the settings refuse.

    Raises:
        ProblemError: 422; 403, the model is kept for other users.
    """
    await check_model(deps, user, wanted.model)
    least = deps.settings.schedule_min_seconds
    if "every_seconds" in wanted.model_fields_set and 0 < (wanted.every_seconds or 0) < least:
        raise _refused("every_seconds", f"should be at least {least}")


async def _put(deps: Dependencies, schedule: schedules.Schedule, before: schedules.Schedule | None = None) -> None:
    """Let Temporal keep a schedule's times.

    Raises:
        ProblemError: 422, it does not take them.
    """
    try:
        await deps.schedules.put(schedule, before)
    except ScheduleRefusedError as error:
        raise _refused("cron" if schedule.cron is not None else "every_seconds", str(error)) from error


def _refused(field: str, why: str) -> Exception:
    return invalid([{"loc": ["body", field], "msg": why, "type": "schedule"}])


async def _shown(deps: Dependencies, schedule: schedules.Schedule) -> ScheduleWithTimes:
    times = await deps.schedules.times(schedule.id)
    return ScheduleWithTimes(
        **Schedule.model_validate(schedule).model_dump(),
        next_runs=times.next_runs if times is not None else None,
        skipped_runs=times.skipped if times is not None else None,
        missed_runs=times.missed if times is not None else None,
    )


@router.get("", summary="List your schedules")
async def listing(
    user: CurrentUser,
    deps: Deps,
    limit: Limit = 50,
    cursor: Cursor = None,
    session_id: Annotated[str | None, Query(max_length=64, pattern=ID, description="Only those of a session.")] = None,
) -> Schedules:
    """Newest first."""
    before = Place(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await schedules.list_of_user(connection, user, limit + 1, before, session_id)
    page, more = rows[:limit], len(rows) > limit
    next_cursor = cursor_of(page[-1].created_at, page[-1].id) if more else None
    return Schedules(data=[Schedule.model_validate(row) for row in page], has_more=more, next_cursor=next_cursor)


@router.get("/{schedule_id}", summary="A schedule and its next runs")
async def about(schedule: OwnSchedule, deps: Deps) -> ScheduleWithTimes:
    return await _shown(deps, schedule)


@router.patch(
    "/{schedule_id}",
    summary="Change, pause or resume a schedule",
    responses=TOO_LARGE,
    openapi_extra=body_schema(ScheduleChange, required=True),
)
async def change(
    schedule: OwnSchedule, deps: Deps, body: Annotated[ScheduleChange, Depends(json_body(ScheduleChange))]
) -> ScheduleWithTimes:
    """With `paused: true` nothing runs until `paused: false`. Runs that are at work go on."""
    await _check(deps, schedule.user_id, body)
    wanted = changed(schedule, **values_of(body))
    await _put(deps, wanted, schedule)
    async with deps.database.write() as connection:
        await schedules.save(connection, wanted)
    return await _shown(deps, wanted)


@router.delete("/{schedule_id}", status_code=204, summary="Delete a schedule")
async def delete(schedule: OwnSchedule, deps: Deps) -> Response:
    """What its runs have started goes on."""
    async with deps.database.write() as connection:
        await schedules.remove(connection, schedule.id)
    await deps.schedules.remove_all([schedule.id])
    return Response(status_code=204)


@router.post("/{schedule_id}/trigger", status_code=202, summary="Run a schedule now")
async def trigger(schedule: OwnSchedule, deps: Deps) -> Triggered:
    """Also while it is paused, and while another run of it is at work."""
    if await deps.schedules.times(schedule.id) is None:
        await deps.schedules.put(schedule)  # Temporal was restored to a state in which it did not have it.
    await deps.schedules.trigger(schedule.id)
    return Triggered(schedule_id=schedule.id)


@router.get("/{schedule_id}/runs", summary="What became of a schedule's runs")
async def runs(schedule: OwnSchedule, deps: Deps, limit: Limit = 50, cursor: Cursor = None) -> ScheduleRuns:
    """Newest first, of the last 90 days. Runs that were skipped are only counted."""
    before = Place(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await schedules.runs_of(connection, schedule.id, limit + 1, before)
    page, more = rows[:limit], len(rows) > limit
    next_cursor = cursor_of(page[-1].created_at, page[-1].id) if more else None
    return ScheduleRuns(data=[ScheduleRun.model_validate(row) for row in page], has_more=more, next_cursor=next_cursor)
