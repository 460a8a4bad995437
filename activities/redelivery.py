"""Delivers again what was cut off between its row and Temporal's signal: messages, answers and events."""

import logging
import time
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from longhaul.contracts import Empty, Redelivered
from longhaul.db import acceptance, events, kept_answers, parked, sessions, webhooks
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.errors import STORAGE_UNAVAILABLE, MessageIdUsedError, NotFoundError, UnavailableError
from longhaul.settings import Settings
from longhaul.turns.answers import CallAnswers
from longhaul.turns.deliver import IncomingMessage, MessageDelivery
from longhaul.turns.status import TurnLookup
from longhaul.webhooks.wake import WebhookAlarm

log = logging.getLogger(__name__)
# What one run examines at most. The next run goes on with what is left.
MAX_SESSIONS = 1_000
MAX_ANSWERS = 100
MAX_FORGETS = 50
#: Seconds that it looks at sessions, of the minute that it has.
LOOK_S = 40.0
MAX_WEBHOOKS = 100


class RedeliveryActivities:
    """Finds messages and answers that no turn takes, and delivers them."""

    def __init__(self, database: Database, temporal: Client, alarm: WebhookAlarm, settings: Settings) -> None:
        self._database = database
        self._alarm = alarm
        self._events_keep = timedelta(days=settings.events_keep_days)
        self._after = settings.redeliver_after
        self._turns = TurnLookup(database, temporal, settings.temporal_rpc_timeout)
        self._delivery = MessageDelivery(settings, database, temporal, self._turns)
        self._answers = CallAnswers(database, temporal, settings.temporal_rpc_timeout)

    @activity.defn
    async def redeliver_forgotten(self, _: Empty) -> Redelivered:
        """Deliver messages that have waited too long in sessions without a turn, answers that their turns have not
        taken, and events that nobody sends. Harmless if repeated.

        Raises:
            ApplicationError: the database or Temporal is away; benign, because a later run does the same.
        """
        if not self._after:
            return Redelivered()
        before, delivered = utc_now() - timedelta(seconds=self._after), 0
        try:
            await self._tell_answers(before)
            await self._wake_webhooks(before)
            await self._forget_old()
            async with self._database.read() as connection:
                session_ids = await acceptance.sessions_waiting(connection, before, MAX_SESSIONS)
            ends_at = time.monotonic() + LOOK_S
            for session_id in session_ids:
                if time.monotonic() > ends_at:
                    break
                delivered += await self._redeliver(session_id, before)
        except UnavailableError as error:
            benign = ApplicationErrorCategory.BENIGN
            raise ApplicationError(str(error), type=STORAGE_UNAVAILABLE, category=benign) from error
        if delivered:
            log.warning("%d messages had waited for more than %g s and were delivered again", delivered, self._after)
        return Redelivered(messages=delivered)

    async def _tell_answers(self, before: datetime) -> None:
        """Tell turns of answers to their calls whose signal was cut off, and of credentials that are there by now."""
        async with self._database.read() as connection:
            answered = await parked.not_settled(connection, before, MAX_ANSWERS)
            connected = await parked.connected_and_waiting(connection, before, MAX_ANSWERS)
        for row in answered:
            await self._answers.tell(row)
        for row in connected:
            await self._answers.connected(row.user_id, row.credential or "")

    async def _wake_webhooks(self, before: datetime) -> None:
        """Let events be sent whose wake-up was cut off."""
        async with self._database.read() as connection:
            forgotten = await webhooks.forgotten(connection, before, MAX_WEBHOOKS)
        for webhook_id, user_id in forgotten:
            await self._alarm.revive(webhook_id, user_id)

    async def _forget_old(self) -> None:
        """Delete events and kept answers that are old enough."""
        for _ in range(MAX_FORGETS):
            async with self._database.write() as connection:
                more = await events.forget(connection, utc_now() - self._events_keep)
            if not more:
                break
        async with self._database.write() as connection:
            await kept_answers.forget(connection)

    async def _redeliver(self, session_id: str, before: datetime) -> int:
        """Deliver the messages of one session, unless its turn runs and has them, or its parent's turn, which may be
        about to start it.
        """
        if await self._turns.running(session_id) is not None:
            return 0
        delivered = 0
        try:
            async with self._database.read() as connection:
                session = await sessions.get(connection, session_id)
                waiting = await acceptance.list_waiting(connection, session_id)
            parent = session.parent_session_id
            if parent is not None and await self._turns.running(parent) is not None:
                return 0
            for row in waiting:
                if row.created_at < before:
                    await self._delivery.deliver(session.user_id, session, IncomingMessage.of_row(row))
                    delivered += 1
        except NotFoundError:
            log.info("session %s was deleted before its messages could be delivered", session_id)
        except MessageIdUsedError:
            log.exception("a waiting message of session %s cannot be delivered", session_id)
        return delivered
