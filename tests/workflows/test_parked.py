"""Calls that wait for a person or a client, with fake activities: answers, Stop, messages, the end of the time."""

import pytest
from temporalio.client import Client

from longhaul import temporal
from longhaul.contracts import (
    Budget,
    CallModel,
    ConnectRequest,
    Delegation,
    ParkCall,
    ParkKind,
    RunTool,
    Scope,
    SettleCall,
    SubSessionState,
    ToolStatus,
    TurnLimits,
    TurnStatus,
)
from testkit.wait import until
from tests.workflows.conftest import heartbeats, settings
from tests.workflows.fakes import FakeActivities, Session, tool_calls
from worker import build, polling

CANCELLED, COMPLETED, FAILED = TurnStatus.CANCELLED, TurnStatus.COMPLETED, TurnStatus.FAILED
WAITING = TurnStatus.WAITING_FOR_APPROVAL
APPROVAL = ParkKind.APPROVAL


async def shown_in_temporal(session: Session) -> str | None:
    return (await session.handle.describe()).typed_search_attributes.get(temporal.STATUS_ATTRIBUTE)


async def until_shown(session: Session, status: TurnStatus) -> None:
    async def shown() -> bool:
        return await shown_in_temporal(session) == status

    await until(shown, what=f"the search attribute is {status}", every=0.02)


def runs_of(session: Session) -> list[RunTool]:
    return [call for call in session.arguments(RunTool) if isinstance(call, RunTool)]


