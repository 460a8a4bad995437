"""A turn has its conversation summarised when an activity says that it is due, and goes on whatever comes of it."""

import pytest
from temporalio.exceptions import ApplicationError

from longhaul.contracts import ModelAnswer, TurnLimits, TurnStatus
from tests.workflows.fakes import Session, final, tool_calls

COMPLETED = TurnStatus.COMPLETED


def due(*names: str) -> ModelAnswer:
    return tool_calls(*names).model_copy(update={"compaction_due": True})


def models_and_compactions(session: Session) -> list[str]:
    return [call for call in session.calls if call.startswith(("call_model", "compact"))]


async def test_before_the_first_call(session: Session) -> None:
    session.script.compaction_due = True
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert session.calls == ["open_turn m1", "compact_context 0", "call_model 1", "turn ended"]
    assert session.last_progress().usage.calls == 2, "its call is counted"


async def test_between_rounds_once_each_time_it_is_due(session: Session) -> None:
    session.script.answers = [due("a"), tool_calls("b"), due("c")]
    await session.send("m1")
    assert await session.status() is COMPLETED
    calls = ["call_model 1", "compact_context 1", "call_model 2", "call_model 3", "compact_context 3", "call_model 4"]
    assert models_and_compactions(session) == calls


async def test_after_the_last_answer_it_is_left_to_the_next_turn(session: Session) -> None:
    session.script.answers = [ModelAnswer(message_id="x", finish_reason="stop", has_text=True, compaction_due=True)]
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert models_and_compactions(session) == ["call_model 1"]


@pytest.mark.parametrize("failure", [None, final("broken"), ApplicationError("gone", type="ValueError")])
async def test_a_turn_goes_on_without_a_summary_and_asks_for_none_again(
    session: Session, failure: ApplicationError | None
) -> None:
    session.script.compacts = False
    session.script.answers = [due("a"), due("b")]
    if failure is not None:
        session.script.failures["compact_context 1"] = failure
    await session.send("m1")
    assert await session.status() is COMPLETED
    assert models_and_compactions(session) == ["call_model 1", "compact_context 1", "call_model 2", "call_model 3"]


async def test_stop_ends_it(session: Session) -> None:
    session.script.compaction_due = True
    session.script.hold("compact_context 0")
    await session.send("m1")
    await session.script.reached("compact_context 0")
    await session.handle.cancel()
    assert await session.status() is TurnStatus.CANCELLED
    assert models_and_compactions(session) == ["compact_context 0", "compact_context 0 cancelled"]


async def test_it_is_still_due_after_continue_as_new(session: Session) -> None:
    session.script.answers = [due("a")]
    await session.send("m1", TurnLimits(continue_as_new_events=1))
    assert await session.status() is COMPLETED
    assert models_and_compactions(session) == ["call_model 1", "compact_context 1", "call_model 2"]
