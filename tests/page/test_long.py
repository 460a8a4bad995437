"""Long conversations and the size of the page, in a real browser."""

from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import expect
from sqlalchemy import insert, update

from longhaul.db.messages import row_id
from longhaul.db.models import MessageRow, SessionRow
from testkit.product import Product
from testkit.wait import until
from tests.page.conftest import Visit
from tests.page.support import log

pytestmark = pytest.mark.backends("sqlite")  # the page knows nothing of the database
FIRST_LOAD_MAX = 350 * 1024


async def with_messages(product: Product, count: int) -> str:
    """A session with so many messages, which are put into its rows."""
    session = await product.api.create_session()
    now = datetime.now(UTC)
    rows = [
        {
            "id": row_id(session, at),
            "session_id": session,
            "sequence": at,
            "role": "assistant" if at % 2 else "user",
            "kind": "message",
            "content": f"Answer {at}. " + "It is a long road. " * (at % 40) if at % 2 else f"Question {at}?",
            "turn_id": row_id(session, "turn", at // 2),
            "round": at % 2,
            "client_message_id": None if at % 2 else row_id(session, "message", at),
            "is_error": False,
            "created_at": now - timedelta(seconds=count - at),
        }
        for at in range(count)
    ]
    async with product.database.write() as connection:
        await connection.execute(insert(MessageRow), rows)
        await connection.execute(update(SessionRow).where(SessionRow.id == session).values(next_sequence=count))
    return session


async def test_of_a_long_session_only_what_is_near_is_in_the_document(product: Product, visit: Visit) -> None:
    session = await with_messages(product, 2000)
    page = await (await visit(product)).look(f"/s/{session}")
    messages = log(page).locator("[data-from]")
    await expect(log(page).get_by_text("Answer 1999.")).to_be_in_viewport()
    seen: set[str] = set()

    async def earlier() -> bool:
        """Look at what is there, then scroll up by less than that; whether Answer 1899 has been reached."""
        texts = [text.split()[1].strip(".?") for text in await messages.all_text_contents()]
        numbers = [int(number) for number in texts]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))  # in order, none is missing or shown twice
        assert len(numbers) < 100
        seen.update(texts)
        await page.mouse.wheel(0, -1000)
        return "1899" in texts

    await page.mouse.move(700, 300)
    await until(earlier, what="Answer 1899, which is on the second page")
    assert {str(number) for number in range(1899, 1990)} <= seen  # the view was at the end when it was looked at first
    await page.get_by_role("button", name="Go to the newest message").click()
    await expect(log(page).get_by_text("Answer 1999.")).to_be_in_viewport()


async def test_the_first_load_is_small_and_from_here(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    page = await visitor.context.new_page()
    async with page.expect_request_finished(lambda request: "/v1/" in request.url):
        await page.goto(product.url())
    await page.get_by_label("Message", exact=True).wait_for()
    loaded = await page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".filter(entry => !entry.name.includes('/v1/')).map(entry => [entry.name, entry.encodedBodySize])"
    )
    assert any(name.endswith(".js") for name, _ in loaded)
    assert sum(size for _, size in loaded) < FIRST_LOAD_MAX, sorted(loaded, key=lambda entry: -entry[1])[:5]
    assert visitor.hosts == {product.url().split("/")[2]}
