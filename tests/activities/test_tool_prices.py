"""Prices of tools: booked once with the output, also after a Stop; a budget has to have room for them."""

import asyncio
from dataclasses import replace

import pytest
from pydantic import BaseModel
from sqlalchemy import insert, select
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import attempt as module
from activities.answers import end_turn
from activities.tool_results import ToolResult
from activities.tool_run import ToolState
from activities.tools import ToolActivities
from longhaul.contracts import Budget, CallModel, Progress, RunTool, Scope, ToolOutcome, ToolStatus, TurnStatus, Usage
from longhaul.db import ledger, messages, sessions, turns
from longhaul.db.database import Database
from longhaul.db.ledger import PaidCall
from longhaul.db.models import LedgerRow, TurnRow, utc_now
from longhaul.llm import prompts
from longhaul.llm.completion import Completion
from longhaul.tools import Registry, ToolContext, ToolError, tool
from longhaul.turns.status import progress_from_row
from tests.activities.conftest import NO_STREAMS, SETTINGS, TURN

PRICE = 40
RUNS: list[str] = []


class Nothing(BaseModel):
    pass


@tool(Nothing, "Looks something up.", price_microdollars=PRICE)
async def looks_up(arguments: Nothing, context: ToolContext) -> str:
    RUNS.append(context.tool_call_id)
    return "found"


@tool(Nothing, "Finds nothing.", price_microdollars=PRICE)
async def fails(arguments: Nothing, context: ToolContext) -> str:
    raise ToolError("nothing there")


@tool(Nothing, "Buys.", changes=True, price_microdollars=PRICE)
async def buys(arguments: Nothing, context: ToolContext) -> str:
    RUNS.append(context.tool_call_id)
    return "bought"


CALLS = [*(f"c{number}" for number in range(4)), "failed", "bought"]
NAMES = ["looks_up"] * 4 + ["fails", "buys"]


@pytest.fixture(autouse=True)
async def calls(database: Database) -> None:
    """A turn that runs, with calls of each tool."""
    module._heartbeat_details.set([])
    RUNS.clear()
    made = [{"id": id_, "function": {"name": name, "arguments": "{}"}} for id_, name in zip(CALLS, NAMES, strict=True)]
    row = messages.NewMessage("row", "assistant", tool_calls=made, turn_id=TURN.turn_id, round=1)
    turn = {"session_id": TURN.session_id, "user_id": "u", "model": "m", "started_at": utc_now()}
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [row])
        await connection.execute(insert(TurnRow).values(turn_id=TURN.turn_id, status=TurnStatus.RUNNING, **turn))


async def run(
    database: Database, call: str, *, scope: Scope | None = None, state: ToolState | None = None, attempt: int = 1
) -> ToolOutcome:
    environment = ActivityEnvironment()
    details = [state] if state else []
    environment.info = replace(environment.info, attempt=attempt, heartbeat_details=details)
    activities = ToolActivities(database, NO_STREAMS, Registry([looks_up, fails, buys]), SETTINGS)
    given = RunTool(
        turn=TURN,
        round=1,
        message_id="row",
        tool_call_id=call,
        name=NAMES[CALLS.index(call)],
        scope=scope or Scope(),
    )
    outcome: ToolOutcome = await environment.run(activities.run_tool, given)
    return outcome


async def booked(database: Database) -> list[tuple[object, ...]]:
    columns = (LedgerRow.kind, LedgerRow.model, LedgerRow.status, LedgerRow.cost_microdollars)
    async with database.read() as connection:
        return [tuple(row) for row in await connection.execute(select(*columns).order_by(LedgerRow.model))]


async def usage(database: Database) -> Usage:
    async with database.read() as connection:
        return await ledger.usage_of_turn(connection, TURN.session_id, TURN.turn_id)


async def content(database: Database, call: str) -> str:
    async with database.read() as connection:
        row = await messages.get(connection, messages.row_id(TURN.turn_id, 1, "tool", call))
    return row.content if row is not None else ""


async def test_booked_once_however_often_it_is_attempted(database: Database) -> None:
    """The second attempt has the first one's checkpoint, the third finds the row, the fourth ran the tool again."""
    outcome = await run(database, "c0")
    assert outcome.cost_microdollars == PRICE
    result = ToolResult(output="found", status=ToolStatus.OK, cost_microdollars=PRICE)
    await run(database, "c0", state=ToolState(starts=1, result=result), attempt=2)
    await run(database, "c0", attempt=3)
    assert await booked(database) == [("tool", "tool:looks_up", "booked", PRICE)]
    assert await usage(database) == Usage(calls=0, cost_microdollars=PRICE), "it is no call of a model"


