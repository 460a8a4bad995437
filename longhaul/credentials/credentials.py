"""The credentials of users: stored, connected, refreshed, handed out, revoked."""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from longhaul.credentials import oauth
from longhaul.credentials.oauth import ProviderError, RefusedError
from longhaul.credentials.vault import Secret, Vault
from longhaul.db import credentials
from longhaul.db.credentials import BegunConnection, NewCredential, Place, StoredCredential, lease
from longhaul.db.database import Database
from longhaul.db.models import CredentialKind, CredentialStatus, utc_now
from longhaul.errors import NotConnectableError, NotFoundError, SetupError
from longhaul.settings import Settings
from longhaul.settings.credentials import OAuthProvider

log = logging.getLogger(__name__)
#: Seconds that a person has to come back from the provider.
CONNECT_S = 600.0
#: An access token is refreshed so many seconds before it expires.
EARLY_S = 60.0
#: Seconds that one worker may refresh a token, while others wait for it.
REFRESH_S = 2 * oauth.REQUEST_S
POLL_S = 0.1
REENCRYPT_PAGE = 200


class Handed(NamedTuple):
    """What a tool is given, and which version of the credential that is."""

    value: str
    version: str


class Begun(NamedTuple):
    """A connection that has begun: the address to open in the browser that keeps `browser` as the cookie `cookie`."""

    authorization_url: str
    cookie: str
    browser: str
    expires_at: datetime


class Reencrypted(NamedTuple):
    """How many credentials have the newest key now, and how many could not be decrypted."""

    done: int
    unreadable: int


