"""Arguments and results of the delivery of events to webhooks."""

from datetime import datetime

from longhaul.contracts.turn import Contract


class WebhookDelivery(Contract):
    """Send a webhook what it has not been sent. `failures`: attempts that failed since the last one that succeeded.

    `retry_at`: when to try again.
    """

    webhook_id: str
    failures: int = 0
    retry_at: datetime | None = None


class WakeWebhook(Contract):
    """There is an event to send. `at_once`: do not wait for the time of the next try."""

    at_once: bool = False


class SendWaiting(Contract):
    """Send a webhook the events that wait, until one fails. `now`: the time of the workflow, for the age of events."""

    webhook_id: str
    now: datetime


class SentWaiting(Contract):
    """What became of it.

    Attributes:
        all_sent: nothing waits any more, or the webhook is off or gone.
        failed: the last attempt failed, and its event is to be tried again.
        reached: an attempt succeeded.
    """

    all_sent: bool = False
    failed: bool = False
    reached: bool = False


class SendByHand(Contract):
    """Send one event now, beside the others. `event_id` is empty for a test event. `attempt_id`: of what it stores."""

    webhook_id: str
    attempt_id: str
    event_id: str = ""
