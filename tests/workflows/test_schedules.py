"""Schedules on a real Temporal: what the API makes runs, is refused, is skipped, and is removed with its session."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import select
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Replayer

from activities.schedules import ROW_TRIES, ScheduleActivities
from api.app import create_app
from longhaul import redis, temporal
from longhaul.contracts import DeliveredScheduled, DeliverScheduled, ScheduledRun
from longhaul.db import schedules
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.db.models import MessageRow
from longhaul.limits.counters import SpendingCounters
from longhaul.limits.usage import UsageLimits
from longhaul.payloads import data_converter
from longhaul.settings import Settings
from testkit.wait import until
from tests.api.test_security import SECRET, bearer
from tests.workflows.conftest import heartbeats, settings
from tests.workflows.fakes import FakeActivities
from worker import build, polling, workflow_options

DAILY = {"message": "What happened since yesterday?", "cron": "0 9 * * 1-5", "time_zone": "Europe/Vienna"}
WEEKDAYS = range(5)


@dataclass
class Desk:
    """An API and a worker on a real Temporal and rows of their own; turns do nothing."""

    api: httpx2.AsyncClient
    database: Database
    client: Client
    fakes: FakeActivities
    settings: Settings
    activities: ScheduleActivities

    async def make(self, **fields: Any) -> dict[str, Any]:
        made = await self.api.post("/v1/schedules", json={**DAILY, **fields})
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def session(self) -> str:
        return str((await self.api.post("/v1/sessions")).json()["id"])

    async def runs(self, schedule_id: str) -> list[dict[str, Any]]:
        return list((await self.api.get(f"/v1/schedules/{schedule_id}/runs")).json()["data"])

    async def until_runs(self, schedule_id: str, count: int = 1) -> list[dict[str, Any]]:
        async def enough() -> bool:
            return len(await self.runs(schedule_id)) >= count

        await until(enough, what=f"{count} runs of schedule {schedule_id}")
        return await self.runs(schedule_id)

    async def texts(self, session_id: str) -> list[str]:
        of_session = select(MessageRow.content).where(MessageRow.session_id == session_id)
        async with self.database.read() as connection:
            return list(await connection.scalars(of_session))

    async def in_temporal(self, schedule_id: str) -> bool:
        try:
            await self.client.get_schedule_handle(temporal.schedule_id(schedule_id)).describe()
        except RPCError:
            return False
        return True


@pytest.fixture(scope="module")
async def shared(workflow_client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One for all tests here; each test is a user of its own."""
    mine = settings(
        task_queue=f"schedules-{uuid4()}",
        database_url=f"sqlite:///{tmp_path_factory.mktemp('schedules') / 'rows.db'}",
        redis_url="redis://127.0.0.1:1",
        temporal_address=workflow_client.service_client.config.target_host,
        auth="jwt",
        jwt_secret=SECRET,
        max_schedules=3,
        max_running_turns=1,
        schedule_min_seconds=1,
    )
    await asyncio.to_thread(upgrade, mine.sqlalchemy_url)
    database, fakes, app = Database(mine.sqlalchemy_url), FakeActivities(), create_app(mine)
    no_redis = redis.connect(mine)
    usage = UsageLimits(database, SpendingCounters(no_redis, database, 0.1), mine.tiers)
    scheduled = ScheduleActivities(database, workflow_client, usage, mine)
    stores: list[Callable[..., Any]] = [*fakes.all().stores, scheduled.deliver_scheduled, scheduled.await_scheduled]
    workers = build(workflow_client, mine, replace(fakes.all(), stores=stores), heartbeats())
    async with app.router.lifespan_context(app), polling(workers):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as api:
            yield Desk(api, database, workflow_client, fakes, mine, scheduled)
    await no_redis.aclose()
    await database.close()


@pytest.fixture
async def desk(shared: Desk) -> AsyncIterator[Desk]:
    shared.api.headers.update(bearer(str(uuid4())))
    yield shared
    for schedule in (await shared.api.get("/v1/schedules")).json()["data"]:
        await shared.api.delete(f"/v1/schedules/{schedule['id']}")


