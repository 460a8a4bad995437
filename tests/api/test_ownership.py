"""Two users: for every route, what is the other's reads exactly like what does not exist."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import jwt
import pytest
from fastapi import FastAPI

from api.app import create_app
from longhaul.settings import load_settings
from testkit.client import RecordingClient
from testkit.pool import Pool
from testkit.product import Product

SECRET = "a secret that only this test knows, long enough"
CLAIMS: dict[str, Any] = {"aud": "longhaul", "exp": 2**32}
PAGE = {"/", "/favicon.svg", "/assets", "/shared/{token}"}
DOCUMENTATION = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/static-offline-docs"}
#: A provider sends people here. The browser shows by a cookie that it has begun this: test_credentials.py.
CALLBACK = {"/v1/oauth/callback"}
OPEN = {"/healthz", "/readyz", "/metrics"} | CALLBACK | PAGE | DOCUMENTATION
OTHER = str(uuid4())
BODIES: dict[str, dict[str, Any]] = {
    "stream": {"message": "hi"},
    "messages": {"message": "hi"},
    "ask": {"message": "hi"},
    "": {"title": "mine now"},
    "profile": {"content": "mine now"},
}


def token(user: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {jwt.encode({**CLAIMS, 'sub': user, **claims}, SECRET, 'HS256')}"}


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every route there is, from the document, so that none can be forgotten."""
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path


ALL = list(routes(create_app(load_settings(auth="off"))))


def test_every_route_is_in_the_document() -> None:
    app = create_app(load_settings(auth="off"))
    missing = [path for path in _paths(app) if path not in {known for _, known in ALL} and path not in OPEN]
    assert not missing


def _paths(app: FastAPI) -> Iterator[str]:
    for found in app.routes:
        nested = getattr(found, "original_router", None)
        for route in nested.routes if nested is not None else [found]:
            yield str(getattr(route, "path", ""))


def address(path: str, session: str, turn: str) -> str:
    filled = path.replace("{session_id}", session).replace("{turn_id}", turn)
    return re.sub(r"\{\w+\}", OTHER, filled)


async def status_and_text(client: RecordingClient, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    body = (
        BODIES.get(path.rsplit("/", 1)[-1] if path.count("/") > 3 else "")
        if method in ("POST", "PATCH", "PUT")
        else None
    )
    response = await client.http.request(method, path, json=body, headers=headers)
    return response.status_code, response.text


@pytest.fixture(scope="module")
async def guarded(server_pool: Pool) -> AsyncIterator[Product]:
    """A product that asks for tokens; one for all tests here."""
    settings = {"LONGHAUL_AUTH": "jwt", "LONGHAUL_JWT_SECRET": SECRET, "LONGHAUL_JWT_AUDIENCE": "longhaul"}
    async with AsyncExitStack() as stack:
        yield await server_pool.make(stack, settings=settings)


async def test_the_others_things_are_not_there(guarded: Product) -> None:
    product = guarded
    alice, bob = product.client(headers=token("alice")), product.client()
    session = await alice.create_session(title="Alice's")
    turn = await alice.start(session, "wait 20 s")
    missing, no_turn = str(uuid4()), str(uuid4())
    for method, path in ALL:
        if path in OPEN:
            continue
        nobody = await status_and_text(bob, method, address(path, session, turn), {})
        if path.startswith("/v1/shared/"):  # the link is the token
            assert nobody[0] == 404, f"{method} {path} of no link: {nobody}"
            continue
        assert nobody[0] == 401, f"{method} {path} without a token: {nobody}"
        if "{session_id}" not in path:
            continue
        foreign = await status_and_text(bob, method, address(path, session, turn), token("bob"))
        absent = await status_and_text(bob, method, address(path, missing, no_turn), token("bob"))
        assert foreign[0] == 404, f"{method} {path}: {foreign}"
        assert foreign[1].replace(session, "S").replace(turn, "T") == absent[1].replace(missing, "S").replace(
            no_turn, "T"
        )
    seen = await bob.http.get("/v1/sessions", headers=token("bob"))
    assert seen.json()["sessions"] == []
    await alice.call("PUT", "/me/profile", json={"content": "Alice's own words"})
    assert (await bob.http.get("/v1/me/profile", headers=token("bob"))).status_code == 404
    children = await bob.http.get("/v1/sessions", params={"parent": session}, headers=token("bob"))
    assert children.json()["sessions"] == []
    assert (await alice.progress(session, turn))["status"] == "running", "nobody else has stopped it"
    assert (await alice.session(session))["title"] == "Alice's"
    another = await alice.create_session()
    assert (await alice.call("GET", f"/sessions/{another}/turns/{turn}")).status == 404, "a turn of another session"
    assert (await alice.call("DELETE", f"/sessions/{session}")).status == 204
    assert (await alice.call("GET", f"/sessions/{session}")).status == 404


async def test_a_foreign_chat_is_not_there(guarded: Product) -> None:
    """A chat's id is made by its client, so another user may know it, or make the same."""
    alice, bob = guarded.client(headers=token("alice")), guarded.client(headers=token("bob"))
    chat = uuid4().hex
    body = {"id": chat, "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "2+3"}]}]}
    first = await alice.http.post("/v1/chat", json=body)
    assert first.status_code == 200
    turn = first.headers["x-workflow-run-id"]
    foreign = await bob.http.post("/v1/chat", json=body)
    assert foreign.status_code == 404
    resumed = [await bob.http.get(f"/v1/chat/{one}/stream") for one in (chat, turn, uuid4().hex)]
    assert [(one.status_code, one.content) for one in resumed] == [(204, b"")] * 3
    again = {"messages": [*body["messages"], {"id": turn, "role": "assistant", "parts": []}, *body["messages"]]}
    assert (await bob.http.post("/v1/chat", json=again)).status_code == 404, "a foreign turn names no session"
    assert "data: [DONE]" in (await alice.http.get(f"/v1/chat/{turn}/stream")).text


async def test_tokens(guarded: Product) -> None:
    client = guarded.client()
    good = token("alice")
    value = good["Authorization"].removeprefix("Bearer ")
    assert (await client.http.get("/v1/sessions", headers=good)).status_code == 200
    assert (await client.http.get("/v1/sessions", params={"token": value})).status_code == 200
    assert (await client.http.post("/v1/sessions", params={"token": value})).status_code == 401
    other = jwt.encode(
        {"sub": "alice", "aud": "longhaul", "exp": 2**32}, "another secret, also long enough for it", "HS256"
    )
    unsigned = jwt.encode({**CLAIMS, "sub": "alice"}, "", "none")
    for bad in (
        token("alice", aud=""),
        token("alice", aud="other"),
        token("alice", exp=1),
        token(""),
        token("x" * 256),
        {"Authorization": f"Bearer {other}"},
        {"Authorization": f"Bearer {unsigned}"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Basic {value}"},
    ):
        refused = await client.http.get("/v1/sessions", headers=bad)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["content-type"] == "application/problem+json"


async def test_what_operators_ask_needs_no_token(guarded: Product) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert (await guarded.client().http.get(path)).status_code == 200
