"""The loop of a turn with fake activities: messages, rounds, limits, continue-as-new."""

import asyncio

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from activities.compaction import CompactionActivities
from activities.model import ModelActivities
from activities.parked import ParkedActivities
from activities.queued_tools import QueuedToolActivities
from activities.remote_tools import RemoteToolActivities
from activities.sub_sessions import SubSessionActivities
from activities.tools import ToolActivities
from activities.turns import TurnActivities
from longhaul.contracts import (
    Budget,
    CallModel,
    CloseTurn,
    ModelAnswer,
    RunTool,
    ToolCall,
    ToolStatus,
    TurnLimits,
    TurnStatus,
)
from longhaul.db.models import utc_now
from testkit.wait import until
from tests.workflows.fakes import TEXT, FakeActivities, Session, final, tool_calls

COMPLETED, FAILED = TurnStatus.COMPLETED, TurnStatus.FAILED


def test_fakes_have_the_names_and_types_of_the_real_activities() -> None:
    def definitions(kinds: list[type]) -> dict[str | None, tuple[object, object]]:
        members = [member for kind in kinds for member in vars(kind).values()]
        found = [activity._Definition.from_callable(member) for member in members if callable(member)]
        return {one.name: (one.arg_types, one.ret_type) for one in found if one is not None}

    kinds = [
        TurnActivities,
        ModelActivities,
        CompactionActivities,
        ToolActivities,
        ParkedActivities,
        QueuedToolActivities,
        RemoteToolActivities,
        SubSessionActivities,
    ]
    real = definitions(kinds)
    assert definitions([FakeActivities]) == real


async def test_an_answer_without_tools(session: Session) -> None:
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls == ["open_turn m1", "call_model 1", "turn ended"]
    assert session.last_progress().usage.calls == 1


async def test_tools_run_in_parallel(session: Session) -> None:
    session.script.answers = [tool_calls("a", "b")]
    session.script.hold("run_tool a")
    session.script.hold("run_tool b")
    await session.send("m1")
    await session.script.reached("run_tool a")
    await session.script.reached("run_tool b")
    progress = await session.progress()
    assert [tool.name for tool in progress.tools_running] == ["a", "b"]
    session.script.release("run_tool b")
    session.script.release("run_tool a")
    assert await session.status() is COMPLETED
    assert session.calls[-2:] == ["call_model 2", "turn ended"]
    assert session.last_progress().tools_done == 2


async def test_a_quick_tool_is_a_local_activity(session: Session) -> None:
    session.script.answers = [tool_calls("sum", quick=True)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2] == "quick_tool sum"
    history = await session.handle.fetch_history()
    scheduled = [e.activity_task_scheduled_event_attributes.activity_type.name for e in history.events]
    assert [name for name in scheduled if name] == ["call_model", "call_model"]


async def test_a_tools_own_limits_reach_its_activity(session: Session) -> None:
    calls = [
        ToolCall(tool_call_id="slow", name="slow", timeout=500.0, retries=2),
        ToolCall(tool_call_id="plain", name="plain"),
    ]
    session.script.answers = [ModelAnswer(message_id="calls", finish_reason="tool_calls", tool_calls=calls)]
    await session.send("m1", TurnLimits(tool_timeout=20.0, storage_window=10.0, tool_tries=3))
    assert await session.status() is COMPLETED
    asked = {one.name: (one.timeout, one.retries) for one in session.arguments(RunTool) if isinstance(one, RunTool)}
    assert asked == {"slow": (500.0, 2), "plain": (20.0, 0)}
    history = await session.handle.fetch_history()
    scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
    tools = [one for one in scheduled if one.activity_type.name == "run_tool"]
    limits = [(one.start_to_close_timeout.seconds, one.schedule_to_close_timeout.seconds) for one in tools]
    assert sorted(limits) == [(30, 70), (510, 500 * 5 + 2 * 30 + 10)]


async def test_the_newest_plan_is_in_the_progress(session: Session) -> None:
    """By its call's id: the steps themselves are in its row."""
    session.script.answers = [tool_calls("a", "update_plan"), tool_calls("b")]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.last_progress().plan_call_id == "update_plan"
    assert session.last_progress().plan == []


async def test_a_plan_that_was_refused_is_none(session: Session) -> None:
    session.script.answers = [tool_calls("update_plan")]
    session.script.tool_status = ToolStatus.ERROR
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.last_progress().plan_call_id == ""


async def test_the_wait_tool_is_a_timer(session: Session) -> None:
    session.script.answers = [tool_calls("wait", arguments='{"seconds": 0.01}')]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2] == "store_tool_result wait"


