"""Wakes the workflows that send events, after the transaction that stored these.

A wake-up that is lost costs time only: the redelivery wakes the webhooks that have waited for too long.
"""

import asyncio
import logging
from collections.abc import Collection
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)

from longhaul import temporal
from longhaul.contracts import SendByHand, WakeWebhook, WebhookDelivery
from longhaul.db import webhooks
from longhaul.db.database import Database
from longhaul.errors import UnavailableError
from longhaul.settings import Settings

log = logging.getLogger(__name__)
#: What is asked for by hand and finds no worker for so long is dropped.
BY_HAND_MAX = timedelta(minutes=10)


class WebhookAlarm:
    """Wakes webhooks."""

    def __init__(self, database: Database, client: Client, settings: Settings) -> None:
        self._database = database
        self._client = client
        self._task_queue = settings.task_queue
        self._rpc_timeout = settings.temporal_rpc_timeout
        self._tasks: set[asyncio.Task[None]] = set()

    def announce(self, user_ids: Collection[str]) -> None:
        """Wake the webhooks of these users in the background: no turn waits for it."""
        task = asyncio.create_task(self._wake_of_users(user_ids))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait until all are woken that were announced."""
        await asyncio.gather(*self._tasks)

    async def _wake_of_users(self, user_ids: Collection[str]) -> None:
        try:
            async with self._database.read() as connection:
                waiting = await webhooks.waiting_of_users(connection, user_ids)
            for webhook_id, user_id in waiting:
                await self.wake(webhook_id, user_id)
        except UnavailableError as error:
            log.warning("webhooks of %d users are sent their events later: %s", len(user_ids), error)

    async def wake(self, webhook_id: str, user_id: str, *, at_once: bool = False) -> None:
        """Let a webhook be sent what waits. `at_once`: also if it is not yet time for the next try.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        await self._start(webhook_id, user_id, WakeWebhook(at_once=at_once))

    async def revive(self, webhook_id: str, user_id: str) -> None:
        """The same, but a workflow that runs is left alone: it adds nothing to its history.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        await self._start(webhook_id, user_id, None)

    async def send_by_hand(self, sending: SendByHand, user_id: str) -> None:
        """Let a worker send one event.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        async with temporal.reachable(self._rpc_timeout):
            await self._client.start_workflow(
                temporal.SEND_BY_HAND_WORKFLOW,
                sending,
                id=f"{temporal.webhook_id(sending.webhook_id)}:{sending.attempt_id}",
                task_queue=self._task_queue,
                task_timeout=temporal.WORKFLOW_TASK_MAX,
                execution_timeout=BY_HAND_MAX,
                priority=temporal.priority_of(user_id),
                static_summary=f"one event for webhook {sending.webhook_id[:8]}",
            )

    async def _start(self, webhook_id: str, user_id: str, signal: WakeWebhook | None) -> None:
        async with temporal.reachable(self._rpc_timeout):
            await self._client.start_workflow(
                temporal.WEBHOOK_WORKFLOW,
                WebhookDelivery(webhook_id=webhook_id),
                id=temporal.webhook_id(webhook_id),
                task_queue=self._task_queue,
                task_timeout=temporal.WORKFLOW_TASK_MAX,
                start_signal=temporal.WAKE_SIGNAL if signal is not None else None,
                start_signal_args=[signal] if signal is not None else [],
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                search_attributes=TypedSearchAttributes([SearchAttributePair(temporal.USER_ATTRIBUTE, user_id)]),
                priority=temporal.priority_of(user_id),
                static_summary=f"events for webhook {webhook_id[:8]}",
            )
