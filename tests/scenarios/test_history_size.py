"""A turn's history stays as small as a turn, however long the conversation is."""

import pytest

from longhaul.db import messages
from longhaul.temporal import workflow_id
from testkit.checks import check_rows
from testkit.product import Product

pytestmark = pytest.mark.backends("sqlite")  # histories are Temporal's
EVENTS = 40
BYTES = 20_000
ROWS = 2_000


async def history_of_a_tool_turn(product: Product, past: int) -> tuple[int, int]:
    """Events and bytes of a turn with one tool in a session with so many rows: the least of three.

    A machine under load adds workflow tasks here and there, which say nothing about the turn.
    """
    found = []
    session = await product.api.create_session()
    if past:
        await fill(product, session, past)
    for _ in range(3):
        turn = await product.api.start(session, "What is 6*7? Be so kind as to tell me.")
        assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
        await product.api.until_idle(session)
        described = await (await product.temporal()).get_workflow_handle(workflow_id(session)).describe()
        found.append((described.history_length, described.raw_info.history_size_bytes))
        rows = await check_rows(product.database, sessions=[session], answered=False)
        assert "42" in rows.of(session, "assistant")[-1].content
    return min(found)


async def fill(product: Product, session: str, past: int) -> None:
    """Give a session a long past."""
    text = "Some sentence of an earlier turn of this conversation. " * 3
    rows = [
        {
            "id": messages.row_id(session, "past", n),
            "session_id": session,
            "sequence": n,
            "role": ("user", "assistant")[n % 2],
            "content": f"{n}: {text}",
        }
        for n in range(past)
    ]
    async with product.database.write() as connection:
        await connection.execute(messages.INSERT, rows)
        await connection.execute(messages.ADVANCE, {"session": session, "following": past})


async def test_history_does_not_grow_with_the_conversation(product: Product) -> None:
    events, size = await history_of_a_tool_turn(product, past=0)
    assert events <= EVENTS
    assert size <= BYTES
    old_events, old_size = await history_of_a_tool_turn(product, past=ROWS)
    assert abs(old_events - events) <= 0.1 * events
    assert abs(old_size - size) <= 0.1 * size


async def test_what_is_said_is_not_in_the_history(product: Product) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, "write file secret.txt: the word is Quetzalcoatl")
    await product.api.wait_for_turn(session, turn)
    await product.api.until_idle(session)
    history = await (await product.temporal()).get_workflow_handle(workflow_id(session)).fetch_history()
    assert "Quetzalcoatl" not in history.to_json()
    found = await check_rows(product.database, sessions=[session])
    assert any("Quetzalcoatl" in row.content for row in found.of(session, "user"))
