"""The loop of a turn with fake activities: messages, rounds, limits, continue-as-new, and the race at its end."""

import asyncio
import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.model import ModelActivities
from activities.sub_sessions import SubSessionActivities
from activities.tools import ToolActivities
from activities.turns import TurnActivities
from longhaul import temporal
from longhaul.contracts import Budget, CloseTurn, OpenTurn, Scope, TurnLimits, TurnStatus
from longhaul.db.models import utc_now
from testkit.wait import until
from tests.workflows.conftest import settings
from tests.workflows.fakes import TEXT, FakeActivities, Session, final, tool_calls
from worker import build, polling
from workflows.turn import TurnLoop

COMPLETED, FAILED, CANCELLED = TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED


def closing(session: Session) -> CloseTurn:
    """The argument of the newest `close_turn`."""
    last = session.arguments(CloseTurn)[-1]
    assert isinstance(last, CloseTurn)
    return last


def test_fakes_have_the_names_and_types_of_the_real_activities() -> None:
    def definitions(kinds: list[type]) -> dict[str | None, tuple[object, object]]:
        members = [member for kind in kinds for member in vars(kind).values()]
        found = [activity._Definition.from_callable(member) for member in members if callable(member)]
        return {one.name: (one.arg_types, one.ret_type) for one in found if one is not None}

    real = definitions([TurnActivities, ModelActivities, ToolActivities, SubSessionActivities])
    assert definitions([FakeActivities]) == real


async def test_an_answer_without_tools(session: Session) -> None:
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls == ["open_turn m1", "call_model 1", "close_turn completed"]
    assert closing(session).answered_with_text


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
    assert session.calls[-2:] == ["call_model 2", "close_turn completed"]
    assert closing(session).progress.tools_done == 2


async def test_a_quick_tool_is_a_local_activity(session: Session) -> None:
    session.script.answers = [tool_calls("sum", quick=True)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2] == "quick_tool sum"
    history = await session.handle.fetch_history()
    scheduled = [e.activity_task_scheduled_event_attributes.activity_type.name for e in history.events]
    assert [name for name in scheduled if name] == ["call_model", "call_model", "close_turn"]


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
    [tool] = closing(session).progress.recent_tools
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
    assert session.calls == ["open_turn m1", *tools, *taken, "close_turn completed"]


async def test_a_follow_up_during_the_last_model_call(session: Session) -> None:
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.send("m2")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    rounds = ["call_model 1", "take_inbox m2", "call_model 2"]
    assert session.calls == ["open_turn m1", *rounds, "close_turn completed"]


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
    assert session.calls[3:] == ["take_inbox m2", "call_model 2", "close_turn completed"]


async def test_a_follow_up_that_an_earlier_turn_answered(session: Session) -> None:
    """It is taken from the inbox and asks for no further round."""
    session.script.answered = {"m0"}
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.send("m0")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert session.calls == ["open_turn m1", "call_model 1", "take_inbox m0", "close_turn completed"]


async def test_a_turn_with_nothing_to_answer(session: Session) -> None:
    session.script.answered = {"m1"}
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls == ["open_turn m1"]


async def test_the_round_limit(session: Session) -> None:
    session.script.answers = [tool_calls("a")] * 5
    await session.send("m1", TurnLimits(max_rounds=2))
    assert await session.status() is COMPLETED
    assert session.calls[-3:] == ["call_model 2", "run_tool a", "close_turn completed"]
    assert closing(session).round_limit_reached


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
    assert {argument.turn.turn_id for argument in session.arguments(CloseTurn)} == {session.turn_id}  # type: ignore[attr-defined]
    end = closing(session).progress
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
    assert session.calls[-4:] == ["call_model 2", "take_inbox m2", "call_model 3", "close_turn completed"]


