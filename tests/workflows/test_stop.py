"""Stop at each `await` of a turn, with fake activities; and a turn whose close fails."""

from contextlib import AbstractAsyncContextManager
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from longhaul.contracts import Budget, Delegation, OpenTurn, Progress, TurnLimits, TurnStatus
from longhaul.db.connection import Connection
from longhaul.db.models import utc_now
from longhaul.errors import UnavailableError
from longhaul.turns.status import RunningTurn, TurnLookup
from longhaul.turns.stop import StoppedTurn, TurnStopper
from tests.workflows.conftest import heartbeats, settings
from tests.workflows.fakes import EMPTY, LIMIT_S, FakeActivities, Session, tool_calls
from worker import build, polling

CANCELLED, COMPLETED, FAILED = TurnStatus.CANCELLED, TurnStatus.COMPLETED, TurnStatus.FAILED


def without_second_round(calls: list[str]) -> list[str]:
    """A workflow task that does not know of the Stop yet may ask for the next model call, which ends at once."""
    return [call for call in calls if not call.startswith("call_model 2")]


async def test_while_the_turn_opens(session: Session) -> None:
    """The store is finished first; then no model call is begun, or it is ended at once."""
    session.script.hold("open_turn m1")
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("open_turn m1")
    await session.stop()
    session.script.release("open_turn m1")
    assert await session.status() is CANCELLED
    calls = [call for call in session.calls if not call.startswith("call_model 1")]
    assert calls == ["open_turn m1", "close_turn cancelled"]


async def test_during_a_model_call(session: Session) -> None:
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.stop()
    assert await session.status() is CANCELLED
    assert session.calls[1:] == ["call_model 1", "call_model 1 cancelled", "close_turn cancelled"]


async def test_as_a_model_call_ends(session: Session) -> None:
    """A model call that completes although it was cancelled; its tools are not run."""
    session.script.answers = [tool_calls("a")]
    session.script.hold("call_model 1").ignores_stop = True
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.stop()
    await session.until_stop_is_known()
    session.script.release("call_model 1")
    assert await session.status() is CANCELLED
    assert session.calls[1:] == ["call_model 1", "close_turn cancelled"]


async def test_during_tools(session: Session) -> None:
    session.script.answers = [tool_calls("a", "b")]
    session.script.hold("run_tool a")
    await session.send("m1")
    await session.script.reached("run_tool a")
    await session.until_called("run_tool b")
    await session.stop()
    assert await session.status() is CANCELLED
    assert session.calls[-2:] == ["run_tool a cancelled", "close_turn cancelled"]


async def test_as_a_tool_ends(session: Session) -> None:
    """A tool that completes although it was cancelled: no further round begins."""
    session.script.answers = [tool_calls("a")]
    session.script.hold("run_tool a").ignores_stop = True
    await session.send("m1")
    await session.script.reached("run_tool a")
    await session.stop()
    await session.until_stop_is_known()
    session.script.release("run_tool a")
    assert await session.status() is CANCELLED
    assert session.calls[-2:] == ["run_tool a", "close_turn cancelled"]


async def test_during_the_wait_tool(session: Session) -> None:
    session.script.answers = [tool_calls("wait", arguments='{"seconds": 60}')]
    await session.send("m1")
    await session.until_called("call_model 1")
    await session.until_tool_runs("wait")
    await session.stop()
    assert await session.status() is CANCELLED
    assert session.calls == ["open_turn m1", "call_model 1", "close_turn cancelled"]


async def test_while_a_result_is_stored(session: Session) -> None:
    session.script.answers = [tool_calls("wait", arguments='{"seconds": 0.01}')]
    session.script.hold("store_tool_result wait")
    await session.send("m1")
    await session.script.reached("store_tool_result wait")
    await session.stop()
    assert await session.status() is CANCELLED
    assert session.calls[-2:] == ["store_tool_result wait cancelled", "close_turn cancelled"]


async def test_while_follow_ups_are_stored(session: Session) -> None:
    """The store is finished, so that the messages are rows when the turn ends."""
    session.script.hold("call_model 1")
    session.script.hold("take_inbox m2")
    session.script.hold("call_model 2")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.send("m2")
    session.script.release("call_model 1")
    await session.script.reached("take_inbox m2")
    await session.stop()
    session.script.release("take_inbox m2")
    assert await session.status() is CANCELLED
    assert without_second_round(session.calls)[-2:] == ["take_inbox m2", "close_turn cancelled"]
    assert session.script.filed == []


async def test_while_messages_wait(session: Session) -> None:
    """They are filed unanswered, in their order, each once."""
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    for message_id in ("m2", "m3", "m2"):
        await session.send(message_id)
    await session.stop()
    assert await session.status() is CANCELLED
    assert session.calls[-1] == "close_turn cancelled"
    assert session.script.filed == ["m2", "m3"]


async def test_a_message_after_the_stop(session: Session) -> None:
    """It arrives while the stopped turn closes, and begins the next turn."""
    session.script.hold("call_model 1")
    session.script.hold("close_turn cancelled")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.stop()
    await session.script.reached("close_turn cancelled")
    session.script.release("call_model 1")
    await session.send("m2")
    session.script.release("close_turn cancelled")
    assert await session.status() is COMPLETED
    assert session.calls[-4:] == ["close_turn cancelled", "open_turn m2", "call_model 1", "turn ended"]
    first, second = session.arguments(OpenTurn)
    assert isinstance(first, OpenTurn)
    assert isinstance(second, OpenTurn)
    assert first.turn.turn_id == session.turn_id != second.turn.turn_id


