"""What tests of recovery ask Temporal and the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select, text
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo

from longhaul.temporal import workflow_id
from testkit.process import Process
from testkit.product import Product
from testkit.wait import until

STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED


async def pending(product: Product, session: str) -> list[PendingActivityInfo]:
    """The activities of a session's turn that a worker has in its hands."""
    described = await (await product.temporal()).get_workflow_handle(workflow_id(session)).describe()
    return [one for one in described.raw_description.pending_activities if one.state == STARTED]


async def working_on(product: Product, session: str, activity: str) -> Process:
    """The worker that runs this activity of a session; waits until there is one."""

    async def find() -> Process | None:
        for one in await pending(product, session):
            for worker in product.workers:
                if one.activity_type.name == activity and one.last_worker_identity.startswith(f"{worker.pid}@"):
                    return worker
        return None

    return await until(find, what=f"a worker runs {activity} of session {session}")


async def has_answer(product: Product, session: str) -> None:
    """Wait until the whole answer of a model call has reached Temporal with a heartbeat."""

    async def kept() -> bool:
        found = await pending(product, session)
        data = b"".join(p.data for one in found for p in one.heartbeat_details.payloads)
        return b'"finish_reason"' in data

    await until(kept, what="the completion is in the heartbeat details")


async def history(product: Product, session: str, run_id: str | None = None) -> list[HistoryEvent]:
    """All events of a session's newest run."""
    handle = (await product.temporal()).get_workflow_handle(workflow_id(session), run_id=run_id)
    return list((await handle.fetch_history()).events)


def attempts(events: list[HistoryEvent], activity: str) -> list[tuple[int, str, str]]:
    """Of each run of an activity: attempts, the type of the failure before the last one, and who ran that."""
    names = {e.event_id: e.activity_task_scheduled_event_attributes.activity_type.name for e in events}
    found = []
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            started = event.activity_task_started_event_attributes
            if names[started.scheduled_event_id] == activity:
                failure = started.last_failure
                kind = failure.application_failure_info.type or failure.message
                found.append((started.attempt, kind, started.identity))
    return found


def identities(events: list[HistoryEvent]) -> set[str]:
    """Who took tasks of a run."""
    tasks = [e.workflow_task_started_event_attributes.identity for e in events]
    return {*tasks, *(e.activity_task_started_event_attributes.identity for e in events)} - {""}


@asynccontextmanager
async def locked(product: Product, table: Any, key: str) -> AsyncIterator[None]:
    """Nobody else writes this row (with SQLite: any row) while the block runs."""
    [column] = table.__table__.primary_key.columns
    async with product.database.write() as connection:
        await connection.execute(select(column).where(column == key).with_for_update())
        yield


async def until_blocked(product: Product, count: int) -> None:
    """Wait until so many connections to PostgreSQL wait for a lock."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    async def blocked() -> bool:
        async with product.database.read() as connection:
            return int(await connection.scalar(query) or 0) >= count

    await until(blocked, limit=20, what=f"{count} connections wait for a lock")
