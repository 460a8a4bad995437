"""Files in a chat, in a real browser: attached, shown, saved."""

import base64
import re

import pytest
from playwright.async_api import Page, expect

from testkit.product import Product
from testkit.servers import calling
from tests.page.conftest import Visit
from tests.page.support import log, send, shows_what_is_stored, until_idle

pytestmark = pytest.mark.backends("sqlite")  # the page knows nothing of the database
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
GIVE = """([name, text, event]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name, { type: "text/plain" }));
    const field = document.querySelector("textarea");
    if (event === "paste") field.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
    else field.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""


async def attach(page: Page, name: str, content: bytes) -> None:
    """Choose a file by the button, and wait until it is uploaded."""
    async with page.expect_file_chooser() as chooser:
        await page.get_by_role("button", name="Attach files").click()
    await (await chooser.value).set_files({"name": name, "mimeType": "application/x", "buffer": content})
    await uploaded(page, name)


async def uploaded(page: Page, name: str) -> None:
    """Wait until a file is uploaded."""
    entry = page.get_by_role("list", name="Files of the next message").get_by_role("listitem").filter(has_text=name)
    await expect(entry).to_be_visible()
    await expect(entry.get_by_role("progressbar")).to_have_count(0)


async def test_files_are_attached_by_button_paste_and_drop_and_shown(product: Product, visit: Visit) -> None:
    session, page = await (await visit(product)).chat()
    await attach(page, "pixel.png", PIXEL)
    for name, event in (("pasted.txt", "paste"), ("dropped.txt", "drop")):
        await page.evaluate(GIVE, [name, f"from {event}", event])
        await uploaded(page, name)
    await page.get_by_role("button", name="Remove pasted.txt").click()
    await send(page, calling("share_file", path="uploads/dropped.txt"))
    await until_idle(page)
    for _ in range(2):
        files = log(page).get_by_role("list", name="Files")
        await expect(files).to_have_count(2)
        await expect(files.first.get_by_role("listitem")).to_have_count(2)
        image = files.first.get_by_role("img", name="pixel.png")
        await expect(image).to_be_visible()
        assert await image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1
        await expect(files.last).to_contain_text("dropped.txt")
        await page.reload()
    async with page.expect_download() as download:
        await log(page).get_by_role("button", name="Download dropped.txt").last.click()
    saved = await (await download.value).path()
    assert saved.read_text() == "from drop"
    await log(page).get_by_role("button", name="Enlarge pixel.png").click()
    await expect(page.get_by_role("dialog").get_by_role("img", name="pixel.png")).to_be_visible()
    await page.keyboard.press("Escape")
    await shows_what_is_stored(page, product, session)


async def test_a_follow_up_has_its_files_and_an_upload_that_fails_says_so(product: Product, visit: Visit) -> None:
    visitor = await visit(product)
    session, page = await visitor.chat()
    await visitor.context.route("**/v1/files", lambda route: route.abort())
    await page.evaluate(GIVE, ["lost.txt", "x", "drop"])
    entry = page.get_by_role("list", name="Files of the next message").get_by_role("listitem")
    await expect(entry.get_by_role("alert")).to_contain_text("The upload broke off")
    await page.get_by_role("button", name="Remove lost.txt").click()
    await visitor.context.unroute("**/v1/files")
    await send(page, "think: speak 120 [delay=25]")
    await expect(log(page)).to_contain_text(re.compile(r"(\w+ ){10}"))
    await attach(page, "later.txt", b"later")
    with product.servers.model.paused():  # the turn cannot end before the message waits
        await page.get_by_role("button", name="Send to the running turn").click()
        await expect(log(page).get_by_role("button", name="Download later.txt")).to_be_visible()
        await expect(page.get_by_text("Waits for the next step of the turn")).to_be_visible()
        await page.reload()
        await expect(page.get_by_text("Waits for the next step of the turn")).to_be_visible()
        await expect(log(page).get_by_role("button", name="Download later.txt")).to_be_visible()
    await until_idle(page)
    await expect(log(page).get_by_role("button", name="Download later.txt")).to_have_count(1)
    await shows_what_is_stored(page, product, session)
