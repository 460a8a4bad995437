"""What a transaction hands out: statements are awaited, and their results are complete."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import CursorResult, Executable
from sqlalchemy.engine import Row

# Turning 10,000 rows into Python objects takes about 80 ms; the event loop gets its turn after this many.
ROWS_AT_ONCE = 200

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class Rows(list[Row[Any]]):
    """All rows of a result. `rowcount`: how many rows the statement changed."""

    rowcount: int = -1

    def first(self) -> Row[Any] | None:
        return self[0] if self else None

    def one(self) -> Row[Any]:
        (row,) = self
        return row


class Booking(NamedTuple):
    """What a transaction has added to a user's costs in the ledger, under a row that was entered at that moment."""

    user_id: str
    microdollars: int
    at: datetime


class Connection(ABC):
    """Runs the statements of one transaction, one after another.

    `bookings`: what the transaction has entered in the ledger; whoever counts it is told after the commit.
    `watched_users`: those for whom it has stored an event that a webhook waits for; likewise.
    """

    def __init__(self) -> None:
        self.bookings: list[Booking] = []
        self.watched_users: set[str] = set()

    @abstractmethod
    async def _run(self, statement: Executable, parameters: Parameters) -> CursorResult[Any]: ...

    @abstractmethod
    async def lock_name(self, name: str) -> None:
        """Let no other transaction lock this name until this one ends."""

    async def execute(self, statement: Executable, parameters: Parameters = None) -> Rows:
        """Run a statement; with a sequence of parameters, once for each."""
        result = await self._run(statement, parameters)
        rows = Rows()
        try:
            rows.rowcount = result.rowcount
            if result.returns_rows:
                while True:
                    some = result.fetchmany(ROWS_AT_ONCE)
                    rows.extend(some)
                    if len(some) < ROWS_AT_ONCE:
                        break
                    await asyncio.sleep(0)
        finally:
            result.close()
        return rows

    async def scalar(self, statement: Executable, parameters: Parameters = None) -> Any:
        """The first column of the first row, or None."""
        row = (await self.execute(statement, parameters)).first()
        return row[0] if row is not None else None

    async def scalars(self, statement: Executable, parameters: Parameters = None) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in await self.execute(statement, parameters)]
