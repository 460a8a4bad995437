"""Schedules of users: the row says what is delivered, a Schedule in Temporal says when.

Temporal reads the times, so it alone says whether they are valid. It is changed first, and the row after it. A Schedule
without a row, which a process leaves behind that dies in between, is removed by its first run.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.client import Schedule as TemporalSchedule
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from longhaul import temporal
from longhaul.contracts import ScheduledRun
from longhaul.db.schedules import Overlap, Schedule
from longhaul.errors import ScheduleRefusedError, UnavailableError
from longhaul.settings import Settings

log = logging.getLogger(__name__)
#: A run that Temporal could not start in time is made up for, if it is no later than this.
CATCH_UP = timedelta(hours=1)
OVERLAPS: dict[Overlap, ScheduleOverlapPolicy] = {
    "skip": ScheduleOverlapPolicy.SKIP,
    "queue": ScheduleOverlapPolicy.BUFFER_ONE,
    "allow": ScheduleOverlapPolicy.ALLOW_ALL,
}
NEVER = "none of its times ever comes"
DEFECT = "Invalid schedule spec: "


@dataclass(frozen=True)
class Times:
    """When a schedule runs next, and how many of its runs were left out.

    `skipped`: because the run before was still at work. `missed`: because Temporal was away for longer than `CATCH_UP`.
    """

    next_runs: list[datetime]
    skipped: int
    missed: int


class Schedules:
    """Keeps the Schedules of users in Temporal."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._task_queue = settings.task_queue
        self._rpc_timeout = settings.temporal_rpc_timeout

    async def put(self, schedule: Schedule, before: Schedule | None = None) -> None:
        """Make a Schedule, or change the one that there is. `before`: the schedule as it was, if it is to be changed.

        Raises:
            ScheduleRefusedError: its times are not valid, or never come; Temporal has what it had.
            UnavailableError: Temporal does not answer.
        """
        try:
            async with temporal.reachable(self._rpc_timeout):
                await self._put(schedule)
                if (await self._handle(schedule.id).describe()).info.next_action_times:
                    return
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise ScheduleRefusedError(error.message.removeprefix(DEFECT)) from error
        if before is None:
            await self.remove(schedule.id)
        else:
            async with temporal.reachable(self._rpc_timeout):
                await self._put(before)
        raise ScheduleRefusedError(NEVER)

    async def _put(self, schedule: Schedule) -> None:
        wanted = self._as_temporal(schedule)

        async def updated(_: ScheduleUpdateInput) -> ScheduleUpdate:
            return ScheduleUpdate(wanted)

        try:
            await self._client.create_schedule(temporal.schedule_id(schedule.id), wanted)
        except ScheduleAlreadyRunningError:
            await self._handle(schedule.id).update(updated)

    def _as_temporal(self, schedule: Schedule) -> TemporalSchedule:
        every = schedule.every_seconds
        return TemporalSchedule(
            action=ScheduleActionStartWorkflow(
                temporal.SCHEDULED_RUN_WORKFLOW,
                ScheduledRun(schedule_id=schedule.id),
                id=temporal.schedule_id(schedule.id),
                task_queue=self._task_queue,
                task_timeout=temporal.WORKFLOW_TASK_MAX,
                typed_search_attributes=TypedSearchAttributes(
                    [SearchAttributePair(temporal.USER_ATTRIBUTE, schedule.user_id)]
                ),
                priority=temporal.priority_of(schedule.user_id),
                static_summary=f"run of schedule {schedule.id[:8]}",
            ),
            spec=ScheduleSpec(
                cron_expressions=[schedule.cron] if schedule.cron is not None else [],
                intervals=[ScheduleIntervalSpec(every=timedelta(seconds=every))] if every is not None else [],
                time_zone_name=schedule.time_zone,
            ),
            policy=SchedulePolicy(overlap=OVERLAPS[schedule.overlap], catchup_window=CATCH_UP),
            state=ScheduleState(paused=schedule.paused),
        )

    async def trigger(self, schedule_id: str) -> None:
        """Start a run now, also while another one is at work.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        async with temporal.reachable(self._rpc_timeout):
            await self._handle(schedule_id).trigger(overlap=ScheduleOverlapPolicy.ALLOW_ALL)

    async def times(self, schedule_id: str) -> Times | None:
        """When a schedule runs next; None: Temporal does not answer, or has lost the Schedule."""
        try:
            async with temporal.reachable(self._rpc_timeout):
                described: ScheduleDescription = await self._handle(schedule_id).describe()
        except UnavailableError:
            return None
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None
        info = described.info
        next_runs = [] if described.schedule.state.paused else list(info.next_action_times)
        return Times(next_runs, info.num_actions_skipped_overlap, info.num_actions_missed_catchup_window)

    async def remove(self, schedule_id: str) -> None:
        """Delete a Schedule; none is no error.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        try:
            async with temporal.reachable(self._rpc_timeout):
                await self._handle(schedule_id).delete()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    async def remove_all(self, schedule_ids: Iterable[str]) -> None:
        """Delete Schedules whose rows are gone. One that stays is removed by its next run."""

        async def remove(schedule_id: str) -> None:
            try:
                await self.remove(schedule_id)
            except UnavailableError as error:
                log.warning("schedule %s is removed from Temporal by its next run: %s", schedule_id, error)

        await asyncio.gather(*map(remove, schedule_ids))

    def _handle(self, schedule_id: str) -> ScheduleHandle:
        return self._client.get_schedule_handle(temporal.schedule_id(schedule_id))


def changed(schedule: Schedule, **values: Any) -> Schedule:
    """A schedule with other values. New times replace the old ones, of whichever kind those are."""
    if values.get("cron") is not None:
        values.setdefault("every_seconds", None)
    if values.get("every_seconds") is not None:
        values.setdefault("cron", None)
    return schedule._replace(**values)
