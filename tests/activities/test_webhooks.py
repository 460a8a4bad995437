"""What is sent to webhooks, in which order, what is tried again, and what is given up."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, cast

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from temporalio.testing import ActivityEnvironment

from activities import webhooks as module
from activities.title import Titles
from activities.turns import TurnActivities
from activities.webhooks import OFF_BECAUSE_GONE, WebhookActivities
from longhaul.contracts import CloseTurn, Progress, SendByHand, SendWaiting, SentWaiting, TurnStatus
from longhaul.db import events, turns, webhooks
from longhaul.db.database import Database
from longhaul.db.event_tables import AttemptKind, EventType
from longhaul.db.models import utc_now
from longhaul.db.turns import NewTurn
from longhaul.db.webhooks import Attempt, Webhook
from longhaul.webhooks import sender
from longhaul.webhooks.message import TEST_TYPE, new_secret
from testkit.receiver import Receiver
from testkit.spending import usage_limits
from tests.activities.conftest import NO_STREAMS, SETTINGS, TURN

ALLOWED = SETTINGS.model_copy(update={"webhook_allowed_networks": [ip_network("127.0.0.0/8")]})
WAITING = SendWaiting(webhook_id="w", now=utc_now())


@dataclass
class Desk:
    """A webhook and its receiver."""

    database: Database
    receiver: Receiver
    secret: str

    @property
    def activities(self) -> WebhookActivities:
        return WebhookActivities(self.database, ALLOWED)

    async def happens(self, *turn_ids: str) -> None:
        for id_ in turn_ids:
            now = utc_now()
            new = NewTurn(id_, TURN.session_id, TURN.user_id, "m", "fast", "standard", now)
            done = Progress(
                turn_id=id_, session_id=TURN.session_id, status=TurnStatus.COMPLETED, started_at=now, ended_at=now
            )
            async with self.database.write() as connection:
                await turns.end(connection, new, done)

    async def send(self, now: datetime | None = None) -> SentWaiting:
        sending = WAITING.model_copy(update={"now": now or utc_now()})
        sent: SentWaiting = await ActivityEnvironment().run(self.activities.send_waiting, sending)
        return sent

    async def attempts(self) -> list[Attempt]:
        """Oldest first."""
        async with self.database.read() as connection:
            return (await webhooks.attempts_of(connection, "w", 100))[::-1]

    async def webhook(self) -> Webhook:
        async with self.database.read() as connection:
            return await webhooks.get(connection, TURN.user_id, "w")

    async def change(self, **values: Any) -> None:
        webhook = await self.webhook()
        async with self.database.write() as connection:
            await webhooks.change(connection, webhook, **values)

    def turns(self) -> list[str]:
        return [one.event["data"]["turn_id"] for one in self.receiver.received]


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    receiver, secret, now = Receiver(), new_secret(), utc_now()
    await receiver.start()
    async with database.write() as connection:
        types = frozenset({EventType.TURN_ENDED, EventType.BUDGET_REACHED})
        webhook = Webhook("w", TURN.user_id, receiver.url, types, secret, None, None, True, None, 0, now, now)
        await webhooks.add(connection, webhook, 0)
    yield Desk(database, receiver, secret)
    await receiver.stop()


async def test_events_are_sent_once_and_in_order(desk: Desk) -> None:
    await desk.happens("t1", "t2", "t3")
    assert await desk.send() == SentWaiting(all_sent=True, reached=True)
    assert await desk.send() == SentWaiting(all_sent=True)
    assert desk.turns() == ["t1", "t2", "t3"]
    for one in desk.receiver.received:
        assert Verifier(desk.secret).verify(one.body, one.headers)["type"] == "turn.ended"
    assert [(one.delivered, one.status_code, one.kind) for one in await desk.attempts()] == [
        (True, 200, AttemptKind.DELIVERY)
    ] * 3


async def test_behind_a_failure_nothing_is_sent(desk: Desk) -> None:
    await desk.happens("t1", "t2")
    desk.receiver.answers = [200, 503]
    assert await desk.send() == SentWaiting(failed=True, reached=True)
    await desk.happens("t3")
    desk.receiver.answers = [500]
    assert await desk.send() == SentWaiting(failed=True)
    assert await desk.send() == SentWaiting(all_sent=True, reached=True)
    assert desk.turns() == ["t1", "t2", "t2", "t2", "t3"]
    assert len({one.id for one in desk.receiver.received}) == 3
    assert len({one.body for one in desk.receiver.received}) == 3, "each try has the same body"
    assert [one.status_code for one in await desk.attempts()] == [200, 503, 500, 200, 200]


async def test_after_a_day_an_event_is_given_up_and_the_next_one_follows(desk: Desk) -> None:
    await desk.happens("t1", "t2")
    desk.receiver.answers = [500] * 2
    assert await desk.send(utc_now() + timedelta(days=1)) == SentWaiting(all_sent=True)
    assert [(one.gave_up, one.delivered) for one in await desk.attempts()] == [(True, False)] * 2
    await desk.happens("t3")
    assert await desk.send() == SentWaiting(all_sent=True, reached=True)
    assert desk.turns() == ["t1", "t2", "t3"]


async def test_a_receiver_that_is_gone_turns_its_webhook_off(desk: Desk) -> None:
    await desk.happens("t1", "t2")
    desk.receiver.answers = [410]
    assert await desk.send() == SentWaiting(all_sent=True)
    webhook = await desk.webhook()
    assert (webhook.enabled, webhook.disabled_because) == (False, OFF_BECAUSE_GONE)
    assert desk.turns() == ["t1"]


async def test_other_types_are_left_out(desk: Desk) -> None:
    await desk.change(event_types=frozenset({EventType.APPROVAL_WANTED}))
    await desk.happens("t1", "t2")
    assert await desk.send() == SentWaiting(all_sent=True)
    assert (await desk.webhook()).position == 2
    assert desk.turns() == []


async def test_a_webhook_that_is_off_or_deleted_is_sent_nothing(desk: Desk) -> None:
    await desk.happens("t1")
    await desk.change(enabled=False)
    assert await desk.send() == SentWaiting(all_sent=True)
    webhook = await desk.webhook()
    async with desk.database.write() as connection:
        await webhooks.remove(connection, webhook)
    assert await desk.send() == SentWaiting(all_sent=True)
    assert desk.turns() == []


async def test_a_webhook_that_is_deleted_while_it_is_sent_something(desk: Desk) -> None:
    """Its attempt is not stored, and nothing breaks."""
    await desk.happens("t1", "t2")
    sent, send = [], sender.post

    async def delete_then_send(*arguments: Any) -> Any:
        webhook = await desk.webhook()
        async with desk.database.write() as connection:
            await webhooks.remove(connection, webhook)
        sent.append(arguments)
        return await send(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sender, "post", delete_then_send)
        assert await desk.send() == SentWaiting(all_sent=True, reached=True)
    assert len(sent) == 1


async def test_long_work_is_handed_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workflow asks again, so that no attempt of the activity is long."""
    monkeypatch.setattr(module, "WORK_S", 0)
    await desk.happens("t1")
    assert await desk.send() == SentWaiting()