async def test_next_runs_are_in_the_time_zone(desk: Desk) -> None:
    made = await desk.make()
    times = [datetime.fromisoformat(one) for one in made["next_runs"]]
    assert times
    assert all(one.astimezone(UTC) > datetime.now(UTC) and one.weekday() in WEEKDAYS for one in times)
    assert {one.hour for one in times} <= {7, 8}, "nine in Vienna"
    assert (await desk.api.get(f"/v1/schedules/{made['id']}")).json() == made
    listed = (await desk.api.get("/v1/schedules")).json()
    assert [one["id"] for one in listed["data"]] == [made["id"]]
    assert (listed["has_more"], listed["next_cursor"]) == (False, None)


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"cron": "61 * * * *"}, "cron", "Minute is not in range [0-59]"),
        ({"cron": "0 9 * * 8"}, "cron", "DayOfWeek"),
        ({"cron": "0 0 30 2 *"}, "cron", "none of its times ever comes"),
        ({"cron": "* * * *"}, "cron", "five fields"),
        ({"cron": "0 0 9 * * * *"}, "cron", "five fields"),
        ({"cron": "@every 1s"}, "cron", "five fields"),
        ({"cron": "CRON_TZ=UTC 0 9 * * *"}, "cron", "five fields"),
        ({"time_zone": "Europe/Nowhere"}, "time_zone", "'Europe/Nowhere' is not a time zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone", "is not a time zone"),
        ({"every_seconds": 60}, None, "either `cron` or `every_seconds`"),
        ({"cron": None}, None, "either `cron` or `every_seconds`"),
        ({"message": " "}, "message", "should not be empty or blank"),
        ({"model": "unknown"}, "model", "not a model that you may choose"),
    ],
)
async def test_a_defect_is_named(desk: Desk, fields: dict[str, Any], field: str | None, why: str) -> None:
    refused = await desk.api.post("/v1/schedules", json={**DAILY, **fields})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["loc"] == ["body", *([field] if field else [])]
    assert why in refused.json()["detail"]
    assert (await desk.api.get("/v1/schedules")).json()["data"] == []


async def test_a_run_makes_a_session_and_delivers_once(desk: Desk) -> None:
    made = await desk.make(title="Every morning", paused=True)
    assert made["next_runs"] == []
    assert (await desk.api.post(f"/v1/schedules/{made['id']}/trigger")).status_code == 202
    [run] = await desk.until_runs(made["id"])
    assert (run["status"], run["reason"]) == ("delivered", None)
    assert await desk.texts(run["session_id"]) == [DAILY["message"]]
    session = (await desk.api.get(f"/v1/sessions/{run['session_id']}")).json()
    assert session["title"] == "Every morning"
    await until(lambda: bool(desk.fakes.script(run["session_id"]).calls), what="its turn has begun")


async def test_a_run_that_is_repeated_is_one(desk: Desk) -> None:
    """Its worker died behind the delivery; the next attempt says the same."""
    session = await desk.session()
    made = await desk.make(session_id=session)
    handle = None
    for _ in range(2):
        handle = await desk.client.start_workflow(
            temporal.SCHEDULED_RUN_WORKFLOW,
            ScheduledRun(schedule_id=made["id"]),
            id=f"schedule:{made['id']}-once",
            task_queue=desk.settings.task_queue,
        )
        await handle.result()
    assert await desk.texts(session) == [DAILY["message"]]
    assert len(await desk.runs(made["id"])) == 1
    assert handle is not None
    replayer = Replayer(data_converter=data_converter(), **workflow_options())
    await replayer.replay_workflow(await handle.fetch_history())


async def test_a_refused_run_says_why_and_leaves_no_session(desk: Desk) -> None:
    """The limits are those of any message: here one running turn."""
    busy = await desk.session()
    desk.fakes.script(busy).hold("open_turn")
    await desk.api.post(f"/v1/sessions/{busy}/messages", json={"message": "hi"})
    before = {one["id"] for one in (await desk.api.get("/v1/sessions")).json()["data"]}
    made = await desk.make()
    await desk.api.post(f"/v1/schedules/{made['id']}/trigger")
    [run] = await desk.until_runs(made["id"])
    assert (run["status"], run["turn_id"], run["turn_status"]) == ("refused", None, None)
    assert "the limit is 1" in run["reason"]
    assert {one["id"] for one in (await desk.api.get("/v1/sessions")).json()["data"]} == before
    desk.fakes.script(busy).release("open_turn")


async def test_a_run_is_skipped_while_the_turn_of_the_last_one_runs(desk: Desk) -> None:
    session = await desk.session()
    desk.fakes.script(session).hold("open_turn")
    made = await desk.make(cron=None, every_seconds=1, session_id=session)
    await desk.until_runs(made["id"])

    async def skipped() -> bool:
        return int((await desk.api.get(f"/v1/schedules/{made['id']}")).json()["skipped_runs"] or 0) > 0

    await until(skipped, what="a run is skipped")
    assert len(await desk.runs(made["id"])) == 1
    assert await desk.texts(session) == [DAILY["message"]]
    paused = await desk.api.patch(f"/v1/schedules/{made['id']}", json={"paused": True})
    assert paused.status_code == 200
    desk.fakes.script(session).release("open_turn")


