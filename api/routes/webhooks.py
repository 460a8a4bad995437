"""Webhooks: addresses that are told of what happens; and the list of what happened."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import AwareDatetime
from starlette.responses import JSONResponse

from api.cursors import CURSOR, cursor_of, position
from api.dependencies import ID, CurrentUser, Dependencies, Deps
from api.problems import RESPONSES, TOO_LARGE, described, invalid
from api.request_body import body_schema, json_body
from api.schemas.webhooks import (
    NewWebhook,
    SendingLater,
    UserEvent,
    UserEvents,
    Webhook,
    WebhookAttempt,
    WebhookAttempts,
    WebhookChange,
    Webhooks,
    WebhookWithSecret,
    WebhookWithState,
    webhook_fields,
)
from longhaul.contracts import SendByHand
from longhaul.db import events, webhooks
from longhaul.db.event_tables import EventType
from longhaul.db.models import utc_now
from longhaul.db.webhooks import Place
from longhaul.errors import NotFoundError
from longhaul.webhooks.message import new_secret
from longhaul.webhooks.sender import RefusedUrlError, check

router = APIRouter(prefix="/v1", tags=["webhooks"], responses=RESPONSES)
WebhookId = Annotated[str, Path(max_length=64, description="Id of a webhook.")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")]
FULL = described(409, "You have as many webhooks as the limit allows.")
LATER: dict[int | str, dict[str, Any]] = {202: {"description": "No worker has sent it yet.", "model": SendingLater}}
#: The secret before the newest one signs for so long, so that receivers can change theirs without a gap.
OLD_SECRET = timedelta(days=1)
#: So long an event that is sent by hand is waited for.
WAIT_S = 20.0
POLL_S = 0.1


async def own_webhook(webhook_id: WebhookId, user: CurrentUser, deps: Deps) -> webhooks.Webhook:
    """The webhook that a path names if it is the caller's; otherwise the same 404 as for a missing one."""
    async with deps.database.read() as connection:
        return await webhooks.get(connection, user, webhook_id)


OwnWebhook = Annotated[webhooks.Webhook, Depends(own_webhook)]


async def _check(deps: Dependencies, url: str) -> None:
    """Refuse an address that a webhook may not have.

    Raises:
        ProblemError: 422.
    """
    try:
        await check(url, deps.settings.webhook_allowed_networks)
    except RefusedUrlError as error:
        raise invalid([{"loc": ["body", "url"], "msg": str(error), "type": "url"}]) from error


@router.post(
    "/webhooks",
    status_code=201,
    summary="Create a webhook",
    responses={**FULL, **TOO_LARGE},
    openapi_extra=body_schema(NewWebhook, required=True),
)
async def create(
    user: CurrentUser, deps: Deps, wanted: Annotated[NewWebhook, Depends(json_body(NewWebhook))]
) -> WebhookWithSecret:
    """It is told of what happens from now on. The answer is the only one that shows its secret."""
    await _check(deps, wanted.url)
    now = utc_now()
    webhook = webhooks.Webhook(
        id=str(uuid4()),
        user_id=user,
        url=wanted.url,
        event_types=frozenset(wanted.events),
        secret=new_secret(),
        old_secret=None,
        old_secret_until=None,
        enabled=True,
        disabled_because=None,
        position=0,
        created_at=now,
        updated_at=now,
    )
    async with deps.database.write() as connection:
        made = await webhooks.add(connection, webhook, deps.settings.max_webhooks)
    return WebhookWithSecret(**webhook_fields(made), secret=made.secret)


