"""Webhooks of users, and the attempts to send events to them."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, exists, func, insert, literal, select, tuple_, update

from longhaul.db import events
from longhaul.db.connection import Connection
from longhaul.db.event_tables import AttemptKind, EventRow, EventType, WebhookAttemptRow, WebhookRow
from longhaul.db.events import Event
from longhaul.db.models import columns_of, utc_now
from longhaul.errors import NotFoundError, TooManyError


class Webhook(NamedTuple):
    """An address to which events are sent. See `WebhookRow`."""

    id: str
    user_id: str
    url: str
    event_types: frozenset[EventType]
    secret: str
    old_secret: str | None
    old_secret_until: datetime | None
    enabled: bool
    disabled_because: str | None
    position: int
    created_at: datetime
    updated_at: datetime


class Attempt(NamedTuple):
    """One attempt to send an event. See `WebhookAttemptRow`."""

    id: str
    webhook_id: str
    event_id: str
    event_type: str
    kind: AttemptKind
    delivered: bool
    gave_up: bool
    status_code: int | None
    error: str | None
    duration_ms: int
    created_at: datetime


class Place(NamedTuple):
    """A place in a list that is sorted by creation."""

    created_at: datetime
    id: str


WEBHOOKS = select(*columns_of(WebhookRow, Webhook))
ATTEMPTS = select(*columns_of(WebhookAttemptRow, Attempt))


def _values(webhook: Webhook) -> dict[str, Any]:
    """The webhook as its row has it."""
    return {**webhook._asdict(), "event_types": f",{','.join(sorted(webhook.event_types))},"}


def _webhook(row: Any) -> Webhook:
    webhook = Webhook._make(row)
    types = str(webhook.event_types).strip(",").split(",")
    return webhook._replace(event_types=frozenset(map(EventType, types)))


async def add(connection: Connection, webhook: Webhook, most: int) -> Webhook:
    """Store a webhook; it is sent what happens from now on.

    Raises:
        TooManyError: its user has `most` (0: no limit) already.
    """
    # The row of the user's position is locked from here on, so two that are made at once are counted one by one.
    position = await events.watch(connection, webhook.user_id, watched=True)
    count = await connection.scalar(select(func.count()).where(WebhookRow.user_id == webhook.user_id))
    if most and count >= most:
        raise TooManyError("webhooks", most, "DELETE /v1/webhooks/{id}")
    stored = webhook._replace(position=position)
    await connection.execute(insert(WebhookRow), _values(stored))
    return stored


async def find(connection: Connection, webhook_id: str) -> Webhook | None:
    """A webhook, or None."""
    row = (await connection.execute(WEBHOOKS.where(WebhookRow.id == webhook_id))).first()
    return _webhook(row) if row is not None else None


async def get(connection: Connection, user_id: str, webhook_id: str) -> Webhook:
    """A webhook of a user.

    Raises:
        NotFoundError: there is none, or it is another user's.
    """
    webhook = await find(connection, webhook_id)
    if webhook is None or webhook.user_id != user_id:
        raise NotFoundError(f"There is no webhook {webhook_id}.")
    return webhook


async def list_of_user(connection: Connection, user_id: str, limit: int, before: Place | None = None) -> list[Webhook]:
    """A user's webhooks behind a place, newest first."""
    statement = WEBHOOKS.where(WebhookRow.user_id == user_id)
    if before is not None:
        statement = statement.where(tuple_(WebhookRow.created_at, WebhookRow.id) < tuple(before))
    statement = statement.order_by(WebhookRow.created_at.desc(), WebhookRow.id.desc()).limit(limit)
    return [_webhook(row) for row in await connection.execute(statement)]


async def change(connection: Connection, webhook: Webhook, **values: Any) -> Webhook:
    """Change columns of a webhook. One that is turned on again is sent what happens from now on.

    Raises:
        NotFoundError: it was deleted.
    """
    wanted = webhook._replace(**values, updated_at=utc_now())
    if wanted.enabled and not webhook.enabled:
        wanted = wanted._replace(position=await events.newest_position(connection, webhook.user_id))
    stored = {name: value for name, value in _values(wanted).items() if getattr(wanted, name) != getattr(webhook, name)}
    changed = await connection.execute(update(WebhookRow).where(WebhookRow.id == webhook.id).values(stored))
    if not changed.rowcount:
        raise NotFoundError(f"There is no webhook {webhook.id}.")
    await _watch(connection, webhook.user_id)
    return wanted


