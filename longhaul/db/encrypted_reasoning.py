"""The reasoning items of a turn's answers that only their endpoint can read."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select

from longhaul.db.connection import Connection
from longhaul.db.models import EncryptedReasoningRow

INSERT = insert(EncryptedReasoningRow)
OF_TURN = select(EncryptedReasoningRow.message_id, EncryptedReasoningRow.items).where(
    EncryptedReasoningRow.turn_id == bindparam("turn"), EncryptedReasoningRow.model == bindparam("by_model")
)


async def store(
    connection: Connection, message_id: str, turn_id: str, model: str, items: Sequence[dict[str, Any]]
) -> None:
    """Keep the items behind a message that has just been stored. `model`: the one that was asked."""
    values = {"message_id": message_id, "turn_id": turn_id, "model": model, "items": items}
    await connection.execute(INSERT, values)


async def of_turn(connection: Connection, turn_id: str, model: str) -> dict[str, list[dict[str, Any]]]:
    """The items of a turn by message, as far as `model` made them: another one cannot read them."""
    rows = await connection.execute(OF_TURN, {"turn": turn_id, "by_model": model})
    return {row.message_id: row.items for row in rows if row.items}
