"""Webhooks: addresses that are told of what happens; and the list of what happened."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from pydantic import BaseModel

from longhaul_client.models import ApiModel
from longhaul_client.operations import Operation, Page, Patience, Request, delete, exchange, read

if TYPE_CHECKING:
    from longhaul_client.asynchronous import AsyncLonghaul
    from longhaul_client.synchronous import Longhaul

EventType = Literal["turn.ended", "sub_session.ended", "approval.wanted", "budget.reached"]


class WebhookOptions(TypedDict, total=False):
    """What a webhook is made of, or what is to be changed in it. Without `events` it is told of everything."""

    url: str
    events: list[EventType]
    enabled: bool


class Webhook(ApiModel):
    """An address that is told of what happens. `secret` is only known when it is made, or made anew."""

    id: str
    url: str
    events: list[str]
    enabled: bool
    disabled_because: str | None = None
    secret: str | None = None
    waiting: int | None = None


class WebhookAttempt(ApiModel):
    """One attempt to send an event."""

    id: str
    event_id: str
    event_type: str
    kind: str
    delivered: bool
    gave_up: bool
    status_code: int | None = None
    error: str | None = None
    created_at: datetime


class HappenedEvent(ApiModel):
    """Something that happened."""

    id: str
    type: str
    created_at: datetime
    data: dict[str, Any]


class HappenedEvents(ApiModel):
    """A page of it, oldest first. Ask again with `next_cursor` for the rest, or later for what is new."""

    data: list[HappenedEvent]
    has_more: bool
    next_cursor: str


class _Attempts(BaseModel):
    data: list[WebhookAttempt]


def _create(fields: WebhookOptions, patience: Patience) -> Operation[Webhook]:
    """Not repeated after a lost answer: it would be a second one, and the secret of the first is lost."""
    return (yield from read(Webhook, Request("POST", "/webhooks", dict(fields)), patience, repeatable=False))


def _get(webhook_id: str, patience: Patience) -> Operation[Webhook]:
    return (yield from read(Webhook, Request("GET", f"/webhooks/{webhook_id}"), patience))


def _list(cursor: str | None, patience: Patience) -> Operation[Page[Webhook]]:
    query = {"cursor": cursor} if cursor else {}
    return (yield from read(Page[Webhook], Request("GET", "/webhooks", query=query), patience))


def _change(webhook_id: str, fields: WebhookOptions, patience: Patience) -> Operation[Webhook]:
    return (yield from read(Webhook, Request("PATCH", f"/webhooks/{webhook_id}", dict(fields)), patience))


def _new_secret(webhook_id: str, patience: Patience) -> Operation[Webhook]:
    """Not repeated after a lost answer: the secret before the newest one would sign no longer."""
    request = Request("POST", f"/webhooks/{webhook_id}/secret")
    return (yield from read(Webhook, request, patience, repeatable=False))


def _send(path: str, patience: Patience) -> Operation[WebhookAttempt | None]:
    """Not repeated after a lost answer: it would be sent twice."""
    response = yield from exchange(Request("POST", path), patience, repeatable=False)
    return WebhookAttempt.model_validate_json(response.content) if response.status_code == 200 else None


def _attempts(webhook_id: str, limit: int, patience: Patience) -> Operation[list[WebhookAttempt]]:
    request = Request("GET", f"/webhooks/{webhook_id}/attempts", query={"limit": limit})
    return (yield from read(_Attempts, request, patience)).data


def _delete(webhook_id: str, patience: Patience) -> Operation[None]:
    yield from delete(f"/webhooks/{webhook_id}", patience)


def happened(after: datetime | None, cursor: str | None, patience: Patience) -> Operation[HappenedEvents]:
    """A page of what happened since a moment, or behind a cursor."""
    since = {"after": after.isoformat()} if after is not None else {}
    query = {"cursor": cursor} if cursor is not None else since
    return (yield from read(HappenedEvents, Request("GET", "/events", query=query), patience))


class AsyncWebhooks:
    """The user's webhooks."""

    def __init__(self, client: "AsyncLonghaul") -> None:
        self._client = client

    async def create(self, **fields: Unpack[WebhookOptions]) -> Webhook:
        """A new webhook. Keep its `secret`: it is not shown again.

        Raises:
            ProblemError: its address is not a public one, or there are as many webhooks as the limit allows.
        """
        return await self._client.run(_create(fields, self._client.patience()))

    async def get(self, webhook_id: str) -> Webhook:
        """A webhook, with how many events wait for it."""
        return await self._client.run(_get(webhook_id, self._client.patience()))

    def list(self) -> AsyncIterator[Webhook]:
        """All webhooks, newest first."""
        return self._client.pages(_list)

    async def change(self, webhook_id: str, **fields: Unpack[WebhookOptions]) -> Webhook:
        """Change what is named; what waits is tried at once."""
        return await self._client.run(_change(webhook_id, fields, self._client.patience()))

    async def new_secret(self, webhook_id: str) -> Webhook:
        """Give it a new `secret`. For a day the old one signs too."""
        return await self._client.run(_new_secret(webhook_id, self._client.patience()))

    async def test(self, webhook_id: str) -> WebhookAttempt | None:
        """Send a test event; None: no worker has sent it yet."""
        return await self._client.run(_send(f"/webhooks/{webhook_id}/test", self._client.patience()))

    async def redeliver(self, webhook_id: str, event_id: str) -> WebhookAttempt | None:
        """Send an event again; None: no worker has sent it yet."""
        path = f"/webhooks/{webhook_id}/events/{event_id}/redeliver"
        return await self._client.run(_send(path, self._client.patience()))

    async def attempts(self, webhook_id: str, limit: int = 50) -> Sequence[WebhookAttempt]:
        """What was sent, and what became of it, newest first."""
        return await self._client.run(_attempts(webhook_id, limit, self._client.patience()))

    async def delete(self, webhook_id: str) -> None:
        """Delete it with what waits for it."""
        await self._client.run(_delete(webhook_id, self._client.patience()))


