"""How the whole of it stands, for operators: turns of all users, task queues, what failed last."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from longhaul import temporal
from longhaul.contracts import Progress
from longhaul.db import turns
from longhaul.db.database import Database
from longhaul.db.turns import TurnRecord
from longhaul.settings import Settings
from longhaul.turns.status import TurnLookup

TURNS_MAX, FAILED_MAX, ASK_AT_ONCE = 40, 5, 10


class Running(NamedTuple):
    """An unfinished turn. `progress` is None while Temporal is away or does not know the turn."""

    turn: TurnRecord
    progress: Progress | None


class Queue(NamedTuple):
    """One kind of work. `slots`: tasks that all its workers can do at once, if they have this process' settings."""

    name: str
    workers: int
    slots: int
    waiting: int
    oldest: timedelta


class Overview(NamedTuple):
    at: datetime
    running: list[Running]
    queues: list[Queue]
    failed: list[TurnRecord]


class Overlook:
    """Looks at everything at once."""

    def __init__(self, settings: Settings, database: Database, client: Client) -> None:
        self._settings = settings
        self._database = database
        self._client = client
        self._turns = TurnLookup(database, client, settings.temporal_rpc_timeout)
        self._gate = asyncio.Semaphore(ASK_AT_ONCE)

    async def look(self, now: datetime) -> Overview:
        """How it stands now.

        Raises:
            UnavailableError: the database or Temporal does not answer.
        """
        async with self._database.read() as connection:
            unfinished = await turns.unfinished(connection, TURNS_MAX)
            failed = await turns.failed(connection, FAILED_MAX)
        running = await asyncio.gather(*map(self._running, unfinished))
        settings, queue = self._settings, self._settings.task_queue
        async with temporal.reachable(settings.temporal_rpc_timeout):
            queues = [
                await self._queue("turns", queue, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, 0),
                await self._queue(
                    "calls", queue, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY, settings.max_concurrent_activities
                ),
                await self._queue(
                    "stores",
                    temporal.stores_task_queue(queue),
                    TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
                    settings.max_concurrent_stores,
                ),
            ]
        return Overview(now, running, queues, failed)

    async def _running(self, turn: TurnRecord) -> Running:
        async with self._gate:
            progress = await self._turns.newest_progress(turn.session_id, turn)
        return Running(turn, progress if progress is not None and progress.turn_id == turn.turn_id else None)

    async def _queue(self, name: str, queue: str, kind: "TaskQueueType.ValueType", slots: int) -> Queue:
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind, report_stats=True
        )
        described = await self._client.workflow_service.describe_task_queue(
            request, timeout=timedelta(seconds=self._settings.temporal_rpc_timeout)
        )
        workers = len({poller.identity for poller in described.pollers})
        stats = described.stats
        return Queue(
            name,
            workers,
            slots * workers,
            stats.approximate_backlog_count,
            stats.approximate_backlog_age.ToTimedelta(),
        )


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Overlook]:
    """Looks over connections of their own.

    Raises:
        UnavailableError: Temporal does not answer.
    """
    database = Database(settings.sqlalchemy_url, pool_size=2)
    try:
        async with temporal.reachable(settings.temporal_rpc_timeout):
            client = await temporal.connect(settings)
        yield Overlook(settings, database, client)
    finally:
        await database.close()
