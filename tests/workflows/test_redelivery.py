"""The Schedule that delivers forgotten messages again, on a real Temporal: made once, kept, changed, removed."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import update
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from activities.redelivery import RedeliveryActivities
from longhaul.contracts import CorrectedEstimates, Empty
from longhaul.db import acceptance, sessions
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.db.models import MessageRow, utc_now
from longhaul.temporal import bills_id, redelivery_id, schedule_bills, schedule_redelivery
from longhaul.webhooks.wake import WebhookAlarm
from testkit.wait import until
from tests.workflows.conftest import heartbeats, settings
from tests.workflows.fakes import FakeActivities, Session
from worker import build, polling


async def test_a_message_without_a_signal_starts_its_turn(workflow_client: Client, tmp_path: Path) -> None:
    """The Schedule's own run finds the message in the database, and delivers it."""
    fakes, mine = FakeActivities(), settings(task_queue=f"redelivery-{uuid4()}", redeliver_after=1)
    session = Session(workflow_client, mine.task_queue, fakes)
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    try:
        async with database.write() as connection:
            await sessions.create(connection, sessions.NewSession(session.id, "u"))
            accepted = await acceptance.accept(
                connection, session_id=session.id, user_id="u", message_id="m1", content="x", context=None, limit=0
            )
            row = update(MessageRow).where(MessageRow.id == accepted.row_id)
            await connection.execute(row.values(created_at=utc_now() - timedelta(seconds=60)))
        alarm = WebhookAlarm(database, workflow_client, mine)
        redeliver = RedeliveryActivities(database, workflow_client, alarm, mine).redeliver_forgotten
        activities = replace(fakes.all(), stores=[*fakes.all().stores, redeliver])
        async with polling(build(workflow_client, mine, activities, heartbeats())):
            await schedule_redelivery(workflow_client, mine)
            await until(lambda: any(call.startswith("open_turn") for call in session.calls), what="a turn opens")
            await schedule_redelivery(workflow_client, mine.model_copy(update={"redeliver_after": 0.0}))
    finally:
        await database.close()


async def test_bills_are_asked_for_by_a_schedule_of_their_own(workflow_client: Client) -> None:
    """Its run asks for the bills, and it is gone once the endpoint cannot be asked."""
    asked = 0

    @activity.defn
    async def correct_estimates(_: Empty) -> CorrectedEstimates:
        nonlocal asked
        asked += 1
        return CorrectedEstimates(rows=1)

    fakes, mine = FakeActivities(), settings(task_queue=f"bills-{uuid4()}")
    activities = replace(fakes.all(), stores=[*fakes.all().stores, correct_estimates])
    async with polling(build(workflow_client, mine, activities, heartbeats())):
        await schedule_bills(workflow_client, mine, wanted=True)
        handle = workflow_client.get_schedule_handle(bills_id(mine.task_queue))
        await handle.trigger()
        await until(lambda: asked > 0, what="the bills are asked for")
        await schedule_bills(workflow_client, mine, wanted=False)
        with pytest.raises(RPCError, match="not found"):
            await handle.describe()


async def test_the_schedule_is_kept_changed_and_removed(workflow_client: Client) -> None:
    """A worker that starts again changes the interval and keeps an operator's pause; 0 removes the Schedule."""
    mine = settings(task_queue=f"redelivery-{uuid4()}", redeliver_after=3600)
    handle = workflow_client.get_schedule_handle(redelivery_id(mine.task_queue))
    await asyncio.gather(*(schedule_redelivery(workflow_client, mine) for _ in range(3)))
    await handle.pause(note="by an operator")

    async def shown(seconds: int) -> bool:
        """Whether it is paused and has this interval: the server shows a change with a delay."""
        schedule = (await handle.describe()).schedule
        every = [interval.every for interval in schedule.spec.intervals]
        return (schedule.state.paused, schedule.state.note, every) == (
            True,
            "by an operator",
            [timedelta(seconds=seconds)],
        )

    await until(lambda: shown(3600), what="the pause is shown")
    await schedule_redelivery(workflow_client, mine.model_copy(update={"redeliver_after": 1800.0}))
    await until(lambda: shown(1800), what="the new interval is shown")
    off = mine.model_copy(update={"redeliver_after": 0.0})
    for _ in range(2):
        await schedule_redelivery(workflow_client, off)
    with pytest.raises(RPCError, match="not found"):
        await handle.describe()
