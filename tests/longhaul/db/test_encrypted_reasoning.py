"""Encrypted reasoning lives and goes with the message that it belongs to."""

from longhaul.db import encrypted_reasoning, messages, sessions
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from tests.longhaul.db.conftest import SESSION

ITEMS = [{"place": 0, "item": {"type": "reasoning", "encrypted_content": "x\u2028", "summary": [{"text": "\x00"}]}}]


async def test_it_is_found_by_turn_and_model_until_its_session_is_deleted(database: Database) -> None:
    async with database.write() as connection:
        await messages.append(connection, SESSION, [NewMessage(f"a{n}", "assistant", turn_id="t") for n in (1, 2)])
        await encrypted_reasoning.store(connection, "a1", "t", "m", ITEMS)
        await encrypted_reasoning.store(connection, "a2", "t", "another", ITEMS)
    async with database.read() as connection:
        assert await encrypted_reasoning.of_turn(connection, "t", "m") == {"a1": ITEMS}
        assert await encrypted_reasoning.of_turn(connection, "u", "m") == {}
    async with database.write() as connection:
        await sessions.delete_all(connection, [SESSION])
    async with database.read() as connection:
        assert await encrypted_reasoning.of_turn(connection, "t", "m") == {}