async def test_while_the_turn_closes(session: Session) -> None:
    """The turn is complete already; its last store is not interrupted, and its end stays what it was."""
    session.script.answers = [EMPTY]
    session.script.hold("close_turn completed")
    await session.send("m1")
    await session.script.reached("close_turn completed")
    await session.stop()
    await session.until_stop_is_known()
    session.script.release("close_turn completed")
    assert await session.status() is COMPLETED
    assert session.calls[-1] == "close_turn completed"


async def test_as_the_answer_ends_the_turn(session: Session) -> None:
    """The answer's transaction has ended the turn, so Stop is too late and the turn stays completed."""
    session.script.hold("call_model 1").ignores_stop = True
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.stop()
    await session.until_stop_is_known()
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert session.calls[1:] == ["call_model 1", "turn ended"]


async def test_with_all_slots_taken_by_calls(workflow_client: Client) -> None:
    """The turn's own model call waits for a slot; the turn closes without one."""
    fakes, task_queue = FakeActivities(), f"full-{uuid4()}"
    one_slot = settings(task_queue=task_queue, max_concurrent_activities=1)
    workers = build(workflow_client, one_slot, fakes.all(), heartbeats())
    async with polling(workers):
        busy, stopped = (Session(workflow_client, task_queue, fakes) for _ in range(2))
        busy.script.hold("call_model 1")
        await busy.send("m1")
        await busy.script.reached("call_model 1")
        await stopped.send("m1")
        await stopped.until_called("open_turn m1")
        await stopped.stop()
        assert await stopped.status() is CANCELLED
        assert stopped.calls == ["open_turn m1", "close_turn cancelled"]
        busy.script.release("call_model 1")
        assert await busy.status() is COMPLETED


async def test_while_a_sub_session_is_started_at_the_end(session: Session) -> None:
    """The time budget has ended the turn, which waits for a sub-session's start; the Stop takes nothing of its end."""
    sub = session.new_sub_session()
    prepare = "prepare_sub_session run_sub_session"
    session.script.time_budget = Budget(session_id=session.id, max_seconds=1)
    session.script.answers = [tool_calls("run_sub_session", delegation=Delegation())]
    session.script.hold(prepare)
    await session.send("m1")
    await session.script.reached(prepare)
    await session.until_event(EventType.EVENT_TYPE_TIMER_FIRED)
    await session.stop()
    await session.until_stop_is_known()
    session.script.release(prepare)
    assert await session.status() is FAILED
    assert session.calls[-1] == "close_turn failed"
    assert await sub.status() is COMPLETED


class AbsentDatabase:
    """A database that is away: a turn is stopped all the same."""

    def write(self) -> AbstractAsyncContextManager[Connection]:
        raise UnavailableError("The database")


def stopper(client: Client, turns: "StaleLookup") -> TurnStopper:
    """Database and Redis are away; no notice reaches the worker."""
    return TurnStopper(AbsentDatabase(), client, Redis(port=1), turns, 5.0)  # type: ignore[arg-type]


class StaleLookup:
    """Says which turn ran a moment ago."""

    def __init__(self, client: Client) -> None:
        self.turns = TurnLookup(None, client, 5.0)  # type: ignore[arg-type]  # only Temporal is asked
        self.seen: list[RunningTurn] = []

    async def running(self, session_id: str) -> RunningTurn | None:
        return self.seen.pop(0) if self.seen else await self.turns.running(session_id)

    async def stored(self, session_id: str, turn_id: str) -> Progress:
        started = utc_now()
        return Progress(turn_id=turn_id, session_id=session_id, status=COMPLETED, started_at=started)


async def test_the_next_turn_is_not_hit(session: Session, workflow_client: Client) -> None:
    """A Stop that was meant for a turn which has ended, and which the next turn follows by continue-as-new."""
    turns = StaleLookup(workflow_client)
    first_call = session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    running = await turns.running(session.id)
    assert running is not None
    turns.seen = [running]
    session.script.rows.stopped = session.turn_id
    await session.send("m2")
    del session.script.gates["call_model 1"]
    session.script.hold("call_model 1")
    first_call.opened.set()
    await session.script.reached("call_model 1")
    stopped = await stopper(workflow_client, turns).stop(session.id, LIMIT_S)
    assert stopped == StoppedTurn(session.turn_id, COMPLETED)
    assert EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED not in await session.events()
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED


async def test_a_turn_that_has_continued_as_new_is_hit(session: Session, workflow_client: Client) -> None:
    turns = StaleLookup(workflow_client)
    session.script.answers = [tool_calls("a")]
    session.script.hold("run_tool a")
    session.script.hold("call_model 2")
    await session.send("m1", TurnLimits(continue_as_new_events=5))
    await session.script.reached("run_tool a")
    running = await turns.running(session.id)
    assert running is not None
    turns.seen = [running]
    session.script.release("run_tool a")
    await session.script.reached("call_model 2")
    await stopper(workflow_client, turns).stop(session.id, LIMIT_S)
    assert await session.status() is CANCELLED


@pytest.mark.parametrize("times", [2, 3])
async def test_twice(session: Session, times: int) -> None:
    session.script.hold("call_model 1")
    session.script.hold("close_turn cancelled")
    await session.send("m1")
    await session.script.reached("call_model 1")
    for _ in range(times):
        await session.stop()
    await session.script.reached("close_turn cancelled")
    await session.stop()
    session.script.release("close_turn cancelled")
    assert await session.status() is CANCELLED
    assert session.calls.count("close_turn cancelled") == 1
