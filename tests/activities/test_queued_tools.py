"""Calls of tool workers, before and after those have them: what must not run is not handed out, results count once."""

from typing import Any

import pytest
from sqlalchemy import insert, select
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import attempt as module
from activities.queued_tools import QueuedToolActivities
from longhaul.contracts import (
    Budget,
    OpenedToolCall,
    RunTool,
    Scope,
    SettleToolCall,
    ToolOutcome,
    ToolStatus,
    TurnStatus,
)
from longhaul.db import messages, remote_calls, turns
from longhaul.db.database import Database
from longhaul.db.models import LedgerRow, TurnRow, utc_now
from longhaul.db.remote_calls import CallToken, GivenResult, RemoteCall
from longhaul.llm import prompts
from longhaul.settings import Settings, load_settings
from longhaul.tools import Registry, tool
from tests.activities.conftest import NO_STREAMS, SETTINGS, TURN

PRICE = 40
CAREFUL = load_settings(home=SETTINGS.home, redis_url=SETTINGS.redis_url, approve="dig")


@tool(task_queue="gpu", price_microdollars=PRICE, changes=True, repeatable=True, would="dig {metres} metres")
async def dig(metres: int) -> str:
    """Dig."""
    raise AssertionError("only a tool worker runs it")


@pytest.fixture(autouse=True)
async def calls(database: Database) -> None:
    """A turn that runs, with a good and a bad call."""
    module._heartbeat_details.set([])
    made = [
        {"id": id_, "function": {"name": "dig", "arguments": arguments}}
        for id_, arguments in (("good", '{"metres": 3}'), ("bad", '{"metres": "deep"}'))
    ]
    row = messages.NewMessage("row", "assistant", tool_calls=made, turn_id=TURN.turn_id, round=1)
    turn = {"session_id": TURN.session_id, "user_id": "u", "model": "m", "started_at": utc_now()}
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [row])
        await connection.execute(insert(TurnRow).values(turn_id=TURN.turn_id, status=TurnStatus.RUNNING, **turn))


def given(call: str = "good", **more: Any) -> RunTool:
    return RunTool(turn=TURN, round=1, message_id="row", tool_call_id=call, name="dig", **more)


def activities(database: Database, **options: Any) -> QueuedToolActivities:
    return QueuedToolActivities(database, NO_STREAMS, Registry([dig]), options.get("settings", SETTINGS))


async def opened(database: Database, call: RunTool, **options: Any) -> OpenedToolCall:
    found: OpenedToolCall = await ActivityEnvironment().run(activities(database, **options).open_tool_call, call)
    return found


async def settled(database: Database, row: str, failure: str = "") -> ToolOutcome:
    settling = SettleToolCall(call=given(), remote_call_id=row, failure=failure)
    outcome: ToolOutcome = await ActivityEnvironment().run(activities(database).settle_tool_call, settling)
    return outcome


async def given_by_worker(database: Database, row: str, result: GivenResult) -> None:
    token = CallToken(row, 1, "token")
    async with database.write() as connection:
        await remote_calls.begin(connection, token, "worker")
        await remote_calls.give(connection, token, result)


async def stored(database: Database, call: str = "good") -> tuple[str, bool] | None:
    async with database.read() as connection:
        row = await messages.get(connection, messages.row_id(TURN.turn_id, 1, "tool", call))
    return (row.content, row.is_error) if row is not None else None


async def ledger(database: Database) -> list[tuple[object, ...]]:
    columns = (LedgerRow.model, LedgerRow.status, LedgerRow.cost_microdollars)
    async with database.read() as connection:
        return [tuple(row) for row in await connection.execute(select(*columns))]


async def remote(database: Database, row: str) -> RemoteCall | None:
    async with database.read() as connection:
        return await remote_calls.find(connection, row)


async def test_a_good_call_waits_for_a_tool_worker(database: Database) -> None:
    first, second = await opened(database, given()), await opened(database, given())
    assert (first, first.outcome) == (second, None)
    row = await remote(database, first.remote_call_id)
    assert row is not None
    assert (row.arguments, row.new_arguments, row.turn) == ('{"metres": 3}', None, TURN)
    assert await stored(database) is None


POOR = Budget(session_id=TURN.session_id, max_cost_microdollars=PRICE - 1)


@pytest.mark.parametrize(
    ("call", "settings", "said"),
    [
        (given("bad"), SETTINGS, "metres: Input should be a valid integer"),
        (given(scope=Scope(dry_run=True)), SETTINGS, "Dry run: dig was not run. It would dig 3 metres."),
        (given(scope=Scope(deny_tools=("dig",))), SETTINGS, "is not allowed in this session"),
        (given(), CAREFUL, "this call needs a person's approval"),
        (given(scope=Scope(budgets=(POOR,))), SETTINGS, "budget"),
    ],
)
async def test_what_is_not_to_be_run_is_not_handed_out(
    database: Database, call: RunTool, settings: Settings, said: str
) -> None:
    found = await opened(database, call, settings=settings)
    assert (found.outcome is not None, found.remote_call_id) == (True, "")
    assert await remote(database, remote_calls.id_of(TURN.turn_id, 1, call.tool_call_id)) is None
    result = await stored(database, call.tool_call_id)
    assert result is not None
    assert said in result[0]


async def test_a_result_is_stored_and_booked_once(database: Database) -> None:
    row = (await opened(database, given())).remote_call_id
    await given_by_worker(database, row, GivenResult(ToolStatus.OK, "dug 3", 1500))
    for _ in range(2):
        outcome = await settled(database, row, "the activity failed although the result was given")
        assert (outcome.status, outcome.cost_microdollars) == (ToolStatus.OK, PRICE)
    assert await stored(database) == ("dug 3", False)
    assert await ledger(database) == [("tool:dig", "booked", PRICE)]
    found = await remote(database, row)
    assert found is not None
    assert (found.output, found.arguments) == (None, None)


@pytest.mark.parametrize("status", [ToolStatus.ERROR, ToolStatus.LOST])
async def test_a_failure_costs_nothing(database: Database, status: ToolStatus) -> None:
    row = (await opened(database, given())).remote_call_id
    await given_by_worker(database, row, GivenResult(status, "a stone", 1))
    assert (await settled(database, row)).status is status
    assert (await stored(database), await ledger(database)) == (("a stone", True), [])


async def test_without_a_result_the_failure_is_stored_and_a_late_result_is_not(database: Database) -> None:
    row = (await opened(database, given())).remote_call_id
    assert (await settled(database, row, "dig failed: nobody came")).status is ToolStatus.ERROR
    assert await stored(database) == ("dig failed: nobody came", True)
    with pytest.raises(Exception, match="has ended"):
        await given_by_worker(database, row, GivenResult(ToolStatus.OK, "late", 1))


async def test_a_worker_that_says_nothing_gave_no_result(database: Database) -> None:
    row = (await opened(database, given())).remote_call_id
    await settled(database, row)
    assert await stored(database) == (prompts.NO_RESULT_GIVEN, True)


async def test_a_stop_before_the_call_is_settled(database: Database) -> None:
    """The end of a stopped turn stores that the call was cancelled; what a worker gives after that is refused."""
    row = (await opened(database, given())).remote_call_id
    async with database.write() as connection:
        await turns.mark_stopped(connection, TURN.session_id, TURN.turn_id)
    with pytest.raises(Exception, match="has ended"):
        await given_by_worker(database, row, GivenResult(ToolStatus.OK, "late", 1))


async def test_a_call_that_no_row_has(database: Database) -> None:
    with pytest.raises(ApplicationError, match="has no call"):
        await opened(database, given("other"))
