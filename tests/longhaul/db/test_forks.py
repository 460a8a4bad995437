"""Forks: the same conversation up to a message, in a session of its own; the source stays as it is."""

from datetime import timedelta
from typing import Any

import pytest

from longhaul.contracts import Scope, TurnStatus
from longhaul.db import acceptance, conversation, edits, forks, sessions, turns
from longhaul.db.database import Database
from longhaul.db.messages import StoredMessage
from longhaul.db.models import utc_now
from longhaul.db.sessions import NewSession, Session
from testkit import checks
from tests.longhaul.db.conftest import SESSION, USER
from tests.longhaul.db.test_edits import delete, failed, retry, with_follow_up
from tests.longhaul.db.test_messages import accept, append, begin, calling, end, row
from tests.longhaul.db.test_versions import end_version, summarise, turn

FORK = "fork"


async def fork(database: Database, at: str | None = None, *, before: bool = False, **more: Any) -> list[StoredMessage]:
    """Fork at a message; the rows of the fork that people and models see."""
    async with database.write() as connection:
        until = 2**31 - 2
        if at is not None:
            place = await edits.find(connection, SESSION, at)
            until = place.first - 1 if before else place.last
        source = await sessions.get(connection, SESSION)
        await forks.fork(connection, source, FORK, until, title=more.get("title"), unanswered="not known")
    await checks.check_rows(database, sessions=[FORK], answered=False)
    return await seen(database)


async def seen(database: Database) -> list[StoredMessage]:
    async with database.read() as connection:
        page, _ = await conversation.page(connection, FORK, USER, 50, None)
        shown = await conversation.for_model(connection, FORK, -1)
    hidden = ("reasoning", "summary")
    assert [one.id for one in page if one.role not in hidden and one.kind not in hidden] == [one.id for one in shown]
    return page


async def the_fork(database: Database) -> Session:
    async with database.read() as connection:
        return await sessions.get(connection, FORK)


def texts(rows: list[StoredMessage]) -> list[str]:
    return [one.client_message_id or one.content for one in rows]


async def test_a_fork_at_a_message_and_before_it(database: Database) -> None:
    await turn(database, "m1")
    await turn(database, "m2")
    before = await checks.stored(database, [SESSION])
    assert texts(await fork(database, "answer to m1")) == ["m1", "answer to m1"]
    after = await checks.stored(database, [SESSION])
    assert (before.messages, before.turns, before.next_sequences) == (
        after.messages,
        after.turns,
        after.next_sequences,
    )
    async with database.write() as connection:
        await sessions.delete_all(connection, [FORK])
    assert texts(await fork(database, "m2", before=True)) == ["m1", "answer to m1"]
    async with database.write() as connection:
        await sessions.delete_all(connection, [FORK])
    assert texts(await fork(database, "m1", before=True)) == []
    async with database.write() as connection:
        await sessions.delete_all(connection, [FORK])
    assert texts(await fork(database)) == ["m1", "answer to m1", "m2", "answer to m2"]


async def test_a_fork_goes_on_by_itself(database: Database) -> None:
    """Its rows and turns have ids of their own, and the same message posted again is still the same one."""
    await turn(database, "m1")
    rows = await fork(database)
    async with database.write() as connection:
        again = await acceptance.accept(
            connection,
            session_id=FORK,
            user_id=USER,
            message_id="m1",
            content="hello",
            context=None,
            limit=0,
        )
        other = await acceptance.accept(
            connection, session_id=FORK, user_id=USER, message_id="m2", content="on", context=None, limit=0
        )
    assert (again.taken, again.row_id, again.turn_id) == (True, rows[0].id, rows[0].turn_id)
    assert other.starts_turn
    async with database.read() as connection:
        of_fork = await conversation.rows_of_turn(connection, rows[0].turn_id or "")
        [copied] = await turns.list_of_session(connection, FORK)
    assert {one.session_id for one in of_fork} == {FORK}
    assert (copied.status, copied.turn_id) == (TurnStatus.COMPLETED, rows[0].turn_id)
    assert (copied.progress or {})["session_id"] == FORK
    async with database.write() as connection:
        assert not await forks.fork(
            connection, await sessions.get(connection, SESSION), FORK, 9, title="x", unanswered=""
        )


