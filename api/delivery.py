"""Deliver a message for a route: rate limit, the one call, and what the metrics count."""

from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from sqlalchemy.exc import IntegrityError

from api import metrics
from api.attachments import FileReference, attach
from api.client_tools import declare
from api.dependencies import Dependencies
from api.problems import ProblemError, invalid
from api.schemas.messages import Taken
from api.slots import Slot
from longhaul.contracts import Scope
from longhaul.db import accounts, busy, sessions
from longhaul.db.busy import OnBusy
from longhaul.db.sessions import NewSession, Session
from longhaul.errors import (
    InboxFullError,
    MessageIdUsedError,
    NotFoundError,
    SessionBusyError,
    TooManyTurnsError,
    UnavailableError,
    UsageLimitError,
)
from longhaul.limits.access import may_use
from longhaul.tools.client_tools import ClientTool
from longhaul.turns.deliver import Delivery, IncomingMessage


async def deliver(
    deps: Dependencies,
    user: str,
    session: Session,
    message: IncomingMessage,
    slot: Slot | None = None,
    files: Sequence[FileReference] = (),
    client_tools: Sequence[ClientTool] | None = None,
) -> Delivery:
    """Deliver a message with its files and its sender's tools to a turn of a user's session. A new turn that is to be
    streamed takes the `slot`.

    Raises:
        ProblemError: 422, the message's model may not be chosen; 429, too many messages in this minute or streams;
            otherwise as `attach`, `declare` and `MessageDelivery.deliver`.
    """
    await check_model(deps, user, message.model or message.tier)
    joins = False
    if message.on_busy in (OnBusy.JOIN, OnBusy.REJECT):
        async with deps.database.read() as connection:
            joins = await busy.open_turn(connection, session.id) is not None
    if joins:
        await deps.rate_limit.count_follow_up(user)
    else:
        if slot is not None:
            slot.take()
        await deps.rate_limit.count_new_turn(user)
    message = await declare(deps, session, message, client_tools)
    message = await attach(deps, user, session, message, files)
    return await _counted(deps, deps.delivery.deliver(user, session, message, joins=joins, stopper=deps.stopper))


async def replace(
    deps: Dependencies,
    user: str,
    session: Session,
    message: IncomingMessage,
    *,
    of: str,
    files: Sequence[FileReference] = (),
    client_tools: Sequence[ClientTool] | None = None,
) -> Delivery:
    """Replace the message `of` and what follows by a new version with its files and its sender's tools.

    Raises:
        ProblemError: 422, the message's model may not be chosen; otherwise as `attach`, `declare` and
            `MessageDelivery.replace`.
    """
    await check_model(deps, user, message.model or message.tier)
    await deps.rate_limit.count_new_turn(user)
    message = await declare(deps, session, message, client_tools)
    message = await attach(deps, user, session, message, files)
    return await _counted(deps, deps.delivery.replace(user, session, message, of=of, stopper=deps.stopper))


async def retry(deps: Dependencies, user: str, session: Session, turn_id: str) -> Delivery:
    """Retry a failed turn; raises what `MessageDelivery.retry` raises."""
    await deps.rate_limit.count_new_turn(user)
    return await _counted(deps, deps.delivery.retry(user, session, turn_id))


async def check_model(deps: Dependencies, user: str, wanted: str | None) -> None:
    """Refuse a model or tier that a session or message of this user may not choose.

    Raises:
        ProblemError: 422, there is no such model; 403, it is kept for other users.
    """
    if wanted is None:
        return
    choice = deps.settings.choose(wanted)
    if choice is None:
        why = f"{wanted!r} is not a model that you may choose; GET /v1/models lists them"
        raise invalid([{"loc": ["body", "model"], "msg": why, "type": "model"}])
    if choice.model in deps.settings.model_access:
        async with deps.database.read() as connection:
            account = await accounts.get(connection, user)
        if not may_use(deps.settings, account, choice.model):
            why = f"You may not choose {wanted}; GET /v1/models lists what you may."
            raise ProblemError(403, "model-not-allowed", why)


async def _counted(deps: Dependencies, delivering: Awaitable[Delivery]) -> Delivery:
    try:
        delivery = await delivering
    except MessageIdUsedError:
        metrics.REFUSED.labels("id_used").inc()
        raise
    except InboxFullError:
        metrics.REFUSED.labels("inbox_full").inc()
        raise
    except SessionBusyError:
        metrics.REFUSED.labels("busy").inc()
        raise
    except TooManyTurnsError:
        metrics.REFUSED.labels("turns").inc()
        raise
    except UsageLimitError:
        metrics.REFUSED.labels("usage").inc()
        raise
    except UnavailableError:
        metrics.REFUSED.labels("unavailable").inc()
        raise
    deps.feeds.nudge(delivery.turn_id)
    metrics.ACCEPTED.labels("started" if delivery.started and not delivery.queued else "queued").inc()
    return delivery


def taken(deps: Dependencies, session_id: str, message_id: str, delivery: Delivery) -> Taken:
    """Where to poll the turn that takes a message."""
    return Taken(
        session_id=session_id,
        turn_id=delivery.turn_id,
        message_id=message_id,
        disposition="started" if delivery.started and not delivery.queued else "queued",
        progress_url=f"/v1/sessions/{session_id}/turns/{delivery.turn_id}",
        buffer_length=delivery.waiting,
        max_buffer_length=deps.settings.max_pending_messages,
    )


class FoundSession(NamedTuple):
    """A session, and whether this request has made it."""

    session: Session
    is_new: bool


async def get_or_create(deps: Dependencies, session: NewSession) -> FoundSession:
    """Make a session. One of this user that has its id is left as it is.

    Raises:
        NotFoundError: the id belongs to another user's.
    """
    try:
        async with deps.database.write() as connection:
            is_new = await sessions.create(connection, session)
    except IntegrityError:
        is_new = False  # another request has made it at the same moment
    async with deps.database.read() as connection:
        return FoundSession(await sessions.get(connection, session.id, session.user_id), is_new)


async def own_or_new_session(
    deps: Dependencies,
    user: str,
    session_id: str,
    *,
    system_context: str | None = None,
    deny_tools: tuple[str, ...] = (),
) -> Session:
    """The user's session of this id, made with its first use; `deny_tools` are those that a new one must not use.

    Raises:
        NotFoundError: it is another user's.
    """
    try:
        async with deps.database.read() as connection:
            return await sessions.get(connection, session_id, user)
    except NotFoundError:
        scope = Scope(root_session_id=session_id, deny_tools=deny_tools)
        session = NewSession(id=session_id, user_id=user, scope=scope, system_context=system_context)
    return (await get_or_create(deps, session)).session
