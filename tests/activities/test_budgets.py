"""Budgets: whose they are, what they leave, when they are used up."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from activities.turns import budgets_of, worked
from longhaul.contracts import Budget, Scope, Usage
from longhaul.db import ledger, sessions
from longhaul.db.database import Database
from longhaul.db.ledger import PaidCall, Refusal, Reservation
from longhaul.db.models import TurnRow, utc_now
from longhaul.db.turns import TurnPeriod

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)
ROOT = Budget(session_id="root", max_cost_microdollars=100)
PROMPT = Usage(prompt_tokens=1, cost_microdollars=1)


def call_of(session: str, path: str, turn: str = "t", attempt: int = 1) -> PaidCall:
    entry = f"{path}{turn}{attempt}"
    return PaidCall(entry, "u", session, path, turn_id=turn, round=1, attempt=attempt, model="m")


async def book(database: Database, session: str, path: str, cost: int | None) -> None:
    async with database.write() as connection:
        call = call_of(session, path, f"of {cost}")
        await ledger.book(connection, call, Usage(cost_microdollars=cost))


async def reserve(
    database: Database, session: str, scope: Scope, most: int | None, turn: str = "t", *, attempt: int = 1, **how: Any
) -> Refusal | None:
    call = call_of(session, scope.path(session), turn, attempt)
    reservation = Reservation(most, PROMPT, how.pop("until", utc_now() + timedelta(hours=1)))
    async with database.write() as connection:
        return await ledger.reserve(connection, call, reservation, scope, **how)


async def start(database: Database, session: str, *turn_ids: str) -> None:
    async with database.write() as connection:
        for turn_id in turn_ids:
            row = {"turn_id": turn_id, "session_id": session, "user_id": "u", "status": "running", "model": "m"}
            await connection.execute(insert(TurnRow).values(**row, started_at=NOON))


async def used_up(database: Database, session: str, scope: Scope) -> str | None:
    """Why a call of one microdollar is refused for good; what is allowed is given back."""
    refusal = await reserve(database, session, scope, 1)
    async with database.write() as connection:
        await ledger.release(connection, call_of(session, scope.path(session)))
    assert refusal is None or refusal.for_good
    return refusal.text if refusal is not None else None


async def own(database: Database, scope: Scope, **limits: Any) -> tuple[Budget, ...]:
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession("mine", "u", **limits))
        return await budgets_of(connection, await sessions.get(connection, "mine"), scope, NOON)


async def test_a_budget_counts_what_is_spent_below_it(database: Database) -> None:
    child = Scope(depth=1, ancestors=("root",), budgets=(ROOT,))
    assert await used_up(database, "root", Scope(budgets=(ROOT,))) is None
    await book(database, "root", "root/", 60)
    await book(database, "root", "root/", None)
    await book(database, "rooted", "rooted/", 500)
    assert await used_up(database, "child", child) is None
    await book(database, "child", "root/child/", 40)
    assert "this session is used up: 100 of 100" in str(await used_up(database, "root", Scope(budgets=(ROOT,))))
    assert "session root above it is used up" in str(await used_up(database, "child", child))


async def test_a_childs_own_budget_is_its_own(database: Database) -> None:
    mine = Budget(session_id="child", max_cost_microdollars=50)
    scope = Scope(depth=1, ancestors=("root",), budgets=(mine,))
    await book(database, "root", "root/", 1000)
    assert await used_up(database, "child", scope) is None
    await book(database, "grandchild", "root/child/grandchild/", 50)
    assert "this session is used up" in str(await used_up(database, "child", scope))
    assert await used_up(database, "other", Scope(ancestors=("root",), budgets=(mine,))) is None


async def test_without_limits_only_the_inherited_hold(database: Database) -> None:
    assert await own(database, Scope(budgets=(ROOT,))) == (ROOT,)


async def test_time_that_was_worked_is_gone(database: Database) -> None:
    before = Budget(session_id="mine", max_cost_microdollars=1)
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession("mine", "u", max_seconds=60, max_cost_microdollars=9))
        for number, took in enumerate((20, 15)):
            row = {"turn_id": f"t{number}", "session_id": "mine", "user_id": "u", "status": "completed", "model": "m"}
            began = NOON - timedelta(minutes=number + 1)
            ended = began + timedelta(seconds=took)
            await connection.execute(insert(TurnRow).values(**row, started_at=began, ended_at=ended))
    left = NOON + timedelta(seconds=25)
    expected = Budget(session_id="mine", max_cost_microdollars=9, max_seconds=60, deadline=left)
    assert await own(database, Scope(budgets=(ROOT, before))) == (ROOT, expected)


def test_time_that_overlaps_counts_once() -> None:
    now = utc_now()

    def ago(start: int, end: int | None) -> TurnPeriod:
        return TurnPeriod(now - timedelta(seconds=start), None if end is None else now - timedelta(seconds=end))

    spans = [ago(100, 90), ago(95, 80), ago(94, 93), ago(50, 40), ago(5, None)]
    assert worked(spans, now) == timedelta(seconds=20 + 10 + 5)
    assert worked([], now) == timedelta()
