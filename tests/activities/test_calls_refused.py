"""Calls that are not run: those that a length limit cut off, those that keep failing, those without their condition."""

from dataclasses import replace
from itertools import count

import pytest
from temporalio.testing import ActivityEnvironment

from activities import attempt as module
from activities.tools import ToolActivities
from longhaul.contracts import RunTool, ToolStatus
from longhaul.db import conversation, messages
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.tools import Registry, ToolError, tool
from tests.activities.conftest import NO_STREAMS, SETTINGS, TURN

RUNS: list[str] = []
NUMBERS = count()


@tool
async def look(place: str = "", hours: int = 1) -> str:
    """Look at a place; there is only one."""
    RUNS.append(place)
    if place != "here":
        raise ToolError(f"There is no {place!r}.")
    return f"{hours} h"


@tool(requires=("look",))
async def touch() -> str:
    """Touch what was looked at."""
    RUNS.append("touched")
    return "soft"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    module._heartbeat_details.set([])
    RUNS.clear()


async def answer(
    database: Database, round_: int, *calls: tuple[str, str], finish_reason: str = "tool_calls"
) -> list[tuple[str, ToolStatus]]:
    """An answer with these calls, run one after the other; what each said, and how it ended."""
    made = [
        {"id": f"call-{next(NUMBERS)}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls
    ]
    row = NewMessage(
        f"answer-{round_}",
        "assistant",
        tool_calls=made,
        turn_id=TURN.turn_id,
        round=round_,
        finish_reason=finish_reason,
    )
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [row])
    said = []
    for call in made:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, attempt=1, heartbeat_details=[])
        activities = ToolActivities(database, NO_STREAMS, Registry([look, touch]), SETTINGS)
        name, call_id = str(call["function"]["name"]), str(call["id"])  # type: ignore[index]
        given = RunTool(turn=TURN, round=round_, message_id=row.id, tool_call_id=call_id, name=name)
        outcome = await environment.run(activities.run_tool, given)
        async with database.read() as connection:
            stored = await conversation.rows_of_round(connection, TURN.turn_id, round_)
        said.append((next(one.content for one in stored if one.tool_call_id == call_id), outcome.status))
    return said


NOWHERE = ("look", '{"place": "nowhere", "hours": 2}')
#: The same call in other words.
NOWHERE_TOO = ("look", '{ "hours":2, "place":"nowhere"}')
HERE = ("look", '{"place": "here"}')


async def test_the_same_call_is_stopped_after_three_failures_in_a_row(database: Database) -> None:
    for round_, call in enumerate((NOWHERE, NOWHERE_TOO, NOWHERE), start=1):
        assert await answer(database, round_, call) == [("There is no 'nowhere'.", ToolStatus.ERROR)]
    [(said, status)] = await answer(database, 4, NOWHERE_TOO)
    assert status is ToolStatus.ERROR
    assert "failed 3 times in a row" in said
    assert "tell the person" in said
    assert len(RUNS) == 3
    [(said, _)] = await answer(database, 5, NOWHERE)
    assert "in a row" in said, "it stays stopped"
    assert await answer(database, 6, ("look", '{"place": "nowhere"}')) == [("There is no 'nowhere'.", ToolStatus.ERROR)]
    assert len(RUNS) == 4, "other arguments make another call"


async def test_calls_beside_it_do_not_hide_the_failures(database: Database) -> None:
    for round_ in (1, 2, 3):
        await answer(database, round_, HERE, NOWHERE)
    beside, stopped = await answer(database, 4, HERE, NOWHERE)
    assert beside == ("1 h", ToolStatus.OK)
    assert "in a row" in stopped[0]


async def test_three_at_once_are_one_failure(database: Database) -> None:
    await answer(database, 1, NOWHERE, NOWHERE, NOWHERE)
    for round_ in (2, 3):
        assert await answer(database, round_, NOWHERE) == [("There is no 'nowhere'.", ToolStatus.ERROR)]
    assert "in a row" in (await answer(database, 4, NOWHERE))[0][0]


async def test_work_in_between_begins_the_row_anew(database: Database) -> None:
    for round_, call in enumerate((NOWHERE, NOWHERE, HERE, NOWHERE, NOWHERE), start=1):
        await answer(database, round_, call)
    assert RUNS.count("nowhere") == 4


async def test_a_follow_up_begins_the_row_anew(database: Database) -> None:
    """The person may have said that it works now."""
    for round_ in (1, 2, 3):
        await answer(database, round_, NOWHERE)
    said = NewMessage("said", "user", kind="follow_up", content="Try again.", turn_id=TURN.turn_id, round=3)
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [said])
    assert await answer(database, 4, NOWHERE) == [("There is no 'nowhere'.", ToolStatus.ERROR)]


@pytest.mark.parametrize("arguments", ['{"place": "he', "", "{}", '{"place": "here"}'])
async def test_a_call_that_was_cut_off_is_named_and_never_run(database: Database, arguments: str) -> None:
    """Also if what is left of its arguments is valid: they may still not be what the model wanted to say."""
    whole, cut = await answer(database, 1, HERE, ("look", arguments), finish_reason="length")
    assert whole == ("1 h", ToolStatus.OK)
    assert cut[1] is ToolStatus.ERROR
    assert "length limit (finish_reason: length), which cut off the arguments" in cut[0]
    assert RUNS == ["here"]


async def test_a_tool_waits_for_what_it_requires(database: Database) -> None:
    refused = ("touch was not run: it needs a successful call of look in this session first.", ToolStatus.ERROR)
    assert await answer(database, 1, ("touch", "{}")) == [refused]
    assert (await answer(database, 2, NOWHERE, ("touch", "{}")))[1] == refused
    assert (await answer(database, 3, HERE, ("touch", "{}")))[1] == ("soft", ToolStatus.OK)
