"""Beside the chat, in a real browser: links for others, schedules, the view of admins, notifications."""

import pytest
from playwright.async_api import Page, expect

from testkit.product import Product
from testkit.wait import until
from tests.page.conftest import Visit
from tests.page.support import log, send, shows_what_is_stored, until_idle

pytestmark = pytest.mark.backends("sqlite")  # the page knows nothing of the database
RECORD = """window.told = []; window.Notification = class {
    static permission = "granted";
    static requestPermission = async () => "granted";
    constructor(title, options) { window.told.push(options.body); }
}"""


async def serious(page: Page, axe: str) -> list[str]:
    """What the accessibility checker finds, in the dialog if one is open."""
    await page.evaluate(axe)
    result = await page.evaluate("axe.run(document.querySelector('[role=dialog]') ?? document)")
    found = [one for one in result["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]


async def test_a_link_shows_a_chat_to_others_until_it_is_revoked(product: Product, visit: Visit, axe: str) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, "What is 6 * 7?")
    await expect(log(page)).to_contain_text("= 42")
    await until_idle(page)
    await page.get_by_role("button", name="Share", exact=True).click()
    dialog = page.get_by_role("dialog", name="Share")
    await dialog.get_by_role("button", name="Make a link").click()
    link = dialog.get_by_role("list", name="Links of this chat").get_by_role("link")
    address = await link.get_attribute("href")
    other = await (await visit(product, color_scheme="dark")).context.new_page()
    await other.goto(f"{product.url()}{address}")
    await expect(log(other)).to_contain_text("= 42")
    await shows_what_is_stored(other, product, session)
    await expect(other.get_by_role("textbox")).to_have_count(0)
    assert await serious(other, axe) == []
    assert await serious(page, axe) == []
    await dialog.get_by_role("button", name="Revoke this link").click()
    await expect(link).to_have_count(0)
    await expect(other.get_by_role("alert")).to_contain_text("This link was revoked")


async def test_schedules_are_made_paused_run_and_removed(product: Product, visit: Visit, axe: str) -> None:
    visitor = await visit(product)
    page = await visitor.look()
    await page.get_by_role("link", name="Schedules").click()
    form = page.get_by_role("form", name="New schedule")
    await form.get_by_label("Message").fill("What is 6 * 7?")
    await form.get_by_label("Cron").fill("not a cron")
    await form.get_by_role("button", name="Make the schedule").click()
    await expect(form.get_by_role("alert")).to_contain_text("five fields")
    await form.get_by_label("Cron").fill("0 9 * * 1")
    await form.get_by_role("button", name="Make the schedule").click()
    entry = page.get_by_role("region", name="Schedules").get_by_role("listitem")
    await expect(entry).to_contain_text("0 9 * * 1")
    await entry.get_by_role("button", name="Pause").click()
    await expect(entry).to_contain_text("paused")
    assert await serious(page, axe) == []
    await entry.get_by_role("button", name="Delete").click()
    await expect(entry).to_have_count(0)


async def test_admins_see_what_was_used_and_by_whom(product: Product, visit: Visit, axe: str) -> None:
    session = await product.api.create_session()
    await product.api.wait_for_turn(session, await product.api.start(session, "What is 6 * 7?"))
    page = await (await visit(product)).look()
    await page.get_by_role("link", name="Administration").click()
    for name in ("By user", "By model"):
        await expect(page.get_by_role("list", name=name).get_by_role("listitem").first).to_contain_text("$")
    await expect(page.get_by_role("list", name="Cost by day").get_by_role("listitem")).to_have_count(30)
    assert await serious(page, axe) == []


async def test_a_turn_that_ends_in_the_background_is_told(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    await visitor.context.add_init_script(RECORD)
    _, page = await visitor.chat()
    await page.get_by_role("button", name="Tell me when an answer is ready").click()
    await send(page, "speak 60 [delay=20]")
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    await page.get_by_role("link", name="New chat").first.click()
    await expect(page.get_by_text("What can I do for you?")).to_be_visible()

    async def told() -> bool:
        return bool(await page.evaluate("window.told.length"))

    await until(told, what="a notification")
    assert len(await page.evaluate("window.told")) == 1
