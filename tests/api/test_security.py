"""What callers without a token, other sites' pages and hostile bodies cannot do. docs/security.md lists each attack."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError
from sqlalchemy import update

from api.app import create_app
from api.chat_body import parse_chat
from api.completions_body import parse_completion
from api.problems import MAX_ERRORS, ProblemError
from api.request_body import BODY_MAX, MESSAGE_BODY_MAX, parse_message
from longhaul.db.migrate import upgrade
from longhaul.db.models import SessionRow, utc_now
from longhaul.settings import load_settings

SECRET = "a secret of at least thirty-two bytes"
CHUNK = b" " * 65_536


def bearer(user: str = "alice") -> dict[str, str]:
    claims = {"sub": user, "exp": int(time.time()) + 600}
    return {"authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """An API in this process with rows of its own, and neither Temporal nor Redis."""
    url = f"sqlite:///{folder / 'rows.db'}"
    api_settings = load_settings(
        database_url=url, redis_url="redis://127.0.0.1:1", temporal_address="127.0.0.1:1", **settings
    )
    await asyncio.to_thread(upgrade, api_settings.sqlalchemy_url)
    app = create_app(api_settings)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            client.app = app  # type: ignore[attr-defined]
            yield client


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(tmp_path, auth="jwt", jwt_secret=SECRET) as client:
        yield client


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(tmp_path) as client:
        yield client


async def test_without_a_token_nothing_is_read(guarded: httpx2.AsyncClient) -> None:
    """By no route: FastAPI itself would read a body before it looks for the user."""
    paths = (await guarded.get("/openapi.json")).json()["paths"]
    routes = [
        (method.upper(), re.sub(r"{\w+}", "x", path))
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/v1/") and method in ("post", "put", "patch", "delete")
    ]
    assert len(routes) > 15
    for method, path in routes:
        status, taken, headers = await send_endless(guarded, method, path, {})
        assert (status, taken, headers["connection"]) == (401, 0, "close"), f"{method} {path}"


async def test_no_route_reads_without_end(guarded: httpx2.AsyncClient) -> None:
    """With a token, and an id of the caller's own where the path names a session."""
    made = (await guarded.post("/v1/sessions", headers=bearer())).json()["id"]
    paths = (await guarded.get("/openapi.json")).json()["paths"]
    for path, methods in paths.items():
        own = re.sub(r"{\w+}", "x", path.replace("{session_id}", made))
        for method in {"post", "put", "patch"}.intersection(methods):
            status, taken, headers = await send_endless(guarded, method.upper(), own, bearer())
            assert 400 <= status < 600, f"{method} {path}"
            assert taken <= MESSAGE_BODY_MAX + len(CHUNK), f"{method} {path}"
            assert headers["connection"] == "close", f"{method} {path}"


@pytest.mark.parametrize("declared", [None, 300_000_000])
async def test_with_a_token_no_more_than_the_limit(guarded: httpx2.AsyncClient, declared: int | None) -> None:
    made = (await guarded.post("/v1/sessions", headers=bearer())).json()["id"]
    for method, path, limit in (
        ("POST", "/v1/sessions", BODY_MAX),
        ("PATCH", f"/v1/sessions/{made}", BODY_MAX),
        ("POST", f"/v1/sessions/{made}/messages", MESSAGE_BODY_MAX),
        ("POST", f"/v1/sessions/{made}/stream", MESSAGE_BODY_MAX),
    ):
        headers = bearer() | ({"content-length": str(declared)} if declared else {})
        status, taken, answered = await send_endless(guarded, method, path, headers)
        assert status == 413, path
        assert taken <= (0 if declared else limit + len(CHUNK)), path
        assert answered["connection"] == "close"


async def test_a_million_wrong_entries_cost_little(guarded: httpx2.AsyncClient) -> None:
    """Each wrong entry was a pydantic error: 0.8 MB of zeros took 8 s and answered 39 MB."""
    zeros = [0] * 400_000
    wrong = [{"role": "user", "parts": zeros}]
    for parse, body in (
        (partial(parse_message, session_id="s"), {"messages": zeros}),
        (partial(parse_message, session_id="s"), {"messages": wrong}),
        (partial(parse_message, session_id="s"), {"message": "hi", "file_ids": zeros}),
        (partial(parse_message, session_id="s"), {"message": "hi", "mode": zeros}),
        (parse_chat, {"messages": zeros}),
        (parse_chat, {"messages": wrong}),
        (parse_completion, {"model": "standard", "messages": zeros}),
        (parse_completion, {"model": "standard", "messages": [{"role": "user", "content": zeros}]}),
    ):
        with pytest.raises(ProblemError) as raised:
            parse(json.dumps(body).encode())
        assert raised.value.status == 422
        cause = raised.value.__cause__
        assert cause is None or (isinstance(cause, ValidationError) and cause.error_count() <= MAX_ERRORS)
        assert len(raised.value.errors or ()) <= MAX_ERRORS
    tools = {"deny_tools": [0] * 20_000, "allow_tools": [0] * 10_000}
    refused = await guarded.post("/v1/sessions", json=tools, headers=bearer())
    assert refused.status_code == 422
    assert len(refused.json()["errors"]) <= MAX_ERRORS


def test_only_the_newest_user_message_is_read() -> None:
    newest = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
    body = {"messages": [0, {"role": "user", "parts": 7}, newest, {"role": "assistant"}, None]}
    assert parse_message(json.dumps(body).encode(), "s").message.text == "hello"


