"""What the scenarios share: what must hold of a stream and its rows, and what to ask Temporal and the model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select, text
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import WorkflowHandle

from longhaul.temporal import workflow_id
from testkit.checks import Stored, check_rows
from testkit.client import RecordingClient
from testkit.grammar import check_stream
from testkit.process import Process
from testkit.product import Product
from testkit.streamlog import StreamLog
from testkit.wait import until

STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
CANCEL_REQUESTED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED


async def same_as_stored(product: Product, session: str, log: StreamLog, *, kinds: tuple[str, ...] = ()) -> Stored:
    """Check that the stream keeps the grammar and its text is that of the turn's rows, byte for byte; all rows."""
    check_stream(log)
    found = await check_rows(product.database, sessions=[session])
    rows = [row for row in found.of(session, "assistant") if row.turn_id == log.turn_id and row.kind != "error"]
    written = "".join(row.content for row in rows)
    assert log.text() == written, f"seen {len(log.text())}, stored {len(written)} characters"
    assert not kinds or tuple(row.kind for row in rows) == kinds
    return found


async def next_message_works(product: Product, session: str, api: RecordingClient | None = None) -> StreamLog:
    """Check that the session answers one more message in a turn of its own, live from Redis."""
    api = api or product.api
    await api.until_idle(session)
    log = await api.stream(session, "speak 12 [delay=5]")
    await same_as_stored(product, session, log)
    assert "w1 w2 w3" in log.text(), log.text()
    assert log.last_id is not None, log.types
    return log


def api_raised_nothing(product: Product) -> None:
    """Check that no API logged an exception: each answered as it should while something was away."""
    for api in product.apis:
        logged = api.log.read_text(errors="replace")
        at = logged.find("Traceback")
        assert at < 0, f"{api.name} raised:\n{logged[max(0, at - 500) : at + 3000]}"


async def until_asked(product: Product, turn_id: str) -> None:
    """Wait until the model is asked for the first round of a turn."""

    async def asked() -> bool:
        return 1 in await product.servers.model.asked(turn_id)

    await until(asked, what="the model is asked")


async def until_answered(product: Product, turn_id: str) -> None:
    """Wait until the model has given its whole answer for the first round of a turn."""

    async def answered() -> bool:
        return await product.servers.model.answered(turn_id) == {1: 1}

    await until(answered, what="the model has given its whole answer")


async def start_working(product: Product, session: str, text: str) -> str:
    """Start a turn and wait until its tool runs; the turn's id."""
    turn = await product.api.start(session, text)

    async def tools() -> bool:
        return bool((await product.api.progress(session, turn))["tools_running"])

    await until(tools, what="the tool runs")
    return turn


async def run_of(product: Product, session: str) -> WorkflowHandle[Any, Any]:
    """The handle of a session's newest run."""
    return (await product.temporal()).get_workflow_handle(workflow_id(session))


async def pending(product: Product, session: str) -> list[PendingActivityInfo]:
    """The activities of a session's turn that a worker runs now."""
    described = await (await run_of(product, session)).describe()
    return [one for one in described.raw_description.pending_activities if one.state == STARTED]


async def working_on(product: Product, session: str, activity: str = "call_model") -> Process:
    """Wait until a worker runs this activity of a session; that worker."""

    async def find() -> Process | None:
        for one in await pending(product, session):
            for worker in product.workers:
                if one.activity_type.name == activity and one.last_worker_identity.startswith(f"{worker.pid}@"):
                    return worker
        return None

    return await until(find, what=f"a worker runs {activity} of session {session}")


async def until_answer_is_kept(product: Product, session: str) -> None:
    """Wait until the whole answer of a model call has reached Temporal with a heartbeat."""

    async def kept() -> bool:
        details = [p.data for one in await pending(product, session) for p in one.heartbeat_details.payloads]
        return b'"finish_reason"' in b"".join(details)

    await until(kept, what="the whole answer is in the heartbeat details")


async def until_cancel_requested(product: Product, session: str) -> None:
    """Wait until Temporal has the request to cancel a session's run."""
    handle = await run_of(product, session)

    async def requested() -> bool:
        return any([event.event_type == CANCEL_REQUESTED async for event in handle.fetch_history_events()])

    await until(requested, what="Temporal has the request to cancel")


async def history(product: Product, session: str) -> list[HistoryEvent]:
    """All events of a session's newest run, once it has ended. Temporal records an activity's start with its end."""
    await product.api.until_idle(session)
    return list((await (await run_of(product, session)).fetch_history()).events)


def attempts(events: list[HistoryEvent], activity: str) -> list[tuple[int, str, str]]:
    """Of each run of an activity: its attempts, the type of the last failure before it, and the worker's identity."""
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
    """The workers that took tasks of a run."""
    tasks = [e.workflow_task_started_event_attributes.identity for e in events]
    return {*tasks, *(e.activity_task_started_event_attributes.identity for e in events)} - {""}


@asynccontextmanager
async def locked(product: Product, table: Any, key: str) -> AsyncIterator[None]:
    """Keep others from writing this row (with SQLite: any row) while the block runs."""
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

    await until(blocked, what=f"{count} connections wait for a lock")
