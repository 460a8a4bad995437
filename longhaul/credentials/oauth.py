"""OAuth 2 with PKCE (RFC 6749, 7636, 7009): the address to open, and the requests to a provider's token endpoint."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx2
import orjson

from longhaul.db.models import utc_now
from longhaul.settings.credentials import OAuthProvider

#: Seconds for a whole request to a provider; also what a refresh may hold its lease for.
REQUEST_S = 15.0
ANSWER_MAX_BYTES = 100_000
LIFETIME_MAX_S = 10 * 365 * 86_400.0
#: Errors that mean: ask the person again (RFC 6749, 5.2).
REFUSALS = ("invalid_grant", "access_denied", "bad_refresh_token", "bad_verification_code")


class ProviderError(Exception):
    """The provider gives no tokens now; the text is for people, and holds nothing of its answer."""


class RefusedError(ProviderError):
    """The provider says that the code or refresh token is not (or no longer) good: a person has to connect again."""


class Tokens(NamedTuple):
    """What a provider has given. `refresh_token`: empty if there is none. `expires_at`: None if it is unknown."""

    access_token: str
    refresh_token: str
    expires_at: datetime | None


def new_verifier() -> str:
    """A PKCE code verifier."""
    return secrets.token_urlsafe(64)


def challenge_of(verifier: str) -> str:
    """Its challenge by method S256."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def authorization_url(provider: OAuthProvider, redirect_uri: str, state: str, verifier: str) -> str:
    """Where a person allows the access."""
    parameters = {
        **provider.authorize_parameters,
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
    }
    if provider.scopes:
        parameters["scope"] = " ".join(provider.scopes)
    separator = "&" if urlsplit(provider.authorize_url).query else "?"
    return f"{provider.authorize_url}{separator}{urlencode(parameters)}"


async def exchange(provider: OAuthProvider, redirect_uri: str, code: str, verifier: str) -> Tokens:
    """The tokens for a code.

    Raises:
        ProviderError: it gives none.
    """
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
    return await _tokens(provider, fields)


async def refresh(provider: OAuthProvider, refresh_token: str) -> Tokens:
    """New tokens. Providers may give a new refresh token, or none: then the old one stays.

    Raises:
        ProviderError: it gives none.
    """
    tokens = await _tokens(provider, {"grant_type": "refresh_token", "refresh_token": refresh_token})
    return tokens._replace(refresh_token=tokens.refresh_token or refresh_token)


async def revoke(provider: OAuthProvider, token: str) -> None:
    """Tell the provider that a token is to be worth nothing, if it takes that.

    Raises:
        ProviderError: it has not taken it.
    """
    if provider.revoke_url:
        await _post(provider, provider.revoke_url, {"token": token})


async def _tokens(provider: OAuthProvider, fields: Mapping[str, str]) -> Tokens:
    answer = await _post(provider, provider.token_url, fields)
    access_token, refresh_token = answer.get("access_token"), answer.get("refresh_token")
    if not isinstance(access_token, str) or not access_token:
        raise ProviderError(f"{provider.title} gave no access token.")
    return Tokens(
        access_token, refresh_token if isinstance(refresh_token, str) else "", _expiry(answer.get("expires_in"))
    )


def _expiry(seconds: Any) -> datetime | None:
    try:
        lifetime = float(seconds)
    except (TypeError, ValueError):
        return None
    return utc_now() + timedelta(seconds=lifetime) if 0 < lifetime < LIFETIME_MAX_S else None


async def _post(provider: OAuthProvider, url: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """A form to a provider, signed by our client id; its answer, if that is JSON."""
    secret, headers = provider.client_secret.get_secret_value(), {"Accept": "application/json"}
    form = dict(fields)
    if provider.client_auth == "basic" and secret:
        pair = f"{quote_plus(provider.client_id)}:{quote_plus(secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        form |= {"client_id": provider.client_id, **({"client_secret": secret} if secret else {})}
    try:
        async with (
            httpx2.AsyncClient(timeout=REQUEST_S, follow_redirects=False) as client,
            client.stream("POST", url, data=form, headers=headers) as response,
        ):
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_MAX_BYTES:
                    raise ProviderError(f"{provider.title} answered too much.")
    except httpx2.HTTPError as error:
        raise ProviderError(f"{provider.title} cannot be reached right now ({type(error).__name__}).") from error
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = {}
    answer = answer if isinstance(answer, dict) else {}
    # Some providers answer an error with status 200.
    if answer.get("error") in REFUSALS:
        raise RefusedError(f"{provider.title} does not accept this connection any more.")
    if not response.is_success or "error" in answer:
        raise ProviderError(f"{provider.title} answered with an error (status {response.status_code}).")
    return answer
