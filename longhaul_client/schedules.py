"""Schedules: messages that are sent at certain times."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack
from uuid import uuid4

from pydantic import BaseModel

from longhaul_client.models import ApiModel, TurnStatus
from longhaul_client.operations import Operation, Page, Patience, Request, delete, exchange, read

if TYPE_CHECKING:
    from longhaul_client.asynchronous import AsyncLonghaul
    from longhaul_client.synchronous import Longhaul


class ScheduleOptions(TypedDict, total=False):
    """What a schedule is made of, or what is to be changed in it. One of `cron` and `every_seconds` says when."""

    message: str
    cron: str
    every_seconds: int
    time_zone: str
    session_id: str
    title: str
    mode: Literal["fast", "extended_thinking"]
    tier: Literal["standard", "advanced"]
    model: str
    overlap: Literal["skip", "queue", "allow"]
    paused: bool


class Schedule(ApiModel):
    """A message that is sent at certain times. `next_runs` is only known of a single one, not in lists."""

    id: str
    message: str
    cron: str | None = None
    every_seconds: int | None = None
    time_zone: str
    session_id: str | None = None
    overlap: str
    paused: bool
    next_runs: list[datetime] | None = None


class ScheduleRun(ApiModel):
    """One run: its message was `delivered`, or `refused` for `reason`."""

    id: str
    status: str
    reason: str | None = None
    session_id: str | None = None
    turn_id: str | None = None
    turn_status: TurnStatus | None = None
    scheduled_at: datetime


class _Runs(BaseModel):
    data: list[ScheduleRun]


def _create(fields: ScheduleOptions, patience: Patience) -> Operation[Schedule]:
    """A new schedule. Its key is fixed here: it is made once, however often it is asked for."""
    request = Request("POST", "/schedules", dict(fields), headers={"idempotency-key": str(uuid4())})
    return (yield from read(Schedule, request, patience))


def _get(schedule_id: str, patience: Patience) -> Operation[Schedule]:
    return (yield from read(Schedule, Request("GET", f"/schedules/{schedule_id}"), patience))


def _list(cursor: str | None, patience: Patience) -> Operation[Page[Schedule]]:
    query = {"cursor": cursor} if cursor else {}
    return (yield from read(Page[Schedule], Request("GET", "/schedules", query=query), patience))


def _change(schedule_id: str, fields: ScheduleOptions, patience: Patience) -> Operation[Schedule]:
    values: dict[str, Any] = dict(fields)
    return (yield from read(Schedule, Request("PATCH", f"/schedules/{schedule_id}", values), patience))


def _trigger(schedule_id: str, patience: Patience) -> Operation[None]:
    """Not repeated after a lost answer: it would be a second run."""
    yield from exchange(Request("POST", f"/schedules/{schedule_id}/trigger"), patience, repeatable=False)


def _runs(schedule_id: str, limit: int, patience: Patience) -> Operation[list[ScheduleRun]]:
    request = Request("GET", f"/schedules/{schedule_id}/runs", query={"limit": limit})
    return (yield from read(_Runs, request, patience)).data


def _delete(schedule_id: str, patience: Patience) -> Operation[None]:
    yield from delete(f"/schedules/{schedule_id}", patience)


class AsyncSchedules:
    """The user's schedules."""

    def __init__(self, client: "AsyncLonghaul") -> None:
        self._client = client

    async def create(self, **fields: Unpack[ScheduleOptions]) -> Schedule:
        """A new schedule. Without `session_id`, each run makes a session of its own.

        Raises:
            ProblemError: its times are not valid, or there are as many schedules as the limit allows.
        """
        return await self._client.run(_create(fields, self._client.patience()))

    async def get(self, schedule_id: str) -> Schedule:
        """A schedule with its next runs."""
        return await self._client.run(_get(schedule_id, self._client.patience()))

    def list(self) -> AsyncIterator[Schedule]:
        """All schedules, newest first."""
        return self._client.pages(_list)

    async def change(self, schedule_id: str, **fields: Unpack[ScheduleOptions]) -> Schedule:
        """Change what is named; `paused` pauses and resumes."""
        return await self._client.run(_change(schedule_id, fields, self._client.patience()))

    async def trigger(self, schedule_id: str) -> None:
        """Run it now."""
        await self._client.run(_trigger(schedule_id, self._client.patience()))

    async def runs(self, schedule_id: str, limit: int = 50) -> Sequence[ScheduleRun]:
        """What became of its runs, newest first."""
        return await self._client.run(_runs(schedule_id, limit, self._client.patience()))

    async def delete(self, schedule_id: str) -> None:
        """Delete it; what its runs have started goes on."""
        await self._client.run(_delete(schedule_id, self._client.patience()))


class Schedules:
    """The user's schedules."""

    def __init__(self, client: "Longhaul") -> None:
        self._client = client

    def create(self, **fields: Unpack[ScheduleOptions]) -> Schedule:
        """A new schedule. Without `session_id`, each run makes a session of its own.

        Raises:
            ProblemError: its times are not valid, or there are as many schedules as the limit allows.
        """
        return self._client.run(_create(fields, self._client.patience()))

    def get(self, schedule_id: str) -> Schedule:
        """A schedule with its next runs."""
        return self._client.run(_get(schedule_id, self._client.patience()))

    def list(self) -> Iterator[Schedule]:
        """All schedules, newest first."""
        return self._client.pages(_list)

    def change(self, schedule_id: str, **fields: Unpack[ScheduleOptions]) -> Schedule:
        """Change what is named; `paused` pauses and resumes."""
        return self._client.run(_change(schedule_id, fields, self._client.patience()))

    def trigger(self, schedule_id: str) -> None:
        """Run it now."""
        self._client.run(_trigger(schedule_id, self._client.patience()))

    def runs(self, schedule_id: str, limit: int = 50) -> Sequence[ScheduleRun]:
        """What became of its runs, newest first."""
        return self._client.run(_runs(schedule_id, limit, self._client.patience()))

    def delete(self, schedule_id: str) -> None:
        """Delete it; what its runs have started goes on."""
        self._client.run(_delete(schedule_id, self._client.patience()))
