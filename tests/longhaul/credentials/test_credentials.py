"""Credentials against a real provider: connected, refreshed once, refused, revoked, encrypted anew."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from longhaul.credentials.credentials import Credentials
from longhaul.credentials.oauth import ProviderError
from longhaul.credentials.vault import new_key
from longhaul.db.credentials import BEGUN_MAX
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.db.models import CredentialRow, OAuthStateRow
from longhaul.errors import NotConnectableError, NotFoundError, SetupError
from longhaul.settings import load_settings
from testkit.oauth import OAuthProvider, allowed_by_a_person, oauth_provider
from testkit.wait import until

ANN, KEY = "ann", new_key()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("credentials") / "longhaul.db"
    upgrade(f"sqlite:///{found}")
    return found


@pytest.fixture
async def database(template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    await asyncio.to_thread(shutil.copy, template, tmp_path / "longhaul.db")
    found = Database(f"sqlite:///{tmp_path / 'longhaul.db'}")
    yield found
    await found.close()


@pytest.fixture
async def provider() -> AsyncIterator[OAuthProvider]:
    async with oauth_provider() as found:
        yield found


def of(database: Database, provider: OAuthProvider, **settings: Any) -> Credentials:
    given = {"credential_keys": KEY, "oauth_providers": provider.setting(), **settings}
    return Credentials(database, load_settings(**given))


@pytest.fixture
def credentials(database: Database, provider: OAuthProvider) -> Credentials:
    return of(database, provider)


async def connect(credentials: Credentials, user: str = ANN) -> None:
    """As a person does it, in one browser."""
    begun = await credentials.begin(user, "acme")
    back = await allowed_by_a_person(begun.authorization_url)
    await credentials.finish(back.params["state"], begun.browser, back.params["code"])


async def value(credentials: Credentials, user: str = ANN) -> str | None:
    handed = await credentials.get(user, "acme")
    return handed.value if handed is not None else None


async def all_rows(database: Database) -> str:
    async with database.read() as connection:
        tables = [
            await connection.execute(select(*table.__table__.columns)) for table in (CredentialRow, OAuthStateRow)
        ]
    return str(tables)


@pytest.mark.parametrize("client_auth", ["post", "basic"])
async def test_connected(database: Database, provider: OAuthProvider, client_auth: str) -> None:
    credentials = of(database, provider, oauth_providers=provider.setting(client_auth=client_auth))
    assert await value(credentials) is None
    await connect(credentials)
    assert await value(credentials) == "access-s3cret-2"
    assert await value(credentials, "bob") is None
    assert "s3cret" not in await all_rows(database)


async def test_the_address_asks_for_what_the_setting_says(credentials: Credentials) -> None:
    asked = httpx2.URL((await credentials.begin(ANN, "acme")).authorization_url).params
    assert (asked["scope"], asked["code_challenge_method"]) == ("read write", "S256")
    assert asked["redirect_uri"] == "http://127.0.0.1:8700/v1/oauth/callback"
    assert len(asked["state"]) > 40


async def test_a_state_works_once_and_in_its_browser(database: Database, credentials: Credentials) -> None:
    """A stolen address, one of another browser, one that was invented, and one that is too old give nothing."""
    begun = await credentials.begin(ANN, "acme")
    back = await allowed_by_a_person(begun.authorization_url)
    state, code = back.params["state"], back.params["code"]
    with pytest.raises(NotConnectableError, match="another browser"):
        await credentials.finish(state, "the attacker's own browser", code)
    with pytest.raises(NotConnectableError, match="used already"):
        await credentials.finish(state, begun.browser, code)
    with pytest.raises(NotConnectableError, match="used already"):
        await credentials.finish("invented", begun.browser, code)
    late = await credentials.begin(ANN, "acme")
    async with database.write() as connection:
        await connection.execute(update(OAuthStateRow).values(expires_at=begun.expires_at.replace(year=2020)))
    back = await allowed_by_a_person(late.authorization_url)
    with pytest.raises(NotConnectableError, match="too old"):
        await credentials.finish(back.params["state"], late.browser, back.params["code"])
    assert await value(credentials) is None


async def test_two_who_come_back_at_once_connect_once(credentials: Credentials) -> None:
    begun = await credentials.begin(ANN, "acme")
    back = await allowed_by_a_person(begun.authorization_url)
    given = (back.params["state"], begun.browser, back.params["code"])
    ends = await asyncio.gather(*(credentials.finish(*given) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(end, NotConnectableError) for end in ends) == 4, ends


async def test_a_code_of_another_connection_is_worth_nothing(credentials: Credentials) -> None:
    """PKCE: a code that was injected belongs to another verifier."""
    hers, his = await credentials.begin(ANN, "acme"), await credentials.begin("bob", "acme")
    state = (await allowed_by_a_person(hers.authorization_url)).params["state"]
    code = (await allowed_by_a_person(his.authorization_url)).params["code"]
    with pytest.raises(NotConnectableError):
        await credentials.finish(state, hers.browser, code)
    assert await value(credentials) is None


async def test_only_so_many_connections_are_open(database: Database, credentials: Credentials) -> None:
    for _ in range(BEGUN_MAX + 5):
        await credentials.begin(ANN, "acme")
    async with database.read() as connection:
        assert len(await connection.scalars(select(OAuthStateRow.state_hash))) == BEGUN_MAX


async def test_a_token_is_refreshed_once_for_all_who_need_it(
    database: Database, credentials: Credentials, provider: OAuthProvider
) -> None:
    """A refresh token is worth one use: two workers that use it would lose the connection."""
    provider.lifetime_s = 1
    await connect(credentials)
    provider.lifetime_s = 3600
    workers = [credentials, of(database, provider), of(database, provider)]
    values = await asyncio.gather(*(value(workers[number % 3]) for number in range(12)))
    assert (set(values), provider.refreshes) == ({"access-s3cret-3"}, 1)


async def test_a_stopped_call_loses_no_refresh(credentials: Credentials, provider: OAuthProvider) -> None:
    provider.lifetime_s = 1
    await connect(credentials)
    provider.lifetime_s = 3600
    call = asyncio.create_task(value(credentials))

    async def asked() -> bool:
        return provider.refreshes == 1

    await until(asked, what="the provider is asked", every=0.001)
    call.cancel()
    assert await value(credentials) == "access-s3cret-3"
    assert provider.refreshes == 1


async def test_a_provider_that_is_away_loses_nothing(credentials: Credentials, provider: OAuthProvider) -> None:
    provider.lifetime_s, provider.fault = 1, 0
    await connect(credentials)
    provider.lifetime_s, provider.fault = 3600, 503
    with pytest.raises(ProviderError, match="status 503"):
        await value(credentials)
    provider.fault = 0
    assert await value(credentials) == "access-s3cret-3"


async def test_a_refused_refresh_asks_the_person_again(credentials: Credentials, provider: OAuthProvider) -> None:
    provider.lifetime_s = 1
    await connect(credentials)
    provider.good_refresh_tokens.clear()
    assert await value(credentials) is None
    provider.lifetime_s = 3600
    await connect(credentials)
    assert await value(credentials) == "access-s3cret-4"


async def test_a_rejected_one_is_given_out_no_more_until_it_is_given_anew(credentials: Credentials) -> None:
    await credentials.put_token(ANN, "acme", "first-token")
    handed = await credentials.get(ANN, "acme")
    assert handed is not None
    await credentials.put_token(ANN, "acme", "second-token")
    await credentials.reject(ANN, "acme", handed.version)
    assert await value(credentials) == "second-token", "only the version that did not work is rejected"
    newest = await credentials.get(ANN, "acme")
    assert newest is not None
    await credentials.reject(ANN, "acme", newest.version)
    assert await value(credentials) is None


async def test_revoked_here_and_there(credentials: Credentials, provider: OAuthProvider) -> None:
    await connect(credentials)
    removed = await credentials.remove(ANN, "acme")
    await credentials.revoked(removed)
    assert (await value(credentials), provider.revoked) == (None, ["refresh-s3cret-2"])
    with pytest.raises(NotFoundError):
        await credentials.remove(ANN, "acme")


async def test_encrypted_anew(database: Database, provider: OAuthProvider) -> None:
    """Afterwards the old key is needed by nobody; what has an unknown key is counted and kept."""
    old, new = of(database, provider), new_key()
    for user in ("ann", "bob", "eve"):
        await old.put_token(user, "acme", f"token of {user}")
    both = of(database, provider, credential_keys=f"{new},{KEY}")
    assert await both.reencrypt() == (3, 0)
    assert await value(of(database, provider, credential_keys=new), "eve") == "token of eve"
    assert await of(database, provider, credential_keys=new_key()).reencrypt() == (0, 3)
    assert await value(of(database, provider, credential_keys=new), "bob") == "token of bob"


async def test_without_keys(database: Database, provider: OAuthProvider) -> None:
    without = of(database, provider, credential_keys="")
    with pytest.raises(SetupError):
        await without.begin(ANN, "acme")
    with pytest.raises(SetupError):
        await without.get(ANN, "acme")