@pytest.mark.parametrize("arguments", ['{"seconds": 99}', '{"seconds": "long"}', "{"])
async def test_a_wait_that_is_refused(session: Session, arguments: str) -> None:
    session.script.answers = [tool_calls("wait", arguments=arguments)]
    await session.send("m1", TurnLimits(wait_max_seconds=10))
    assert await session.status() is COMPLETED
    assert session.calls[2:4] == ["store_tool_result wait", "call_model 2"]
    [tool] = session.last_progress().recent_tools
    assert tool.status == "error"


async def test_a_follow_up_during_tools(session: Session) -> None:
    session.script.answers = [tool_calls("a")]
    session.script.hold("run_tool a")
    await session.send("m1")
    await session.script.reached("run_tool a")
    await session.send("m2")
    await session.send("m3")
    assert [message.message_id for message in (await session.progress()).inbox] == ["m2", "m3"]
    session.script.release("run_tool a")
    assert await session.status() is COMPLETED
    tools, taken = ["call_model 1", "run_tool a"], ["take_inbox m2 m3", "call_model 2"]
    assert session.calls == ["open_turn m1", *tools, *taken, "turn ended"]


async def test_a_follow_up_during_the_last_model_call(session: Session) -> None:
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.send("m2")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    rounds = ["call_model 1", "take_inbox m2", "call_model 2"]
    assert session.calls == ["open_turn m1", *rounds, "turn ended"]


async def test_a_follow_up_that_arrives_twice(session: Session) -> None:
    session.script.answers = [tool_calls("a")]
    session.script.hold("run_tool a")
    session.script.hold("call_model 2")
    await session.send("m1")
    await session.script.reached("run_tool a")
    for message_id in ("m1", "m2", "m2"):
        await session.send(message_id)
    session.script.release("run_tool a")
    await session.script.reached("call_model 2")
    await session.send("m2")
    session.script.release("call_model 2")
    assert await session.status() is COMPLETED
    assert session.calls[3:] == ["take_inbox m2", "call_model 2", "turn ended"]


async def test_a_late_signal_of_a_message_that_is_answered(session: Session) -> None:
    """It asks for no further round and begins no turn."""
    session.script.rows.taken = {"m0": session.turn_id}
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.send("m0")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert session.calls == ["open_turn m1", "call_model 1", "turn ended"]


async def test_a_turn_with_nothing_to_answer(session: Session) -> None:
    session.script.rows.taken = {"m1": session.turn_id}
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls == ["open_turn"]


async def test_the_round_limit(session: Session) -> None:
    session.script.answers = [tool_calls("a")] * 5
    await session.send("m1", TurnLimits(max_rounds=2))
    assert await session.status() is COMPLETED
    assert session.calls[-3:] == ["call_model 2", "run_tool a", "close_turn completed"]
    assert session.closing().round_limit_reached


async def test_a_turn_that_continues_as_new(session: Session) -> None:
    """The turn keeps its id, round, usage, inbox and the messages that it has taken; it is opened once."""
    session.script.answers = [tool_calls("a")] * 4
    session.script.hold("run_tool a")
    await session.send("m1", TurnLimits(continue_as_new_events=12))
    await session.script.reached("run_tool a")
    await session.send("m2")
    session.script.release("run_tool a")
    first_run = session.handle.result_run_id
    assert await session.status() is COMPLETED
    assert session.calls.count("open_turn m1") == 1
    assert [call for call in session.calls if call.startswith("call_model")] == [f"call_model {n}" for n in range(1, 6)]
    assert {argument.turn.turn_id for argument in session.arguments(CallModel)} == {session.turn_id}  # type: ignore[attr-defined]
    end = session.last_progress()
    assert (end.round, end.usage.calls, end.tools_done) == (5, 5, 4)
    assert (await session.handle.describe()).run_id != first_run


async def test_a_follow_up_that_arrives_as_the_turn_continues_as_new(session: Session) -> None:
    session.script.answers = [tool_calls("a"), TEXT]
    session.script.hold("call_model 2")
    await session.send("m1", TurnLimits(continue_as_new_events=5))
    await session.script.reached("call_model 2")
    for message_id in ("m1", "m2"):  # the first was taken in an earlier run
        await session.send(message_id)
    session.script.release("call_model 2")
    assert await session.status() is COMPLETED
    assert session.calls[-4:] == ["call_model 2", "take_inbox m2", "call_model 3", "turn ended"]


async def test_the_time_budget_ends_a_model_call(session: Session) -> None:
    session.script.time_budget = Budget(session_id=session.id, max_seconds=1)
    session.script.hold("call_model 1")
    await session.send("m1")
    assert await session.status() is FAILED
    assert session.calls == ["open_turn m1", "call_model 1", "call_model 1 cancelled", "close_turn failed"]
    assert "time budget of this session is used up: 1 seconds" in (session.last_progress().error or "")


async def test_the_time_budget_ends_a_tool(session: Session) -> None:
    session.script.time_budget = Budget(session_id="above", max_seconds=1)
    session.script.answers = [tool_calls("a")]
    session.script.hold("run_tool a")
    await session.send("m1")
    assert await session.status() is FAILED
    assert session.calls[-3:] == ["run_tool a", "run_tool a cancelled", "close_turn failed"]
    assert "session above above it" in (session.last_progress().error or "")


