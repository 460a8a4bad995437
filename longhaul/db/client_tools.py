"""The tools that clients have declared, in sets: what a message declares is one set."""

from collections.abc import Sequence

import orjson
from sqlalchemy import bindparam, insert, select

from longhaul.db.connection import Connection
from longhaul.db.messages import lock_session, row_id
from longhaul.db.models import ClientToolsRow
from longhaul.tools.client_tools import ClientTool

KNOWN = select(ClientToolsRow.id).where(ClientToolsRow.id == bindparam("declared"))
TOOLS = select(ClientToolsRow.tools).where(ClientToolsRow.id == bindparam("declared"))
INSERT = insert(ClientToolsRow)


async def keep(connection: Connection, session_id: str, tools: Sequence[ClientTool]) -> str:
    """Store what a message declares, once in a session; its id, or "" for no tools.

    Raises:
        NotFoundError: the session was deleted.
    """
    if not tools:
        return ""
    written = [tool._asdict() for tool in tools]
    declared = row_id(session_id, "client tools", orjson.dumps(written, option=orjson.OPT_SORT_KEYS).decode())
    if await connection.scalar(KNOWN, {"declared": declared}) is None:
        await lock_session(connection, session_id)
        if await connection.scalar(KNOWN, {"declared": declared}) is None:
            await connection.execute(INSERT, {"id": declared, "session_id": session_id, "tools": written})
    return declared


async def load(connection: Connection, declared: str) -> list[ClientTool]:
    """The tools of a set; none if `declared` is empty, or names a set whose session was deleted."""
    tools = await connection.scalar(TOOLS, {"declared": declared}) if declared else None
    return [ClientTool(**tool) for tool in tools or ()]
