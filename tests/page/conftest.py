"""A real Chromium for the tests of the page. Debian's package has the program; Playwright's library drives it."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from scripts import build_page
from testkit.process import Process
from testkit.product import Product

AXE = build_page.WEB / "node_modules" / "axe-core" / "axe.min.js"
FIRST_LOOK_MS = 30_000


class Visitor:
    """One browser profile that looks at the page, and all that went wrong in it."""

    def __init__(self, context: BrowserContext, product: Product) -> None:
        self.context = context
        self.product = product
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        context.on("weberror", lambda error: self.problems.append(str(error.error)))
        context.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    async def look(self, path: str = "/", api: Process | None = None) -> Page:
        """A new tab at a path of the page, with its composer on the screen."""
        page = await self.context.new_page()
        page.set_default_timeout(FIRST_LOOK_MS)
        await page.goto(f"{self.product.url(api)}/#{path}")
        await page.get_by_label("Message", exact=True).wait_for()
        return page

    async def chat(self) -> tuple[str, Page]:
        """A new session, and a tab that shows it."""
        session = await self.product.api.create_session()
        return session, await self.look(f"/s/{session}")


Visit = Callable[..., Awaitable[Visitor]]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, with the page built from the sources as they are."""
    build_page.build()
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path is not None, "Chromium is missing; scripts/test_setup installs it"
    async with async_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        await browser.close()


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """Opens browser profiles, which are closed after the test."""
    visitors: list[Visitor] = []

    async def open_profile(product: Product, **options: Any) -> Visitor:
        visitor = Visitor(await browser.new_context(locale="en-US", **options), product)
        visitors.append(visitor)
        return visitor

    yield open_profile
    for visitor in visitors:
        await visitor.context.close()
        assert visitor.problems == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of the accessibility checker."""
    return Path(AXE).read_text(encoding="utf-8")
