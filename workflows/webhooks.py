"""Sends a webhook its events, in order, until none waits; while its receiver is down, after growing pauses."""

from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.webhooks import WebhookActivities
    from longhaul import temporal
    from longhaul.contracts import Empty, SendByHand, SendWaiting, WakeWebhook, WebhookDelivery
    from workflows import policies

#: Events that arrive during a pause add signals to the history, so a long one is left in mid-pause.
LONG_HISTORY = 2_000


@workflow.defn(name=temporal.WEBHOOK_WORKFLOW)
class WebhookWorkflow:
    """The one sender of a webhook. It ends when nothing waits; the next event starts it again.

    As with turns, nothing is awaited between the last look and the return, so a wake-up is never lost.
    """

    @workflow.init
    def __init__(self, request: WebhookDelivery) -> None:
        self._webhook_id = request.webhook_id
        self._failures = request.failures
        self._retry_at = request.retry_at
        self._woken = False
        self._at_once = False

    @workflow.signal(name=temporal.WAKE_SIGNAL)
    def wake(self, wake: WakeWebhook) -> None:
        """There is an event to send."""
        self._woken = True
        self._at_once = self._at_once or wake.at_once

    @workflow.run
    async def run(self, request: WebhookDelivery) -> Empty:  # noqa: ARG002  # `__init__` takes it, before any signal
        """Send until nothing waits."""
        while True:
            if self._retry_at is not None:
                await self._pause(self._retry_at)
            if self._is_long():
                self._continue_as_new()
            self._woken = self._at_once = False
            self._retry_at = None
            sent = await workflow.execute_activity_method(
                WebhookActivities.send_waiting,
                SendWaiting(webhook_id=self._webhook_id, now=workflow.now()),
                **policies.sending_events(),
            )
            if sent.reached:
                self._failures = 0
            if sent.failed:
                self._failures += 1
                self._retry_at = workflow.now() + policies.webhook_pause(self._failures)
            elif sent.all_sent and not self._woken:
                return Empty()

    async def _pause(self, until: datetime) -> None:
        """Wait for the time of the next try, or for somebody who wants it now."""
        left = max(until - workflow.now(), timedelta())
        try:
            await workflow.wait_condition(
                lambda: self._at_once or self._is_long(), timeout=left, timeout_summary="wait for the next try"
            )
        except TimeoutError:
            self._retry_at = None

    def _is_long(self) -> bool:
        info = workflow.info()
        return info.is_continue_as_new_suggested() or info.get_current_history_length() > LONG_HISTORY

    def _continue_as_new(self) -> None:
        """Go on in a fresh history, with the rest of the pause, unless somebody wants the next try now."""
        retry_at = None if self._at_once else self._retry_at
        workflow.continue_as_new(
            WebhookDelivery(webhook_id=self._webhook_id, failures=self._failures, retry_at=retry_at)
        )


@workflow.defn(name=temporal.SEND_BY_HAND_WORKFLOW)
class SendByHandWorkflow:
    """Sends one event, or a test event, because somebody asked for it."""

    @workflow.run
    async def run(self, request: SendByHand) -> Empty:
        """Send it once."""
        return await workflow.execute_activity_method(
            WebhookActivities.send_by_hand, request, **policies.sending_by_hand()
        )