async def remove(connection: Connection, webhook: Webhook) -> None:
    """Forget a webhook and the attempts of it."""
    await connection.execute(delete(WebhookAttemptRow).where(WebhookAttemptRow.webhook_id == webhook.id))
    await connection.execute(delete(WebhookRow).where(WebhookRow.id == webhook.id))
    await _watch(connection, webhook.user_id)


async def _watch(connection: Connection, user_id: str) -> None:
    await events.watch(connection, user_id, watched=True)  # It locks: what others have committed is seen from here on.
    some = select(WebhookRow.id).where(WebhookRow.user_id == user_id, WebhookRow.enabled).limit(1)
    await events.watch(connection, user_id, watched=await connection.scalar(some) is not None)


async def next_event(connection: Connection, webhook: Webhook) -> Event | None:
    """The oldest event that a webhook has not been sent; None: there is none."""
    found = await events.list_of_user(
        connection, webhook.user_id, 1, behind=webhook.position, types=webhook.event_types
    )
    return found[0] if found else None


async def count_waiting(connection: Connection, webhook: Webhook) -> int:
    """How many events a webhook has not been sent."""
    waiting = select(func.count()).where(
        EventRow.user_id == webhook.user_id,
        EventRow.position > webhook.position,
        EventRow.type.in_(webhook.event_types),
    )
    return await connection.scalar(waiting) or 0


async def advance(connection: Connection, webhook_id: str, position: int) -> None:
    """Note that a webhook is done with the events up to a position."""
    row = update(WebhookRow).where(WebhookRow.id == webhook_id, WebhookRow.position < position)
    await connection.execute(row.values(position=position))


_WAITS = (
    WebhookRow.enabled,
    exists().where(
        EventRow.user_id == WebhookRow.user_id,
        EventRow.position > WebhookRow.position,
        WebhookRow.event_types.contains(literal(",") + EventRow.type + literal(",")),
    ),
)


async def waiting_of_users(connection: Connection, user_ids: Collection[str]) -> list[tuple[str, str]]:
    """The webhooks of these users, with their users, that have not been sent all events."""
    rows = await connection.execute(
        select(WebhookRow.id, WebhookRow.user_id).where(WebhookRow.user_id.in_(user_ids), *_WAITS)
    )
    return [(row.id, row.user_id) for row in rows]


async def forgotten(connection: Connection, before: datetime, limit: int) -> list[tuple[str, str]]:
    """Webhooks of all users, with their users, that have not been sent an event that is older than a moment."""
    waits = exists().where(
        EventRow.user_id == WebhookRow.user_id,
        EventRow.position > WebhookRow.position,
        EventRow.created_at < before,
        WebhookRow.event_types.contains(literal(",") + EventRow.type + literal(",")),
    )
    rows = await connection.execute(
        select(WebhookRow.id, WebhookRow.user_id).where(WebhookRow.enabled, waits).order_by(func.random()).limit(limit)
    )
    return [(row.id, row.user_id) for row in rows]


async def note_attempt(connection: Connection, attempt: Attempt) -> None:
    """Store an attempt, unless its webhook was deleted meanwhile."""
    if await connection.scalar(select(WebhookRow.id).where(WebhookRow.id == attempt.webhook_id)):
        await connection.execute(insert(WebhookAttemptRow), attempt._asdict())


async def attempts_of(
    connection: Connection, webhook_id: str, limit: int, before: Place | None = None, event_id: str | None = None
) -> list[Attempt]:
    """The attempts of a webhook behind a place, newest first; with `event_id`, only those to send this event."""
    statement = ATTEMPTS.where(WebhookAttemptRow.webhook_id == webhook_id)
    if event_id is not None:
        statement = statement.where(WebhookAttemptRow.event_id == event_id)
    if before is not None:
        statement = statement.where(tuple_(WebhookAttemptRow.created_at, WebhookAttemptRow.id) < tuple(before))
    statement = statement.order_by(WebhookAttemptRow.created_at.desc(), WebhookAttemptRow.id.desc()).limit(limit)
    return [_attempt(row) for row in await connection.execute(statement)]


async def attempt(connection: Connection, attempt_id: str) -> Attempt | None:
    """An attempt, or None."""
    row = (await connection.execute(ATTEMPTS.where(WebhookAttemptRow.id == attempt_id))).first()
    return _attempt(row) if row is not None else None


def _attempt(row: Any) -> Attempt:
    found = Attempt._make(row)
    return found._replace(kind=AttemptKind(found.kind))