async def test_booked_when_a_stop_came_after_the_output(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn has stored that the call was cancelled, before the tool's output is stored."""

    async def looked_up(_arguments: Nothing, context: ToolContext) -> str:
        row = messages.tool_row(
            TURN.turn_id, 1, context.tool_call_id, "looks_up", prompts.CANCELLED_CALL, is_error=True
        )
        async with database.write() as connection:
            await messages.append(connection, TURN.session_id, [row])
        return "found"

    monkeypatch.setattr("tests.activities.test_tool_prices.looks_up", replace(looks_up, run=looked_up))
    await run(database, "c0")
    assert await content(database, "c0") == prompts.CANCELLED_CALL
    assert await booked(database) == [("tool", "tool:looks_up", "booked", PRICE)]


async def test_booked_when_the_session_was_deleted_after_the_output(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def looked_up(_arguments: Nothing, _context: ToolContext) -> str:
        async with database.write() as connection:
            await sessions.delete_all(connection, [TURN.session_id])
        return "found"

    monkeypatch.setattr("tests.activities.test_tool_prices.looks_up", replace(looks_up, run=looked_up))
    with pytest.raises(ApplicationError, match="There is no session"):
        await run(database, "c0")
    assert await booked(database) == [("tool", "tool:looks_up", "booked", PRICE)]


async def test_what_did_not_run_costs_nothing(database: Database) -> None:
    budget = Scope(budgets=(Budget(session_id=TURN.session_id, max_cost_microdollars=1_000),))
    for scope in (Scope(), budget):
        assert (await run(database, "failed", scope=scope)).cost_microdollars is None
    dry = await run(database, "bought", scope=Scope(dry_run=True))
    assert (dry.status, dry.cost_microdollars) == (ToolStatus.OK, None)
    assert await booked(database) == []


async def test_a_lost_call_costs_nothing(database: Database) -> None:
    lost = await run(database, "bought", state=ToolState(starts=1), attempt=2)
    assert (lost.status, lost.cost_microdollars) == (ToolStatus.LOST, None)
    assert await booked(database) == []


async def test_a_budget_must_have_room_for_calls_at_once(database: Database) -> None:
    scope = Scope(budgets=(Budget(session_id=TURN.session_id, max_cost_microdollars=100),))
    outcomes = await asyncio.gather(*(run(database, f"c{number}", scope=scope) for number in range(4)))
    assert sorted(outcome.status for outcome in outcomes) == ["error", "error", "ok", "ok"]
    assert len(RUNS) == 2
    refused = next(outcome.tool_call_id for outcome in outcomes if outcome.status == "error")
    assert f"costs {PRICE} microdollars" in await content(database, refused)
    assert await usage(database) == Usage(cost_microdollars=2 * PRICE)


async def test_calls_of_a_round_do_not_settle_each_other(database: Database) -> None:
    """Both hold their price until they end; what is left when the turn ends is given back."""
    scope = Scope(budgets=(Budget(session_id=TURN.session_id, max_cost_microdollars=100),))
    until = utc_now().replace(year=2100)
    for name in ("one", "two"):
        paid = PaidCall(name, "u", TURN.session_id, scope.path(TURN.session_id), TURN.turn_id, 1, 1, "tool:x", "tool")
        async with database.write() as connection:
            reservation = ledger.Reservation(PRICE, Usage(), until)
            assert await ledger.reserve(connection, paid, reservation, scope, only_if_it_fits=True) is None
    assert [row[2] for row in await booked(database)] == ["reserved", "reserved"]
    assert (await run(database, "c0", scope=scope)).status is ToolStatus.ERROR
    async with database.write() as connection:
        await ledger.settle_turn(connection, TURN.session_id, TURN.turn_id)
    assert await booked(database) == []
    assert (await run(database, "c1", scope=scope)).status is ToolStatus.OK


async def test_an_unpriced_model_is_still_unknown_beside_a_priced_tool(database: Database) -> None:
    scope = Scope(budgets=(Budget(session_id=TURN.session_id, max_cost_microdollars=1_000),))
    await run(database, "c0")
    paid = PaidCall("call", "u", TURN.session_id, scope.path(TURN.session_id), TURN.turn_id, 1, 1, "m")
    async with database.write() as connection:
        await ledger.book(connection, paid, Usage(calls=1))
        refusal = await ledger.reserve(
            connection, paid._replace(id="next"), ledger.Reservation(1, Usage(), utc_now()), scope
        )
    assert refusal is not None
    assert "price of this model's calls is unknown" in refusal.text


async def test_the_stored_end_of_a_turn_has_what_the_ledger_says(database: Database) -> None:
    """The workflow does not know of an attempt whose worker died, and its report of a tool may be lost."""
    await run(database, "c0")
    known = Progress(turn_id=TURN.turn_id, session_id=TURN.session_id, status=TurnStatus.RUNNING, started_at=utc_now())
    call = CallModel(turn=TURN, round=2, model="m", progress=known)
    paid = PaidCall("died", "u", TURN.session_id, f"{TURN.session_id}/", TURN.turn_id, 1, 1, "m")
    async with database.write() as connection:
        await ledger.book(connection, paid, Usage(calls=1, cost_microdollars=3), estimated=True)
        await ledger.book(connection, paid._replace(id="last", round=2), Usage(calls=1, cost_microdollars=500))
        assert await end_turn(connection, call, Completion(text="Done.", finish_reason="stop"), "m") is not None
        turn = await turns.get(connection, TURN.session_id, TURN.turn_id)
    assert turn is not None
    assert progress_from_row(turn).usage == Usage(calls=2, cost_microdollars=543) == await usage(database)


def test_a_price_is_not_negative() -> None:
    with pytest.raises(ValueError, match="a price is not negative"):
        replace(looks_up, price_microdollars=-1)
