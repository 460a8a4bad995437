"""Runs of schedules: delivers a run's message like one that a person sends, and waits for the turn that takes it."""

from functools import partial

from sqlalchemy.exc import IntegrityError
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.attempt import storage_faults
from longhaul.contracts import AwaitScheduled, DeliveredScheduled, DeliverScheduled, ScheduledRunEnded, Scope
from longhaul.db import schedules, sessions
from longhaul.db.database import Database
from longhaul.db.messages import row_id
from longhaul.db.models import utc_now
from longhaul.db.schedule_tables import RunStatus
from longhaul.db.schedules import Schedule, ScheduleRun
from longhaul.db.sessions import NewSession, Session
from longhaul.errors import (
    SCHEDULE_UNKNOWN,
    TURN_RUNS,
    InboxFullError,
    MessageIdUsedError,
    NotFoundError,
    TooManyTurnsError,
    UsageLimitError,
)
from longhaul.limits.usage import UsageLimits
from longhaul.settings import Settings
from longhaul.turns.deliver import Delivery, IncomingMessage, MessageDelivery
from longhaul.turns.schedules import Schedules
from longhaul.turns.status import TurnLookup

REFUSALS = (InboxFullError, TooManyTurnsError, UsageLimitError, MessageIdUsedError, NotFoundError)
#: The API stores a schedule's row right after Temporal has the Schedule. So many attempts wait for the row.
ROW_TRIES = 4


class ScheduleActivities:
    """Delivers what users have scheduled."""

    def __init__(self, database: Database, client: Client, usage: UsageLimits, settings: Settings) -> None:
        self._database = database
        self._turns = TurnLookup(database, client, settings.temporal_rpc_timeout)
        self._delivery = MessageDelivery(settings, database, client, self._turns, usage)
        self._schedules = Schedules(client, settings)

    @activity.defn
    async def deliver_scheduled(self, run: DeliverScheduled) -> DeliveredScheduled:
        """Deliver a schedule's message, or store why it is refused. All ids follow from the run, so twice is once."""
        with storage_faults():
            async with self._database.read() as connection:
                schedule = await schedules.find(connection, run.schedule_id)
                known = await schedules.run_of(connection, _id_of(run, "run"))
            if schedule is None:
                return await self._gone(run)
            if known is None:
                known = await self._deliver(schedule, run)
                async with self._database.write() as connection:
                    if await schedules.find(connection, schedule.id) is None:  # it was deleted meanwhile
                        return DeliveredScheduled()
                    await schedules.note_run(connection, schedule.id, known)
        return DeliveredScheduled(
            session_id=known.session_id or "", turn_id=known.turn_id or "", message_id=known.message_id
        )

    async def _gone(self, run: DeliverScheduled) -> DeliveredScheduled:
        """Remove the Schedule of a row that is gone. The row of a new one may be about to be stored."""
        if activity.info().attempt < ROW_TRIES:
            text = f"There is no schedule {run.schedule_id}."
            raise ApplicationError(text, type=SCHEDULE_UNKNOWN, category=ApplicationErrorCategory.BENIGN)
        await self._schedules.remove(run.schedule_id)
        return DeliveredScheduled()

    async def _deliver(self, schedule: Schedule, run: DeliverScheduled) -> ScheduleRun:
        message = IncomingMessage(
            _id_of(run, "message"),
            schedule.message,
            mode=schedule.mode,
            tier=schedule.tier,
            model=schedule.model,
            effort=schedule.effort,
        )
        noted = partial(
            ScheduleRun,
            id=_id_of(run, "run"),
            message_id=message.id,
            scheduled_at=run.scheduled_at,
            created_at=utc_now(),
        )
        try:
            session = await self._session(schedule, run)
            delivery: Delivery = await self._delivery.deliver(schedule.user_id, session, message)
        except REFUSALS as error:
            await self._remove_empty_session(schedule, run)
            return noted(status=RunStatus.REFUSED, reason=str(error), session_id=schedule.session_id, turn_id=None)
        return noted(status=RunStatus.DELIVERED, reason=None, session_id=session.id, turn_id=delivery.turn_id)

    async def _session(self, schedule: Schedule, run: DeliverScheduled) -> Session:
        session_id = schedule.session_id or _id_of(run, "session")
        if schedule.session_id is None:
            new = NewSession(
                id=session_id,
                user_id=schedule.user_id,
                title=schedule.title,
                scope=Scope(root_session_id=session_id),
            )
            try:
                async with self._database.write() as connection:
                    await sessions.create(connection, new)
            except IntegrityError:
                activity.logger.info("another attempt has made session %s", session_id)
        async with self._database.read() as connection:
            return await sessions.get(connection, session_id, schedule.user_id)

    async def _remove_empty_session(self, schedule: Schedule, run: DeliverScheduled) -> None:
        """The session that a refused run has made for itself."""
        if schedule.session_id is None:
            async with self._database.write() as connection:
                await sessions.delete_all(connection, [_id_of(run, "session")])

    @activity.defn
    async def await_scheduled(self, waiting: AwaitScheduled) -> ScheduledRunEnded:
        """How the turn of a run ended.

        Raises:
            ApplicationError: it has not; benign, because the retry policy asks again. So a wait adds nothing to the
                history, however long it is.
        """
        with storage_faults():
            standing = await self._turns.taking(waiting.session_id, waiting.message_id)
        if standing is None:
            return ScheduledRunEnded()
        if not standing.status.final:
            raise ApplicationError("Its turn runs.", type=TURN_RUNS, category=ApplicationErrorCategory.BENIGN)
        return ScheduledRunEnded(status=standing.status)


def _id_of(run: DeliverScheduled, what: str) -> str:
    return row_id(run.run, what)
