"""A call that waits for a person, on real servers: seen everywhere, answered once by its owner, outliving a worker."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import jwt
import orjson
import pytest

from longhaul.temporal import workflow_id
from testkit.checks import check_rows
from testkit.client import LiveStream, RecordingClient
from testkit.grammar import check_stream
from testkit.pool import Pool
from testkit.product import Product
from testkit.wait import until
from tests.scenarios.support import next_message_works

SECRET = "a secret that only this test knows, long enough"
OPEN_PAGE = {"name": "open_page", "description": "Shows a page.", "parameters": {"type": "object"}}
WAIT = {"name": "wait"}
SETTINGS = {"LONGHAUL_AUTH": "jwt", "LONGHAUL_JWT_SECRET": SECRET, "LONGHAUL_APPROVE": "write_file(path=*.txt)"}


@pytest.fixture(scope="module")
async def product(server_pool: Pool) -> AsyncIterator[Product]:
    """A product in which writing a text file needs consent; one for all tests here."""
    async with AsyncExitStack() as stack:
        yield await server_pool.make(stack, settings=SETTINGS)


def client(product: Product, user: str) -> RecordingClient:
    token = jwt.encode({"sub": user, "exp": 2**32}, SECRET, "HS256")
    return product.client(headers={"Authorization": f"Bearer {token}"})


async def asked(api: RecordingClient, session: str, text: str) -> tuple[LiveStream, dict[str, Any]]:
    """A turn whose call waits for its person, and what that person is asked."""
    live = await api.open(session, text)
    await live.until_seen("data-approval")

    async def listed() -> list[dict[str, Any]]:
        answer = await api.call("GET", f"/approvals?session_id={session}")
        found: list[dict[str, Any]] = answer.body["data"]
        return found

    (approval,) = await until(listed, what="the call is listed")
    return live, approval


async def decide(api: RecordingClient, approval: str, **decision: Any) -> int:
    return (await api.call("POST", f"/approvals/{approval}", json=decision)).status


async def test_a_worker_is_killed_while_a_call_waits(product: Product) -> None:
    alice, bob = client(product, "alice"), client(product, "bob")
    session = await alice.create_session()
    live, approval = await asked(alice, session, "write notes.txt: hello")
    assert (approval["status"], approval["tool_name"], approval["kind"]) == ("waiting", "write_file", "approval")
    assert approval["arguments"] == {"path": "notes.txt", "content": "hello"}

    turn = approval["turn_id"]
    handle = (await product.temporal()).get_workflow_handle(workflow_id(session))

    async def shown_everywhere() -> bool:
        seen = [(await alice.progress(session, turn))["status"], (await alice.turns(session))[0]["status"]]
        described = await handle.describe()
        seen += [described.search_attributes["LonghaulStatus"][0]]
        return seen == ["waiting_for_approval"] * 3 and not described.raw_description.pending_activities

    await until(shown_everywhere, what="the turn waits, and holds no slot")
    path = f"/approvals/{approval['id']}"
    assert (await bob.call("GET", path)).status == 404
    assert await decide(bob, approval["id"], decision="allow") == 404
    assert (await bob.call("GET", "/approvals")).body["data"] == []

    product.kill(product.workers[0])
    assert await decide(alice, approval["id"], decision="allow", arguments={"path": "b.txt", "content": "bye"}) == 200
    assert await decide(alice, approval["id"], decision="deny") == 409
    await product.start_worker()
    log = check_stream(await live.done())
    assert [part["data"]["status"] for part in log.parts("data-approval")] == ["waiting", "allowed"]
    found = await check_rows(product.database, sessions=[session])
    (result,) = found.of(session, "tool")
    assert (result.content, result.is_error) == ('{"path":"b.txt","characters":3}', False)
    assert (await alice.call("GET", path)).body["new_arguments"] == {"path": "b.txt", "content": "bye"}


async def test_denied_allowed_for_the_session_and_stopped(product: Product) -> None:
    alice = client(product, "alice")
    session = await alice.create_session()
    for refused in ({}, {"decision": "maybe"}, {"answer": "yes"}, {"decision": "deny", "arguments": {}}):
        if refused == {}:
            live, approval = await asked(alice, session, "write a.txt: one")
        assert await decide(alice, approval["id"], **refused) == 422
    assert await decide(alice, approval["id"], decision="deny", reason="Not there.") == 200
    log = check_stream(await live.done())
    (denied,) = log.parts("tool-output-error")
    assert "Not there." in denied["errorText"]

    live, approval = await asked(alice, session, "write a.txt: two")
    assert (await alice.cancel(session)).body["status"] == "cancelled"
    assert await decide(alice, approval["id"], decision="allow") == 409
    assert check_stream(await live.done()).count("abort") == 1
    assert (await alice.call("GET", f"/approvals/{approval['id']}")).body["status"] == "cancelled"

    live, approval = await asked(alice, session, "write a.txt: three")
    assert await decide(alice, approval["id"], decision="allow", scope="session") == 200
    check_stream(await live.done())
    log = check_stream(await alice.stream(session, "write b.txt: four"))
    assert (log.count("data-approval"), log.count("tool-output-available")) == (0, 1)
    live, approval = await asked(alice, await alice.create_session(), "write b.txt: five")
    assert await decide(alice, approval["id"], decision="deny") == 200
    check_stream(await live.done())
    await next_message_works(product, session, alice)


async def test_a_tool_of_the_client(product: Product) -> None:
    """Its result counts once, from its owner alone, for its own call; a message meanwhile does not take its place."""
    alice, bob = client(product, "alice"), client(product, "bob")
    session = await alice.create_session()
    wanted = await alice.call("POST", f"/sessions/{session}/messages", json={"message": "hi", "client_tools": [WAIT]})
    assert (wanted.status, "tool wait is Longhaul's own" in wanted.body["detail"]) == (422, True)
    calls = [{"call": "open_page", "arguments": {"page": page}} for page in ("a", "b")]
    message = {"message": orjson.dumps({"script": calls}).decode(), "client_tools": [OPEN_PAGE]}
    started = await alice.call("POST", f"/sessions/{session}/messages", json=message)
    assert started.status == 202

    async def both() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await alice.call("GET", f"/approvals?session_id={session}")).body["data"]
        return found if len(found) == 2 else []

    first, second = await until(both, what="both calls wait for the client")
    assert {(one["kind"], one["tool_name"], one["status"]) for one in (first, second)} == {
        ("client_tool", "open_page", "waiting")
    }
    assert await decide(bob, first["id"], output="opened") == 404
    assert await decide(alice, first["id"], decision="allow") == 422
    assert await decide(alice, first["id"], output="x" * 300_000) == 413
    assert (
        await alice.call("POST", f"/sessions/{session}/messages", json={"message": "and what is 6*7?"})
    ).status == 202
    for status, output in ((200, {"shown": "a"}), (200, {"shown": "a"}), (409, {"shown": "another"})):
        assert await decide(alice, first["id"], output=output) == status
    assert (await alice.call("GET", f"/approvals/{second['id']}")).body["status"] == "waiting"
    assert await decide(alice, second["id"], error="There is no page b.") == 200
    progress = await alice.wait_for_turn(session, started.body["turn_id"])
    assert progress["status"] == "completed"
    rows = await check_rows(product.database, sessions=[session])
    results = {row.tool_call_id: (row.content, row.is_error) for row in rows.of(session, "tool")}
    assert results[first["tool_call_id"]] == ('{"shown":"a"}', False)
    assert results[second["tool_call_id"]] == ("There is no page b.", True)
    assert "42" in (rows.of(session, "assistant")[-1].content)
    assert len(await alice.turns(session)) == 1
