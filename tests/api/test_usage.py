"""Limits of costs over HTTP: every route that begins a turn refuses, follow-ups are taken, and users see percents."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import jwt
import pytest
from redis.asyncio import Redis

from longhaul.db import accounts
from longhaul.db.accounts import Action, Entry
from testkit.client import RecordingClient
from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.spending import spend

SECRET = "a secret for these tests alone, of enough bytes"
PRODUCT: ProductOptions = {
    "settings": {
        "LONGHAUL_AUTH": "jwt",
        "LONGHAUL_JWT_SECRET": SECRET,
        "LONGHAUL_DAILY_COST_LIMIT": "100000",
        "LONGHAUL_WEEKLY_COST_LIMIT": "500000",
        "LONGHAUL_TIERS": "FREE=1,PRO=10",
        "LONGHAUL_RESET_CREDITS": "30",
    }
}
DAY, WEEK = 100_000, 500_000


def client(product: Product, user: str, **claims: Any) -> RecordingClient:
    token = jwt.encode({"sub": user, "exp": 2**31, **claims}, SECRET, "HS256")
    return product.client(headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def user() -> str:
    return f"user-{uuid4()}"


async def test_over_the_limit_no_route_begins_a_turn(product: Product, user: str) -> None:
    api, other = client(product, user), client(product, f"other-{user}")
    running, idle, chat = await api.create_session(), await api.create_session(), uuid4().hex
    answered = await api.start(idle, "2+3", message_id := str(uuid4()))
    await api.wait_for_turn(idle, answered)
    turn = await api.start(running, "wait 60 s")
    await spend(product.database, user, WEEK)
    await product_counters_are_lost(product, user)
    completion = {
        "model": "standard",
        "messages": [{"role": "user", "content": "hi"}],
        "metadata": {"session_id": idle},
    }
    new_chat = {"id": chat, "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]}
    for path, body in (
        (f"/sessions/{idle}/messages", {"message": "hi"}),
        (f"/sessions/{idle}/stream", {"message": "hi"}),
        (f"/sessions/{idle}/ask", {"message": "hi"}),
        ("/chat", new_chat),
        ("/chat/completions", completion),
    ):
        response = await api.http.post(f"/v1{path}", json=body)
        refused = response.json()
        assert (response.status_code, refused["type"]) == (429, "urn:longhaul:problem:usage-limit"), path
        left = datetime.fromisoformat(refused["resets_at"]) - datetime.now(UTC)
        assert 0 < int(response.headers["retry-after"]) <= 7 * 86_400
        assert left.total_seconds() <= int(response.headers["retry-after"]) + 1
        assert "limit" in refused["detail"]
        assert str(WEEK) not in refused["detail"]
    assert len(await api.turns(idle)) == 1
    again = await api.post(idle, "2+3", message_id)
    assert (again.status, again.body["turn_id"]) == (202, answered), "a message that was answered is not refused"
    assert (await api.post(running, "and this?")).body["disposition"] == "queued"
    foreign = await other.create_session()
    assert (await api.post(foreign, "hi")).status == 404
    assert (await api.call("POST", f"/sessions/{idle}/messages", json={"message": ""})).status == 422
    assert (await other.post(foreign, "hi")).status == 202
    await asyncio.gather(api.cancel(running), other.until_idle(foreign))
    assert (await api.progress(running, turn))["status"] == "cancelled"


async def product_counters_are_lost(product: Product, user: str) -> None:
    """What a test enters in the ledger is not counted; as after a Redis that was emptied."""
    async with Redis.from_url(product.servers.redis.url(product.redis_database)) as redis:
        keys = [key async for key in redis.scan_iter(f"copilot:cost:{{{user}}}:*")]
        if keys:
            await redis.delete(*keys)


async def test_percents(product: Product, user: str) -> None:
    """Workers count what they book, in the counters that the API has made."""
    api = client(product, user)
    used = (await api.call("GET", "/usage")).body
    assert used.keys() == {"daily", "weekly", "tier", "reset_cost"}
    assert (used["tier"], used["reset_cost"], used["daily"]["percent_used"]) == ("FREE", 30, 0.0)
    assert datetime.fromisoformat(used["weekly"]["resets_at"]).weekday() == 0
    await spend(product.database, user, WEEK // 2)
    session = await api.create_session()
    await api.wait_for_turn(session, await api.start(session, "17*23 " + "and tell me more " * 1_000))
    counted = (await api.call("GET", "/usage")).body["weekly"]["percent_used"]
    assert 0.0 < counted < 50.0, "what workers have booked, and nothing else"
    await product_counters_are_lost(product, user)
    assert (await api.call("GET", "/usage")).body["weekly"]["percent_used"] == pytest.approx(counted + 50, abs=0.2)
    await spend(product.database, user, WEEK)
    await product_counters_are_lost(product, user)
    used = (await api.call("GET", "/usage")).body
    assert (used["daily"]["percent_used"], used["weekly"]["percent_used"]) == (100.0, 100.0)


async def test_a_tier_from_the_token(product: Product, user: str) -> None:
    pro = client(product, user, tier="pro", email="ada@example.com")
    await spend(product.database, user, DAY)
    assert (await pro.call("GET", "/usage")).body["tier"] == "PRO"
    session = await pro.create_session()
    await pro.wait_for_turn(session, await pro.start(session, "2+3"))
    assert 10.0 <= (await pro.call("GET", "/usage")).body["daily"]["percent_used"] < 20.0
    free = client(product, user)
    assert (await free.post(session, "hi")).status == 429, "a newer token says nothing of a tier"


async def test_a_reset_is_bought(product: Product, user: str) -> None:
    api = client(product, user)

    async def reset() -> tuple[int, str]:
        answer = await api.call("POST", "/usage/reset")
        return answer.status, answer.body.get("type", "").rpartition(":")[2]

    assert await reset() == (400, "limit-not-reached")
    await spend(product.database, user, DAY)
    await product_counters_are_lost(product, user)
    assert await reset() == (402, "no-credits")
    async with product.database.write() as connection:
        entry = Entry(user, "admin", Action.GRANTED_CREDITS, datetime.now(UTC), credits=50)
        await accounts.add_entry(connection, entry)
    answer = await api.call("POST", "/usage/reset")
    assert answer.status == 200
    assert (answer.body["credits_charged"], answer.body["credits_left"]) == (30, 20)
    assert answer.body["usage"]["daily"]["percent_used"] == 0.0
    session = await api.create_session()
    await api.wait_for_turn(session, await api.start(session, "2+3"))