@router.get("/webhooks", summary="List your webhooks")
async def listing(user: CurrentUser, deps: Deps, limit: Limit = 50, cursor: Cursor = None) -> Webhooks:
    """Newest first."""
    before = Place(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await webhooks.list_of_user(connection, user, limit + 1, before)
    page, more = rows[:limit], len(rows) > limit
    next_cursor = cursor_of(page[-1].created_at, page[-1].id) if more else None
    return Webhooks(data=[Webhook.of(row) for row in page], has_more=more, next_cursor=next_cursor)


@router.get("/webhooks/{webhook_id}", summary="A webhook, and how many events wait")
async def about(webhook: OwnWebhook, deps: Deps) -> WebhookWithState:
    async with deps.database.read() as connection:
        waiting = await webhooks.count_waiting(connection, webhook) if webhook.enabled else 0
    return WebhookWithState(**webhook_fields(webhook), waiting=waiting)


@router.patch(
    "/webhooks/{webhook_id}",
    summary="Change a webhook",
    responses=TOO_LARGE,
    openapi_extra=body_schema(WebhookChange, required=True),
)
async def change(
    webhook: OwnWebhook, deps: Deps, body: Annotated[WebhookChange, Depends(json_body(WebhookChange))]
) -> Webhook:
    """What waits is tried at once, without the pause that failures have caused."""
    values = body.model_dump(exclude_unset=True)
    if "url" in values:
        await _check(deps, body.url)
    if "events" in values:
        values["event_types"] = frozenset(values.pop("events"))
    if values.get("enabled"):
        values["disabled_because"] = None
    async with deps.database.write() as connection:
        changed = await webhooks.change(connection, webhook, **values)
    if changed.enabled:
        await deps.alarm.wake(webhook.id, webhook.user_id, at_once=True)
    return Webhook.of(changed)


@router.delete("/webhooks/{webhook_id}", status_code=204, summary="Delete a webhook")
async def delete(webhook: OwnWebhook, deps: Deps) -> Response:
    """With what waits for it."""
    async with deps.database.write() as connection:
        await webhooks.remove(connection, webhook)
    return Response(status_code=204)


@router.post("/webhooks/{webhook_id}/secret", status_code=201, summary="Give a webhook a new secret")
async def rotate(webhook: OwnWebhook, deps: Deps) -> WebhookWithSecret:
    """For a day the old one signs too, in the same header, so that the receiver can change it without a gap."""
    values = {
        "secret": new_secret(),
        "old_secret": webhook.secret,
        "old_secret_until": utc_now() + OLD_SECRET,
    }
    async with deps.database.write() as connection:
        changed = await webhooks.change(connection, webhook, **values)
    return WebhookWithSecret(**webhook_fields(changed), secret=changed.secret)


@router.get("/webhooks/{webhook_id}/attempts", summary="What was sent to a webhook, and what became of it")
async def attempts(
    webhook: OwnWebhook,
    deps: Deps,
    limit: Limit = 50,
    cursor: Cursor = None,
    event_id: Annotated[str | None, Query(max_length=64, pattern=ID, description="Only those of an event.")] = None,
) -> WebhookAttempts:
    """Newest first."""
    before = Place(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await webhooks.attempts_of(connection, webhook.id, limit + 1, before, event_id)
    page, more = rows[:limit], len(rows) > limit
    next_cursor = cursor_of(page[-1].created_at, page[-1].id) if more else None
    data = [WebhookAttempt.model_validate(row) for row in page]
    return WebhookAttempts(data=data, has_more=more, next_cursor=next_cursor)


@router.post(
    "/webhooks/{webhook_id}/test", response_model=WebhookAttempt, responses={**LATER}, summary="Send a test event"
)
async def test(webhook: OwnWebhook, deps: Deps) -> Response:
    """An event of type `webhook.test`, once; also to a webhook that is off."""
    return await _send(deps, webhook, "")


@router.post(
    "/webhooks/{webhook_id}/events/{event_id}/redeliver",
    response_model=WebhookAttempt,
    responses={**LATER},
    summary="Send an event again",
)
async def redeliver(
    webhook: OwnWebhook, deps: Deps, event_id: Annotated[str, Path(max_length=64, description="Id of an event.")]
) -> Response:
    """Any event of yours, once and now, under its own id: a receiver that has it already can tell."""
    async with deps.database.read() as connection:
        if await events.find(connection, webhook.user_id, event_id) is None:
            raise NotFoundError(f"There is no event {event_id}.")
    return await _send(deps, webhook, event_id)


async def _send(deps: Dependencies, webhook: webhooks.Webhook, event_id: str) -> Response:
    """Let a worker send an event, and wait for the outcome: only workers connect to receivers."""
    sending = SendByHand(webhook_id=webhook.id, event_id=event_id, attempt_id=str(uuid4()))
    await deps.alarm.send_by_hand(sending, webhook.user_id)
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while asyncio.get_running_loop().time() < deadline:
        async with deps.database.read() as connection:
            done = await webhooks.attempt(connection, sending.attempt_id)
        if done is not None:
            return JSONResponse(WebhookAttempt.model_validate(done).model_dump(mode="json"))
        await asyncio.sleep(POLL_S)
    return JSONResponse(SendingLater(attempt_id=sending.attempt_id).model_dump(), 202)


def _in_utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ProblemError: 422, it is outside of the years 1 to 9999 there.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise invalid([{"loc": ["query", "after"], "msg": "is too far away", "type": "after"}]) from error


@router.get("/events", tags=["webhooks"], summary="What happened since")
async def happened(
    user: CurrentUser,
    deps: Deps,
    after: Annotated[AwareDatetime | None, Query(description="Only what happened after this moment.")] = None,
    type_: Annotated[list[EventType], Query(alias="type", max_length=20, description="Only these types.")] = [],  # noqa: B006  # FastAPI copies it
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$", description="`next_cursor` of the page before.")] = None,
) -> UserEvents:
    """Oldest first: turns that ended, approvals that are wanted and the rest that webhooks are told of."""
    behind, since = int(cursor or 0), _in_utc(after) if after is not None and cursor is None else None
    async with deps.database.read() as connection:
        # Read first: all events up to it are visible by now, so a cursor that is behind it leaves none out.
        newest = await events.newest_position(connection, user)
        rows = await events.list_of_user(connection, user, limit + 1, behind=behind, since=since, types=type_)
    page, more = rows[:limit], len(rows) > limit
    place = page[-1].position if more else max([newest, behind, *(row.position for row in page)])
    return UserEvents(data=[UserEvent.of(row) for row in page], has_more=more, next_cursor=str(place))