class Credentials:
    """The credentials of all users."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._vault = Vault(settings.keys_of_credentials)
        self._providers = settings.providers
        self._tasks: set[asyncio.Task[None]] = set()
        self._redirect_uri = f"{settings.url_for_users}/v1/oauth/callback"

    def provider(self, name: str) -> OAuthProvider:
        """The provider that people connect to for a credential.

        Raises:
            NotFoundError: there is none.
        """
        if (found := self._providers.get(name)) is None:
            raise NotFoundError(f"There is no provider for {name}; give a token instead: PUT /v1/credentials/{name}.")
        return found

    async def put_token(self, user_id: str, name: str, token: str) -> StoredCredential:
        """Store a token that a person has typed.

        Raises:
            SetupError: there are no keys.
            TooManyError: the user has as many as there may be.
        """
        sealed = self._vault.seal(user_id, name, Secret(value=token))
        new = NewCredential(user_id, name, CredentialKind.TOKEN, sealed, secrets.token_hex(8))
        async with self._database.write() as connection:
            return await credentials.put(connection, new)

    async def remove(self, user_id: str, name: str) -> StoredCredential:
        """Forget a credential. `revoked` tells its provider afterwards.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.write() as connection:
            return await credentials.remove(connection, user_id, name)

    async def revoked(self, removed: StoredCredential) -> None:
        """Let the provider of a removed credential make its tokens worthless; a failure is logged."""
        provider = self._providers.get(removed.name)
        if removed.kind is not CredentialKind.OAUTH or provider is None or not provider.revoke_url:
            return
        try:
            secret = self._vault.open(removed.user_id, removed.name, removed.sealed)
            await oauth.revoke(provider, secret.refresh_token or secret.value)
        except (ProviderError, SetupError) as error:
            log.warning("a token of %s was forgotten here, and could not be revoked there: %s", removed.name, error)

    async def get(self, user_id: str, name: str) -> Handed | None:
        """What a tool may sign in with, refreshed if it is about to expire; None: the person has to connect.

        Raises:
            SetupError: there is no key for it.
            ProviderError: it has to be refreshed, and the provider is away.
            UnavailableError: the database is.
        """
        self._vault.check()
        deadline = time.monotonic() + 2 * REFRESH_S
        while True:
            async with self._database.read() as connection:
                found = await credentials.find(connection, user_id, name)
            if found is None or found.status is CredentialStatus.REJECTED:
                return None
            secret = self._vault.open(user_id, name, found.sealed)
            if found.expires_at is None or found.expires_at > utc_now() + timedelta(seconds=EARLY_S):
                return Handed(secret.value, found.version)
            provider = self._providers.get(name)
            if provider is None or not secret.refresh_token:
                if found.expires_at > utc_now():
                    return Handed(secret.value, found.version)
                await self._reject(found)
                return None
            if await self._claimed(found):
                # What the provider has given must be stored, also if the call that asks for it is stopped.
                await asyncio.shield(self._in_background(self._refresh(found, secret, provider)))
            elif time.monotonic() > deadline:
                raise ProviderError(f"{provider.title} takes too long to give the next token.")
            else:
                await asyncio.sleep(POLL_S)  # another worker refreshes it

    async def reject(self, user_id: str, name: str, version: str) -> None:
        """A tool says that this version does not work."""
        async with self._database.read() as connection:
            found = await credentials.find(connection, user_id, name)
        if found is not None and found.version == version:
            await self._reject(found)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reject(self, found: StoredCredential) -> None:
        async with self._database.write() as connection:
            await credentials.reject(connection, found)

    async def _claimed(self, found: StoredCredential) -> bool:
        async with self._database.write() as connection:
            return await credentials.claim_refresh(connection, found, lease(REFRESH_S))

    async def _refresh(self, found: StoredCredential, secret: Secret, provider: OAuthProvider) -> None:
        """Get the next tokens; only whoever has claimed that may. A refused one asks the person to connect again."""
        try:
            async with asyncio.timeout(oauth.REQUEST_S):
                tokens = await oauth.refresh(provider, secret.refresh_token)
        except RefusedError:
            log.warning("%s gives no more tokens for a user's credential; the user is asked to connect", found.name)
            await self._reject(found)
        except (ProviderError, TimeoutError) as error:
            async with self._database.write() as connection:
                await credentials.let_go(connection, found)
            raise ProviderError(str(error) or f"{provider.title} takes too long to answer.") from error
        else:
            new = self._of(found.user_id, found.name, tokens)
            async with self._database.write() as connection:
                await credentials.refreshed(connection, found, new)

    def _of(self, user_id: str, name: str, tokens: oauth.Tokens) -> NewCredential:
        secret = Secret(value=tokens.access_token, refresh_token=tokens.refresh_token)
        sealed = self._vault.seal(user_id, name, secret)
        return NewCredential(user_id, name, CredentialKind.OAUTH, sealed, secrets.token_hex(8), tokens.expires_at)

    async def begin(self, user_id: str, name: str) -> Begun:
        """Begin to connect to a provider.

        Raises:
            NotFoundError: there is no such provider.
            SetupError: there are no keys.
        """
        provider = self.provider(name)
        state, browser, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32), oauth.new_verifier()
        begun = BegunConnection(
            state_hash=_hash(state),
            browser_hash=_hash(browser),
            user_id=user_id,
            name=name,
            sealed=self._vault.seal(user_id, name, Secret(value=verifier)),
            expires_at=lease(CONNECT_S),
        )
        async with self._database.write() as connection:
            await credentials.begin(connection, begun)
        url = oauth.authorization_url(provider, self._redirect_uri, state, verifier)
        return Begun(url, cookie_of(state), browser, begun.expires_at)

    async def finish(self, state: str, browser: str, code: str) -> StoredCredential:
        """Store what a provider gives for a code, for the user who has begun this; once.

        `browser`: the cookie of the browser that comes back. An empty `code`: the person has not allowed it.

        Raises:
            NotConnectableError: nobody has begun this, or not here, it is too late, or the provider gives nothing.
        """
        async with self._database.write() as connection:
            begun = await credentials.take_begun(connection, _hash(state))
        if begun is None or begun.expires_at < utc_now():
            raise NotConnectableError("This address was used already, or is too old.")
        if not hmac.compare_digest(begun.browser_hash, _hash(browser)):
            raise NotConnectableError("This was begun in another browser, perhaps by somebody else.")
        provider = self.provider(begun.name)
        if not code:
            raise NotConnectableError(f"{provider.title} was not allowed to give access.")
        verifier = self._vault.open(begun.user_id, begun.name, begun.sealed).value
        try:
            async with asyncio.timeout(oauth.REQUEST_S):
                tokens = await oauth.exchange(provider, self._redirect_uri, code, verifier)
        except (ProviderError, TimeoutError) as error:
            raise NotConnectableError(str(error) or f"{provider.title} takes too long to answer.") from error
        async with self._database.write() as connection:
            return await credentials.put(connection, self._of(begun.user_id, begun.name, tokens))

    async def reencrypt(self) -> Reencrypted:
        """Encrypt all credentials with the newest key. Those that change meanwhile have it already."""
        done = unreadable = 0
        place = Place("", "")
        while True:
            async with self._database.read() as connection:
                page = await credentials.page(connection, place, REENCRYPT_PAGE)
            for found in page:
                if (sealed := self._vault.sealed_anew(found.sealed)) is None:
                    unreadable += 1
                    continue
                async with self._database.write() as connection:
                    done += await credentials.seal_anew(connection, found, sealed)
            if len(page) < REENCRYPT_PAGE:
                return Reencrypted(done, unreadable)
            place = Place(page[-1].user_id, page[-1].name)


def cookie_of(state: str) -> str:
    """The name of the cookie by which a browser shows that it has begun a connection."""
    return f"longhaul_oauth_{_hash(state)[:16]}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
