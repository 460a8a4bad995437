"""The AI SDK's own client reads our streams: its schema accepts every part, and its message is what is stored."""

import json
from typing import Any
from uuid import uuid4

import pytest

from testkit.product import Product
from tests.ai_sdk.conftest import LOCK, command

pytestmark = pytest.mark.backends("postgresql")  # a stream has the same bytes on any database
ALL_AT_ONCE = "think: what is 17 * 23, and what is 2 * 2? speak 30"
SLOW = "think: what is 17 * 23? speak 40 [delay=25]"


async def chat(product: Product, session: str, text: str, **more: Any) -> dict[str, Any]:
    """Send a message with the SDK; see `chat.mjs`."""
    given = {"url": f"{product.url()}/v1/sessions/{session}/stream", "text": text, "messageId": str(uuid4()), **more}
    found: dict[str, Any] = json.loads(await command("node", "chat.mjs", given=given))
    assert found["errors"] == []
    return found


def joined(message: dict[str, Any], kind: str) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == kind)


async def check(product: Product, session: str, message: dict[str, Any]) -> None:
    """The SDK's message is what is stored, byte for byte."""
    turn = (await product.api.turns(session))[0]
    assert (message["id"], message["role"], turn["status"]) == (turn["turn_id"], "assistant", "completed")
    rows = [row for row in await product.api.messages(session) if row["turn_id"] == message["id"]]

    def stored(role: str) -> str:
        return "".join(row["content"] for row in rows if row["role"] == role)

    assert joined(message, "text") == stored("assistant") != ""
    assert joined(message, "reasoning") == stored("reasoning") != ""
    assert {part["state"] for part in message["parts"] if part["type"] in ("text", "reasoning")} == {"done"}
    tools = {part["toolCallId"]: part for part in message["parts"] if part["type"].startswith("tool-")}
    results = {row["tool_call_id"]: row for row in rows if row["role"] == "tool"}
    assert tools.keys() == results.keys()
    calls = {call["id"]: call["function"] for row in rows for call in row["tool_calls"] or ()}
    for id_, part in tools.items():
        assert part["type"] == f"tool-{calls[id_]['name']}"
        assert (part["state"], part["output"]) == ("output-available", results[id_]["content"])
        assert part["input"] == json.loads(calls[id_]["arguments"])


async def test_a_turn_with_everything(product: Product, node_modules: None) -> None:
    session = await product.api.create_session()
    found = await chat(product, session, ALL_AT_ONCE)
    await check(product, session, found["message"])
    tools = [part for part in found["message"]["parts"] if part["type"] == "tool-calculator"]
    assert [part["output"] for part in tools] == ["391", "4"]
    assert found["types"][0] == "start"
    assert found["types"][-1] == "finish"
    assert {"reasoning-delta", "text-delta", "tool-input-start", "tool-input-available"} <= set(found["types"])


async def test_our_own_parts_are_data_parts_of_the_sdk(product: Product, node_modules: None) -> None:
    session = await product.api.create_session()
    found = await chat(product, session, "2+3")
    assert {"data-progress", "data-usage"} <= {part["type"] for part in found["data"]}
    kept = {part["type"] for part in found["message"]["parts"] if part["type"].startswith("data-")}
    assert "data-progress" not in kept, "a transient part must not stay in the message"
    assert "data-usage" in kept
    assert all(part.get("transient") is True for part in found["data"] if part["type"] == "data-progress")


@pytest.mark.parametrize("cut_after", [1, 4, 9, 25])
async def test_cut_and_joined_by_the_last_event_id(product: Product, node_modules: None, cut_after: int) -> None:
    session = await product.api.create_session()
    found = await chat(product, session, SLOW, cutAfter=cut_after)
    assert len(found["types"]) > cut_after
    assert (found["types"].count("start"), found["types"].count("finish")) == (1, 1)
    await check(product, session, found["message"])


async def test_cut_and_resumed_by_the_sdk(product: Product, node_modules: None) -> None:
    session = await product.api.create_session()
    found = await chat(product, session, SLOW, cutAfter=20, resume="replay")
    assert (found["messages"], found["status"]) == (2, "ready")
    assert 20 <= found["seen"] < len(joined(found["message"], "text"))
    await check(product, session, found["message"])


def test_the_lock_file_names_no_host() -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert "://" not in text
    assert '"resolved"' not in text
    assert text.count('"integrity"') == len(json.loads(text)["packages"]) - 1
