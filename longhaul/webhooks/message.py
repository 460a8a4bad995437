"""What is sent to a webhook: an event as JSON, signed as Standard Webhooks say."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from longhaul.db.webhooks import Webhook

TEST_TYPE = "webhook.test"
PREFIX = "whsec_"
SECRET_BYTES = 32


class Message(NamedTuple):
    """An event on its way. Every attempt to send it has the same id and the same body."""

    id: str
    type: str
    created_at: datetime
    data: Mapping[str, Any]

    @property
    def body(self) -> bytes:
        return orjson.dumps({"type": self.type, "timestamp": self.created_at.isoformat(), "data": dict(self.data)})


def new_secret() -> str:
    """A secret in the form that libraries for Standard Webhooks take."""
    return f"{PREFIX}{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def headers_of(message: Message, webhook: Webhook, now: datetime) -> dict[str, str]:
    """The headers by which a receiver verifies a message. After a rotation both secrets sign for a while."""
    found = [webhook.secret]
    if webhook.old_secret and webhook.old_secret_until is not None and now < webhook.old_secret_until:
        found.append(webhook.old_secret)
    timestamp = str(int(now.timestamp()))
    return {
        "content-type": "application/json",
        "user-agent": "Longhaul webhooks",
        "webhook-id": message.id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(one, message, timestamp) for one in found),
    }


def _signature(secret: str, message: Message, timestamp: str) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b".".join((message.id.encode(), timestamp.encode(), message.body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"
