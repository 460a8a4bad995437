"""Transactions, on SQLite or PostgreSQL; callers do not see which."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from longhaul.db.connection import Booking, Connection
from longhaul.db.postgresql import Postgres
from longhaul.db.sqlite import Sqlite
from longhaul.errors import UnavailableError

#: Is told what was booked, after the commit. It raises nothing.
CountBookings = Callable[[Sequence[Booking]], Coroutine[Any, Any, None]]
#: Is told whose webhooks have an event to send, after the commit. It raises nothing, and does not wait for anything.
AnnounceEvents = Callable[[Collection[str]], None]
# PostgreSQL's codes for faults that are not the statement's: no connection, a standby, no access, no such database,
# deadlock, out of resources, starting or shutting down.
FAULTS = ("08", "25006", "28", "3D", "40001", "40P01", "53", "57P")


class Database:
    """Hands out transactions.

    Every fault of the database itself (not of a statement) is an `UnavailableError`, so callers decide by one name:
    activities let Temporal retry, the API answers 503.

    `count_bookings` is awaited after each transaction that has booked something, whoever booked it.
    `announce_events` is called after each transaction that has stored an event for a webhook.
    """

    count_bookings: CountBookings | None = None
    announce_events: AnnounceEvents | None = None

    def __init__(self, url: str, pool_size: int = 20) -> None:
        parsed = make_url(url)
        kind = Sqlite if parsed.get_backend_name() == "sqlite" else Postgres
        self._transactions: Sqlite | Postgres = kind(parsed, pool_size)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A transaction that only reads."""
        with _named_faults():
            async with self._transactions.read() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        """A transaction that writes; it commits when the block ends without an exception."""
        with _named_faults():
            async with self._transactions.write() as connection:
                yield connection
        if connection.watched_users and self.announce_events is not None:
            self.announce_events(connection.watched_users)
        if connection.bookings and self.count_bookings is not None:
            # Shielded: what is committed is to be counted, also when the caller is cancelled at this moment.
            await asyncio.shield(asyncio.create_task(self.count_bookings(connection.bookings)))

    async def close(self) -> None:
        await self._transactions.close()


@contextmanager
def _named_faults() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError, OSError, TimeoutError) as error:
        raise UnavailableError("The database") from error
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if error.connection_invalidated or state.startswith(FAULTS) or "ConnectionDoesNotExist" in str(error):
            raise UnavailableError("The database") from error
        raise
