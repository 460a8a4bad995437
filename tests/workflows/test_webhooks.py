"""Webhooks on a real Temporal with a real receiver: down for a while, with workers that come late, and by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import update
from standardwebhooks.webhooks import Webhook as Verifier
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.worker import Replayer

from activities.redelivery import RedeliveryActivities
from activities.webhooks import WebhookActivities
from api.app import create_app
from longhaul import temporal
from longhaul.contracts import Empty, Progress, TurnStatus
from longhaul.db import turns, webhooks
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.event_tables import EventRow
from longhaul.db.migrate import upgrade
from longhaul.db.models import utc_now
from longhaul.db.turns import NewTurn
from longhaul.errors import UnavailableError
from longhaul.payloads import data_converter
from longhaul.settings import Settings
from longhaul.webhooks.wake import WebhookAlarm
from testkit.receiver import Receiver
from testkit.wait import until
from tests.api.test_security import SECRET, bearer
from tests.workflows.conftest import heartbeats, settings
from tests.workflows.fakes import FakeActivities
from worker import build, polling, workflow_options
from workflows import policies
from workflows import webhooks as workflow_module


@dataclass
class Hooks:
    """An API and a worker on a real Temporal and rows of their own, and a receiver for each test."""

    api: httpx2.AsyncClient
    database: Database
    client: Client
    settings: Settings
    alarm: WebhookAlarm
    receiver: Receiver
    user: str = ""
    session: str = ""

    async def make(self, **fields: Any) -> dict[str, Any]:
        made = await self.api.post("/v1/webhooks", json={"url": self.receiver.url, **fields})
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def turn_ends(self, *turn_ids: str, announced: bool = True) -> None:
        """What the last transaction of a turn does. `announced`: its process lives until it has woken the webhooks."""
        self.database.announce_events = self.alarm.announce if announced else None
        for id_ in turn_ids:
            now = utc_now()
            new = NewTurn(f"{id_} of {self.user}", self.session, self.user, "m", "fast", "standard", now)
            done = Progress(
                turn_id=new.turn_id, session_id=self.session, status=TurnStatus.COMPLETED, started_at=now, ended_at=now
            )
            async with self.database.write() as connection:
                await turns.end(connection, new, done)

    async def until_received(self, count: int) -> None:
        await until(lambda: len(self.receiver.received) >= count, what=f"{count} events are received")

    def received_turns(self) -> list[str]:
        return [str(one.event["data"]["turn_id"]).partition(" ")[0] for one in self.receiver.received]

    async def attempts(self, webhook_id: str) -> list[dict[str, Any]]:
        """Newest first."""
        return list((await self.api.get(f"/v1/webhooks/{webhook_id}/attempts")).json()["data"])

    async def until_idle(self, webhook_id: str) -> None:
        """Wait until nothing is sent any more."""
        handle = self.client.get_workflow_handle(temporal.webhook_id(webhook_id))

        async def ended() -> bool:
            return (await handle.describe()).status == WorkflowExecutionStatus.COMPLETED

        await until(ended, what="nothing is sent any more")


@pytest.fixture(scope="module")
async def shared(workflow_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hooks]:
    """One for all tests here; each test is a user of its own."""
    mine = settings(
        task_queue=f"webhooks-{uuid4()}",
        database_url=f"sqlite:///{tmp_path_factory.mktemp('webhooks') / 'rows.db'}",
        redis_url="redis://127.0.0.1:1",
        temporal_address=workflow_client.service_client.config.target_host,
        auth="jwt",
        jwt_secret=SECRET,
        max_webhooks=2,
        webhook_allowed_networks="127.0.0.0/8",
    )
    await asyncio.to_thread(upgrade, mine.sqlalchemy_url)
    database, fakes, app = Database(mine.sqlalchemy_url), FakeActivities(), create_app(mine)
    alarm, sending = WebhookAlarm(database, workflow_client, mine), WebhookActivities(database, mine)
    calls: list[Callable[..., Any]] = [*fakes.all().calls, sending.send_waiting, sending.send_by_hand]
    workers = build(workflow_client, mine, replace(fakes.all(), calls=calls), heartbeats())
    async with app.router.lifespan_context(app), polling(workers):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as api:
            yield Hooks(api, database, workflow_client, mine, alarm, Receiver())
    await alarm.close()
    await database.close()


@pytest.fixture
async def hooks(shared: Hooks, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hooks]:
    """With pauses between tries that tests can wait for; the first ones are as they are."""
    monkeypatch.setattr(policies, "WEBHOOK_PAUSES", (timedelta(milliseconds=50),))
    user = str(uuid4())
    shared.api.headers.update(bearer(user))
    session = str((await shared.api.post("/v1/sessions")).json()["id"])
    mine = replace(shared, receiver=Receiver(), user=user, session=session)
    await mine.receiver.start()
    yield mine
    await mine.receiver.stop()
    for webhook in (await shared.api.get("/v1/webhooks")).json()["data"]:
        await shared.api.delete(f"/v1/webhooks/{webhook['id']}")


def test_failures_are_retried_for_a_day() -> None:
    """The first tries come soon, and the last one before the end of the day, which `send_waiting` watches."""
    pauses = [policies.webhook_pause(failures) for failures in range(1, 18)]
    assert pauses[0] == timedelta(seconds=5)
    assert pauses == sorted(pauses)
    assert timedelta(hours=20) < sum(pauses, timedelta()) < timedelta(days=1)
    assert policies.webhook_pause(1000) == timedelta(hours=2)


async def test_a_receiver_that_is_down_for_a_while(hooks: Hooks) -> None:
    """It refuses connections, then it answers errors, then it works: each event once, in order, and signed."""
    await hooks.receiver.stop()
    made = await hooks.make()
    await hooks.turn_ends("t1", "t2")

    async def refused() -> bool:
        return len(await hooks.attempts(made["id"])) >= 2

    await until(refused, what="two attempts have failed")
    hooks.receiver.answers = [503, 500]
    await hooks.receiver.start()
    await hooks.turn_ends("t3")
    await hooks.until_received(5)
    await hooks.until_idle(made["id"])
    assert hooks.received_turns() == ["t1", "t1", "t1", "t2", "t3"]
    ids = [one.id for one in hooks.receiver.received]
    assert ids == [ids[0]] * 3 + ids[3:]
    assert len(set(ids)) == 3
    for one in hooks.receiver.received:
        assert Verifier(made["secret"]).verify(one.body, one.headers)
    codes = [one["status_code"] for one in reversed(await hooks.attempts(made["id"]))]
    assert codes == [None] * (len(codes) - 5) + [503, 500, 200, 200, 200]
    assert (await hooks.api.get(f"/v1/webhooks/{made['id']}")).json()["waiting"] == 0


async def test_a_process_that_dies_between_the_turns_end_and_the_wake_up(hooks: Hooks) -> None:
    """The rows are there; the redelivery finds them."""
    made = await hooks.make()
    await hooks.turn_ends("t1", "t2", announced=False)
    redelivery = RedeliveryActivities(hooks.database, hooks.client, hooks.alarm, hooks.settings)
    await redelivery.redeliver_forgotten(Empty())  # they are young: a wake-up may be on its way
    async with hooks.database.write() as connection:
        mine = update(EventRow).where(EventRow.user_id == hooks.user)
        await connection.execute(mine.values(created_at=utc_now() - timedelta(seconds=61)))
    assert hooks.receiver.received == []
    await redelivery.redeliver_forgotten(Empty())
    await hooks.until_received(2)
    await hooks.until_idle(made["id"])
    await redelivery.redeliver_forgotten(Empty())
    assert hooks.received_turns() == ["t1", "t2"]


async def test_an_attempt_that_could_not_be_stored_is_made_again(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver has the event, and nobody knows: it is sent again under its id, before the next one."""
    advance, failures = webhooks.advance, [UnavailableError("The database")]

    async def fail_once(connection: Connection, webhook_id: str, position: int) -> None:
        if failures:
            raise failures.pop()
        await advance(connection, webhook_id, position)

    monkeypatch.setattr(webhooks, "advance", fail_once)
    made = await hooks.make()
    await hooks.turn_ends("t1", "t2")
    await hooks.until_received(3)
    await hooks.until_idle(made["id"])
    assert hooks.received_turns() == ["t1", "t1", "t2"]
    assert len({one.id for one in hooks.receiver.received}) == 2


