"""What tests of the page ask of it."""

from typing import Any

from playwright.async_api import Locator, Page, expect

from testkit.product import Product

LIMIT_MS = 30_000
expect.set_options(timeout=LIMIT_MS)


async def send(page: Page, text: str) -> None:
    """Type a message and press Enter."""
    field = page.get_by_label("Message", exact=True)
    await field.fill(text)
    await field.press("Enter")


def log(page: Page) -> Locator:
    """The conversation."""
    return page.get_by_role("log")


async def until_idle(page: Page) -> None:
    """Wait until no turn runs."""
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    await expect(log(page).get_by_role("status")).to_have_count(0)


async def stored(product: Product, session: str, role: str) -> list[str]:
    """The texts of one role, in order."""
    rows: list[dict[str, Any]] = await product.api.messages(session)
    return [row["content"] for row in rows if row["role"] == role and row["content"]]


async def shows_what_is_stored(page: Page, product: Product, session: str) -> None:
    """Every text of the person and of the copilot is shown, once and in order."""
    rows = await product.api.messages(session)
    texts = [row["content"] for row in rows if row["role"] in ("user", "assistant") and not row["is_error"]]
    wanted = [plain for text in texts if (plain := " ".join(text.split()))]
    await expect(log(page).locator("[data-from]")).to_have_text(wanted, use_inner_text=True)
