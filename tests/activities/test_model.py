"""A model's answer as rows: stored once, read back as it was."""

from dataclasses import replace
from typing import Any

import pytest

from activities.answers import STOPPED, StoredAnswer, partial_rows, store_answer
from activities.costs import paid_call
from activities.model_report import AnswerReport
from longhaul.contracts import CallModel, Delegation, ModelAnswer, Progress, ToolCall, TurnStatus, Usage
from longhaul.db import conversation, ledger, turns
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.db.turns import NewTurn
from longhaul.errors import TurnEndedError
from longhaul.llm.completion import CompletedCall, Completion
from longhaul.tools import default_tools
from longhaul.tools.approval import ApprovalRules
from longhaul.tools.workflow_tools import for_workflow
from tests.activities.conftest import TURN

CALL = CallModel(turn=TURN, round=2, model="asked-for")
USAGE = Usage(calls=1, prompt_tokens=5, completion_tokens=6, cost_microdollars=70)
WHOLE = Completion(
    text="hello",
    reasoning="hm",
    tool_calls=[
        CompletedCall(id="a", name="calculator", arguments='{"expression": "1"}'),
        CompletedCall(id="b", name="wait", arguments='{"seconds": 1}'),
    ],
    finish_reason="tool_calls",
    usage=USAGE,
    model="answered",
    duration_ms=9,
)


async def store(database: Database, completion: Completion) -> StoredAnswer:
    async with database.write() as connection:
        return await store_answer(connection, CALL, completion, paid_call(CALL, 1))


def report(answer: StoredAnswer) -> ModelAnswer:
    return AnswerReport(default_tools(), ApprovalRules([])).of(CALL, answer, (), "", published=True)


async def test_an_answer_is_stored_once_and_read_back_as_it_was(database: Database) -> None:
    answer = await store(database, WHOLE)
    assert await store(database, WHOLE) == answer
    async with database.read() as connection:
        rows = await conversation.rows_of_round(connection, TURN.turn_id, 2)
        spent = await ledger.usage_of_each(connection, [TURN.session_id])
    assert [(row.role, row.content, row.sequence) for row in rows] == [
        ("reasoning", "hm", 0),
        ("assistant", "hello", 1),
    ]
    assert replace(StoredAnswer.from_rows(rows[:1], rows[1], USAGE, None), is_ours=True) == answer
    assert (rows[1].duration_ms, rows[1].finish_reason) == (9, "tool_calls")
    assert spent == {TURN.session_id: USAGE}
    assert answer.message_id == rows[1].id
    assert (answer.text, answer.usage) == ("hello", USAGE)


async def test_only_arguments_that_the_workflow_needs_leave_the_database(database: Database) -> None:
    answer = report(await store(database, WHOLE))
    assert [(made.name, made.arguments) for made in answer.tool_calls] == [
        ("calculator", None),
        ("wait", '{"seconds":1.0}'),
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "reported"),
    [
        ("wait", '{"seconds": 2, "why": "SAID"}', {"arguments": '{"seconds":2.0}'}),
        ("wait", '{"seconds": "SAID"}', {}),
        ("run_sub_session", '{"prompt": "SAID", "detached": true}', {"delegation": Delegation(detached=True)}),
        ("run_sub_session", '{"prompt": " ", "system_context": "SAID"}', {}),
        ("run_sub_session", "SAID", {}),
        ("run_sub_session", '{"prompt": "SAID", "sub_session_id": "SAID"}', {}),
        ("get_sub_session_result", '{"sub_session_id": "SAID"}', {}),
        ("calculator", '{"expression": "SAID"}', {}),
    ],
)
def test_the_workflow_gets_no_text(name: str, arguments: str, reported: dict[str, Any]) -> None:
    call = ToolCall(tool_call_id="c", name=name)
    assert for_workflow(call, arguments) == call.model_copy(update=reported)


@pytest.mark.parametrize(("text", "has_text"), [("", False), (" \n", False), ("x", True)])
async def test_blank_text_is_none(database: Database, text: str, has_text: bool) -> None:
    answer = report(await store(database, Completion(text=text, finish_reason="stop")))
    assert (answer.has_text, answer.tool_calls) == (has_text, [])


def test_a_stopped_call_keeps_its_text_and_no_calls() -> None:
    reasoning, answer = partial_rows(CALL, WHOLE, STOPPED, "m")
    assert (reasoning.role, reasoning.content) == ("reasoning", "hm")
    assert (answer.kind, answer.content, answer.tool_calls) == ("partial", "hello", None)
    assert answer.finish_reason == "cancelled"
    assert partial_rows(CALL, Completion(tool_calls=WHOLE.tool_calls), STOPPED, "m") == []


async def test_nothing_comes_behind_the_end_of_a_turn(database: Database) -> None:
    """An attempt that was taken for dead wakes up when its turn has ended, by Stop for example."""
    progress = Progress(
        turn_id=TURN.turn_id, session_id=TURN.session_id, status=TurnStatus.CANCELLED, started_at=utc_now()
    )
    row = NewTurn(TURN.turn_id, TURN.session_id, TURN.user_id, "m", "fast", "standard", utc_now())
    async with database.write() as connection:
        await turns.end(connection, row, progress)
    with pytest.raises(TurnEndedError):
        await store(database, WHOLE)
    async with database.read() as connection:
        assert await conversation.rows_of_turn(connection, TURN.turn_id) == []
        assert await ledger.usage_of_each(connection, [TURN.session_id]) == {}
