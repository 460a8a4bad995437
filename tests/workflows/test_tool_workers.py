"""Tools with a task queue of their own, with fake activities: the order of the steps, failures, Stop, no worker."""

from collections.abc import AsyncIterator

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.worker import Worker

from longhaul import temporal
from longhaul.contracts import ParkKind, RunRemoteTool, SettleToolCall, ToolStatus, TurnLimits, TurnStatus
from tests.workflows.conftest import TASK_QUEUE, heartbeats
from tests.workflows.fakes import FakeActivities, Session, final, tool_calls

QUEUE = "gpu"


@pytest.fixture(autouse=True, scope="module")
async def tool_worker(workflow_client: Client, fake_activities: FakeActivities) -> AsyncIterator[None]:
    """A worker that serves the queue and has no other activity."""
    async with Worker(
        workflow_client,
        task_queue=temporal.tools_task_queue(TASK_QUEUE, QUEUE),
        activities=[fake_activities.run_remote_tool],
        interceptors=[heartbeats()],
    ):
        yield


def settling(session: Session) -> SettleToolCall:
    [found] = session.arguments(SettleToolCall)
    assert isinstance(found, SettleToolCall)
    return found


async def test_the_call_goes_to_its_queue_by_ids_alone(session: Session) -> None:
    session.script.answers = [tool_calls("a", task_queue=QUEUE)]
    session.script.tool_cost = 5
    await session.send("m1")
    assert await session.status() is TurnStatus.COMPLETED
    assert session.calls[2:5] == ["open_tool_call a", "run_remote_tool a", "settle_tool_call a"]
    [remote] = session.arguments(RunRemoteTool)
    assert isinstance(remote, RunRemoteTool)
    assert remote.call.tool_call_id == "a"
    assert (settling(session).remote_call_id, settling(session).failure) == (remote.remote_call_id, "")
    assert session.last_progress().usage.cost_microdollars == 5


async def test_a_call_that_is_not_to_be_run_reaches_no_queue(session: Session) -> None:
    session.script.answers = [tool_calls("a", task_queue=QUEUE)]
    session.script.refused_tools = ("a",)
    await session.send("m1")
    assert await session.status() is TurnStatus.COMPLETED
    assert session.calls[2:4] == ["open_tool_call a", "call_model 2"]


async def test_consent_comes_first(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=ParkKind.APPROVAL, task_queue=QUEUE)]
    session.script.parked.answers["a"] = ToolStatus.ERROR
    await session.send("m1")
    await session.until_waits("a")
    await session.answer("a", ToolStatus.ERROR)
    assert await session.status() is TurnStatus.COMPLETED
    assert "open_tool_call a" not in session.calls


async def test_a_failure_is_settled(session: Session) -> None:
    session.script.answers = [tool_calls("a", task_queue=QUEUE)]
    session.script.failures["run_remote_tool a"] = final("the API refuses this tool worker")
    await session.send("m1")
    assert await session.status() is TurnStatus.COMPLETED
    assert settling(session).failure == "a failed: the API refuses this tool worker"


async def test_stop_ends_the_call(session: Session) -> None:
    session.script.answers = [tool_calls("a", task_queue=QUEUE)]
    session.script.hold("run_remote_tool a")
    await session.send("m1")
    await session.script.reached("run_remote_tool a")
    await session.stop()
    assert await session.status() is TurnStatus.CANCELLED
    assert session.calls[-2:] == ["run_remote_tool a cancelled", "close_turn cancelled"]


async def test_a_stop_while_the_call_is_opened_runs_nothing(session: Session) -> None:
    session.script.answers = [tool_calls("a", task_queue=QUEUE)]
    session.script.hold("open_tool_call a").ignores_stop = True
    await session.send("m1")
    await session.script.reached("open_tool_call a")
    await session.stop()
    await session.until_stop_is_known()
    session.script.release("open_tool_call a")
    assert await session.status() is TurnStatus.CANCELLED
    assert "run_remote_tool a" not in session.calls


async def test_nobody_serves_the_queue(session: Session) -> None:
    session.script.answers = [tool_calls("a", task_queue="nobody")]
    await session.send("m1", TurnLimits(storage_window=5))
    assert await session.status() is TurnStatus.COMPLETED
    assert settling(session).failure == (
        "a was not run: no tool worker took the call from the queue 'nobody' within 5 s."
    )
    assert EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT in await session.events()
