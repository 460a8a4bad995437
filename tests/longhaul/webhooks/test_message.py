"""Messages are signed as Standard Webhooks say: the library that receivers use verifies them."""

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from longhaul.db.event_tables import EventType
from longhaul.db.webhooks import Webhook
from longhaul.webhooks.message import Message, headers_of, new_secret

NOW = datetime.now(UTC)
MESSAGE = Message("event-1", "turn.ended", NOW, {"session_id": "s", "status": "completed", "text": "ü"})


def webhook(secret: str, old: str | None = None, until: datetime | None = None) -> Webhook:
    types = frozenset(EventType)
    return Webhook("w", "u", "https://x", types, secret, old, until, True, None, 0, NOW, NOW)


def test_the_library_verifies_it() -> None:
    secret = new_secret()
    event = Verifier(secret).verify(MESSAGE.body, headers_of(MESSAGE, webhook(secret), NOW))
    assert event["type"] == "turn.ended"
    assert event["data"] == dict(MESSAGE.data)
    assert datetime.fromisoformat(event["timestamp"]) == NOW


def test_what_was_changed_or_signed_with_another_secret_is_refused() -> None:
    secret = new_secret()
    headers = headers_of(MESSAGE, webhook(secret), NOW)
    late = headers_of(MESSAGE, webhook(secret), NOW - timedelta(hours=1))
    for key, body, sent in (
        (secret, MESSAGE.body + b" ", headers),
        (new_secret(), MESSAGE.body, headers),
        (secret, MESSAGE.body, {**headers, "webhook-id": "event-2"}),
        (secret, MESSAGE.body, late),
    ):
        with pytest.raises(WebhookVerificationError):
            Verifier(key).verify(body, sent)


def test_after_a_rotation_both_secrets_sign_for_a_while() -> None:
    old, new = new_secret(), new_secret()
    during = headers_of(MESSAGE, webhook(new, old, NOW + timedelta(seconds=1)), NOW)
    for secret in (old, new):
        assert Verifier(secret).verify(MESSAGE.body, during)
    after = headers_of(MESSAGE, webhook(new, old, NOW), NOW)
    assert Verifier(new).verify(MESSAGE.body, after)
    with pytest.raises(WebhookVerificationError):
        Verifier(old).verify(MESSAGE.body, after)
