"""A Temporal server and a worker with fake activities, one of each per process of pytest."""

from collections.abc import AsyncIterator, Callable

import pytest
from temporalio.client import Client

from activities.attempt import HeartbeatInterceptor
from longhaul.settings import Settings, load_settings
from testkit.servers import TemporalServer
from tests.workflows.fakes import FakeActivities, Session
from worker import build, polling

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
    """A worker process with fake activities."""
    fakes = FakeActivities()
    async with polling(build(workflow_client, settings(), fakes.all(), heartbeats())):
        yield fakes


def settings(**values: object) -> Settings:
    return load_settings(_env_file=None, **{"task_queue": TASK_QUEUE, "heartbeat_interval": HEARTBEAT_S, **values})


def heartbeats() -> HeartbeatInterceptor:
    """A Stop reaches fake activities with their next heartbeat."""
    return HeartbeatInterceptor(HEARTBEAT_S)


@pytest.fixture
def new_session(workflow_client: Client, fake_activities: FakeActivities) -> NewSession:
    """Makes sessions with a script each."""
    return lambda: Session(workflow_client, TASK_QUEUE, fake_activities)


@pytest.fixture
def session(new_session: NewSession) -> Session:
    return new_session()
