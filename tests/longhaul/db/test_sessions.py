"""Lists of sessions."""

from datetime import timedelta

from sqlalchemy import update

from longhaul.db import sessions
from longhaul.db.database import Database
from longhaul.db.models import SessionRow, utc_now
from longhaul.db.sessions import NewSession, SessionPosition
from tests.longhaul.db.conftest import SESSION, USER


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
        while page := await sessions.list_of_user(connection, USER, 2, position):
            listed += [session.id for session in page]
            position = SessionPosition(page[-1].created_at, page[-1].id)
        below = await sessions.list_of_user(connection, USER, 10, parent="s0")
    assert listed == ["s3", "s2", "s1", "s0", "s7", "s6", "s5", "s4", "s8"]
    assert [session.id for session in below] == ["below"]
