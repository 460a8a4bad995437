"""Accounts of users: what their tokens say of them, their tier, and the entries that changed an account."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import uuid4

from sqlalchemy import bindparam, func, insert, literal, select, union_all, update

from longhaul.db.connection import Connection
from longhaul.db.models import AccountEntryRow, LedgerRow, UserAccountRow, columns_of


class Account(NamedTuple):
    """A user's account. `claimed_tier`, `claimed_roles` (words): as the newest token says; `tier`: as an admin has set
    it, which counts.
    """

    user_id: str
    email: str | None
    claimed_tier: str | None
    tier: str | None
    claimed_roles: str | None = None


class Action(StrEnum):
    """What changed an account."""

    BOUGHT_RESET = "bought_reset"
    GRANTED_CREDITS = "granted_credits"
    SET_TIER = "set_tier"
    RESET_DAY = "reset_day"
    RESET_WEEK = "reset_week"


class EntryPosition(NamedTuple):
    """A place in the changes of an account, which are listed newest first; by id, where they were made at once."""

    created_at: datetime
    id: str


class Entry(NamedTuple):
    """One change of an account, by an admin or by the user: `actor_id`.

    `credits`: what was granted (positive) or spent (negative). `day_microdollars`, `week_microdollars`: what a reset
    has taken off the day and the week that held `created_at`. `id`: empty until it is entered.
    """

    user_id: str
    actor_id: str
    action: Action
    created_at: datetime
    credits: int = 0
    day_microdollars: int = 0
    week_microdollars: int = 0
    tier: str | None = None
    id: str = ""


OF_USER = select(*columns_of(UserAccountRow, Account)).where(UserAccountRow.user_id == bindparam("user"))
INSERT = insert(UserAccountRow)
NOTE_CLAIMS = (
    update(UserAccountRow)
    .where(UserAccountRow.user_id == bindparam("user"))
    .values(email=bindparam("new_email"), claimed_tier=bindparam("new_tier"), claimed_roles=bindparam("new_roles"))
)
SET_TIER = update(UserAccountRow).where(UserAccountRow.user_id == bindparam("user")).values(tier=bindparam("new_tier"))
OF_EMAIL = (
    select(*columns_of(UserAccountRow, Account))
    .where(UserAccountRow.email == bindparam("address"))
    .order_by(UserAccountRow.user_id)
    .limit(bindparam("most"))
)
ENTRIES = (
    select(*columns_of(AccountEntryRow, Entry))
    .where(AccountEntryRow.user_id == bindparam("user"))
    .order_by(AccountEntryRow.created_at.desc(), AccountEntryRow.id)
    .limit(bindparam("most"))
)
KNOWN = union_all(
    *(
        select(literal(1)).where(table.user_id == bindparam("user"))
        for table in (UserAccountRow, AccountEntryRow, LedgerRow)
    )
).limit(1)
ADD_ENTRY = insert(AccountEntryRow)
CREDITS = select(func.coalesce(func.sum(AccountEntryRow.credits), 0)).where(
    AccountEntryRow.user_id == bindparam("user")
)
COUNT = select(func.count(AccountEntryRow.id)).where(
    AccountEntryRow.user_id == bindparam("user"),
    AccountEntryRow.action == bindparam("of_action"),
    AccountEntryRow.created_at >= bindparam("since"),
)


async def lock(connection: Connection, user_id: str) -> None:
    """Let no other transaction change this account until this one ends."""
    await connection.lock_name(f"account of {user_id}")


async def find(connection: Connection, user_id: str) -> Account | None:
    """A user's account, or None."""
    row = (await connection.execute(OF_USER, {"user": user_id})).first()
    return Account._make(row) if row is not None else None


async def is_known(connection: Connection, user_id: str) -> bool:
    """Whether there is an account of this user, a change of one, or a cost."""
    return await connection.scalar(KNOWN, {"user": user_id}) is not None


async def get(connection: Connection, user_id: str) -> Account:
    """A user's account; an empty one if there is none."""
    return await find(connection, user_id) or Account(user_id, None, None, None)


async def note_claims(
    connection: Connection, user_id: str, email: str | None, tier: str | None, roles: str | None = None
) -> None:
    """Keep what the newest token says of a user; the account is made if there is none."""
    await lock(connection, user_id)
    if await find(connection, user_id) is None:
        await connection.execute(
            INSERT, {"user_id": user_id, "email": email, "claimed_tier": tier, "claimed_roles": roles}
        )
    else:
        values = {"user": user_id, "new_email": email, "new_tier": tier, "new_roles": roles}
        await connection.execute(NOTE_CLAIMS, values)


async def set_tier(connection: Connection, user_id: str, tier: str | None) -> None:
    """Set the tier that counts more than the token's; None: the token's counts again."""
    await lock(connection, user_id)
    if await find(connection, user_id) is None:
        await connection.execute(INSERT, {"user_id": user_id, "tier": tier})
    else:
        await connection.execute(SET_TIER, {"user": user_id, "new_tier": tier})


async def add_entry(connection: Connection, entry: Entry) -> None:
    """Enter a change."""
    await connection.execute(ADD_ENTRY, {**entry._asdict(), "id": str(uuid4())})


async def credits_of(connection: Connection, user_id: str) -> int:
    """The credits that a user has left."""
    return int(await connection.scalar(CREDITS, {"user": user_id}))


async def count(connection: Connection, user_id: str, action: Action, since: datetime) -> int:
    """How often an account was changed in this way since then."""
    values = {"user": user_id, "of_action": action, "since": since}
    return int(await connection.scalar(COUNT, values))


async def of_email(connection: Connection, email: str, most: int) -> list[Account]:
    """The accounts whose tokens name this address; issuers need not keep addresses apart."""
    return [Account._make(row) for row in await connection.execute(OF_EMAIL, {"address": email, "most": most})]


async def entries(connection: Connection, user_id: str, most: int, after: EntryPosition | None = None) -> list[Entry]:
    """What changed an account, behind a position, newest first."""
    statement = ENTRIES
    if after is not None:
        same_moment = (AccountEntryRow.created_at == after.created_at) & (AccountEntryRow.id > after.id)
        statement = statement.where((AccountEntryRow.created_at < after.created_at) | same_moment)
    return [Entry._make(row) for row in await connection.execute(statement, {"user": user_id, "most": most})]