async def test_a_change_ends_the_pause(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner has repaired the receiver, and does not want to wait for two hours."""
    monkeypatch.setattr(policies, "WEBHOOK_PAUSES", (timedelta(hours=2),))
    made = await hooks.make()
    hooks.receiver.answers = [500]
    await hooks.turn_ends("t1")
    await hooks.until_received(1)
    await hooks.turn_ends("t2")  # an event does not end the pause
    changed = await hooks.api.patch(f"/v1/webhooks/{made['id']}", json={"url": f"{hooks.receiver.url}?repaired"})
    assert changed.status_code == 200
    assert "secret" not in changed.json()
    await hooks.until_received(3)
    await hooks.until_idle(made["id"])
    assert hooks.received_turns() == ["t1", "t1", "t2"]


async def test_a_long_pause_goes_on_in_a_fresh_history(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that arrive during a pause add signals; then the rest of the pause is kept, and nothing is lost."""
    monkeypatch.setattr(workflow_module, "LONG_HISTORY", 20)
    monkeypatch.setattr(policies, "WEBHOOK_PAUSES", (timedelta(hours=2),))
    made = await hooks.make()
    hooks.receiver.answers = [500]
    handle = hooks.client.get_workflow_handle(temporal.webhook_id(made["id"]))
    await hooks.turn_ends("t0")
    await hooks.until_received(1)
    first = (await handle.describe()).run_id
    names = [f"t{number}" for number in range(1, 13)]
    for name in names:
        await hooks.turn_ends(name)

    async def continued() -> bool:
        return (await handle.describe()).run_id != first

    await until(continued, what="the workflow has continued as new")
    assert len(hooks.receiver.received) == 1, "the pause is kept"
    await hooks.api.patch(f"/v1/webhooks/{made['id']}", json={"events": ["turn.ended"]})
    await hooks.until_received(14)
    assert hooks.received_turns() == ["t0", "t0", *names]


async def test_by_hand(hooks: Hooks) -> None:
    made = await hooks.make()
    tested = await hooks.api.post(f"/v1/webhooks/{made['id']}/test")
    assert tested.status_code == 200, tested.text
    assert (tested.json()["kind"], tested.json()["delivered"]) == ("test", True)
    assert hooks.receiver.received[0].event["type"] == "webhook.test"
    await hooks.turn_ends("t1")
    await hooks.until_received(2)
    await hooks.until_idle(made["id"])
    event = hooks.receiver.received[1].id
    hooks.receiver.answers = [500]
    again = await hooks.api.post(f"/v1/webhooks/{made['id']}/events/{event}/redeliver")
    assert (again.json()["kind"], again.json()["status_code"]) == ("redelivery", 500)
    assert [one.id for one in hooks.receiver.received[1:]] == [event, event]
    only = await hooks.api.get(f"/v1/webhooks/{made['id']}/attempts", params={"event_id": event, "limit": 1})
    assert [one["kind"] for one in only.json()["data"]] == ["redelivery"]
    assert only.json()["has_more"]
    rest = {"event_id": event, "cursor": only.json()["next_cursor"]}
    [first] = (await hooks.api.get(f"/v1/webhooks/{made['id']}/attempts", params=rest)).json()["data"]
    assert (first["kind"], first["delivered"]) == ("delivery", True)
    missing = await hooks.api.post(f"/v1/webhooks/{made['id']}/events/{uuid4()}/redeliver")
    assert missing.status_code == 404


async def test_a_new_secret_signs_beside_the_old_one(hooks: Hooks) -> None:
    made = await hooks.make()
    rotated = (await hooks.api.post(f"/v1/webhooks/{made['id']}/secret")).json()
    await hooks.turn_ends("t1")
    await hooks.until_received(1)
    [one] = hooks.receiver.received
    for secret in {made["secret"], rotated["secret"]}:
        assert Verifier(secret).verify(one.body, one.headers)
    assert made["secret"] != rotated["secret"]
    shown = (await hooks.api.get(f"/v1/webhooks/{made['id']}")).text
    assert "whsec_" not in shown + (await hooks.api.get("/v1/webhooks")).text


async def test_its_histories_replay(hooks: Hooks) -> None:
    made = await hooks.make()
    hooks.receiver.answers = [500]
    await hooks.turn_ends("t1")
    await hooks.until_received(2)
    await hooks.until_idle(made["id"])
    await hooks.api.post(f"/v1/webhooks/{made['id']}/test")
    replayer = Replayer(data_converter=data_converter(), **workflow_options())
    ids = [
        temporal.webhook_id(made["id"]),
        f"{temporal.webhook_id(made['id'])}:{(await hooks.attempts(made['id']))[0]['id']}",
    ]
    for id_ in ids:
        await replayer.replay_workflow(await hooks.client.get_workflow_handle(id_).fetch_history())


async def test_what_happened_since(hooks: Hooks) -> None:
    """A program without a receiver asks for it, page by page, and again later."""
    assert (await hooks.api.get("/v1/events")).json() == {"data": [], "has_more": False, "next_cursor": "0"}
    await hooks.turn_ends("t1", "t2")
    between = datetime.now(UTC).isoformat()
    await hooks.turn_ends("t3")
    first = (await hooks.api.get("/v1/events", params={"limit": 2})).json()
    assert [one["data"]["status"] for one in first["data"]] == ["completed"] * 2
    assert first["has_more"]
    second = (await hooks.api.get("/v1/events", params={"cursor": first["next_cursor"]})).json()
    assert [one["data"]["turn_id"].partition(" ")[0] for one in second["data"]] == ["t3"]
    since = (await hooks.api.get("/v1/events", params={"after": between})).json()
    assert since == second
    nothing = (await hooks.api.get("/v1/events", params={"cursor": second["next_cursor"]})).json()
    assert nothing == {"data": [], "has_more": False, "next_cursor": second["next_cursor"]}
    others = (await hooks.api.get("/v1/events", params={"type": "approval.wanted"})).json()
    assert others == nothing
    for after in ("yesterday", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00"):
        assert (await hooks.api.get("/v1/events", params={"after": after})).status_code == 422
    assert (await hooks.api.get("/v1/events", params={"cursor": "x"})).status_code == 422


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"url": "https://169.254.169.254/latest"}, "url", "not a public address"),
        ({"url": "https://10.0.0.1/"}, "url", "not a public address"),
        ({"url": "http://93.184.216.34/"}, "url", "should begin with https://"),
        ({"url": "nonsense"}, "url", "Only http:// and https://"),
        ({"events": []}, "events", "at least 1 item"),
        ({"events": ["turn.began"]}, "events", "turn.ended"),
    ],
)
async def test_a_defect_is_named(hooks: Hooks, fields: dict[str, Any], field: str, why: str) -> None:
    made = await hooks.make()
    for method, path in (("POST", "/v1/webhooks"), ("PATCH", f"/v1/webhooks/{made['id']}")):
        refused = await hooks.api.request(method, path, json={"url": hooks.receiver.url, **fields})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["loc"][:2] == ["body", field]
        assert why in refused.json()["detail"]
    unchanged = (await hooks.api.get(f"/v1/webhooks/{made['id']}")).json()
    assert (unchanged["url"], len(unchanged["events"])) == (hooks.receiver.url, 4)