async def test_a_fork_of_an_older_version_goes_on_from_there(database: Database) -> None:
    await turn(database, "m1")
    await turn(database, "m2")
    await end_version(database, "m2")
    assert texts(await fork(database, "answer to m2")) == ["m1", "answer to m1", "m2", "answer to m2"]
    async with database.write() as connection:
        await sessions.delete_all(connection, [FORK])
    assert texts(await fork(database)) == ["m1", "answer to m1", "m2.1"]
    stored = (await checks.stored(database, [FORK])).of(FORK)
    assert len(stored) == 5, "the replaced version is kept in the fork too"


async def test_what_was_deleted_stays_so(database: Database) -> None:
    for message in ("m1", "m2"):
        await turn(database, message)
    await delete(database, "m1")
    assert texts(await fork(database)) == ["m2", "answer to m2"]


async def test_a_fork_within_a_turn_is_whole(database: Database) -> None:
    turn_id = await with_follow_up(database)
    rows = await fork(database, "call")
    assert texts(rows) == ["m1", "call", "result"]
    async with database.read() as connection:
        [copied] = await turns.list_of_session(connection, FORK)
        assert (await turns.get(connection, SESSION, turn_id)) is not None
    assert (copied.status, copied.progress and copied.progress["round"]) == (TurnStatus.COMPLETED, 1)


async def test_a_fork_while_a_tool_runs_answers_its_call(database: Database) -> None:
    turn_id = (await accept(database, "m1")).turn_id
    await begin(database, turn_id)
    await append(database, calling("call", "c1", "c2", turn=turn_id))
    await append(database, row("result", "tool", tool_call_id="c2", turn_id=turn_id, round=1))
    assert texts(await fork(database)) == ["m1", "call", "result", "not known"]
    async with database.read() as connection:
        [copied] = await turns.list_of_session(connection, FORK)
        assert await turns.get(connection, SESSION, turn_id) is not None
    assert copied.status is TurnStatus.COMPLETED


async def test_a_fork_of_a_retried_turn(database: Database) -> None:
    turn_id = await failed(database)
    await retry(database, turn_id)
    await append(database, row("good", turn_id="again", round=1))
    await end(database, "again")
    assert texts(await fork(database)) == ["m1", "call", "result", "good"]
    async with database.read() as connection:
        newest = await turns.newest(connection, FORK)
        records = {one.turn_id: one for one in await turns.list_of_session(connection, FORK)}
    assert newest is not None
    assert newest.retry_of in records


async def test_limits_and_context_are_those_of_the_source(database: Database) -> None:
    scope = Scope(depth=1, ancestors=("above",), root_session_id="above", deny_tools=("write_file",), dry_run=True)
    async with database.write() as connection:
        sub = NewSession("sub", USER, "T", "above", "above", "t", "coder", "context", scope, 5, 6)
        await sessions.create(connection, sub)
        assert await forks.fork(connection, await sessions.get(connection, "sub"), FORK, 9, title=None, unanswered="")
    made = await the_fork(database)
    assert made.forked_from == "sub"
    assert (made.title, made.agent, made.system_context) == ("T", "coder", "context")
    assert (made.max_cost_microdollars, made.max_seconds) == (5, 6)
    assert (made.parent_session_id, made.root_session_id) == (None, None)
    assert Scope.model_validate(made.scope) == Scope(root_session_id=FORK, deny_tools=("write_file",), dry_run=True)


async def test_a_summary_stands_for_the_same_rows(database: Database) -> None:
    await turn(database, "m1")  # 0, 1
    await summarise(database, "s1", until=1)  # 2
    await turn(database, "m2")
    assert len(await fork(database)) == 5
    made = await the_fork(database)
    assert made.summarised_until == 1
    async with database.write() as connection:
        await sessions.delete_all(connection, [FORK])
    await fork(database, "answer to m1")
    assert (await the_fork(database)).summary_id is None


async def test_a_fork_has_worked_for_no_time(database: Database) -> None:
    """Else a session's budget of seconds would count the time of the session that it was forked from."""
    await turn(database, "m1")
    await fork(database)
    async with database.read() as connection:
        assert len(await turns.periods_of_subtree(connection, SESSION, SESSION)) == 1
        assert await turns.periods_of_subtree(connection, FORK, FORK) == []
    assert utc_now() - (await the_fork(database)).created_at < timedelta(minutes=5)


@pytest.mark.parametrize("title", [None, "Other"])
async def test_the_title(database: Database, title: str | None) -> None:
    async with database.write() as connection:
        await sessions.rename(connection, SESSION, USER, "First")
    await fork(database, title=title)
    assert (await the_fork(database)).title == (title or "First")