async def test_a_time_budget_that_is_used_up_already(session: Session) -> None:
    session.script.time_budget = Budget(session_id=session.id, max_seconds=-1)
    await session.send("m1")
    assert await session.status() is FAILED
    assert session.calls == ["open_turn m1", "close_turn failed"]


async def test_the_time_budget_ends_while_follow_ups_are_stored(session: Session) -> None:
    """The store is finished first. A model call that its workflow task has asked for by then ends at once."""
    session.script.time_budget = Budget(session_id=session.id, max_seconds=1)
    session.script.hold("call_model 1")
    session.script.hold("take_inbox m2")
    session.script.hold("call_model 2")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.send("m2")
    session.script.release("call_model 1")
    await session.script.reached("take_inbox m2")
    await until(lambda: utc_now() > session.script.deadline, what="the deadline has passed", every=0.01)
    session.script.release("take_inbox m2")
    assert await session.status() is FAILED
    last_calls = [call for call in session.calls if not call.startswith("call_model 2")][-2:]
    assert last_calls == ["take_inbox m2", "close_turn failed"]


@pytest.mark.parametrize("call", ["open_turn m1", "call_model 1", "take_inbox m2"])
async def test_an_activity_that_fails_for_good(session: Session, call: str) -> None:
    session.script.failures[call] = final("disk full")
    session.script.hold("call_model 1")
    await session.send("m1")
    if call != "open_turn m1":
        await session.script.reached("call_model 1")
        await session.send("m2")
    session.script.release("call_model 1")
    assert await session.status() is (COMPLETED if call == "take_inbox m2" else FAILED)
    [first, *_] = session.arguments(CloseTurn)
    assert isinstance(first, CloseTurn)
    assert first.progress.error == "disk full"
    following = [] if call == "open_turn m1" else ["open_turn m2"]
    assert session.calls[session.calls.index(call) + 1 :][:2] == ["close_turn failed", *following]
    assert session.script.filed == (["m1"] if call == "open_turn m1" else [])


@pytest.mark.parametrize("call", ["open_turn m1", "take_inbox m2", "quick_tool sum"])
async def test_a_local_activity_that_is_retried(session: Session, call: str) -> None:
    """It waits in a timer and not in a workflow task: the turn answers queries and takes messages meanwhile."""
    session.script.answers = [tool_calls("sum", quick=True)]
    session.script.failures[call] = ApplicationError("the database is away")
    session.script.hold("call_model 1")
    await session.send("m1")
    if call != "open_turn m1":
        await session.script.reached("call_model 1")
        await session.send("m2")
        session.script.release("call_model 1")
    await until(lambda: session.calls.count(call) >= 2, what="a second try", every=0.01)
    async with asyncio.timeout(1.5):
        assert (await session.progress()).status == "running"
    await session.send("m3")
    del session.script.failures[call]
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert EventType.EVENT_TYPE_TIMER_FIRED in await session.events()


async def test_a_store_that_is_retried_for_too_long(session: Session) -> None:
    session.script.failures["open_turn m1"] = ApplicationError("the database is away")
    await session.send("m1", TurnLimits(storage_window=0.5))
    assert await session.status() is FAILED
    assert session.closing().progress.error == "open_turn did not succeed within its time limit."


async def test_a_message_that_arrives_while_follow_ups_are_stored(session: Session) -> None:
    """The next try of the store takes it too, and its signal, which arrives late, asks for no further round."""
    session.script.answers = [tool_calls("a")]
    session.script.failures["take_inbox m2"] = ApplicationError("the database is away")
    session.script.hold("run_tool a")
    await session.send("m1", TurnLimits(continue_as_new_events=5))
    await session.script.reached("run_tool a")
    await session.send("m2")
    session.script.release("run_tool a")
    await until(lambda: session.calls.count("take_inbox m2") >= 2, what="a second try", every=0.01)
    await session.send("m3")
    del session.script.failures["take_inbox m2"]
    assert await session.status() is COMPLETED
    assert session.calls[-3:] == ["take_inbox m2 m3", "call_model 2", "turn ended"]


async def test_a_tool_that_fails_for_good(session: Session) -> None:
    """The model is told, and the turn goes on."""
    session.script.answers = [tool_calls("a")]
    session.script.failures["run_tool a"] = final("no such worker")
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2:5] == ["run_tool a", "store_tool_result a", "call_model 2"]


async def test_a_stream_that_broke_stays_broken(session: Session) -> None:
    session.script.answers = [TEXT.model_copy(update={"published": False, "tool_calls": tool_calls("a").tool_calls})]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert [argument.turn.published for argument in session.script.arguments] == [True, True, False, False]  # type: ignore[attr-defined]
