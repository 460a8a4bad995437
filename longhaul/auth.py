"""The calling user: always `local` (`LONGHAUL_AUTH=off`) or the `sub` of a signed token (`jwt`)."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import jwt

from longhaul.errors import LonghaulError, UnavailableError
from longhaul.settings import Settings

LOCAL_USER = "local"
USER_MAX, EMAIL_MAX, TIER_MAX = 255, 320, 64
KEY_LIFETIME_S = 300.0
REFRESH_PAUSE_S = 10.0
FETCH_TIMEOUT_S = 5.0
PUBLIC_KEY_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


@dataclass(frozen=True)
class Caller:
    """Who calls, as the token says. `is_admin`: one of the roles is that of admins. `roles`: those that a model is kept
    for.
    """

    user_id: str
    email: str | None = None
    tier: str | None = None
    is_admin: bool = False
    roles: frozenset[str] = frozenset()


#: Without authentication, who reaches the API can also read its database, so nothing is kept from that user.
LOCAL_CALLER = Caller(LOCAL_USER, is_admin=True)


class UnauthorizedError(LonghaulError):
    """No token, or an invalid one. The text names the defect and quotes nothing of the token."""


class Authenticator:
    """Turns a token into a user id, or into all that it says of its user."""

    def __init__(self, settings: Settings) -> None:
        self._off = settings.auth == "off"
        self._secret = settings.jwt_secret.get_secret_value()
        self._audience = settings.jwt_audience or None
        self._issuer = settings.jwt_issuer or None
        self._keys = IssuerKeys(settings.jwt_jwks_url) if settings.jwt_jwks_url else None
        self._tier_claim = settings.jwt_tier_claim
        self._email_claim = settings.jwt_email_claim
        self._roles_claim = settings.jwt_roles_claim
        self._admin_role = settings.admin_role
        self._roles = settings.roles_of_models

    async def user(self, token: str | None) -> str:
        """The user of a token; raises what `caller` raises."""
        return (await self.caller(token)).user_id

    async def caller(self, token: str | None) -> Caller:
        """Who calls with a token. A claim that is not of its type counts as missing, except for `sub`.

        Raises:
            UnauthorizedError: there is none, or it is not valid.
            UnavailableError: the issuer's keys cannot be fetched now.
        """
        if self._off:
            return LOCAL_CALLER
        if not token:
            raise UnauthorizedError("A bearer token is needed.")
        try:
            claims = await self._claims(token)
        except jwt.InvalidTokenError as error:
            raise UnauthorizedError(f"The token is not valid: {error}.") from error
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= USER_MAX or not subject.isprintable():
            raise UnauthorizedError(f"The token's `sub` is not a text of 1 to {USER_MAX} printable characters.")
        roles = _words(claim(claims, self._roles_claim))
        return Caller(
            subject,
            email=_text(claim(claims, self._email_claim), EMAIL_MAX),
            tier=_text(claim(claims, self._tier_claim), TIER_MAX),
            is_admin=self._admin_role in roles,
            roles=frozenset(role for role in roles if isinstance(role, str)) & self._roles,
        )

    async def _claims(self, token: str) -> dict[str, object]:
        # We choose the algorithm, never the token: a public key must not pass as an HMAC secret.
        key: str | jwt.PyJWK = self._secret
        algorithms = ["HS256"]
        if self._keys is not None:
            key = await self._keys.key_of(token)
            algorithms = PUBLIC_KEY_ALGORITHMS
        claims: dict[str, object] = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=self._audience,
            issuer=self._issuer,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )
        return claims


def claim(claims: Mapping[str, object], name: str) -> object:
    """The claim of this name, which may hold dots; else that which the name reaches over objects, as `a.b`."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _text(value: object, most: int) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= most and value.isprintable() else None


def _words(value: object) -> list[object]:
    """A list of roles, as issuers write it: a list of texts, or a text of words."""
    if isinstance(value, str):
        return [*value.split()]
    return value if isinstance(value, list) else []


class IssuerKeys:
    """The keys of a JWKS URL, fetched off the event loop and kept for a while.

    A token that names an unknown key causes another fetch (keys get rotated), but only every few seconds: otherwise
    invented tokens would let any caller drive requests at the issuer.
    """

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_keys=False, cache_jwk_set=False, timeout=FETCH_TIMEOUT_S)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def key_of(self, token: str) -> jwt.PyJWK:
        """The key that a token says it was signed with.

        Raises:
            jwt.InvalidTokenError: it names none, or none of the issuer's.
            UnavailableError: the issuer does not answer, and the key is not known.
        """
        name = jwt.get_unverified_header(token).get("kid")
        if not isinstance(name, str):
            raise jwt.InvalidTokenError("it names no key (`kid`)")
        if name not in self._keys or time.monotonic() - self._fetched_at > KEY_LIFETIME_S:
            await self._refresh(name)
        if name not in self._keys:
            raise jwt.InvalidTokenError("it names a key that the issuer does not have")
        return self._keys[name]

    async def _refresh(self, wanted: str) -> None:
        async with self._lock:
            now = time.monotonic()
            fresh = now - self._fetched_at <= KEY_LIFETIME_S
            if now - self._tried_at < REFRESH_PAUSE_S or (fresh and wanted in self._keys):
                if not self._keys:
                    raise UnavailableError("The token issuer's key set")
                return
            self._tried_at = now
            try:
                keys = await asyncio.to_thread(self._client.get_signing_keys, refresh=True)
            except jwt.PyJWKClientError as error:
                if wanted in self._keys:  # An issuer that is down does not lock out its users.
                    return
                raise UnavailableError("The token issuer's key set") from error
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._fetched_at = now
