"""Sub-sessions of a turn with fake activities: child workflows that start, end, are waited for, stopped and lost."""

import json
from typing import Any

import pytest

from longhaul import temporal
from longhaul.contracts import (
    Delegation,
    ModelAnswer,
    PreparedSubSession,
    ReportSubSession,
    Scope,
    StoreToolResult,
    SubSessionEnded,
    SubSessionSeen,
    SubSessionState,
    TurnLimits,
    TurnStatus,
)
from testkit.wait import until
from tests.workflows.fakes import Session, final, tool_calls
from workflows import sub_sessions

COMPLETED, CANCELLED = TurnStatus.COMPLETED, TurnStatus.CANCELLED
RUN, GET = "run_sub_session", "get_sub_session_result"
WAIT_FOREVER = 60


def run(**arguments: Any) -> ModelAnswer:
    """A model answer that delegates."""
    return tool_calls(RUN, delegation=Delegation(**arguments))


def get(sub_id: str, **arguments: Any) -> ModelAnswer:
    """A model answer that asks for a sub-session's result."""
    return tool_calls(GET, arguments=json.dumps({"sub_session_id": sub_id, **arguments}))


def reports(session: Session) -> list[ReportSubSession]:
    return [argument for argument in session.arguments(ReportSubSession) if isinstance(argument, ReportSubSession)]


def refusal(session: Session) -> str:
    """The error that a sub-session tool stored."""
    [stored] = session.arguments(StoreToolResult)
    assert isinstance(stored, StoreToolResult)
    assert stored.is_error
    return stored.output


