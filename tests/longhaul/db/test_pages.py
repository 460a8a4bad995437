"""Lists in pages: all entries, each once, in order, also those of the same moment."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

from longhaul.db import accounts, turns
from longhaul.db.accounts import Action, Entry, EntryPosition
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.db.turns import NewTurn, TurnPlace, TurnRecord
from tests.longhaul.db.conftest import SESSION, USER

#: Seconds after the first one. Three were made at the same moment.
MOMENTS = (0, 1, 1, 1, 2)


class Paged(NamedTuple):
    """The pages of a list, as keys."""

    pages: list[list[str]]

    @property
    def keys(self) -> list[str]:
        return [key for page in self.pages for key in page]


async def in_pages(
    database: Database, page: Callable[[Connection, str | None], Awaitable[Sequence[str]]], limit: int
) -> Paged:
    found = Paged([])
    after = None
    while True:
        async with database.read() as connection:
            keys = list(await page(connection, after))
        if not keys:
            return found
        assert len(keys) <= limit
        found.pages.append(keys)
        after = keys[-1]


async def test_turns(database: Database) -> None:
    began = utc_now()
    async with database.write() as connection:
        for number, seconds in enumerate(MOMENTS):
            at = began + timedelta(seconds=seconds)
            await turns.start(connection, NewTurn(f"t{number}", SESSION, USER, "m", "fast", "standard", at))
        known = {one.turn_id: one for one in await turns.list_of_session(connection, SESSION)}

    async def page(connection: Connection, after: str | None) -> list[str]:
        last: TurnRecord | None = known[after] if after is not None else None
        place = TurnPlace(last.started_at, last.turn_id) if last is not None else None
        return [one.turn_id for one in await turns.list_of_session(connection, SESSION, 2, place)]

    assert (await in_pages(database, page, 2)).keys == ["t4", "t1", "t2", "t3", "t0"]


async def test_changes_of_an_account(database: Database) -> None:
    began = utc_now()
    async with database.write() as connection:
        for seconds in MOMENTS:
            at = began + timedelta(seconds=seconds)
            await accounts.add_entry(connection, Entry(USER, "admin", Action.GRANTED_CREDITS, at, credits=1))
        known = {one.id: one for one in await accounts.entries(connection, USER, 10)}

    async def page(connection: Connection, after: str | None) -> list[str]:
        place = EntryPosition(known[after].created_at, after) if after is not None else None
        return [one.id for one in await accounts.entries(connection, USER, 2, place)]

    assert (await in_pages(database, page, 2)).keys == list(known)
    assert len(known) == len(MOMENTS)
