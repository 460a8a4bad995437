"""What a turn asks its person for and shows of its work, in a real browser: approvals, the plan."""

import pytest
from playwright.async_api import expect

from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.servers import script
from tests.page.conftest import Visit
from tests.page.support import log, send, shows_what_is_stored, until_idle

pytestmark = pytest.mark.backends("sqlite")  # the page knows nothing of the database


async def test_a_call_is_allowed_denied_and_asked_about_after_a_reload(make_product: MakeProduct, visit: Visit) -> None:
    product = await make_product(settings={"LONGHAUL_APPROVE": "write_file"})
    session, page = await (await visit(product)).chat()
    question = log(page).get_by_role("form", name="Your consent")
    await send(page, "write a.txt: one")
    await expect(question).to_contain_text("The copilot wants to run write_file.")
    await question.get_by_label("Why not (optional)").fill("Not this file.")
    await question.get_by_role("button", name="Deny").click()
    await until_idle(page)
    await expect(question).to_have_count(0)
    await expect(log(page).locator("details", has_text="write_file")).to_contain_text("Not this file.")
    await send(page, "write b.txt: two")
    await expect(question).to_be_visible()
    await page.reload()
    await question.get_by_role("button", name="Allow", exact=True).click()
    await until_idle(page)
    await expect(question).to_have_count(0)
    await shows_what_is_stored(page, product, session)
    turns = await product.api.turns(session)
    assert [turn["status"] for turn in turns] == ["completed", "completed"]


async def test_the_plan_is_shown_and_stays(product: Product, visit: Visit) -> None:
    plan = [{"step": "dig", "status": "completed"}, {"step": "rest", "status": "in_progress"}]
    _, page = await (await visit(product)).chat()
    await send(page, script({"call": "update_plan", "arguments": {"plan": plan}}))
    await until_idle(page)
    steps = log(page).get_by_role("region", name="Plan").get_by_role("listitem")
    for _ in range(2):
        await expect(steps).to_have_text(["dig", "rest"])
        await expect(steps.first.get_by_role("img", name="done")).to_be_visible()
        await page.reload()
