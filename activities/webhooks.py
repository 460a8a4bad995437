"""Sends events to webhooks: in order, one after another, and each attempt is stored."""

import time
from datetime import timedelta
from uuid import uuid4

from temporalio import activity

from activities.attempt import storage_faults
from longhaul.contracts import Empty, SendByHand, SendWaiting, SentWaiting
from longhaul.db import events, webhooks
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.event_tables import AttemptKind
from longhaul.db.events import Event
from longhaul.db.models import utc_now
from longhaul.db.webhooks import Attempt, Webhook
from longhaul.settings import Settings
from longhaul.webhooks import sender
from longhaul.webhooks.message import TEST_TYPE, Message, headers_of

#: After so many seconds the workflow is asked again, so that no attempt of this activity is long.
WORK_S = 30.0
OFF_BECAUSE_GONE = "Its receiver answered 410: it wants no more events."


class WebhookActivities:
    """Sends events to the webhooks of users."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._allowed = settings.webhook_allowed_networks
        self._timeout = settings.webhook_timeout
        self._retry_for = timedelta(seconds=settings.webhook_retry_seconds)

    @activity.defn
    async def send_waiting(self, sending: SendWaiting) -> SentWaiting:
        """Send the events that wait, the oldest first. One that fails is tried again until it is too old.

        An attempt whose worker dies before it is stored is made again, with the same id.
        """
        reached, until = False, time.monotonic() + WORK_S
        with storage_faults():
            while time.monotonic() < until:
                waiting = await self._waiting(sending.webhook_id)
                if waiting is None:
                    return SentWaiting(all_sent=True, reached=reached)
                webhook, event = waiting
                last = sending.now - event.created_at >= self._retry_for
                attempt = await self._send(webhook, _message(event), AttemptKind.DELIVERY, str(uuid4()), last=last)
                async with self._database.write() as connection:
                    await webhooks.note_attempt(connection, attempt)
                    if attempt.delivered or attempt.gave_up:
                        await webhooks.advance(connection, webhook.id, event.position)
                    await _heed(connection, attempt)
                if not attempt.delivered and not attempt.gave_up:
                    return SentWaiting(failed=True, reached=reached)
                reached = reached or attempt.delivered
        return SentWaiting(reached=reached)

    async def _waiting(self, webhook_id: str) -> tuple[Webhook, Event] | None:
        """A webhook and the oldest event that it has not been sent; None: it wants none."""
        async with self._database.read() as connection:
            webhook = await webhooks.find(connection, webhook_id)
            if webhook is None or not webhook.enabled:
                return None
            # Read first: all events up to it are visible by now, so none of them is left out below.
            newest = await events.newest_position(connection, webhook.user_id)
            event = await webhooks.next_event(connection, webhook)
        if event is not None:
            return webhook, event
        if newest > webhook.position:  # events of other types
            async with self._database.write() as connection:
                await webhooks.advance(connection, webhook.id, newest)
        return None

    @activity.defn
    async def send_by_hand(self, sending: SendByHand) -> Empty:
        """Send one event now, or a test event, and store how that went. It is not tried again."""
        with storage_faults():
            async with self._database.read() as connection:
                webhook = await webhooks.find(connection, sending.webhook_id)
                done = await webhooks.attempt(connection, sending.attempt_id) is not None
                event = None
                if webhook is not None and sending.event_id:
                    event = await events.find(connection, webhook.user_id, sending.event_id)
            if webhook is None or done or (sending.event_id and event is None):
                return Empty()
            kind = AttemptKind.REDELIVERY if event is not None else AttemptKind.TEST
            test = Message(sending.attempt_id, TEST_TYPE, utc_now(), {"webhook_id": webhook.id})
            message = _message(event) if event is not None else test
            attempt = await self._send(webhook, message, kind, sending.attempt_id)
            async with self._database.write() as connection:
                await webhooks.note_attempt(connection, attempt)
                await _heed(connection, attempt)
        return Empty()

    async def _send(
        self, webhook: Webhook, message: Message, kind: AttemptKind, attempt_id: str, *, last: bool = False
    ) -> Attempt:
        began_at, began = utc_now(), time.monotonic()
        headers = headers_of(message, webhook, began_at)
        reply = await sender.post(webhook.url, message.body, headers, self._allowed, self._timeout)
        gave_up = kind is AttemptKind.DELIVERY and not reply.delivered and (last or reply.gone)
        return Attempt(
            id=attempt_id,
            webhook_id=webhook.id,
            event_id=message.id,
            event_type=message.type,
            kind=kind,
            delivered=reply.delivered,
            gave_up=gave_up,
            status_code=reply.status_code,
            error=reply.error,
            duration_ms=round((time.monotonic() - began) * 1000),
            created_at=began_at,
        )


async def _heed(connection: Connection, attempt: Attempt) -> None:
    """Turn a webhook off whose receiver says that it is gone."""
    if attempt.status_code == sender.GONE:
        webhook = await webhooks.find(connection, attempt.webhook_id)
        if webhook is not None and webhook.enabled:
            await webhooks.change(connection, webhook, enabled=False, disabled_because=OFF_BECAUSE_GONE)


def _message(event: Event) -> Message:
    return Message(event.id, event.type, event.created_at, event.data)
