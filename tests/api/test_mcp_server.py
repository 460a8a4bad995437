"""`/mcp`: who may call it, what it shows, and that it goes around no check of the routes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from longhaul.contracts import Progress, TurnStatus
from longhaul.db import turns
from longhaul.db.messages import NewMessage, append
from longhaul.db.models import utc_now
from tests.api.test_security import SECRET, bearer, send_endless, serving

TOOLS = {"start_turn", "watch_turn", "stop_turn", "list_sessions", "read_session", "session_tree"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
JSON = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(tmp_path, auth="jwt", jwt_secret=SECRET, mcp_server=True, temporal_rpc_timeout=0.2) as client:
        yield client


@asynccontextmanager
async def mcp(api: httpx2.AsyncClient, user: str = "alice", mode: str = "auto") -> AsyncIterator[Client]:
    """The SDK's client, for a user."""
    app = api.app  # type: ignore[attr-defined]
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    http = httpx2.AsyncClient(transport=transport, headers=bearer(user))
    async with http, Client(streamable_http_client("http://localhost/mcp", http_client=http), mode=mode) as client:
        yield client


async def call(client: Client, name: str, **arguments: Any) -> tuple[Any, bool]:
    """What a tool answers, and whether it is an error."""
    result = await client.call_tool(name, arguments)
    text = "".join(block.text for block in result.content if block.type == "text")
    return (text, True) if result.is_error else (json.loads(text), False)


async def session_of(api: httpx2.AsyncClient, user: str = "alice") -> str:
    return str((await api.post("/v1/sessions", headers=bearer(user))).json()["id"])


async def test_it_is_off_by_default(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        assert (await client.post("/mcp", json=LIST, headers=JSON)).status_code == 404


async def test_without_a_token(api: httpx2.AsyncClient) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        refused = await api.post("/mcp", json=LIST, headers={**JSON, **headers})
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
    token = bearer()["authorization"].split()[1]
    assert (await api.post(f"/mcp?token={token}", json=LIST, headers=JSON)).status_code == 401
    assert (await api.get("/mcp", headers=bearer())).status_code == 405, "no streams are opened"


async def test_a_page_of_another_site_is_not_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, mcp_server=True) as local:
        foreign = {**JSON, "origin": "https://evil.example"}
        assert (await local.post("/mcp", json=LIST, headers=foreign)).status_code == 403
        assert (await local.post("/mcp", json=LIST, headers={**JSON, "host": "evil.example"})).status_code == 403
        assert (await local.post("/mcp", json=LIST, headers=JSON)).status_code == 200


async def test_a_body_without_an_end(api: httpx2.AsyncClient) -> None:
    status, taken, _ = await send_endless(api, "POST", "/mcp", {**JSON, **bearer()})
    assert status == 413
    assert taken < 10_000_000
    status, taken, _ = await send_endless(api, "POST", "/mcp", JSON)
    assert (status, taken) == (401, 0)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_sessions_of_others_are_not_there(api: httpx2.AsyncClient, mode: str) -> None:
    hers, his = await session_of(api), await session_of(api, "bob")
    async with mcp(api, mode=mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        listed, _ = await call(client, "list_sessions")
        assert [one["id"] for one in listed["data"]] == [hers]
        assert (await call(client, "read_session", session_id=hers))[0]["messages"] == []
        assert (await call(client, "session_tree", session_id=hers))[0]["children"] == []
        missing = str(uuid4())
        for name, more in (
            *(("read_session", {}), ("session_tree", {}), ("stop_turn", {})),
            *(("watch_turn", {"turn_id": "t"}), ("start_turn", {"message": "hello"})),
        ):
            foreign, refused = await call(client, name, session_id=his, **more)
            absent, _ = await call(client, name, session_id=missing, **more)
            assert refused
            assert "not-found" in foreign
            assert foreign.replace(his, "x") == absent.replace(missing, "x")


async def test_an_ended_turn_and_its_answer(api: httpx2.AsyncClient) -> None:
    session = await session_of(api)
    database = api.app.state.dependencies.database  # type: ignore[attr-defined]
    row = NewMessage("row", "assistant", content="42", turn_id="turn", round=1)
    async with database.write() as connection:
        turn = turns.NewTurn("turn", session, "alice", "m", "fast", "standard", utc_now())
        await turns.start(connection, turn)
        await append(connection, session, [row])
        done = Progress(turn_id="turn", session_id=session, status=TurnStatus.COMPLETED, started_at=turn.started_at)
        await turns.end(connection, turn, done)
    async with mcp(api) as client:
        watched, _ = await call(client, "watch_turn", session_id=session, turn_id="turn")
    assert (watched["status"], watched["answer"], watched["turn_id"]) == ("completed", "42", "turn")


@pytest.mark.parametrize("wrong", ["..", ".", "../../admin/usage", "a/b", "%2e%2e", "a?x=1", "\x00"])
async def test_an_id_leads_to_no_other_route(api: httpx2.AsyncClient, wrong: str) -> None:
    async with mcp(api) as client:
        for name in ("read_session", "session_tree", "stop_turn"):
            text, refused = await call(client, name, session_id=wrong)
            assert refused
            assert "not-found" in text


async def test_limits_are_those_of_the_routes(api: httpx2.AsyncClient) -> None:
    session = await session_of(api)
    async with mcp(api) as client:
        text, refused = await call(client, "start_turn", session_id=session, message="x" * 40_000)
        assert refused
        assert "32000" in text
        text, refused = await call(client, "start_turn", session_id=session, message="hello", message_id="no uuid")
        assert refused
        assert "(" in text
        text, refused = await call(client, "start_turn", session_id=session, message="hello")
        assert (refused, "unavailable" in text) == (True, True), "Temporal is away here"
