"""A user over the limit of costs: no next turn, no sub-session, no title; what was accepted stays."""

from datetime import UTC, datetime
from typing import cast

import pytest
from sqlalchemy import select
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.sub_sessions import SubSessionActivities
from activities.title import Titles
from activities.turns import TurnActivities
from longhaul.contracts import CostLimits, OpenedTurn, OpenTurn, PreparedSubSession, PrepareSubSession, Scope
from longhaul.db import acceptance, messages, sessions, turns
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.db.models import MessageRow, SessionRow, utc_now
from longhaul.tools import default_tools
from testkit.spending import spend, usage_limits
from tests.activities.conftest import NO_REDIS, NO_STREAMS, SETTINGS, TURN

LIMITS = CostLimits(daily=1_000)


class Named:
    """Titles that record for which message one is asked."""

    def __init__(self) -> None:
        self.claims: list[str] = []

    async def claim(self, _connection: object, _session: object, message_id: str) -> str:
        self.claims.append(message_id)
        return ""


async def open_turn(database: Database, limits: CostLimits, titles: Named) -> OpenedTurn:
    async with database.write() as connection:
        await acceptance.accept(
            connection,
            session_id=TURN.session_id,
            user_id=TURN.user_id,
            message_id="m1",
            content="hello",
            context=None,
            limit=0,
        )
    opening = OpenTurn(
        turn=TURN, model="m", mode="fast", tier="standard", started_at=datetime.now(UTC), cost_limits=limits
    )
    activities = TurnActivities(database, NO_STREAMS, cast("Titles", titles), usage_limits(database), SETTINGS)
    opened: OpenedTurn = await ActivityEnvironment().run(activities.open_turn, opening)
    return opened


async def test_a_next_turn_over_the_limit_keeps_its_message_and_says_why(database: Database) -> None:
    titles = Named()
    await spend(database, TURN.user_id, 1_000)
    opened = await open_turn(database, LIMITS, titles)
    assert opened.taken == ["m1"]
    assert "limit of this day" in opened.refusal
    assert titles.claims == [], "a title would cost too"
    async with database.read() as connection:
        sequences = await connection.scalars(select(MessageRow.sequence))
        turn = await turns.get(connection, TURN.session_id, TURN.turn_id)
    assert sequences == [0]
    assert turn is not None, "the turn is there, to be closed as failed"


@pytest.mark.parametrize(("spent", "limits"), [(999, LIMITS), (1_000, CostLimits())])
async def test_below_the_limit_or_not_asked_to_look(database: Database, spent: int, limits: CostLimits) -> None:
    titles = Named()
    await spend(database, TURN.user_id, spent)
    assert (await open_turn(database, limits, titles)).refusal == ""
    assert titles.claims == ["m1"]


async def prepare(database: Database, call_id: str, round_: int, arguments: str) -> PreparedSubSession:
    """Let an assistant's row ask for a sub-session, and prepare it."""
    called = [{"id": call_id, "type": "function", "function": {"name": "run_sub_session", "arguments": arguments}}]
    row = NewMessage(f"row-{call_id}", "assistant", tool_calls=called, turn_id=TURN.turn_id, round=round_)
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [row])
    usage = usage_limits(database)
    client = cast("Client", None)
    activities = SubSessionActivities(database, NO_STREAMS, client, NO_REDIS, default_tools(), usage, SETTINGS)
    call = PrepareSubSession(
        turn=TURN,
        round=round_,
        tool_call_id=call_id,
        scope=Scope(root_session_id=TURN.session_id),
        cost_limits=LIMITS,
    )
    prepared: PreparedSubSession = await ActivityEnvironment().run(activities.prepare_sub_session, call)
    return prepared


async def test_a_sub_session_over_the_limit_is_not_started(database: Database) -> None:
    """One that works takes another prompt, because that begins no turn."""
    first = await prepare(database, "c1", 1, '{"prompt": "x"}')
    assert first.error is None
    sub_id = first.sub_session_id
    async with database.write() as connection:
        await acceptance.place_waiting(connection, sub_id, turn_id=first.turn_id, round_=0, kind="message")
        await turns.start(
            connection, turns.NewTurn(first.turn_id, sub_id, TURN.user_id, "m", "fast", "standard", utc_now())
        )
    await spend(database, TURN.user_id, 1_000)
    refused = await prepare(database, "c2", 2, '{"prompt": "y"}')
    assert "nothing was started" in str(refused.error)
    assert "limit of this day" in str(refused.error)
    queued = await prepare(database, "c3", 3, f'{{"prompt": "z", "sub_session_id": "{sub_id}"}}')
    assert (queued.error, queued.turn_id) == (None, first.turn_id)
    async with database.read() as connection:
        assert sorted(await connection.scalars(select(SessionRow.id))) == sorted([TURN.session_id, sub_id])
        assert await sessions.descendants(connection, TURN.session_id, TURN.session_id)