async def test_a_run_that_may_overlap_joins_the_turn(desk: Desk) -> None:
    session = await desk.session()
    desk.fakes.script(session).hold("open_turn")
    made = await desk.make(cron=None, every_seconds=1, session_id=session, overlap="allow")
    runs = await desk.until_runs(made["id"], 2)
    await desk.api.patch(f"/v1/schedules/{made['id']}", json={"paused": True})
    assert len({run["turn_id"] for run in runs}) == 1
    assert len({run["message_id"] for run in runs}) == len(runs)
    desk.fakes.script(session).release("open_turn")


async def test_a_change_that_is_refused_changes_nothing(desk: Desk) -> None:
    made = await desk.make()
    for fields in ({"cron": "0 0 30 2 *"}, {"cron": "99 * * * *"}, {"time_zone": "Nowhere"}, {}):
        assert (await desk.api.patch(f"/v1/schedules/{made['id']}", json=fields)).status_code == 422
    assert (await desk.api.get(f"/v1/schedules/{made['id']}")).json() == made
    hourly = (await desk.api.patch(f"/v1/schedules/{made['id']}", json={"every_seconds": 3600})).json()
    assert (hourly["cron"], hourly["every_seconds"], hourly["message"]) == (None, 3600, made["message"])
    first, second = (datetime.fromisoformat(one) for one in hourly["next_runs"][:2])
    assert second - first == timedelta(hours=1)


async def test_as_many_as_the_limit_allows(desk: Desk) -> None:
    for _ in range(3):
        await desk.make()
    full = await desk.api.post("/v1/schedules", json=DAILY)
    assert full.status_code == 409
    assert "3 schedules" in full.json()["detail"]


async def test_a_key_makes_one(desk: Desk) -> None:
    answers = [await desk.api.post("/v1/schedules", json=DAILY, headers={"idempotency-key": "mine"}) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


async def test_it_goes_with_its_session(desk: Desk) -> None:
    session = await desk.session()
    made, other = await desk.make(session_id=session), await desk.make()
    assert (await desk.api.delete(f"/v1/sessions/{session}")).status_code == 204
    assert (await desk.api.get(f"/v1/schedules/{made['id']}")).status_code == 404
    assert not await desk.in_temporal(made["id"])
    assert await desk.in_temporal(other["id"])
    assert (await desk.api.delete(f"/v1/schedules/{other['id']}")).status_code == 204
    assert not await desk.in_temporal(other["id"])


async def test_a_schedule_without_a_row_removes_itself(desk: Desk) -> None:
    """The API died between Temporal and the row, or Temporal was away when the row was deleted."""
    made = await desk.make()
    async with desk.database.write() as connection:
        await schedules.remove(connection, made["id"])
    environment = ActivityEnvironment()
    run = DeliverScheduled(schedule_id=made["id"], run="run", scheduled_at=datetime.now(UTC))
    with pytest.raises(ApplicationError, match="There is no schedule"):
        await environment.run(desk.activities.deliver_scheduled, run)
    assert await desk.in_temporal(made["id"]), "its row may be about to be stored"
    environment.info = replace(environment.info, attempt=ROW_TRIES)
    assert await environment.run(desk.activities.deliver_scheduled, run) == DeliveredScheduled()
    assert not await desk.in_temporal(made["id"])


async def test_schedules_of_others_are_not_there(desk: Desk) -> None:
    made, missing, bob = await desk.make(session_id=await desk.session()), str(uuid4()), bearer("bob")
    paths = [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/trigger"), ("GET", "/runs")]
    for method, path in paths:
        body = {"paused": True} if method == "PATCH" else None
        foreign, absent = [
            await desk.api.request(method, f"/v1/schedules/{one}{path}", json=body, headers=bob)
            for one in (made["id"], missing)
        ]
        assert foreign.status_code == absent.status_code == 404
        assert foreign.text.replace(made["id"], "S") == absent.text.replace(missing, "S")
    assert (await desk.api.get("/v1/schedules", headers=bob)).json()["data"] == []
    stolen = await desk.api.post("/v1/schedules", json={**DAILY, "session_id": made["session_id"]}, headers=bob)
    assert stolen.status_code == 404
    assert (await desk.api.get(f"/v1/schedules/{made['id']}")).json() == made
