"""The same POST with the same key is done once, and gets the same answer."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import update
from starlette.responses import JSONResponse, Response, StreamingResponse

from api import problems
from api.app import create_app
from api.idempotency import Idempotency
from api.middleware import UnexpectedErrors
from longhaul.auth import Caller, UnauthorizedError
from longhaul.db.database import Database
from longhaul.db.kept_answers import CUT_OFF_AFTER, KEPT_FOR
from longhaul.db.migrate import upgrade
from longhaul.db.models import KeptAnswerRow, utc_now
from longhaul.settings import load_settings
from testkit.product import Product
from testkit.wait import until


class Auth:
    """The token is the user."""

    async def caller(self, token: str | None) -> Caller:
        if not token:
            raise UnauthorizedError("no token")
        return Caller(token)


class Callers:
    async def note(self, caller: Caller) -> None:
        """Nothing is known of callers here."""


class Shop:
    """An application whose routes count how often they were reached. Where it says so, they wait, or fail."""

    def __init__(self, database: Database) -> None:
        self.made: list[bytes] = []
        self.fails = False
        self.hold: asyncio.Event | None = None
        app = FastAPI()
        app.state.dependencies = type("Parts", (), {"database": database, "auth": Auth(), "callers": Callers()})()
        problems.install(app)
        app.add_middleware(Idempotency)
        app.add_middleware(UnexpectedErrors)
        app.post("/v1/orders")(self.order)
        app.post("/v1/orders/stream")(self.order)
        app.post("/v1/watch")(self.watch)
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://shop")

    async def order(self, request: Request) -> Response:
        body = await request.body()
        self.made.append(body)
        if self.hold is not None:
            await self.hold.wait()
        if self.fails:
            raise RuntimeError("no")
        return JSONResponse({"number": len(self.made)}, 201, {"location": f"/orders/{len(self.made)}"})

    async def watch(self) -> Response:
        async def events() -> AsyncIterator[bytes]:
            self.made.append(b"watched")
            yield b"data: x\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def post(self, body: str = "tea", key: str = "k", user: str = "ada", path: str = "/v1/orders") -> Any:
        headers = {"idempotency-key": key, **({"authorization": f"Bearer {user}"} if user else {})}
        return await self.http.post(path, content=body.encode(), headers=headers)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    yield database
    await database.close()


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database)


async def test_the_same_request_gets_the_same_answer(shop: Shop) -> None:
    first, again = await shop.post(), await shop.post()
    assert (first.status_code, first.json()) == (201, {"number": 1})
    assert "idempotency-replayed" not in first.headers
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert (again.headers["location"], again.headers["idempotency-replayed"]) == ("/orders/1", "true")
    assert shop.made == [b"tea"]
    assert (await shop.post(key="other")).json() == {"number": 2}


async def test_a_key_belongs_to_its_user_and_request(shop: Shop) -> None:
    await shop.post()
    assert (await shop.post(user="bob")).json() == {"number": 2}, "another user's key is another key"
    for refused in (await shop.post("coffee"), await shop.post(path="/v1/orders?size=2")):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-used")
    assert (await shop.post(user="")).status_code == 201, "what is no user's business is passed on"
    assert len(shop.made) == 3


async def test_two_at_once_are_one(shop: Shop) -> None:
    shop.hold = asyncio.Event()
    first = asyncio.create_task(shop.post())
    await until(lambda: len(shop.made) == 1, what="the first one is being handled")
    second = await shop.post()
    assert (second.status_code, second.json()["code"], second.json()["retryable"]) == (409, "request-in-progress", True)
    shop.hold.set()
    assert (await first).content == (await shop.post()).content
    assert len(shop.made) == 1


async def test_what_failed_may_be_made_again(shop: Shop) -> None:
    shop.fails = True
    assert (await shop.post()).status_code == 500
    shop.fails = False
    assert (await shop.post()).status_code == 201
    assert len(shop.made) == 2


async def age(database: Database, by: timedelta) -> None:
    async with database.write() as connection:
        await connection.execute(update(KeptAnswerRow).values(created_at=utc_now() - by))


async def test_a_request_that_was_cut_off_is_made_again(shop: Shop, database: Database) -> None:
    """Its process died, so its row has no answer."""
    shop.hold = asyncio.Event()
    cut_off = asyncio.create_task(shop.post())
    await until(lambda: len(shop.made) == 1, what="the first one is being handled")
    cut_off.cancel()
    await asyncio.wait({cut_off})
    shop.hold = None
    assert (await shop.post()).status_code == 409
    await age(database, CUT_OFF_AFTER)
    assert (await shop.post("coffee")).status_code == 422, "another request does not take its place"
    assert (await shop.post()).status_code == 201
    assert len(shop.made) == 2


async def test_answers_are_kept_for_a_day(shop: Shop, database: Database) -> None:
    await shop.post()
    await age(database, KEPT_FOR - timedelta(minutes=5))
    assert (await shop.post()).json() == {"number": 1}
    await age(database, KEPT_FOR + timedelta(minutes=5))
    assert (await shop.post()).json() == {"number": 2}


async def test_streams_and_routes_that_find_their_message_again(shop: Shop) -> None:
    for _ in range(2):
        assert (await shop.post(path="/v1/watch")).text == "data: x\n\n"
        assert (await shop.post(path="/v1/orders/stream")).status_code == 201
    assert len(shop.made) == 4


async def test_keys_that_are_none(shop: Shop) -> None:
    for key in ("", "x" * 201):
        assert (await shop.post(key=key)).status_code == 422
    assert shop.made == []


def test_every_post_takes_a_key() -> None:
    paths = create_app(load_settings(auth="off")).openapi()["paths"]
    posts = {path: methods["post"] for path, methods in paths.items() if "post" in methods and path.startswith("/v1/")}
    assert len(posts) > 15
    for path, operation in posts.items():
        assert "Idempotency-Key" in [one["name"] for one in operation["parameters"]], path
        assert {"409", "422"} <= set(operation["responses"]), path


async def test_a_link_is_made_once(product: Product) -> None:
    session = await product.api.create_session()
    path, key = f"/sessions/{session}/shares", {"idempotency-key": session}
    answers = [await product.api.call("POST", path, json={"expires_in": 90}, headers=key) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len((await product.api.call("GET", path)).body["data"]) == 1