def test_an_answer_is_not_made_again_where_the_old_one_would_be_shown() -> None:
    newest = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
    body = {"messages": [newest], "trigger": "regenerate-message"}
    with pytest.raises(ProblemError, match="POST /v1/chat") as raised:
        parse_message(json.dumps(body).encode(), "s")
    assert raised.value.status == 409


@pytest.mark.parametrize(
    "body", [{"max_cost_microdollar": 5}, {"agents": "x"}, {"title": "x", "dryRun": True}, {"user_id": "bob"}]
)
async def test_unknown_fields_of_a_session_are_refused(local: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    refused = await local.post("/v1/sessions", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["loc"][1] in body


async def test_no_body_is_no_wish(local: httpx2.AsyncClient) -> None:
    assert (await local.post("/v1/sessions")).status_code == 201
    assert (await local.post("/v1/sessions", content=b"{broken")).status_code == 422
    assert (await local.post("/v1/sessions", content=b"[]")).status_code == 422


async def send_endless(
    client: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> tuple[int, int, dict[str, str]]:
    """Send a body without an end to the application itself; the status, the bytes that it took, its headers."""
    taken, answers = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += len(CHUNK)
        return {"type": "http.request", "body": CHUNK, "more_body": taken < 300_000_000}

    async def send(message: Any) -> None:
        answers.append(message)

    if "content-length" not in headers:
        headers = {**headers, "transfer-encoding": "chunked"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *((k.encode(), v.encode()) for k, v in headers.items())],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    await client.app(scope, receive, send)  # type: ignore[attr-defined]
    return answers[0]["status"], taken, {k.decode(): v.decode() for k, v in answers[0]["headers"]}


@pytest.mark.parametrize("cursor", ["9999-12-31T23:59:59-23:59", "x", "1", "99999999999999999999.a", "1.a\x00", "-1.a"])
async def test_a_made_up_cursor(local: httpx2.AsyncClient, cursor: str) -> None:
    assert (await local.get("/v1/sessions", params={"cursor": cursor})).status_code == 422


async def test_sessions_of_the_same_moment_are_all_listed(local: httpx2.AsyncClient) -> None:
    made = {(await local.post("/v1/sessions")).json()["id"] for _ in range(7)}
    deps = local.app.state.dependencies  # type: ignore[attr-defined]
    async with deps.database.write() as connection:
        await connection.execute(update(SessionRow).values(created_at=utc_now()))
    listed: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await local.get("/v1/sessions", params={"limit": 2, **cursor})).json()
        listed += [session["id"] for session in page["sessions"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(listed) == sorted(made)


@pytest.mark.parametrize(
    "path", ["/v1/sessions/%00", "/v1/sessions/a%00b/turns", "/v1/sessions/a/turns/%00", "/v1/sessions/%00/stream"]
)
async def test_nul_in_an_id_is_not_found(local: httpx2.AsyncClient, path: str) -> None:
    assert (await local.get(path)).status_code == 404


async def test_nul_in_a_query(local: httpx2.AsyncClient) -> None:
    made = (await local.post("/v1/sessions")).json()["id"]
    assert (await local.get("/v1/sessions?parent=a%00")).status_code == 422
    assert (await local.get(f"/v1/sessions/{made}/stream?turn_id=a%00")).status_code == 422


async def test_a_slash_at_the_end_sends_no_token_on(guarded: httpx2.AsyncClient) -> None:
    answer = await guarded.get("/v1/sessions/", params={"token": "secret"}, follow_redirects=False)
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "header", [("Forwarded", "for=10.0.0.1"), ("X-Forwarded-For", "10.0.0.1"), ("X-Real-IP", "10.0.0.1")]
)
async def test_no_proxy(local: httpx2.AsyncClient, header: tuple[str, str]) -> None:
    assert (await local.get("/v1/sessions")).status_code == 200
    assert (await local.get("/v1/sessions", headers=dict([header]))).status_code == 403


async def test_with_tokens_a_proxy_is_fine(guarded: httpx2.AsyncClient) -> None:
    headers = bearer() | {"x-forwarded-for": "10.0.0.1"}
    assert (await guarded.get("/v1/sessions", headers=headers)).status_code == 200


async def test_a_defect_is_counted_has_cors_headers_and_names_its_log_entry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    origin = "https://app.example"
    async with serving(tmp_path, auth="jwt", jwt_secret=SECRET, cors_origins=[origin]) as client:

        @client.app.get(f"/defect-{uuid4().hex}", name="defect")  # type: ignore[attr-defined,untyped-decorator]
        async def defect() -> None:
            raise ZeroDivisionError("a secret of ours")

        path = client.app.url_path_for("defect")  # type: ignore[attr-defined]
        answer = await client.get(path, headers={"origin": origin})
    assert answer.status_code == answer.json()["status"] == 500
    assert answer.headers["access-control-allow-origin"] == origin
    assert "secret" not in answer.text
    reference = answer.json()["detail"].rstrip(".").split()[-1]
    [entry] = [record for record in caplog.records if reference in record.getMessage()]
    assert entry.exc_info is not None
    assert "a secret of ours" in str(entry.exc_info[1])
    labels = {"method": "GET", "route": path, "status": "500"}
    assert REGISTRY.get_sample_value("longhaul_http_request_seconds_count", labels) == 1


@pytest.mark.parametrize("claims", [{"sub": "alice"}, {"sub": "alice", "exp": 1}, {"sub": "a\x00b", "exp": 2**32}])
async def test_tokens_that_never_end_or_cannot_be_stored(guarded: httpx2.AsyncClient, claims: dict[str, Any]) -> None:
    token = jwt.encode(claims, SECRET, "HS256")
    assert (await guarded.get("/v1/sessions", headers={"authorization": f"Bearer {token}"})).status_code == 401
