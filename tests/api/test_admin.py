"""Admins: only those whose token says so; look up, tiers, resets, credits, totals, and a row for each action."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from longhaul.db.models import LedgerRow
from testkit.client import Answer, RecordingClient
from testkit.product import Product
from testkit.spending import spend
from tests.api import test_usage
from tests.api.test_usage import DAY, client, product_counters_are_lost

PRODUCT = test_usage.PRODUCT


@pytest.fixture
def user() -> str:
    return f"user-{uuid4()}"


@pytest.fixture
def admin(product: Product) -> RecordingClient:
    return client(product, "boss", roles=["admin", "x"])


async def change(admin: RecordingClient, what: str, user: str, **body: Any) -> Answer:
    return await admin.call("POST", f"/admin/usage/{what}", json={"user_id": user, **body})


@pytest.mark.parametrize(
    "claims", [{}, {"roles": []}, {"roles": "user"}, {"roles": {"admin": True}}, {"role": "admin"}]
)
async def test_others_may_nothing(product: Product, user: str, claims: dict[str, Any]) -> None:
    api = client(product, user, **claims)
    for path in ("", "/users?user_id=x", "/changes?user_id=x"):
        answer = await api.call("GET", f"/admin/usage{path}")
        assert (answer.status, answer.body["type"]) == (403, "urn:longhaul:problem:not-an-admin")
    for what in ("tier", "reset", "credits"):
        assert (await change(api, what, user, tier="PRO", window="day", credits=5)).status == 403


async def test_a_user_is_looked_up_and_helped(product: Product, admin: RecordingClient, user: str) -> None:
    email = f"{user}@example.com"
    api = client(product, user, email=email)
    assert (await admin.call("GET", "/admin/usage/users", params={"user_id": user})).body["data"] == []
    session = await api.create_session()
    await spend(product.database, user, DAY)
    await product_counters_are_lost(product, user)
    assert (await api.post(session, "2+3")).status == 429
    [found] = (await admin.call("GET", "/admin/usage/users", params={"email": email})).body["accounts"]
    assert [found] == (await admin.call("GET", "/admin/usage/users", params={"user_id": user})).body["accounts"]
    assert (found["user_id"], found["email"], found["tier"], found["credits"]) == (user, email, "FREE", 0)
    assert found["daily"]["used_microdollars"] == found["daily"]["limit_microdollars"] == DAY

    changed = await change(admin, "tier", user, tier="pro")
    assert (changed.body["tier"], changed.body["daily"]["percent_used"]) == ("PRO", 10.0)
    assert (await api.call("GET", "/usage")).body["tier"] == "PRO"
    assert (await change(admin, "tier", user, tier="no such")).status == 422
    assert (await change(admin, "tier", user, tier=None)).body["tier"] == "FREE"

    changed = await change(admin, "reset", user, window="day")
    assert (changed.body["daily"]["used_microdollars"], changed.body["weekly"]["used_microdollars"]) == (0, 0)
    await api.wait_for_turn(session, await api.start(session, "2+3"))
    assert 0 < (await change(admin, "credits", user, credits=70)).body["weekly"]["used_microdollars"] < DAY
    assert (await change(admin, "credits", user, credits=-71)).status == 400
    assert (await change(admin, "credits", user, credits=-20)).body["credits"] == 50
    assert (await change(admin, "reset", user, window="week")).body["weekly"]["used_microdollars"] == 0

    rows = (await admin.call("GET", "/admin/usage/changes", params={"user_id": user})).body["changes"]
    assert {row["actor_id"] for row in rows} == {"boss"}
    actions = ["set_tier", "set_tier", "reset_day", "granted_credits", "granted_credits", "reset_week"]
    assert [row["action"] for row in reversed(rows)] == actions
    assert [row["day_microdollars"] for row in rows if row["action"] == "reset_day"] == [DAY]


async def test_exactly_one_of_id_and_address(admin: RecordingClient) -> None:
    for query in ("", "?user_id=a&email=b"):
        assert (await admin.call("GET", f"/admin/usage/users{query}")).status == 422


async def test_totals(product: Product, admin: RecordingClient) -> None:
    """By user, agent, model and day, with filters, as JSON and as CSV."""
    ann, bob = f"=ann-{uuid4()}", f"bob-{uuid4()}"
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for user, cost, at in ((ann, 5, noon), (ann, 7, noon + timedelta(days=1)), (ann, None, noon), (bob, 11, noon)):
        await spend(product.database, user, cost, at)
    await spend(product.database, bob, 13, datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC))
    async with product.database.write() as connection:
        helped = update(LedgerRow).where(LedgerRow.user_id == bob, LedgerRow.cost_microdollars == 13)
        await connection.execute(helped.values(agent="helper", model="large", status="estimated"))

    async def rows(**query: Any) -> list[dict[str, Any]]:
        answer = await admin.call("GET", "/admin/usage", params={"since": "2026-03-01", "until": "2026-03-02", **query})
        assert answer.status == 200, answer.body
        return [row for row in answer.body["rows"] if row["user"] in (ann, bob, None)]

    by_user = {row["user"]: row for row in await rows()}
    assert (by_user[ann]["calls"], by_user[ann]["cost_microdollars"], by_user[ann]["unpriced"]) == (3, 12, 1)
    assert (by_user[bob]["calls"], by_user[bob]["cost_microdollars"], by_user[bob]["estimated"]) == (2, 24, 1)
    days = await rows(user=ann, by=["day", "user"])
    assert [(row["day"], row["cost_microdollars"]) for row in days] == [("2026-03-01", 5), ("2026-03-02", 7)]
    [day] = await rows(user=ann, until="2026-03-01", by="day")
    assert day["cost_microdollars"] == 5
    agents = await rows(user=bob, by=["agent", "model"])
    totals = {(row["agent"], row["model"]): row["cost_microdollars"] for row in agents}
    assert totals == {(None, "m"): 11, ("helper", "large"): 13}
    [helper] = await rows(agent="helper", user=bob, by="kind")
    assert (helper["kind"], helper["cost_microdollars"]) == ("turn", 13)
    assert await rows(user=bob, model="small") == []
    query = {"user": ann, "by": ["user", "day"]}
    by_header = await admin.http.get("/v1/admin/usage", params=query, headers={"Accept": "text/csv"})
    by_query = await admin.http.get("/v1/admin/usage", params={**query, "format": "csv"})
    assert by_header.text == by_query.text
    assert by_query.headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(by_query.text)))
    assert [(line["user"], line["day"], line["cost_microdollars"]) for line in table] == [
        (f"'{ann}", "2026-03-01", "5"),
        (f"'{ann}", "2026-03-02", "7"),
    ]
