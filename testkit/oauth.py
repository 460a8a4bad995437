"""A small OAuth 2 provider with PKCE and refresh tokens that are worth one use, over real HTTP."""

import asyncio
import base64
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from testkit.servers import HOST, free_port
from testkit.wait import until

CLIENT_ID, CLIENT_SECRET = "longhaul at the provider", "the client's own s3cret"


@dataclass
class OAuthProvider:
    """What the provider knows, and what a test may change.

    Attributes:
        lifetime_s: of the access tokens that it gives from now on.
        fault: a status that every request for tokens gets; 0: none.
        refreshes: how many refreshes it has answered with tokens.
        revoked: the tokens that it was told to revoke.
    """

    port: int = field(default_factory=free_port)
    lifetime_s: float = 3600
    fault: int = 0
    refreshes: int = 0
    revoked: list[str] = field(default_factory=list)
    codes: dict[str, tuple[str, str]] = field(default_factory=dict)
    good_refresh_tokens: set[str] = field(default_factory=set)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def setting(self, name: str = "acme", **more: Any) -> str:
        """For LONGHAUL_OAUTH_PROVIDERS."""
        url = f"http://{HOST}:{self.port}"
        urls = {f"{kind}_url": f"{url}/{kind}" for kind in ("authorize", "token", "revoke")}
        client = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        return json.dumps({name: {"title": "Acme <Inc>", **client, **urls, "scopes": ["read", "write"], **more}})

    async def authorize(self, request: Request) -> Response:
        """The person allows everything at once."""
        asked = request.query_params
        if (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) != ("code", CLIENT_ID, "S256"):
            return Response("no such request", 400)
        code = f"code-{next(self.numbers)}"
        self.codes[code] = (asked["code_challenge"], asked["redirect_uri"])
        return RedirectResponse(f"{asked['redirect_uri']}?code={code}&state={asked['state']}", 302)

    async def token(self, request: Request) -> Response:
        """A code or a refresh token becomes tokens, once."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        if self.fault:
            return Response("out of order", self.fault)
        basic = base64.b64encode(b"longhaul+at+the+provider:the+client%27s+own+s3cret").decode()
        signed = (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        if not signed and request.headers.get("authorization") != f"Basic {basic}":
            return JSONResponse({"error": "invalid_client"}, 401)
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self.good_refresh_tokens:
                return JSONResponse({"error": "invalid_grant"}, 400)
            self.good_refresh_tokens.discard(form["refresh_token"])
            self.refreshes += 1
        else:
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if self.codes.pop(form["code"], None) != (challenge, form["redirect_uri"]):
                return JSONResponse({"error": "invalid_grant"}, 400)
        number = next(self.numbers)
        self.good_refresh_tokens.add(f"refresh-s3cret-{number}")
        return JSONResponse(
            {
                "access_token": f"access-s3cret-{number}",
                "token_type": "bearer",
                "expires_in": self.lifetime_s,
                "refresh_token": f"refresh-s3cret-{number}",
            }
        )

    async def revoke(self, request: Request) -> Response:
        self.revoked.append(str((await request.form())["token"]))
        return Response(status_code=200)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to pytest."""
        yield


@asynccontextmanager
async def oauth_provider() -> AsyncIterator[OAuthProvider]:
    """A provider that answers until the block ends."""
    provider = OAuthProvider()
    routes = [
        Route("/authorize", provider.authorize),
        Route("/token", provider.token, methods=["POST"]),
        Route("/revoke", provider.revoke, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), HOST, provider.port, log_level="warning", lifespan="off")
    server = _Server(config)
    serving = asyncio.create_task(server.serve())

    async def ready() -> bool:
        return server.started

    await until(ready, what="the provider answers")
    try:
        yield provider
    finally:
        server.should_exit = True
        await serving


async def allowed_by_a_person(authorization_url: str) -> httpx2.URL:
    """Follow an authorization URL as a browser does; where the provider sends the person back to."""
    async with httpx2.AsyncClient() as browser:
        answer = await browser.get(authorization_url)
    assert answer.status_code == 302, answer.text
    return httpx2.URL(answer.headers["location"])
