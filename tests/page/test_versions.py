"""Edited messages, answers that are given again, and turns that are tried again, in a real browser."""

import pytest
from playwright.async_api import Page, expect

from testkit.product import Product
from tests.page.conftest import Visit
from tests.page.support import log, send, shows_what_is_stored, until_idle

pytestmark = pytest.mark.backends("sqlite")  # the page knows nothing of the database


async def edit(page: Page, text: str, wanted: str) -> None:
    """Send another text in place of a message."""
    message = log(page).locator(".group\\/user", has_text=text)
    await message.hover()
    await message.get_by_role("button", name="Edit this message").click()
    await page.get_by_label("New text of the message").fill(wanted)
    await page.get_by_label("New text of the message").press("Enter")


async def test_an_edited_message_replaces_what_followed_and_its_versions_are_kept(
    product: Product, visit: Visit
) -> None:
    session, page = await (await visit(product)).chat()
    for text, answer in (("What is 6 * 7?", "= 42"), ("What is 9 * 9?", "= 81")):
        await send(page, text)
        await expect(log(page)).to_contain_text(answer)
        await until_idle(page)
    await edit(page, "What is 6 * 7?", "What is 5 * 5?")
    await expect(log(page)).to_contain_text("= 25")
    await until_idle(page)
    await shows_what_is_stored(page, product, session)
    versions = log(page).get_by_role("group", name="Versions of this message")
    await expect(versions).to_contain_text("2 / 2")
    await versions.get_by_role("button", name="Older version").click()
    await expect(versions).to_contain_text("1 / 2")
    await expect(log(page)).to_contain_text("= 42")
    await expect(log(page)).to_contain_text("= 81")  # what followed that version
    await expect(log(page)).not_to_contain_text("= 25")
    await page.get_by_role("button", name="Back to the current one").click()
    await shows_what_is_stored(page, product, session)
    await page.reload()
    await expect(versions).to_contain_text("2 / 2")


async def test_an_answer_is_given_again(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, "What is 6 * 7?")
    await expect(log(page)).to_contain_text("= 42")
    await until_idle(page)
    await log(page).get_by_role("button", name="Answer again").click()
    versions = log(page).get_by_role("group", name="Versions of this message")
    await expect(versions).to_contain_text("2 / 2")
    await until_idle(page)
    await shows_what_is_stored(page, product, session)
    assert len(await product.api.turns(session)) == 2


async def test_a_failed_turn_is_tried_again(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await product.servers.model.fault("status:400", match=session, times=50)
    await send(page, f"What is 6 * 7? I ask in {session}.")
    await expect(log(page).get_by_role("alert")).to_be_visible()
    await until_idle(page)
    await product.servers.model.clear_faults()
    await log(page).get_by_role("button", name="Try again").click()
    await expect(log(page)).to_contain_text("= 42")
    await until_idle(page)
    await expect(log(page).get_by_role("alert")).to_have_count(0)
    await shows_what_is_stored(page, product, session)
    assert [turn["status"] for turn in await product.api.turns(session)] == ["completed", "failed"]
