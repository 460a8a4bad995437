"""Credentials over HTTP: what is told about them, whose they are, and how people connect to a provider."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from longhaul.credentials.vault import new_key
from testkit.oauth import OAuthProvider, allowed_by_a_person, oauth_provider
from tests.api.test_security import SECRET, bearer, serving

TOKEN = "s3cret-token-of-alice"


@pytest.fixture
async def provider() -> AsyncIterator[OAuthProvider]:
    async with oauth_provider() as found:
        yield found


@pytest.fixture
async def api(tmp_path: Path, provider: OAuthProvider) -> AsyncIterator[httpx2.AsyncClient]:
    settings = {"credential_keys": new_key(), "oauth_providers": provider.setting()}
    async with serving(tmp_path, auth="jwt", jwt_secret=SECRET, **settings) as client:
        client.headers.update(bearer())
        yield client


def store(api: Any) -> Any:
    return api.app.state.dependencies.credentials


async def value(api: httpx2.AsyncClient, user: str = "alice", name: str = "acme") -> str | None:
    handed = await store(api).get(user, name)
    return handed.value if handed is not None else None


async def come_back(api: httpx2.AsyncClient, url: str, cookies: dict[str, str]) -> Any:
    """What a browser with these cookies is shown when the provider sends it back."""
    back = await allowed_by_a_person(url)
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    api.cookies.clear()
    headers = {"authorization": "", **({"cookie": cookie} if cookie else {})}
    return await api.get(f"{back.path}?{back.query.decode()}", headers=headers)


def cookies_of(answer: Any) -> dict[str, str]:
    return {
        cookie.split("=", 1)[0]: cookie.split("=", 1)[1].split(";")[0]
        for cookie in answer.headers.get_list("set-cookie")
    }


async def test_a_token_is_stored_listed_and_revoked_and_never_shown(api: httpx2.AsyncClient) -> None:
    made = await api.put("/v1/credentials/github", json={"token": TOKEN})
    assert made.status_code == 200
    again = await api.put("/v1/credentials/github", json={"token": TOKEN + "2"})
    listed = await api.get("/v1/credentials")
    assert [one["name"] for one in listed.json()["data"]] == ["github"]
    assert set(again.json()) == {"name", "kind", "status", "created_at", "updated_at", "expires_at"}
    assert (again.json()["kind"], again.json()["status"]) == ("token", "connected")
    assert listed.json()["providers"] == [
        {"name": "acme", "title": "Acme <Inc>", "url": "/v1/credentials/acme/connect"}
    ]
    assert await value(api, name="github") == TOKEN + "2"
    revoked = await api.delete("/v1/credentials/github")
    assert revoked.status_code == 204
    assert await value(api, name="github") is None
    missing = await api.delete("/v1/credentials/github")
    assert missing.status_code == 404
    assert not any("s3cret" in answer.text for answer in (made, again, listed, revoked, missing))


async def test_those_of_others_are_not_there(api: httpx2.AsyncClient) -> None:
    await api.put("/v1/credentials/github", json={"token": TOKEN})
    bob = bearer("bob")
    assert (await api.get("/v1/credentials", headers=bob)).json()["data"] == []
    assert (await api.delete("/v1/credentials/github", headers=bob)).status_code == 404
    await api.put("/v1/credentials/github", json={"token": "the token of bob"}, headers=bob)
    assert await value(api, "alice", "github") == TOKEN


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("GitHub", {"token": TOKEN}),
        ("a b", {"token": TOKEN}),
        ("x" * 65, {"token": TOKEN}),
        ("github", {"token": "s3cret"}),
        ("github", {"token": "s3cret\x00-with-nul"}),
        ("github", {"token": "s3cret" * 3_000}),
        ("github", {"token": ["s3cret"]}),
        ("github", {"token": TOKEN, "s3cret": 1}),
        ("github", {}),
    ],
)
async def test_what_cannot_be_stored_is_not_quoted(api: httpx2.AsyncClient, name: str, body: dict[str, Any]) -> None:
    refused = await api.put(f"/v1/credentials/{name}", json=body)
    assert refused.status_code == 422
    assert "s3cret" not in refused.text.replace("body.s3cret", "").replace('"body","s3cret"', "")


async def test_a_person_connects_by_the_page(api: httpx2.AsyncClient) -> None:
    """It names the account and asks for a click, so that nobody is led to connect to the account of another."""
    page = await api.get("/v1/credentials/acme/connect")
    assert page.status_code == 200
    assert "<b>alice</b>" in page.text
    assert "Acme &lt;Inc&gt;" in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    cookie = page.headers["set-cookie"]
    assert re.search(r"(?i)httponly; path=/v1/oauth; samesite=lax", cookie)
    (url,) = re.findall(r'href="([^"]+)"', page.text)
    back = await come_back(api, url.replace("&amp;", "&"), cookies_of(page))
    assert back.status_code == 200
    assert "Acme &lt;Inc&gt; is connected" in back.text
    assert "s3cret" not in back.text
    assert await value(api) == "access-s3cret-2"
    (listed,) = (await api.get("/v1/credentials")).json()["data"]
    assert (listed["kind"], listed["name"]) == ("oauth", "acme")
    assert listed["expires_at"] is not None


async def test_an_address_that_was_sent_to_somebody_else(api: httpx2.AsyncClient) -> None:
    """Mallory begins, and lets Alice open the address: her access must not become Mallory's."""
    begun = await api.post("/v1/credentials/acme/connect", headers=bearer("mallory"))
    assert begun.status_code == 200
    back = await come_back(api, begun.json()["authorization_url"], {})
    assert (back.status_code, back.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert await value(api, "mallory") is None
    assert await value(api, "alice") is None


async def test_an_address_is_worth_one_use(api: httpx2.AsyncClient) -> None:
    begun = await api.post("/v1/credentials/acme/connect")
    assert begun.headers["cache-control"] == "no-store"
    first = await come_back(api, begun.json()["authorization_url"], cookies_of(begun))
    again = await come_back(api, begun.json()["authorization_url"], cookies_of(begun))
    assert (first.status_code, again.status_code) == (200, 400)


@pytest.mark.parametrize(
    "query", ["", "?state=invented&code=x", "?error=access_denied", "?state=<script>&code=<script>"]
)
async def test_an_invented_return_stores_nothing(api: httpx2.AsyncClient, query: str) -> None:
    back = await api.get(f"/v1/oauth/callback{query}", headers={"authorization": ""})
    assert back.status_code == 400
    assert "<script>" not in back.text
    assert (await api.get("/v1/credentials")).json()["data"] == []


async def test_somebody_who_does_not_allow_it(api: httpx2.AsyncClient) -> None:
    begun = await api.post("/v1/credentials/acme/connect")
    state = httpx2.URL(begun.json()["authorization_url"]).params["state"]
    cookie = "; ".join(f"{name}={value}" for name, value in cookies_of(begun).items())
    refused = await api.get(f"/v1/oauth/callback?error=access_denied&state={state}", headers={"cookie": cookie})
    assert refused.status_code == 400
    assert "was not allowed" in refused.text


async def test_a_provider_that_is_not_there(api: httpx2.AsyncClient) -> None:
    for method in ("GET", "POST"):
        missing = await api.request(method, "/v1/credentials/github/connect")
        assert missing.status_code == 404
        assert "PUT /v1/credentials/github" in missing.json()["detail"]


async def test_without_keys_it_says_what_to_set(tmp_path: Path, provider: OAuthProvider) -> None:
    async with serving(tmp_path, oauth_providers=provider.setting()) as api:
        for method, path in (("PUT", "github"), ("POST", "acme/connect"), ("GET", "acme/connect")):
            refused = await api.request(method, f"/v1/credentials/{path}", json={"token": TOKEN})
            assert refused.status_code == 409
            assert "LONGHAUL_CREDENTIAL_KEYS" in refused.json()["detail"]
        assert (await api.get("/v1/credentials")).json()["data"] == []
