"""Tools that a chat of the AI SDK runs in its page: called in mid-turn, and what the page shows is what is stored."""

from typing import Any

import orjson
import pytest

from longhaul.llm import prompts
from testkit.product import Product
from tests.ai_sdk.test_use_chat import Browser, every_sdk, text

pytestmark = pytest.mark.backends("postgresql")
WEATHER = {"name": "weather", "description": "Tells the weather.", "parameters": {"type": "object", "properties": {}}}
SUM = {"call": "calculator", "arguments": {"expression": "6*7"}}


def calls(*made: dict[str, Any]) -> str:
    return orjson.dumps({"script": made}).decode()


def states(message: dict[str, Any]) -> list[str]:
    return [part["state"] for part in message["parts"] if part["type"] == "tool-weather"]


@every_sdk
async def test_the_page_runs_its_tools(product: Product, node_modules: None, sdk: str) -> None:
    """By `onToolCall`, beside a tool of Longhaul; the turn goes on in the same message."""
    browser = Browser(product, sdk, automatic=True, tools=[WEATHER], runs={"weather": {"sky": "blue"}})
    asked = {"call": "weather", "arguments": {"city": "Rome"}}
    tabs = await browser.run(
        *({"send": calls(asked, SUM, {**asked, "arguments": {"city": "Oslo"}})}, {"until": "42"}, {"settle": True}),
    )
    [_, message] = await browser.check(*tabs)
    assert states(message) == ["output-available"] * 2
    assert len(await product.api.turns(browser.session)) == 1


async def test_a_result_that_comes_with_a_message(product: Product, node_modules: None) -> None:
    """The page puts out one result, and its person writes before it sends that: the other call is skipped."""
    browser = Browser(product, "ai", tools=[WEATHER])
    asked = {"call": "weather", "arguments": {"city": "Rome"}}
    [tab] = await browser.run(
        *({"send": calls(asked, asked)}, {"asked": "input-available"}, {"output": "sunny"}),
        *({"send": "and what is 6*7?"}, {"settle": True}),
    )
    await product.api.until_idle(browser.session)
    _, first, _, second = await browser.stored()
    assert "42" in text(second)
    assert tab["messages"][-1] == second
    assert (tab["errors"], states(first)) == ([], ["output-available", "output-error"])
    [skipped] = [part["errorText"] for part in first["parts"] if part.get("state") == "output-error"]
    assert skipped == prompts.CLIENT_SKIPPED
    assert len(await product.api.turns(browser.session)) == 1
