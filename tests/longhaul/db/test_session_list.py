"""The list of sessions: pages, filters, search."""

from datetime import timedelta
from typing import Any

from sqlalchemy import update

from longhaul.db import session_list, sessions, versions
from longhaul.db.database import Database
from longhaul.db.models import SessionRow, utc_now
from longhaul.db.session_list import ListedSession, SessionFilter, SessionPosition
from longhaul.db.sessions import NewSession
from tests.longhaul.db.conftest import SESSION, USER
from tests.longhaul.db.test_edits import delete
from tests.longhaul.db.test_messages import accept, begin, end
from tests.longhaul.db.test_versions import turn


async def test_pages_show_every_session_once_newest_first(database: Database) -> None:
    """Also those that were created at the same moment."""
    now = utc_now()
    async with database.write() as connection:
        await sessions.delete_all(connection, [SESSION])
        for number in range(9):
            await sessions.create(connection, NewSession(f"s{number}", USER))
            created = {"created_at": now - timedelta(microseconds=number // 4)}
            await connection.execute(update(SessionRow).where(SessionRow.id == f"s{number}").values(created))
        await sessions.create(connection, NewSession("below", USER, parent_session_id="s0"))
        await sessions.create(connection, NewSession("foreign", "another user"))
    listed: list[str] = []
    position: SessionPosition | None = None
    async with database.read() as connection:
        while page := await session_list.list_of_user(connection, USER, 2, position):
            listed += [one.session.id for one in page]
            position = SessionPosition(page[-1].session.created_at, page[-1].session.id)
        below = await session_list.list_of_user(connection, USER, 10, wanted=SessionFilter(parent="s0"))
    assert listed == ["s3", "s2", "s1", "s0", "s7", "s6", "s5", "s4", "s8"]
    assert [one.session.id for one in below] == ["below"]


async def listed(database: Database, **wanted: Any) -> list[ListedSession]:
    async with database.read() as connection:
        return await session_list.list_of_user(connection, USER, 50, wanted=SessionFilter(**wanted))


async def ids(database: Database, **wanted: Any) -> set[str]:
    return {one.session.id for one in await listed(database, **wanted)}


async def create(database: Database, *made: NewSession) -> None:
    async with database.write() as connection:
        for session in made:
            await sessions.create(connection, session)


async def test_what_runs_and_when_something_was_said(database: Database) -> None:
    await create(database, NewSession("idle", USER))
    [idle] = [one for one in await listed(database) if one.session.id == "idle"]
    assert (idle.running, idle.last_message_at) == (False, None)
    await turn(database, "m1")
    assert await ids(database, running=True) == set()
    waiting = await accept(database, "m2")
    assert await ids(database, running=True) == {SESSION}, "its first message waits"
    await begin(database, waiting.turn_id)
    assert await ids(database, running=True) == {SESSION}
    assert await ids(database, running=False) == {"idle"}
    await end(database, waiting.turn_id)
    [one] = [one for one in await listed(database, running=False) if one.session.id == SESSION]
    async with database.read() as connection:
        [m2] = await versions.of_message(connection, SESSION, "m2")
    assert one.last_message_at == m2.created_at


async def test_filters(database: Database) -> None:
    await create(
        database,
        NewSession("sub", USER, parent_session_id=SESSION, root_session_id=SESSION, agent="coder"),
        NewSession("sub2", USER, parent_session_id="sub", root_session_id=SESSION, agent="coder"),
        NewSession("labelled", USER, labels={"customer": "17", "a.b": 'it"s'}),
        NewSession("other", USER, labels={"customer": "18"}),
        NewSession("foreign", "another user", labels={"customer": "17"}),
    )
    assert await ids(database) == {SESSION, "labelled", "other"}
    assert await ids(database, parent=SESSION) == {"sub"}
    assert await ids(database, agent="coder") == {"sub", "sub2"}
    assert await ids(database, agent="coder", parent=SESSION) == {"sub"}
    assert await ids(database, labels={"customer": "17"}) == {"labelled"}
    assert await ids(database, labels={"customer": "17", "a.b": 'it"s'}) == {"labelled"}
    assert await ids(database, labels={"customer": "17", "a.b": "x"}) == set()
    assert await ids(database, labels={"absent": "17"}) == set()


async def test_search(database: Database) -> None:
    await create(
        database,
        NewSession("titled", USER, title="Order 17: 100% wool"),
        NewSession("foreign", "another user", title="Order 17"),
    )
    await turn(database, "m1")  # "hello", "answer to m1"
    assert await ids(database, text="order 17") == {"titled"}
    assert await ids(database, text="HELLO") == {SESSION}
    assert await ids(database, text="swer to m") == {SESSION}
    assert await ids(database, text="0%") == {"titled"}
    assert await ids(database, text="1_0") == set(), "nothing in a text is a pattern"
    assert await ids(database, text="absent") == set()
    assert await ids(database, title="WOOL") == {"titled"}
    assert await ids(database, title="hello") == set()
    await delete(database, "m1")
    assert await ids(database, text="hello") == set(), "what was deleted is not found"


async def test_labels_are_replaced_as_a_whole(database: Database) -> None:
    async with database.write() as connection:
        await sessions.relabel(connection, SESSION, USER, {"a": "1", "b": "2"})
        await sessions.relabel(connection, SESSION, USER, {"a": "3"})
        assert (await sessions.get(connection, SESSION)).labels == {"a": "3"}
        await sessions.relabel(connection, SESSION, USER, {})
        assert (await sessions.get(connection, SESSION)).labels is None