class Webhooks:
    """The user's webhooks."""

    def __init__(self, client: "Longhaul") -> None:
        self._client = client

    def create(self, **fields: Unpack[WebhookOptions]) -> Webhook:
        """A new webhook. Keep its `secret`: it is not shown again.

        Raises:
            ProblemError: its address is not a public one, or there are as many webhooks as the limit allows.
        """
        return self._client.run(_create(fields, self._client.patience()))

    def get(self, webhook_id: str) -> Webhook:
        """A webhook, with how many events wait for it."""
        return self._client.run(_get(webhook_id, self._client.patience()))

    def list(self) -> Iterator[Webhook]:
        """All webhooks, newest first."""
        return self._client.pages(_list)

    def change(self, webhook_id: str, **fields: Unpack[WebhookOptions]) -> Webhook:
        """Change what is named; what waits is tried at once."""
        return self._client.run(_change(webhook_id, fields, self._client.patience()))

    def new_secret(self, webhook_id: str) -> Webhook:
        """Give it a new `secret`. For a day the old one signs too."""
        return self._client.run(_new_secret(webhook_id, self._client.patience()))

    def test(self, webhook_id: str) -> WebhookAttempt | None:
        """Send a test event; None: no worker has sent it yet."""
        return self._client.run(_send(f"/webhooks/{webhook_id}/test", self._client.patience()))

    def redeliver(self, webhook_id: str, event_id: str) -> WebhookAttempt | None:
        """Send an event again; None: no worker has sent it yet."""
        path = f"/webhooks/{webhook_id}/events/{event_id}/redeliver"
        return self._client.run(_send(path, self._client.patience()))

    def attempts(self, webhook_id: str, limit: int = 50) -> Sequence[WebhookAttempt]:
        """What was sent, and what became of it, newest first."""
        return self._client.run(_attempts(webhook_id, limit, self._client.patience()))

    def delete(self, webhook_id: str) -> None:
        """Delete it with what waits for it."""
        self._client.run(_delete(webhook_id, self._client.patience()))
