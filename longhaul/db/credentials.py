"""Credentials of users, encrypted, and connections to providers that have begun."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, tuple_, update

from longhaul.db.connection import Connection
from longhaul.db.models import CredentialKind, CredentialRow, CredentialStatus, OAuthStateRow, columns_of, utc_now
from longhaul.errors import NotFoundError, TooManyError

CREDENTIALS_MAX = 100
#: Connections that a user may have begun and not finished; older ones are given up.
BEGUN_MAX = 10


class StoredCredential(NamedTuple):
    """A credential of a user. See `CredentialRow`."""

    user_id: str
    name: str
    kind: CredentialKind
    status: CredentialStatus
    sealed: str
    version: str
    expires_at: datetime | None
    refreshing_until: datetime | None
    created_at: datetime
    updated_at: datetime


class NewCredential(NamedTuple):
    """What is stored in the place of an older credential of this name. `expires_at`: of an access token."""

    user_id: str
    name: str
    kind: CredentialKind
    sealed: str
    version: str
    expires_at: datetime | None = None


class BegunConnection(NamedTuple):
    """A connection to a provider that has begun. See `OAuthStateRow`."""

    state_hash: str
    browser_hash: str
    user_id: str
    name: str
    sealed: str
    expires_at: datetime


class Place(NamedTuple):
    """A place in the list of all credentials."""

    user_id: str
    name: str


CREDENTIALS = select(*columns_of(CredentialRow, StoredCredential))
OF_USER = CREDENTIALS.where(CredentialRow.user_id == bindparam("user")).order_by(CredentialRow.name)
_ONE = and_(CredentialRow.user_id == bindparam("user"), CredentialRow.name == bindparam("credential"))
BY_NAME = CREDENTIALS.where(_ONE)
NUMBER_OF_USER = select(func.count()).where(CredentialRow.user_id == bindparam("user"))
_THIS_VERSION = and_(_ONE, CredentialRow.version == bindparam("known"))
CLAIM = (
    update(CredentialRow)
    .where(
        _THIS_VERSION,
        or_(CredentialRow.refreshing_until.is_(None), CredentialRow.refreshing_until < bindparam("now")),
    )
    .values(refreshing_until=bindparam("until"))
)
REFRESHED = (
    update(CredentialRow)
    .where(_THIS_VERSION)
    .values(
        sealed=bindparam("new_sealed"),
        version=bindparam("new_version"),
        expires_at=bindparam("expiry"),
        refreshing_until=None,
        updated_at=bindparam("now"),
    )
)
REJECT = (
    update(CredentialRow).where(_THIS_VERSION).values(status=CredentialStatus.REJECTED, updated_at=bindparam("now"))
)
LET_GO = update(CredentialRow).where(_THIS_VERSION).values(refreshing_until=None)


async def lock(connection: Connection, user_id: str) -> None:
    """Let no other transaction change the user's credentials, or decide that one is missing, until this one ends."""
    await connection.lock_name(f"credentials of {user_id}")


async def find(connection: Connection, user_id: str, name: str) -> StoredCredential | None:
    """A credential of a user; None: there is none of this name."""
    rows = await connection.execute(BY_NAME, {"user": user_id, "credential": name})
    return _stored(rows[0]) if rows else None


async def is_connected(connection: Connection, user_id: str, name: str) -> bool:
    """Whether there is one that has not been rejected."""
    found = await find(connection, user_id, name)
    return found is not None and found.status is CredentialStatus.CONNECTED


async def list_of_user(connection: Connection, user_id: str) -> list[StoredCredential]:
    """All credentials of a user, by name."""
    return [_stored(row) for row in await connection.execute(OF_USER, {"user": user_id})]


async def put(connection: Connection, new: NewCredential) -> StoredCredential:
    """Store a credential in the place of one of this name.

    Raises:
        TooManyError: the user has as many as there may be.
    """
    await lock(connection, new.user_id)
    now = utc_now()
    known = await find(connection, new.user_id, new.name)
    if known is None and (await connection.scalar(NUMBER_OF_USER, {"user": new.user_id}) or 0) >= CREDENTIALS_MAX:
        raise TooManyError("credentials", CREDENTIALS_MAX, "DELETE /v1/credentials/{name}")
    stored = StoredCredential(
        **new._asdict(),
        status=CredentialStatus.CONNECTED,
        refreshing_until=None,
        created_at=known.created_at if known is not None else now,
        updated_at=now,
    )
    await connection.execute(
        delete(CredentialRow).where(CredentialRow.user_id == new.user_id, CredentialRow.name == new.name)
    )
    await connection.execute(insert(CredentialRow), stored._asdict())
    return stored