async def test_a_sub_session_that_is_waited_for(session: Session) -> None:
    sub = session.new_sub_session()
    session.script.answers = [run(wait_for_result=WAIT_FOREVER)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert sub.calls == ["open_turn prompt", "call_model 1", "turn ended"]
    delegation = [f"prepare_sub_session {RUN}", "report_sub_session completed"]
    assert session.calls == ["open_turn m1", "call_model 1", *delegation, "call_model 2", "turn ended"]


@pytest.mark.parametrize("wait", [0, 0.05])
async def test_a_wait_that_ends_first(session: Session, wait: float) -> None:
    """The tool returns a handle; the sub-session outlives the turn."""
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.answers = [run(wait_for_result=wait)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[3] == "report_sub_session running"
    sub.script.release("call_model 1")
    assert await sub.status() is COMPLETED


async def test_a_follow_up_ends_the_wait(session: Session) -> None:
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.answers = [run(wait_for_result=WAIT_FOREVER)]
    await session.send("m1")
    await sub.script.reached("call_model 1")
    await session.send("m2")
    assert await session.status() is COMPLETED
    assert session.calls[3:6] == ["report_sub_session running", "take_inbox m2", "call_model 2"]
    assert reports(session)[0].interrupted
    sub.script.release("call_model 1")
    assert await sub.status() is COMPLETED


@pytest.mark.parametrize("outcome", ["failed", "terminated"])
async def test_a_sub_session_that_does_not_complete(session: Session, outcome: str) -> None:
    """Its own signal says how it ended; for one that was terminated, its child handle does."""
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.answers = [run(wait_for_result=WAIT_FOREVER)]
    await session.send("m1")
    await sub.script.reached("call_model 1")
    if outcome == "failed":
        sub.script.failures["call_model 1"] = final("no money")
        sub.script.release("call_model 1")
    else:
        await sub.handle.terminate()
    assert await session.status() is COMPLETED
    assert session.calls[3] == "report_sub_session error"


async def test_an_end_that_is_signalled_before_the_start_is_recorded(session: Session) -> None:
    sub = session.new_sub_session()
    sub.script.hold("open_turn prompt")
    session.script.hold(f"prepare_sub_session {RUN}")
    session.script.answers = [run(wait_for_result=WAIT_FOREVER)]
    await session.send("m1")
    await session.script.reached(f"prepare_sub_session {RUN}")
    ended = SubSessionEnded(sub_session_id=sub.id, turn_id=sub.turn_id, status=SubSessionState.COMPLETED)
    await session.handle.signal(temporal.SUB_SESSION_ENDED_SIGNAL, ended)
    session.script.release(f"prepare_sub_session {RUN}")
    await session.until_called("report_sub_session completed")
    sub.script.release("open_turn prompt")
    assert await session.status() is COMPLETED


async def test_the_end_of_an_earlier_turn_does_not_count(session: Session) -> None:
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.hold(f"prepare_sub_session {RUN}")
    session.script.answers = [run(wait_for_result=0.05)]
    await session.send("m1")
    await session.script.reached(f"prepare_sub_session {RUN}")
    ended = SubSessionEnded(sub_session_id=sub.id, turn_id="earlier", status=SubSessionState.COMPLETED)
    await session.handle.signal(temporal.SUB_SESSION_ENDED_SIGNAL, ended)
    session.script.release(f"prepare_sub_session {RUN}")
    assert await session.status() is COMPLETED
    assert session.calls[3] == "report_sub_session running"
    sub.script.release("call_model 1")
    assert await sub.status() is COMPLETED


@pytest.mark.parametrize("detached", [False, True])
async def test_stop_while_a_sub_session_is_waited_for(session: Session, detached: bool) -> None:
    """The sub-session stops too, before the turn closes; a detached one goes on."""
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.answers = [run(wait_for_result=WAIT_FOREVER, detached=detached)]
    await session.send("m1")
    await sub.script.reached("call_model 1")
    await session.stop()
    assert await session.status() is CANCELLED
    assert session.calls[3:] == [*([] if detached else ["stop_sub_sessions"]), "close_turn cancelled"]
    if detached:
        assert "call_model 1 cancelled" not in sub.calls
        sub.script.release("call_model 1")
    assert await sub.status() is (COMPLETED if detached else CANCELLED)


async def test_a_message_to_a_sub_session_right_after_the_stop(session: Session) -> None:
    """It begins the sub-session's next turn, as after a Stop of the sub-session itself."""
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    sub.script.hold("close_turn cancelled")
    session.script.answers = [run(wait_for_result=WAIT_FOREVER)]
    await session.send("m1")
    await sub.script.reached("call_model 1")
    await session.stop()
    await sub.script.reached("close_turn cancelled")
    await sub.send("m2")
    sub.script.release("call_model 1")
    sub.script.release("close_turn cancelled")
    assert await session.status() is CANCELLED
    assert await sub.status() is COMPLETED
    assert sub.calls[-3:] == ["open_turn m2", "call_model 1", "turn ended"]
    assert sub.script.filed == []


async def test_stop_while_a_sub_session_is_prepared(session: Session) -> None:
    """What has begun is finished, so that no sub-session keeps a prompt that no turn takes; then it is stopped."""
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.hold(f"prepare_sub_session {RUN}")
    session.script.answers = [run(wait_for_result=WAIT_FOREVER)]
    await session.send("m1")
    await session.script.reached(f"prepare_sub_session {RUN}")
    await session.stop()
    await session.until_stop_is_known()
    session.script.release(f"prepare_sub_session {RUN}")
    assert await session.status() is CANCELLED
    assert f"prepare_sub_session {RUN} cancelled" not in session.calls
    assert await sub.status() is CANCELLED
    assert sub.calls[0] == "open_turn prompt"


async def test_a_prompt_for_a_sub_session_that_works(session: Session) -> None:
    """It is queued there; the wait is for the turn that takes it, and the signal of that turn's end is checked."""
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    await sub.send("m0")
    await sub.script.reached("call_model 1")
    session.script.answers = [run(sub_session_id=sub.id, wait_for_result=WAIT_FOREVER)]
    session.script.looks = [SubSessionSeen(turn_id=sub.turn_id, status=SubSessionState.COMPLETED)]
    await session.send("m1")
    await session.until_called(f"prepare_sub_session {RUN}")
    ended = SubSessionEnded(sub_session_id=sub.id, turn_id=sub.turn_id, status=SubSessionState.COMPLETED)

    async def queued() -> bool:
        return "prompt" in [message.message_id for message in (await sub.progress()).inbox]

    await until(queued, what="the prompt waits in the sub-session", every=0.01)
    sub.script.release("call_model 1")
    assert await sub.status() is COMPLETED
    assert sub.calls[2:4] == ["take_inbox prompt", "call_model 2"]
    await session.handle.signal(temporal.SUB_SESSION_ENDED_SIGNAL, ended)
    assert await session.status() is COMPLETED
    assert session.calls[3:5] == [f"look_at_sub_session {sub.id}", "report_sub_session completed"]
    assert reports(session)[0].queued


async def test_an_indirect_sub_session_is_looked_at(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """It signals its end to another session, so the wait asks again, at growing intervals."""
    monkeypatch.setattr(sub_sessions, "FIRST_LOOK_S", 0.02)
    running = SubSessionSeen(turn_id="t", far=True)
    session.script.looks = [running, running, SubSessionSeen(turn_id="t", far=True, status=SubSessionState.COMPLETED)]
    session.script.answers = [get("below", wait_if_running=WAIT_FOREVER)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2:6] == [*["look_at_sub_session below"] * 3, "report_sub_session completed"]


async def test_a_sub_session_that_is_deleted_while_it_is_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sub_sessions, "FIRST_LOOK_S", 0.02)
    session.script.looks = [SubSessionSeen(turn_id="t", far=True), SubSessionSeen(error="gone")]
    session.script.answers = [get("below", wait_if_running=WAIT_FOREVER)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[4] == "report_sub_session error"


async def test_cancel_of_a_sub_session(session: Session) -> None:
    session.script.looks = [SubSessionSeen(turn_id="t")]
    session.script.hold("look_at_sub_session sub")
    session.script.answers = [get("sub", cancel=True)]
    await session.send("m1")
    await session.script.reached("look_at_sub_session sub")
    session.script.release("look_at_sub_session sub")
    await session.until_tool_runs(GET)
    ended = SubSessionEnded(sub_session_id="sub", turn_id="t", status=SubSessionState.CANCELLED)
    await session.handle.signal(temporal.SUB_SESSION_ENDED_SIGNAL, ended)
    assert await session.status() is COMPLETED
    assert session.calls[3] == "report_sub_session cancelled"
    assert reports(session)[0].cancel


async def test_a_result_that_is_there_already(session: Session) -> None:
    session.script.looks = [SubSessionSeen(turn_id="t", status=SubSessionState.COMPLETED)]
    session.script.answers = [get("sub")]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2:4] == ["look_at_sub_session sub", "report_sub_session completed"]


async def test_an_unknown_sub_session(session: Session) -> None:
    session.script.looks = [SubSessionSeen(error="There is no sub-session.")]
    session.script.answers = [get("other")]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert refusal(session) == "There is no sub-session."


@pytest.mark.parametrize(
    ("arguments", "limits", "scope", "text"),
    [
        ({"sub_session_id": "above"}, TurnLimits(), Scope(ancestors=("above",)), "wait for itself"),
        ({}, TurnLimits(max_depth=2), Scope(depth=2), "2 levels deep"),
    ],
)
async def test_a_delegation_that_is_refused(
    session: Session, arguments: dict[str, Any], limits: TurnLimits, scope: Scope, text: str
) -> None:
    session.script.answers = [run(**arguments)]
    await session.send("m1", limits, scope)
    assert await session.status() is COMPLETED
    assert text in refusal(session)
    assert session.calls[2:4] == [f"store_tool_result {RUN}", "call_model 2"]


@pytest.mark.parametrize(
    ("arguments", "text"), [('{"prompt": " "}', "prompt is empty"), ('{"wait_for_result": "long"}', "wait_for_result")]
)
async def test_a_refusal_in_a_turn_of_an_older_version(session: Session, arguments: str, text: str) -> None:
    """Its model call reported all arguments, and the workflow checked them."""
    session.script.answers = [tool_calls(RUN, arguments=arguments)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert text in refusal(session)


async def test_arguments_that_are_not_valid_are_refused_by_an_activity(session: Session) -> None:
    """The model call reports none, so that what is wrong with them does not travel through the history."""
    session.script.answers = [tool_calls(RUN)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls[2] == f"run_tool {RUN}"


async def test_a_delegation_that_cannot_be_prepared(session: Session) -> None:
    session.script.prepared = PreparedSubSession(error="It takes no more messages.")
    session.script.answers = [run()]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert refusal(session) == "It takes no more messages."


async def test_the_limit_of_running_sub_sessions(session: Session) -> None:
    """A sub-session that ends makes room for another."""
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.hold("call_model 3")
    session.script.answers = [run(wait_for_result=0), run(wait_for_result=0), run(wait_for_result=0)]
    await session.send("m1", TurnLimits(max_children=1))
    await session.script.reached("call_model 3")
    assert "1 sub-sessions are running already" in refusal(session)
    sub.script.release("call_model 1")
    assert await sub.status() is COMPLETED
    session.new_sub_session()
    session.script.release("call_model 3")
    assert await session.status() is COMPLETED
    assert session.calls.count(f"prepare_sub_session {RUN}") == 2


async def test_sub_sessions_are_known_after_continue_as_new(session: Session) -> None:
    """The end of a sub-session that an earlier run started is known by its signal."""
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.hold("call_model 2")
    session.script.answers = [run(wait_for_result=0), tool_calls("a")]
    await session.send("m1", TurnLimits(continue_as_new_events=5))
    await session.script.reached("call_model 2")
    [record] = (await session.progress()).sub_sessions
    assert (record.sub_session_id, record.status) == (sub.id, "running")
    sub.script.release("call_model 1")
    assert await sub.status() is COMPLETED
    [record] = (await session.progress()).sub_sessions
    assert record.status == "completed"
    session.script.release("call_model 2")
    assert await session.status() is COMPLETED


async def test_a_sub_session_takes_a_message_of_a_person(session: Session) -> None:
    sub = session.new_sub_session()
    sub.script.hold("call_model 1")
    session.script.answers = [run(wait_for_result=WAIT_FOREVER)]
    await session.send("m1")
    await sub.script.reached("call_model 1")
    await sub.send("from a person")
    sub.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert sub.calls[2:4] == ["take_inbox from a person", "call_model 2"]
