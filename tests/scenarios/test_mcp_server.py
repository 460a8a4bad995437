"""A turn from an MCP client: started, watched over the restart of an API, and stopped."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.servers import script
from testkit.wait import until


@asynccontextmanager
async def mcp(product: Product) -> AsyncIterator[Client]:
    """The SDK's client at the newest API."""
    async with Client(streamable_http_client(f"{product.url(product.apis[-1])}/mcp")) as client:
        yield client


async def call(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    [block] = result.content
    assert block.type == "text"
    assert not result.is_error, block.text
    decoded: dict[str, Any] = json.loads(block.text)
    return decoded


async def ended(client: Client, session: str, turn: str) -> dict[str, Any]:
    """A turn that has ended; a wait of the tool is shorter than a turn may be."""
    for _ in range(20):
        watched = await call(client, "watch_turn", session_id=session, turn_id=turn, wait_seconds=10)
        if watched["answer"] is not None:
            return watched
    raise AssertionError(f"the turn has not ended: {watched}")


@pytest.mark.backends("sqlite")
async def test_start_watch_and_stop(make_product: MakeProduct) -> None:
    product = await make_product(settings={"LONGHAUL_MCP_SERVER": "true"})
    async with mcp(product) as client:
        started = await call(client, "start_turn", message="What is 17 * 23?")
        session, turn = started["session_id"], started["turn_id"]
        assert started["disposition"] == "started"
        assert "391" in (await ended(client, session, turn))["answer"]

        message_id = "11111111-1111-4111-8111-111111111111"
        long = {"session_id": session, "message": script({"call": "wait", "arguments": {"seconds": 100}})}
        started = await call(client, "start_turn", **long, message_id=message_id)
        watched = await call(client, "watch_turn", session_id=session, turn_id=started["turn_id"], wait_seconds=0)
        assert (watched["status"], watched["answer"]) == ("running", None)

    product.kill(product.apis[0])
    await product.start_api()
    async with mcp(product) as client:
        again = await call(client, "start_turn", **long, message_id=message_id)
        assert again["turn_id"] == started["turn_id"], "the same message is the same turn"
        stopped = await call(client, "stop_turn", session_id=session)
        assert (stopped["cancelled"], stopped["turn_id"]) == (True, started["turn_id"])
        assert (await ended(client, session, started["turn_id"]))["status"] == "cancelled"

        delegation = await call(client, "start_turn", session_id=session, message="delegate: what is 2*3?; wait 90 s")
        waits = await _waiting_child(client, session)
        stopped = await call(client, "stop_turn", session_id=waits)
        assert stopped["cancelled"], "a sub-session is stopped like any session"
        done = await ended(client, session, delegation["turn_id"])
        assert {one["status"] for one in done["sub_sessions"]} == {"completed", "cancelled"}


async def _waiting_child(client: Client, session: str) -> str:
    """The sub-session whose tool `wait` runs."""

    async def found() -> str | None:
        tree = await call(client, "session_tree", session_id=session)
        waiting = (one for one in tree["children"] if (one["progress"] or {}).get("tools_running") == ["wait"])
        return next((str(one["session_id"]) for one in waiting), None)

    return await until(found, what="a sub-session waits")
