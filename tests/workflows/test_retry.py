"""A turn that takes up a failed one: it has no message of its own, and is a turn like any other."""

import pytest
from temporalio.exceptions import WorkflowAlreadyStartedError

from longhaul.contracts import OpenTurn, TurnStatus
from tests.workflows.fakes import Session, final, tool_calls


async def test_a_retry_goes_on_without_a_message(session: Session) -> None:
    session.script.failures["call_model 1"] = final("400")
    await session.send("m1")
    assert await session.status() is TurnStatus.FAILED
    session.script.failed_turn = failed = session.turn_id
    session.script.failures.clear()
    session.script.answers = [tool_calls("a")]
    session.calls.clear()
    await session.retry(failed)
    assert await session.status() is TurnStatus.COMPLETED
    assert session.calls == ["open_turn", "call_model 1", "run_tool a", "call_model 2", "turn ended"]
    opened = [one for one in session.arguments(OpenTurn) if isinstance(one, OpenTurn)]
    assert [one.retry_of for one in opened] == ["", failed]


async def test_a_retry_that_comes_too_late_does_nothing(session: Session) -> None:
    """Another turn has followed by the time that the retry opens."""
    await session.retry("not the newest")
    assert await session.status() is TurnStatus.COMPLETED
    assert session.calls == ["open_turn"]


async def test_a_message_joins_a_retry_and_the_next_turn_is_none(session: Session) -> None:
    session.script.failed_turn = "failed"
    session.script.hold("call_model 1")
    await session.retry("failed")
    await session.script.reached("call_model 1")
    with pytest.raises(WorkflowAlreadyStartedError):
        await session.retry("failed")
    session.script.rows.stopped = session.script.rows.begun  # a message that is accepted now begins the next turn
    await session.send("m2")
    session.script.release("call_model 1")
    assert await session.status() is TurnStatus.COMPLETED
    opened = [one for one in session.arguments(OpenTurn) if isinstance(one, OpenTurn)]
    assert [one.retry_of for one in opened] == ["failed", ""]
