"""What a session and all below it have used."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from longhaul.contracts import Scope
from longhaul.db.models import LedgerRow, SessionRow, TurnRow


async def spent_below(connection: AsyncConnection, path: str) -> int | None:
    """Microdollars that a session and all below it have used; `path` as `Scope.path` gives it.

    None: they have called models, and of no call is it known what it cost.
    """
    # A range, not LIKE, for the index. The column sorts by bytes, and all else in a path sorts behind its `/`s.
    ours = (LedgerRow.path >= path, LedgerRow.path < path + "\x7f")
    found = await connection.execute(select(func.count(), func.sum(LedgerRow.cost_microdollars)).where(*ours))
    calls, spent = found.one()
    return None if calls and spent is None else int(spent or 0)


async def turns_below(
    connection: AsyncConnection, root_session_id: str, session_id: str
) -> Sequence[tuple[datetime, datetime | None]]:
    """When the turns of a session and of all below it began and ended (None: not yet)."""
    found = await connection.execute(
        select(SessionRow.id, SessionRow.scope, TurnRow.started_at, TurnRow.ended_at)
        .join(TurnRow, TurnRow.session_id == SessionRow.id)
        .where(or_(SessionRow.id == session_id, SessionRow.root_session_id == root_session_id))
    )
    return [
        (row.started_at, row.ended_at)
        for row in found
        if row.id == session_id or session_id in Scope.model_validate(row.scope or {}).ancestors
    ]