async def test_a_message_that_arrives_while_the_turn_closes(session: Session) -> None:
    """It begins the next turn, whose id the memo has told by then."""
    session.script.hold("close_turn completed")
    await session.send("m1")
    await session.script.reached("close_turn completed")
    assert (await session.progress()).status == "running"
    memo = await (await session.handle.describe()).memo()
    await session.send("m2")
    session.script.release("close_turn completed")
    assert await session.status() is COMPLETED
    turn = ["call_model 1", "close_turn completed"]
    assert session.calls == ["open_turn m1", *turn, "open_turn m2", *turn]
    turn_ids = [opening.turn.turn_id for opening in session.arguments(OpenTurn)]  # type: ignore[attr-defined]
    assert turn_ids == [session.turn_id, memo[temporal.NEXT_TURN_ID_MEMO]]


async def test_the_next_turn_has_its_own_model_and_deadline(session: Session) -> None:
    deadline = utc_now() + timedelta(hours=1)
    inherited = Scope(budgets=(Budget(session_id="above", max_seconds=3600, deadline=deadline),))
    session.script.hold("close_turn completed")
    await session.send("m1", scope=inherited)
    await session.script.reached("close_turn completed")
    await session.send("m2", model="large", mode="extended_thinking", tier="advanced")
    session.script.release("close_turn completed")
    assert await session.status() is COMPLETED
    first, second = (one for one in session.arguments(OpenTurn) if isinstance(one, OpenTurn))
    assert [budget.deadline for budget in (*first.scope.budgets, *second.scope.budgets)] == [deadline, None]
    assert (second.model, second.mode, second.tier) == ("large", "extended_thinking", "advanced")
    attributes = (await session.handle.describe()).typed_search_attributes
    assert attributes[temporal.MODEL_ATTRIBUTE] == "large"


async def test_the_next_turn_begins_on_the_current_build(workflow_client: Client) -> None:
    fakes, task_queue, deployment = FakeActivities(), f"builds-{uuid4()}", f"deployment-{uuid4()}"

    def workers(build_id: str) -> list[Worker]:
        values = {"task_queue": task_queue, "deployment_name": deployment, "build_id": build_id, "shutdown_grace": 0}
        return build(workflow_client, settings(**values), fakes.all())

    async def promoted(build_id: str) -> bool:
        request = SetWorkerDeploymentCurrentVersionRequest(
            namespace=workflow_client.namespace,
            deployment_name=deployment,
            build_id=build_id,
            ignore_missing_task_queues=True,
        )
        try:
            await workflow_client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError:
            return False  # Temporal takes a moment to know a new worker's version
        return True

    async def build_of(run_id: str | None) -> str:
        described = await workflow_client.get_workflow_handle(session.handle.id, run_id=run_id).describe()
        return described.raw_info.versioning_info.deployment_version.build_id

    session = Session(workflow_client, task_queue, fakes)
    session.script.hold("close_turn completed")
    async with polling(workers("v1")):
        await until(lambda: promoted("v1"), what="build v1 is current")
        await session.send("m1")
        await session.script.reached("close_turn completed")
        first_run = session.handle.result_run_id
        async with polling(workers("v2")):
            await until(lambda: promoted("v2"), what="build v2 is current")
            await session.send("m2")
            session.script.release("close_turn completed")
            assert await session.status() is COMPLETED
            assert [await build_of(first_run), await build_of(None)] == ["v1", "v2"]


