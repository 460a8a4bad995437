"""Read-only links: what they show, to whom, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
from sqlalchemy import update

from longhaul.db.models import ShareRow, utc_now
from testkit.pool import Pool
from testkit.product import Product
from testkit.wait import until

pytestmark = pytest.mark.integration
SECRET = "a secret that only the tests of links know"


def token(user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {jwt.encode({'sub': user, 'exp': 2**32}, SECRET, 'HS256')}"}


@pytest.fixture(scope="module")
async def guarded(server_pool: Pool) -> AsyncIterator[Product]:
    """A product that asks for tokens; one for all tests here."""
    async with AsyncExitStack() as stack:
        settings = {"LONGHAUL_AUTH": "jwt", "LONGHAUL_JWT_SECRET": SECRET, "LONGHAUL_STREAM_KEEP_ALIVE": "0.3"}
        yield await server_pool.make(stack, settings=settings)


async def read(product: Product, share: dict[str, Any], path: str = "", **query: Any) -> httpx2.Response:
    """What somebody who has nothing but the link reads."""
    return await product.client().http.get(f"/v1/shared/{share['token']}{path}", params=query)


async def test_a_link_shows_the_live_session_and_nothing_else(guarded: Product) -> None:
    alice = guarded.client(headers=token("alice"))
    other, session = await alice.create_session(title="secret"), await alice.create_session(title="Order 17")
    context = {"url": "https://intranet/page", "content": "what I was looking at"}
    turn = await alice.start(session, "wait 30 s", context=context)
    status, share = await alice.call("POST", f"/sessions/{session}/shares", json={})
    assert status == 201
    assert set(share) == {"id", "url", "token", "created_at", "expires_at"}
    assert (share["url"], share["expires_at"]) == (f"/shared/{share['token']}", None)

    async def begun() -> Any:
        return (await read(guarded, share)).json()["messages"]

    await until(begun, what="the turn has taken its message")
    page = await read(guarded, share)
    assert (page.json()["title"], page.json()["active_turn"]["turn_id"]) == ("Order 17", turn)
    assert "noindex" in page.headers["x-robots-tag"]
    assert page.headers["cache-control"] == "private, no-store"
    shown = await read(guarded, share, "/ui-messages")
    assert shown.json()[0]["parts"][0]["text"] == "wait 30 s"
    assert (await read(guarded, share, "/tree")).json()["session_id"] == session
    for text in (page.text, shown.text, (await read(guarded, share, "/tree")).text):
        assert other not in text
        assert "intranet" not in text
        assert "looking at" not in text
        assert "alice" not in text
    assert (await read(guarded, share, "/stream", turn_id=str(uuid4()))).status_code == 404
    for path in ("/turns", "/cancel", "/messages/pending", "/shares"):
        assert (await read(guarded, share, path)).status_code == 404
    by_link = {"Authorization": f"Bearer {share['token']}"}
    assert (await guarded.client().http.get(f"/v1/sessions/{session}", headers=by_link)).status_code == 401
    posted = await guarded.client().http.post(f"/v1/shared/{share['token']}", json={"message": "hi"})
    assert posted.status_code in (404, 405)
    await alice.cancel(session)
    assert (await read(guarded, share, "/stream")).status_code == 204
    ended = await read(guarded, share, "/stream", turn_id=turn)
    assert '"type":"abort"' in ended.text
    assert (await guarded.client().http.get(share["url"])).headers["x-robots-tag"] == "noindex, nofollow"


async def test_a_revoked_link_shows_nothing_any_more(guarded: Product) -> None:
    alice, bob = guarded.client(headers=token("alice")), guarded.client(headers=token("bob"))
    session, bobs = await alice.create_session(), await bob.create_session()
    path = f"/sessions/{session}/shares"
    one, two = [(await alice.call("POST", path, json={})).body for _ in range(2)]
    assert one["token"] != two["token"]
    listed = (await alice.call("GET", path)).body
    assert [share["id"] for share in listed["data"]] == [two["id"], one["id"]]
    first = (await alice.call("GET", path, params={"limit": 1})).body
    assert (first["data"], first["has_more"]) == ([two], True)
    rest = (await alice.call("GET", path, params={"cursor": first["next_cursor"]})).body
    assert (rest["data"], rest["has_more"], rest["next_cursor"]) == ([one], False, None)
    assert (await bob.call("POST", path, json={})).status == 404
    for client, of in ((bob, session), (bob, bobs)):
        assert (await client.call("DELETE", f"/sessions/{of}/shares/{one['id']}")).status == 404
    await alice.start(session, "wait 30 s")

    async def follow() -> str:
        return (await read(guarded, one, "/stream")).text

    async def runs() -> bool:
        return (await read(guarded, one)).json()["active_turn"] is not None

    await until(runs, what="a turn runs")
    following = asyncio.create_task(follow())
    await until(lambda: alice_streams(guarded), what="the stream is open")
    assert (await alice.call("DELETE", f"{path}/{one['id']}")).status == 204
    text = await asyncio.wait_for(following, 20)
    assert "[DONE]" not in text, "it was cut off, the turn goes on"
    for where in ("", "/ui-messages", "/stream", "/tree"):
        assert (await read(guarded, one, where)).status_code == 404
    assert (await read(guarded, two)).status_code == 200, "the other link goes on"
    assert (await alice.call("DELETE", f"{path}/{one['id']}")).status == 404
    await alice.cancel(session)
    await alice.call("DELETE", f"/sessions/{session}")
    assert (await read(guarded, two)).status_code == 404


async def alice_streams(product: Product) -> bool:
    """Whether a stream is open, as the metrics say."""
    text = (await product.client().http.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("longhaul_streams_open")]
    return any(float(line.rsplit(" ", 1)[1]) > 0 for line in lines)


async def test_readers_of_a_link_take_no_stream_from_its_owner(server_pool: Pool) -> None:
    async with AsyncExitStack() as stack:
        product = await server_pool.make(stack, settings={"LONGHAUL_MAX_STREAMS": "1"})
        session = await product.api.create_session()
        live = await product.api.open(session, "wait 30 s")
        await live.until_seen("start")
        share = (await product.api.call("POST", f"/sessions/{session}/shares", json={})).body
        path = f"/v1/shared/{share['token']}/stream"
        async with product.api.http.stream("GET", path) as reading:
            assert reading.status_code == 200, "the owner has one open"
            assert (await product.api.http.get(path)).status_code == 429
        await product.api.cancel(session)
        await live.done()


async def test_a_link_expires(guarded: Product) -> None:
    alice = guarded.client(headers=token("alice"))
    session = await alice.create_session()
    path = f"/sessions/{session}/shares"
    for refused in (59, -1, "soon", 10**9):
        assert (await alice.call("POST", path, json={"expires_in": refused})).status == 422
    share = (await alice.call("POST", path, json={"expires_in": 60})).body
    assert (await read(guarded, share)).json()["expires_at"] == share["expires_at"]
    async with guarded.database.write() as connection:
        past = utc_now() - timedelta(seconds=1)
        await connection.execute(update(ShareRow).where(ShareRow.id == share["id"]).values(expires_at=past))
    for where in ("", "/ui-messages", "/stream", "/tree"):
        assert (await read(guarded, share, where)).status_code == 404
    assert len((await alice.call("GET", path)).body["data"]) == 1, "its owner sees that it has expired"
