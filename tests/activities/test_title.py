"""The title of a session: one call, booked, replaced by a person's own title, harmless when it fails."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import select
from temporalio.testing import ActivityEnvironment

from activities.title import Titles, provisional
from activities.turns import TurnActivities
from longhaul.contracts import Budget, OpenTurn, Scope
from longhaul.db import acceptance, ledger, sessions
from longhaul.db.database import Database
from longhaul.db.models import LedgerRow
from longhaul.errors import StreamBrokenError
from testkit.spending import usage_limits
from testkit.wait import until
from tests.activities.conftest import NO_STREAMS, SETTINGS, TURN

MESSAGE = "How do I plan a long trip with three children and a dog through the whole of Norway?"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "cost": 0.000012}


class SmallModel:
    """Answers every call with one title once `gate` is set; counts the calls."""

    def __init__(self, *, broken: bool = False) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self._broken = broken

    async def stream(self, body: dict[str, Any], *, call_key: str) -> AsyncGenerator[dict[str, Any], None]:
        self.calls += bool(body["messages"] and call_key.startswith("title:"))
        await self.gate.wait()
        if self._broken:
            raise StreamBrokenError("The model's stream broke off.")
        yield {"choices": [{"delta": {"content": '"Norway with children"'}, "finish_reason": "stop"}], "usage": USAGE}


async def open_turn(database: Database, titles: Titles, turn_id: str, scope: Scope | None = None) -> None:
    """A message, and the turn that takes it."""
    async with database.write() as connection:
        await acceptance.accept(
            connection,
            session_id=TURN.session_id,
            user_id=TURN.user_id,
            message_id=f"of-{turn_id}",
            content=MESSAGE,
            context=None,
            limit=0,
        )
    opening = OpenTurn(
        turn=TURN.model_copy(update={"turn_id": turn_id}),
        model="m",
        mode="fast",
        tier="standard",
        scope=scope or Scope(),
        started_at=datetime.now(UTC),
    )
    activities = TurnActivities(database, NO_STREAMS, titles, usage_limits(database), SETTINGS)
    for _ in range(2):  # a repeated local activity must not ask again
        await ActivityEnvironment().run(activities.open_turn, opening)


async def title(database: Database) -> str | None:
    async with database.read() as connection:
        found: str | None = (await sessions.get(connection, TURN.session_id)).title
    return found


async def end(titles: Titles) -> None:
    await asyncio.wait_for(asyncio.gather(*titles._running), 60)


def titles_of(database: Database, model: SmallModel, name: str = "small") -> Titles:
    return Titles(database, NO_STREAMS, cast("Any", model), SETTINGS.model_copy(update={"model_small": name}))


async def test_one_call_for_a_session_however_many_turns_it_has(database: Database) -> None:
    model = SmallModel()
    titles = titles_of(database, model)
    for turn in ("t1", "t2", "t3"):
        await open_turn(database, titles, turn)
    await asyncio.sleep(0)
    assert await title(database) == provisional(MESSAGE)
    model.gate.set()
    await end(titles)
    assert model.calls == 1
    assert await title(database) == "Norway with children"
    async with database.read() as connection:
        spent = (await ledger.usage_of_each(connection, [TURN.session_id]))[TURN.session_id]
    assert (spent.calls, spent.prompt_tokens, spent.completion_tokens, spent.cost_microdollars) == (1, 7, 3, 12)


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("gpt-4.1-mini", {"max_tokens": 40}),
        ("gpt-5-mini", {"max_completion_tokens": 2_040}),
        ("openai/gpt-5.1", {"max_completion_tokens": 40}),
    ],
)
async def test_the_limit_of_a_title_is_named_as_its_model_wants(
    database: Database, model: str, limit: dict[str, int]
) -> None:
    """A model that always thinks would spend the limit of a title on its thoughts."""
    body = titles_of(database, SmallModel(), model)._request("hello").body
    assert {name: body[name] for name in body if name.startswith("max_")} == limit


async def booked(database: Database) -> list[tuple[str, str, int | None]]:
    async with database.read() as connection:
        rows = await connection.execute(select(LedgerRow.kind, LedgerRow.status, LedgerRow.cost_microdollars))
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(("budget", "named"), [(10**6, True), (10, False)])
async def test_a_title_fits_into_the_budget_or_is_not_asked_for(database: Database, budget: int, named: bool) -> None:
    model = SmallModel()
    model.gate.set()
    titles = titles_of(database, model, "gpt-4.1-mini")
    scope = Scope(ancestors=("root",), budgets=(Budget(session_id="root", max_cost_microdollars=budget),))
    await open_turn(database, titles, "t1", scope)
    await end(titles)
    assert model.calls == named
    assert await booked(database) == ([("title", "booked", 12)] if named else [])


async def test_a_failure_leaves_the_provisional_title(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    model = SmallModel(broken=True)
    titles = titles_of(database, model)
    model.gate.set()
    await open_turn(database, titles, "t1")
    await end(titles)
    await open_turn(database, titles, "t2")
    assert model.calls == 1
    assert await title(database) == provisional(MESSAGE)
    assert "provisional title" in caplog.text
    assert await booked(database) == [("title", "estimated", None)]


async def test_a_persons_title_stays(database: Database) -> None:
    model = SmallModel()
    titles = titles_of(database, model)
    await open_turn(database, titles, "t1")
    async with database.write() as connection:
        await sessions.rename(connection, TURN.session_id, TURN.user_id, "Mine")
    model.gate.set()
    await end(titles)
    assert await title(database) == "Mine"


async def test_a_shutdown_cuts_the_call_off(database: Database) -> None:
    model = SmallModel()
    titles = titles_of(database, model)
    await open_turn(database, titles, "t1")
    await until(lambda: model.calls == 1, what="the call begins")
    await asyncio.wait_for(titles.close(), 60)
    assert await title(database) == provisional(MESSAGE)
    assert await booked(database) == [("title", "estimated", None)]


async def test_no_small_model_no_title(database: Database) -> None:
    model = SmallModel()
    titles = titles_of(database, model, "")
    await open_turn(database, titles, "t1")
    assert (model.calls, await title(database)) == (0, None)


def test_a_provisional_title_is_one_short_line() -> None:
    assert provisional(" a\n b\x00 ") == "a b\ufffd"
    assert len(provisional("word " * 100)) <= 60