async def test_an_allowed_call_is_run(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    await session.send("m1")
    await session.until_waits("a")
    progress = await session.progress()
    assert (progress.status, progress.tools_running) == (WAITING, [])
    assert [(one.name, one.kind, one.approval_id) for one in progress.waiting_calls] == [("a", APPROVAL, "a")]
    await until_shown(session, WAITING)
    session.script.hold("run_tool a")
    await session.answer("a")
    await session.script.reached("run_tool a")
    progress = await session.progress()
    assert (progress.status, progress.waiting_calls) == (TurnStatus.RUNNING, [])
    assert [tool.name for tool in progress.tools_running] == ["a"]
    await until_shown(session, TurnStatus.RUNNING)
    session.script.release("run_tool a")
    assert await session.status() is COMPLETED
    assert [call.approved for call in runs_of(session)] == [True]
    assert session.calls[1:5] == ["call_model 1", "park_call a", "settle_call a", "run_tool a"]
    assert session.last_progress().recent_tools[0].status is ToolStatus.OK


async def test_a_denied_call_is_not_run(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    await session.send("m1")
    await session.until_waits("a")
    await session.answer("a", ToolStatus.ERROR)
    assert await session.status() is COMPLETED
    assert runs_of(session) == []
    assert session.last_progress().recent_tools[0].status is ToolStatus.ERROR
    assert "call_model 2" in session.calls


async def test_what_is_allowed_in_the_session_does_not_wait(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    session.script.parked.allowed = {"a"}
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2:4] == ["park_call a", "run_tool a"]


async def test_the_other_calls_of_a_round_are_run_meanwhile(session: Session) -> None:
    """One waits, one runs, and each of two that wait gets its own answer."""
    both = [*tool_calls("a", "b", parks=APPROVAL).tool_calls, *tool_calls("c").tool_calls]
    session.script.answers = [tool_calls("a").model_copy(update={"tool_calls": both})]
    await session.send("m1")
    await session.until_waits("a", "b")
    await session.until_called("run_tool c")
    await session.answer("b", ToolStatus.ERROR)
    await session.until_waits("a")
    assert (await session.progress()).status is WAITING
    await session.answer("a")
    assert await session.status() is COMPLETED
    assert {call.name: call.approved for call in runs_of(session)} == {"a": True, "c": False}


async def test_an_answer_that_comes_before_the_wait(session: Session) -> None:
    """The row is there as soon as somebody is asked, so an answer may be faster than the store's report."""
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    session.script.hold("park_call a")
    await session.send("m1")
    await session.script.reached("park_call a")
    await session.answer("a")
    session.script.release("park_call a")
    assert await session.status() is COMPLETED
    assert len(runs_of(session)) == 1


async def test_a_signal_without_an_answer_changes_nothing(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    await session.send("m1")
    await session.until_waits("a")
    await session.answer("a")
    del session.script.parked.answers["a"]  # its transaction was rolled back
    await session.until_called("settle_call a")
    assert (await session.progress()).status is WAITING
    await session.answer("a")
    assert await session.status() is COMPLETED
    assert len(runs_of(session)) == 1


async def test_the_end_of_the_time(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    session.script.parked.timeout_s = 0.05
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2:4] == ["park_call a", "settle_call a time"]
    assert (runs_of(session), session.script.parked.ends) == ([], {"a": "time"})


async def test_an_answer_in_the_last_moment(session: Session) -> None:
    """The time is over, and before the workflow can say so, an answer is stored: the answer counts."""
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    session.script.parked.timeout_s = 0.05
    session.script.hold("settle_call a time")
    await session.send("m1")
    await session.script.reached("settle_call a time")
    await session.answer("a")
    session.script.release("settle_call a time")
    assert await session.status() is COMPLETED
    assert (len(runs_of(session)), session.script.parked.ends) == (1, {"a": "answered"})


async def test_a_message_instead_of_an_answer(session: Session) -> None:
    """The model reads it in the next round, and nothing is run that nobody has allowed."""
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    await session.send("m1")
    await session.until_waits("a")
    await session.send("m2")
    assert await session.status() is COMPLETED
    assert runs_of(session) == []
    assert session.calls[3:6] == ["settle_call a message", "take_inbox m2", "call_model 2"]


async def test_a_message_while_a_client_runs_a_tool(session: Session) -> None:
    """The client goes on with it. Beside it, an approval is skipped; the message is taken behind the result."""
    calls = [*tool_calls("a", parks=ParkKind.CLIENT_TOOL).tool_calls, *tool_calls("b", parks=APPROVAL).tool_calls]
    session.script.answers = [tool_calls("a").model_copy(update={"tool_calls": calls})]
    await session.send("m1")
    await session.until_waits("a", "b")
    await session.send("m2")
    await session.until_waits("a")
    assert session.script.parked.ends == {"b": "message"}
    assert (await session.progress()).status is WAITING
    await session.answer("a", ToolStatus.OK)
    assert await session.status() is COMPLETED
    assert runs_of(session) == []
    assert session.script.parked.ends == {"b": "message", "a": "answered"}
    assert session.calls[-4:-1] == ["settle_call a", "take_inbox m2", "call_model 2"]


async def test_which_tools_the_client_has(session: Session) -> None:
    """Those that its newest message declares which declares any; a message that says nothing changes nothing."""
    session.script.answers = [tool_calls(name) for name in "abc"]
    session.script.client_tools = {"m1": "first", "m3": "second", "m4": ""}
    for name in "abc":
        session.script.hold(f"run_tool {name}")
    await session.send("m1")
    for name, message in zip("abc", ("m2", "m3", "m4"), strict=True):
        await session.script.reached(f"run_tool {name}")
        await session.send(message)
        session.script.release(f"run_tool {name}")
    assert await session.status() is COMPLETED
    given = [call.client_tools for call in session.arguments(CallModel) if isinstance(call, CallModel)]
    assert given == ["first", "first", "second", ""]


async def test_stop_while_a_call_waits(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    await session.send("m1")
    await session.until_waits("a")
    await session.stop()
    assert await session.status() is CANCELLED
    assert session.calls[3:] == ["close_turn cancelled"]
    last = session.last_progress()
    assert (last.status, last.waiting_calls) == (CANCELLED, [])
    assert [tool.status for tool in last.recent_tools] == [ToolStatus.CANCELLED]


@pytest.mark.parametrize("stop_first", [True, False])
async def test_stop_and_an_answer_at_once(session: Session, *, stop_first: bool) -> None:
    """Whichever comes first, the turn ends as stopped, and a tool is run only if the answer was taken before."""
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    session.script.hold("run_tool a")
    await session.send("m1")
    await session.until_waits("a")
    if stop_first:
        await session.stop()
        await session.answer("a")
    else:
        await session.answer("a")
        await session.stop()
    assert await session.status() is CANCELLED
    assert session.calls[-1] == "close_turn cancelled"
    assert session.last_progress().waiting_calls == []
    if "run_tool a" in session.calls:
        assert "run_tool a cancelled" in session.calls


async def test_stop_while_an_answer_is_taken(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    session.script.hold("settle_call a").ignores_stop = True
    await session.send("m1")
    await session.until_waits("a")
    await session.answer("a")
    await session.script.reached("settle_call a")
    await session.stop()
    await session.until_stop_is_known()
    session.script.release("settle_call a")
    assert await session.status() is CANCELLED
    assert session.calls[-1] == "close_turn cancelled"


async def test_the_time_budget_ends_a_turn_that_waits(session: Session) -> None:
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    session.script.time_budget = Budget(session_id=session.id, max_seconds=1)
    await session.send("m1")
    assert await session.status() is FAILED
    assert runs_of(session) == []


async def test_a_turn_that_continues_as_new_waits_again(session: Session) -> None:
    """Each round asks; between two of them the turn goes on in a fresh history."""
    session.script.answers = [tool_calls("a", parks=APPROVAL), tool_calls("b", parks=APPROVAL)]
    await session.send("m1", limits=TurnLimits(continue_as_new_events=5))
    for name in ("a", "b"):
        await session.until_waits(name)
        assert (await session.progress()).turn_id == session.turn_id
        await session.answer(name)
    assert await session.status() is COMPLETED
    assert [call.name for call in runs_of(session)] == ["a", "b"]


async def test_a_tool_that_the_workflow_performs_waits_too(session: Session) -> None:
    sub = session.new_sub_session()
    session.script.answers = [tool_calls("run_sub_session", delegation=Delegation(), parks=APPROVAL)]
    await session.send("m1")
    await session.until_waits("run_sub_session")
    assert not sub.calls
    await session.answer("run_sub_session")
    assert await session.status() is COMPLETED
    assert f"report_sub_session {SubSessionState.COMPLETED}" in session.calls


async def test_a_tool_that_is_not_allowed_is_not_performed(session: Session) -> None:
    """Consent to a call is no right to do what the session may not do."""
    session.script.answers = [tool_calls("run_sub_session", delegation=Delegation(), parks=APPROVAL)]
    await session.send("m1", scope=Scope(deny_tools=("run_sub_session",)))
    await session.until_waits("run_sub_session")
    await session.answer("run_sub_session")
    assert await session.status() is COMPLETED
    assert "run_tool run_sub_session" in session.calls


async def test_a_call_that_lacks_a_credential_waits_and_goes_on(session: Session) -> None:
    """It is asked for, the turn waits like for any answer, and then the same call is run again."""
    session.script.answers = [tool_calls("a")]
    session.script.lacks = ["github"]
    await session.send("m1")
    await session.until_waits("a")
    progress = await session.progress()
    assert progress.status is WAITING
    [waiting] = progress.waiting_calls
    assert (waiting.kind, waiting.connect) == (ParkKind.CONNECT, ConnectRequest(credential="github"))
    await until_shown(session, WAITING)
    await session.answer("a")
    assert await session.status() is COMPLETED
    assert session.calls[2:6] == ["run_tool a", "park_call a", "settle_call a", "run_tool a"]
    assert [call.connects for call in runs_of(session)] == [0, 1]
    assert session.last_progress().recent_tools[0].status is ToolStatus.OK


async def test_a_credential_that_does_not_work_is_asked_for_again(session: Session) -> None:
    """After an approval, too. How often is the tool's activity to decide."""
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    session.script.parked.allowed = {"a"}
    session.script.lacks = ["github", "github"]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert [(call.connects, call.approved) for call in runs_of(session)] == [(0, True), (1, True), (2, True)]
    asked = [call for call in session.arguments(ParkCall) if isinstance(call, ParkCall)]
    assert [(call.kind, call.credential, call.connects) for call in asked] == [
        (APPROVAL, "", 0),
        (ParkKind.CONNECT, "github", 1),
        (ParkKind.CONNECT, "github", 2),
    ]


@pytest.mark.parametrize("how", ["denied", "message", "stopped"])
async def test_a_person_who_does_not_connect(session: Session, how: str) -> None:
    session.script.answers = [tool_calls("a")]
    session.script.lacks = ["github"]
    await session.send("m1")
    await session.until_waits("a")
    if how == "denied":
        await session.answer("a", ToolStatus.ERROR)
    elif how == "message":
        await session.send("m2")
    else:
        await session.stop()
    assert await session.status() is (CANCELLED if how == "stopped" else COMPLETED)
    assert len(runs_of(session)) == 1
    assert session.last_progress().recent_tools[0].status is (
        ToolStatus.CANCELLED if how == "stopped" else ToolStatus.ERROR
    )


async def test_another_worker_goes_on(workflow_client: Client) -> None:
    """The first worker is gone while the call waits; the second one takes the answer."""
    activities = FakeActivities()
    queue = "parked-on-two-workers"
    session = Session(workflow_client, queue, activities)
    session.script.answers = [tool_calls("a", parks=APPROVAL)]
    async with polling(build(workflow_client, settings(task_queue=queue), activities.all(), heartbeats())):
        await session.send("m1")
        await session.until_waits("a")
    await session.answer("a")
    async with polling(build(workflow_client, settings(task_queue=queue), activities.all(), heartbeats())):
        assert await session.status() is COMPLETED
    assert session.calls.count("park_call a") == 1
    assert [call.approved for call in runs_of(session)] == [True]
    assert len(session.arguments(SettleCall)) == 1
