"""A Temporal server and a worker with fake activities, one of each per process of pytest."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from activities.attempt import HeartbeatInterceptor
from testkit.servers import TemporalServer
from tests.workflows.fakes import FakeActivities, Session
from worker import workflow_options

TASK_QUEUE = "workflow-tests"
HEARTBEAT_S = 0.01

NewSession = Callable[[], Session]


class PromptServer(TemporalServer):
    """A Temporal server whose timers fire within milliseconds instead of up to a second late."""

    async def argv(self) -> list[str]:
        flags = ('history.timerProcessorMaxTimeShift="10ms"', 'history.workflowIdReuseMinimalInterval="0s"')
        return [*await super().argv(), *(part for flag in flags for part in ("--dynamic-config-value", flag))]


@pytest.fixture(scope="session")
async def workflow_client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A server of its own, so that these tests need nothing else and are no integration tests."""
    server = PromptServer(tmp_path_factory.mktemp("workflow-tests"))
    try:
        await server.start()
        yield await server.client()
    finally:
        await server.stop()


@pytest.fixture(scope="session")
async def fake_activities(workflow_client: Client) -> AsyncIterator[FakeActivities]:
    """Workflow code as a worker runs it; a Stop reaches its fake activities with their next heartbeat."""
    fakes = FakeActivities()
    worker = Worker(
        workflow_client,
        task_queue=TASK_QUEUE,
        activities=[
            fakes.open_turn,
            fakes.take_inbox,
            fakes.call_model,
            fakes.run_tool,
            fakes.quick_tool,
            fakes.store_tool_result,
            fakes.close_turn,
            fakes.prepare_sub_session,
            fakes.look_at_sub_session,
            fakes.report_sub_session,
        ],
        interceptors=[HeartbeatInterceptor(HEARTBEAT_S)],
        max_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_S),
        **workflow_options(sandboxed=False),
    )
    async with worker:
        yield fakes


@pytest.fixture
def new_session(workflow_client: Client, fake_activities: FakeActivities) -> NewSession:
    """Makes sessions with a script each."""
    return lambda: Session(workflow_client, TASK_QUEUE, fake_activities)


@pytest.fixture
def session(new_session: NewSession) -> Session:
    return new_session()