async def test_as_many_as_the_limit_allows(hooks: Hooks) -> None:
    for _ in range(2):
        await hooks.make()
    full = await hooks.api.post("/v1/webhooks", json={"url": hooks.receiver.url})
    assert full.status_code == 409
    assert "2 webhooks" in full.json()["detail"]


async def test_webhooks_and_events_of_others_are_not_there(hooks: Hooks) -> None:
    made, missing, bob = await hooks.make(), str(uuid4()), bearer("bob")
    await hooks.turn_ends("t1")
    await hooks.until_received(1)
    event = hooks.receiver.received[0].id
    paths = [
        *(("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/secret"), ("GET", "/attempts"), ("POST", "/test")),
        ("POST", f"/events/{event}/redeliver"),
    ]
    for method, path in paths:
        body = {"enabled": False} if method == "PATCH" else None
        foreign, absent = [
            await hooks.api.request(method, f"/v1/webhooks/{one}{path}", json=body, headers=bob)
            for one in (made["id"], missing)
        ]
        assert foreign.status_code == absent.status_code == 404
        assert foreign.text.replace(made["id"], "W") == absent.text.replace(missing, "W")
    assert (await hooks.api.get("/v1/webhooks", headers=bob)).json()["data"] == []
    assert (await hooks.api.get("/v1/events", headers=bob)).json()["data"] == []
    own = (await hooks.api.post("/v1/webhooks", json={"url": hooks.receiver.url}, headers=bob)).json()
    stolen = await hooks.api.post(f"/v1/webhooks/{own['id']}/events/{event}/redeliver", headers=bob)
    assert stolen.status_code == 404
    await hooks.api.delete(f"/v1/webhooks/{own['id']}", headers=bob)
    assert len(hooks.receiver.received) == 1


async def test_a_deleted_webhook_is_sent_nothing(hooks: Hooks) -> None:
    made = await hooks.make()
    assert (await hooks.api.delete(f"/v1/webhooks/{made['id']}")).status_code == 204
    await hooks.turn_ends("t1")
    await hooks.alarm.close()
    with pytest.raises(RPCError, match="not found"):
        await hooks.client.get_workflow_handle(temporal.webhook_id(made["id"])).describe()
    assert hooks.receiver.received == []