async def remove(connection: Connection, user_id: str, name: str) -> StoredCredential:
    """Forget a credential; the one that it was.

    Raises:
        NotFoundError: there is none of this name.
    """
    await lock(connection, user_id)
    if (found := await find(connection, user_id, name)) is None:
        raise NotFoundError(f"There is no credential {name}.")
    await connection.execute(delete(CredentialRow).where(CredentialRow.user_id == user_id, CredentialRow.name == name))
    return found


async def claim_refresh(connection: Connection, known: StoredCredential, until: datetime) -> bool:
    """Become the one who refreshes this version until a moment; False: somebody else does, or has."""
    values = {**_name(known), "until": until, "now": utc_now()}
    return (await connection.execute(CLAIM, values)).rowcount == 1


async def refreshed(connection: Connection, known: StoredCredential, new: NewCredential) -> None:
    """Store what a refresh of the version `known` has given, unless another version is stored by now."""
    values = {"new_sealed": new.sealed, "new_version": new.version, "expiry": new.expires_at, "now": utc_now()}
    await connection.execute(REFRESHED, {**_name(known), **values})


async def let_go(connection: Connection, known: StoredCredential) -> None:
    """End a refresh that gave nothing, so that somebody else may try."""
    await connection.execute(LET_GO, _name(known))


async def reject(connection: Connection, known: StoredCredential) -> None:
    """Note that this version does not work: its user is asked for another one."""
    await lock(connection, known.user_id)
    await connection.execute(REJECT, {**_name(known), "now": utc_now()})


async def begin(connection: Connection, begun: BegunConnection) -> None:
    """Note that a user begins to connect; what has expired, and the oldest of too many, are given up."""
    await lock(connection, begun.user_id)
    mine = select(OAuthStateRow.state_hash).where(OAuthStateRow.user_id == begun.user_id)
    newest = await connection.scalars(mine.order_by(OAuthStateRow.expires_at.desc()).limit(BEGUN_MAX - 1))
    old = and_(OAuthStateRow.user_id == begun.user_id, OAuthStateRow.state_hash.not_in(newest))
    await connection.execute(delete(OAuthStateRow).where(or_(OAuthStateRow.expires_at < utc_now(), old)))
    await connection.execute(insert(OAuthStateRow), begun._asdict())


async def take_begun(connection: Connection, state_hash: str) -> BegunConnection | None:
    """The connection that began with a state, once; None: there is none, or it was taken."""
    statement = delete(OAuthStateRow).where(OAuthStateRow.state_hash == state_hash)
    rows = await connection.execute(statement.returning(*columns_of(OAuthStateRow, BegunConnection)))
    return BegunConnection._make(rows[0]) if rows else None


async def page(connection: Connection, after: Place, limit: int) -> list[StoredCredential]:
    """Credentials of all users behind a place."""
    place = tuple_(CredentialRow.user_id, CredentialRow.name)
    statement = CREDENTIALS.where(place > tuple(after)).order_by(CredentialRow.user_id, CredentialRow.name)
    return [_stored(row) for row in await connection.execute(statement.limit(limit))]


async def seal_anew(connection: Connection, known: StoredCredential, sealed: str) -> bool:
    """Replace the ciphertext of this version; False: another version is stored by now."""
    statement = update(CredentialRow).where(_THIS_VERSION, CredentialRow.sealed == known.sealed)
    return (await connection.execute(statement.values(sealed=sealed), _name(known))).rowcount == 1


def _name(known: StoredCredential) -> dict[str, object]:
    return {"user": known.user_id, "credential": known.name, "known": known.version}


def _stored(row: Sequence[object]) -> StoredCredential:
    found = StoredCredential._make(row)
    return found._replace(kind=CredentialKind(found.kind), status=CredentialStatus(found.status))


def lease(seconds: float) -> datetime:
    """The moment so many seconds from now."""
    return utc_now() + timedelta(seconds=seconds)