async def test_one_event_by_hand(desk: Desk) -> None:
    """Beside the others, once for each attempt's id, and whatever its receiver answers."""
    await desk.happens("t1")
    async with desk.database.read() as connection:
        [event] = await events.list_of_user(connection, TURN.user_id, 10)
    again = SendByHand(webhook_id="w", event_id=event.id, attempt_id="a1")
    test = SendByHand(webhook_id="w", attempt_id="a2")
    desk.receiver.answers = [500]
    for sending in (again, again, test):
        await ActivityEnvironment().run(desk.activities.send_by_hand, sending)
    first, second = desk.receiver.received
    assert (first.id, first.event["type"]) == (event.id, "turn.ended")
    assert (second.id, second.event["type"]) == ("a2", TEST_TYPE)
    assert Verifier(desk.secret).verify(second.body, second.headers)
    assert [(one.id, one.kind, one.delivered, one.gave_up) for one in await desk.attempts()] == [
        ("a1", AttemptKind.REDELIVERY, False, False),
        ("a2", AttemptKind.TEST, True, False),
    ]
    assert await desk.send() == SentWaiting(all_sent=True, reached=True), "the event itself still waited"


async def test_an_event_of_another_user_is_not_sent(desk: Desk) -> None:
    await ActivityEnvironment().run(
        desk.activities.send_by_hand, SendByHand(webhook_id="w", event_id="foreign", attempt_id="a1")
    )
    assert desk.receiver.received == []


async def test_private_addresses_are_refused_at_the_connect(desk: Desk) -> None:
    """The operator has changed the setting since the webhook was made."""
    await desk.happens("t1")
    strict = WebhookActivities(desk.database, SETTINGS)
    assert await ActivityEnvironment().run(strict.send_waiting, WAITING) == SentWaiting(failed=True)
    [attempt] = await desk.attempts()
    assert attempt.error == "127.0.0.1 is not a public address; webhooks go to public addresses only"
    assert desk.receiver.received == []


async def test_a_budget_that_is_reached_is_an_event_before_the_turns_end(desk: Desk) -> None:
    now = utc_now()
    failed = Progress(
        turn_id=TURN.turn_id, session_id=TURN.session_id, status=TurnStatus.FAILED, started_at=now, ended_at=now
    )
    closing = CloseTurn(turn=TURN, progress=failed, answered_with_text=False, budget_reached=True)
    closes = TurnActivities(desk.database, NO_STREAMS, cast("Titles", None), usage_limits(desk.database), SETTINGS)
    await ActivityEnvironment().run(closes.close_turn, closing)
    await desk.send()
    assert [one.event["type"] for one in desk.receiver.received] == ["budget.reached", "turn.ended"]
