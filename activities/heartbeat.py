"""Heartbeats for every activity, so that a dead worker is noticed within the heartbeat timeout, whatever it did.

A heartbeat carries the activity's latest checkpoint, and brings back the news that somebody pressed Stop.
"""

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

_checkpoint: ContextVar[list[BaseModel]] = ContextVar("checkpoint")
CHECKPOINT_MAX_BYTES = 1_000_000


def checkpoint(state: BaseModel) -> None:
    """Keep `state` for a retry of this activity: sent now, and again with every later heartbeat.

    A state too large for a payload is not kept; the retry then does the work again. So does a local activity, which
    has no heartbeats: it is for what may be done again.
    """
    if not activity.info().is_local and len(state.model_dump_json()) <= CHECKPOINT_MAX_BYTES:
        _checkpoint.get()[:] = [state]
        activity.heartbeat(state)


class HeartbeatInterceptor(Interceptor):
    """Sends a heartbeat every `interval` seconds from the first interval on; short activities send none."""

    def __init__(self, interval: float) -> None:
        self._interval = interval

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Heartbeating(next, self._interval)


class _Heartbeating(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, interval: float) -> None:  # noqa: A002
        super().__init__(next)
        self._interval = interval

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        try:
            return await self._execute(input)
        except ApplicationError as error:
            raise without_tracebacks(error) from error.__cause__

    async def _execute(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        if activity.info().is_local:
            return await super().execute_activity(input)
        kept: list[BaseModel] = []
        _checkpoint.set(kept)
        beating = asyncio.create_task(self._beat(kept))
        try:
            return await super().execute_activity(input)
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating

    async def _beat(self, kept: list[BaseModel]) -> None:
        while True:
            await asyncio.sleep(self._interval)
            activity.heartbeat(*kept)


def without_tracebacks(error: ApplicationError) -> ApplicationError:
    """A failure that was foreseen, without the way to it: Temporal keeps 4 KB of a failure, else not even its type."""
    link: BaseException | None = error
    while link is not None:
        link = link.with_traceback(None).__cause__
    return error
