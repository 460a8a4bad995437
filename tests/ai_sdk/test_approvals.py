"""Approvals and questions in the AI SDK's own chats: what each tab shows is what is stored, also after a reload."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest

from testkit.checks import check_rows
from testkit.pool import Pool
from testkit.product import Product
from tests.ai_sdk.test_use_chat import Browser, text

QUESTION = {"call": "ask_user", "arguments": {"question": "Which colour?"}}


@pytest.fixture(scope="module")
async def product(server_pool: Pool) -> AsyncIterator[Product]:
    async with AsyncExitStack() as stack:
        yield await server_pool.make(stack, settings={"LONGHAUL_APPROVE": "write_file"})


async def stored(browser: Browser, version: str) -> list[dict[str, Any]]:
    """The conversation as `UIMessage[]`, when nothing runs any more."""
    await browser.product.api.until_idle(browser.session)
    await check_rows(browser.product.database, sessions=[browser.session])
    address = f"/v1/sessions/{browser.session}/ui-messages"
    messages: list[dict[str, Any]] = (await browser.product.api.http.get(address, params={"ai": version})).json()
    return messages


@pytest.mark.parametrize(("sdk", "version"), [("ai", "6"), ("ai7", "7")])
async def test_approvals_and_questions(product: Product, node_modules: None, sdk: str, version: str) -> None:
    """Two calls wait while a third runs; a reloaded tab answers. Then one is denied, and a question answered."""
    browser = Browser(product, sdk, f"?ai={version}", automatic=True)
    write = {"call": "write_file", "arguments": {"path": "a.txt", "content": "hello"}}
    both = [write, {**write, "arguments": {"path": "b.txt", "content": "bye"}}]
    calls = orjson.dumps({"script": [*both, {"call": "calculator", "arguments": {"expression": "6*7"}}]}).decode()
    tabs = await browser.run(
        *({"send": calls}, {"asked": "approval-requested"}, {"history": True}, {"open": True}),
        *({"tab": 1, "respond": {"approved": True}}, {"tab": 1, "until": "42"}, {"tab": 1, "idle": True}),
        *({"tab": 1, "asked": "output-available"}, {"tab": 1, "send": "write c.txt: no"}),
        *({"tab": 1, "asked": "approval-requested"}, {"tab": 1, "respond": {"approved": False, "reason": "Not c."}}),
        *({"tab": 1, "until": "Not c."}, {"tab": 1, "idle": True}, {"tab": 1, "asked": "output-error"}),
        *({"tab": 1, "send": orjson.dumps({"script": [QUESTION]}).decode()}, {"tab": 1, "asked": "input-available"}),
        *({"tab": 1, "output": "green"}, {"tab": 1, "until": "ask_user: green."}, {"tab": 1, "settle": True}),
        *({"tab": 1, "idle": True}, {"tab": 1, "asked": "output-available"}),
    )
    messages = await stored(browser, version)
    assert [tab["errors"] for tab in tabs] == [[], []]
    assert tabs[1]["messages"] == messages
    first, second, third = (one for one in messages if one["role"] == "assistant")
    outputs = [part["state"] for part in first["parts"] if part["type"] == "tool-write_file"]
    assert outputs == ["output-available", "output-available"]
    [denied] = [part for part in second["parts"] if part["type"] == "tool-write_file"]
    assert (denied["state"], denied["approval"]["approved"]) == ("output-error", False)
    assert "Not c." in text(second)
    assert "green" in text(third)
    [waiting] = [one for one in tabs[0]["messages"] if one["role"] == "assistant"]
    assert [part["state"] for part in waiting["parts"] if part["type"] == "tool-write_file"] == [
        "approval-requested"
    ] * 2


async def test_answers_to_what_does_not_wait(product: Product) -> None:
    """A client that sends the same answers again gets the rest, and one that has everything gets no endless loop."""
    session = await product.api.create_session()
    log = await product.api.stream(session, "2+3")
    message = {"id": log.turn_id, "role": "assistant", "parts": [{"type": "step-start"}]}

    async def post(message: dict[str, Any], chat: str = session) -> int:
        body = {"id": chat, "messages": [message], "trigger": "submit-message"}
        return (await product.api.http.post("/v1/chat", json=body, params={"ai": "6"})).status_code

    assert await post(message) == 409
    assert await post({**message, "id": "unknown"}) == 404
    assert await post(message, await product.api.create_session()) == 404