async def test_a_message_that_arrives_in_the_last_workflow_task(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses to end a run that has not seen a signal: the task is done again, and the message is taken."""
    at_the_end, sent = threading.Event(), threading.Event()
    show_details = TurnLoop._show_details

    def hold_at_the_end(loop: TurnLoop) -> None:
        show_details(loop)
        if loop._turn.closed and loop._turn.request.session_id == session.id and not sent.is_set():
            at_the_end.set()
            sent.wait(1.5)  # the workflow task is under way; Temporal takes longer ones for a deadlock

    monkeypatch.setattr(TurnLoop, "_show_details", hold_at_the_end)
    await session.send("m1")
    await session.until_called("close_turn completed")
    await until(at_the_end.is_set, what="the last workflow task is under way", every=0.005)
    await session.send("m2")
    sent.set()
    assert await session.status() is COMPLETED
    assert session.calls[-3:] == ["open_turn m2", "call_model 1", "close_turn completed"]
    assert session.calls.count("close_turn completed") == 2


async def test_the_time_budget_ends_a_model_call(session: Session) -> None:
    session.script.time_budget = Budget(session_id=session.id, max_seconds=1)
    session.script.hold("call_model 1")
    await session.send("m1")
    assert await session.status() is FAILED
    assert session.calls == ["open_turn m1", "call_model 1", "call_model 1 cancelled", "close_turn failed"]
    assert "time budget of this session is used up: 1 seconds" in (closing(session).progress.error or "")


async def test_the_time_budget_ends_a_tool(session: Session) -> None:
    session.script.time_budget = Budget(session_id="above", max_seconds=1)
    session.script.answers = [tool_calls("a")]
    session.script.hold("run_tool a")
    await session.send("m1")
    assert await session.status() is FAILED
    assert session.calls[-3:] == ["run_tool a", "run_tool a cancelled", "close_turn failed"]
    assert "session above above it" in (closing(session).progress.error or "")


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
    assert await session.status() is FAILED
    assert closing(session).progress.error == "disk full"
    following = ["open_turn m2"] if call == "call_model 1" else []
    assert session.calls[session.calls.index(call) + 1 :][:2] == ["close_turn failed", *following]


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
    assert closing(session).progress.error == "open_turn did not succeed within its time limit."


async def test_a_message_that_arrives_while_follow_ups_are_stored(session: Session) -> None:
    """The turn continues as new with it in its inbox."""
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
    assert session.calls[-4:] == ["call_model 2", "take_inbox m3", "call_model 3", "close_turn completed"]


async def test_a_close_that_fails_for_good(session: Session) -> None:
    """The turn is closed as failed, so that it does not look as if it ran; the message that waits begins the next."""
    session.script.failures["close_turn completed"] = final("disk full")
    session.script.hold("close_turn completed")
    await session.send("m1")
    await session.script.reached("close_turn completed")
    await session.send("m2")
    session.script.hold("close_turn failed")
    session.script.release("close_turn completed")
    await session.script.reached("close_turn failed")
    assert closing(session).progress.error == "The end of the turn could not be stored: disk full"
    del session.script.failures["close_turn completed"]
    session.script.release("close_turn failed")
    assert await session.status() is COMPLETED
    ends = ["close_turn completed", "close_turn failed"]
    assert session.calls[2:] == [*ends, "open_turn m2", "call_model 1", "close_turn completed"]


async def test_a_turn_that_cannot_be_closed_at_all(session: Session) -> None:
    """The messages that Stop was to file are the next turn's; without any the run ends as failed."""
    session.script.failures = {f"close_turn {status}": final("disk full") for status in ("cancelled", "failed")}
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.send("m2")
    await session.stop()
    await session.until_called("close_turn failed")
    await session.until_called("open_turn m2")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    session.script.failures["close_turn completed"] = final("disk full")
    await session.send("m3")
    assert await session.status() is FAILED


async def test_a_tool_that_fails_for_good(session: Session) -> None:
    """The model is told, and the turn goes on."""
    session.script.answers = [tool_calls("a")]
    session.script.failures["run_tool a"] = final("no such worker")
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2:5] == ["run_tool a", "store_tool_result a", "call_model 2"]


async def test_a_stream_that_broke_stays_broken(session: Session) -> None:
    session.script.answers = [
        TEXT.model_copy(update={"published": False, **tool_calls("a").model_dump(include={"tool_calls"})})
    ]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert [argument.turn.published for argument in session.script.arguments] == [True, True, False, False, False]  # type: ignore[attr-defined]
