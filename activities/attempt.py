"""One attempt of an activity: heartbeats and checkpoints, Stop and hand-over, faults as Temporal failures, its stream.

A heartbeat shows the server within the heartbeat timeout whether the worker is alive, carries the activity's latest
checkpoint, and brings back that Stop was pressed.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel
from redis.asyncio import Redis
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, FailureError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from longhaul.contracts import CallModel, RunTool, TurnRef
from longhaul.errors import (
    HANDED_OVER,
    STORAGE_UNAVAILABLE,
    TURN_ENDED,
    NotFoundError,
    TurnEndedError,
    UnavailableError,
    new_reference,
)
from longhaul.process_load import ProcessLoad
from longhaul.settings import Settings
from longhaul.streams.parent_updates import ParentUpdates
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.scripts import ActivityAttempt

log = logging.getLogger(__name__)
SESSION_GONE = "SessionGone"
CHECKPOINT_MAX_BYTES = 1_000_000
STORE_PAUSE_S, STORE_PAUSE_MAX_S = 0.2, 5.0
#: Pauses between the heartbeats after a notice of a Stop: four seconds in all, for a server that is slow.
BEATS_AFTER_NOTICE_S = (0.02, 0.02, 0.03, 0.03, 0.05, 0.05, 0.1, 0.1, 0.2, 0.4, 1.0, 2.0)
#: The SDK holds heartbeats back that come faster than this.
HEARTBEAT_THROTTLE = timedelta(milliseconds=20)

_heartbeat_details: ContextVar[list[Any]] = ContextVar("heartbeat_details")
State = TypeVar("State", bound=BaseModel)
T = TypeVar("T")


def checkpoint(state: BaseModel, max_bytes: int = CHECKPOINT_MAX_BYTES) -> None:
    """Keep `state` for the next attempts of this activity: sent now, and again with every later heartbeat.

    A state of more than `max_bytes` is not kept: the server holds the checkpoints of all running activities of a turn
    in its memory, and terminates a turn that needs too much. The next attempt then continues from the checkpoint
    before. A local activity has no checkpoints: only work that may be repeated runs in one.
    """
    if not activity.info().is_local and len(state.model_dump_json().encode()) <= max_bytes:
        _heartbeat_details.get()[:] = [state]
        activity.heartbeat(state)


def last_checkpoint(kind: type[State]) -> State | None:
    """The newest checkpoint that an earlier attempt has left."""
    details = activity.info().heartbeat_details
    return kind.model_validate(details[0]) if details else None


class HeartbeatInterceptor(Interceptor):
    """Sends a heartbeat every `interval` seconds from the first interval on; short activities send none.

    After a notice that their session was stopped, calls send some at once: the cancellation reaches Temporal's record
    of the activity some milliseconds after the notice, and the answer to the next heartbeat brings it.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._calls: dict[str, set[asyncio.Event]] = defaultdict(set)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Heartbeating(next, self._interval, self._calls)

    def session_stopped(self, session_id: str) -> None:
        """Let the running calls of a session, and of those below it, ask Temporal now whether they are cancelled."""
        for noticed in self._calls.get(session_id, ()):
            noticed.set()


class _Heartbeating(ActivityInboundInterceptor):
    def __init__(
        self,
        next: ActivityInboundInterceptor,  # noqa: A002
        interval: float,
        calls: dict[str, set[asyncio.Event]],
    ) -> None:
        super().__init__(next)
        self._interval = interval
        self._calls = calls

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        try:
            return await self._execute(input)
        except ApplicationError as error:
            raise without_tracebacks(error) from error.__cause__
        except FailureError:
            raise
        except Exception as error:
            # Its text may hold SQL, paths or what people wrote. Its type decides whether Temporal retries.
            reference = new_reference()
            log.exception("activity %s failed by a defect, reference %s", activity.info().activity_type, reference)
            text = f"An unexpected error in Longhaul. Reference: {reference}."
            raise ApplicationError(text, type=type(error).__name__) from None

    async def _execute(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        if activity.info().is_local:
            return await super().execute_activity(input)
        # Start with the checkpoint of the attempts before: a heartbeat without it would erase it for the next attempt.
        details = list(activity.info().heartbeat_details)
        _heartbeat_details.set(details)
        call = input.args[0] if input.args else None
        with self._noticed(call) as noticed:
            beating = asyncio.create_task(self._beat(details, noticed))
            try:
                return await super().execute_activity(input)
            finally:
                beating.cancel()
                with suppress(asyncio.CancelledError):
                    await beating

    @contextmanager
    def _noticed(self, call: object) -> Iterator[asyncio.Event]:
        """An event that is set when the call's session is stopped, or one above it."""
        noticed = asyncio.Event()
        sessions = (call.turn.session_id, *call.scope.ancestors) if isinstance(call, CallModel | RunTool) else ()
        for session_id in sessions:
            self._calls[session_id].add(noticed)
        try:
            yield noticed
        finally:
            for session_id in sessions:
                self._calls[session_id].discard(noticed)
                if not self._calls[session_id]:
                    del self._calls[session_id]

    async def _beat(self, details: list[Any], noticed: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await noticed.wait()
            pauses = BEATS_AFTER_NOTICE_S if noticed.is_set() else ()
            noticed.clear()
            for pause in pauses:
                activity.heartbeat(*details)
                await asyncio.sleep(pause)
            activity.heartbeat(*details)


def without_tracebacks(error: ApplicationError) -> ApplicationError:
    """An expected failure without tracebacks: Temporal keeps 4 KB of a failure, and they would displace its type."""
    link: BaseException | None = error
    while link is not None:
        link = link.with_traceback(None).__cause__
    return error


@contextmanager
def storage_faults(*, missing_is_final: bool = True) -> Iterator[None]:
    """Make Temporal retry while the database is unreachable, and end the turn when its session has been deleted."""
    try:
        yield
    except UnavailableError as error:
        raise ApplicationError(str(error), type=STORAGE_UNAVAILABLE) from error
    except NotFoundError as error:
        if not missing_is_final:
            raise
        raise ApplicationError(str(error), type=SESSION_GONE, non_retryable=True) from error
    except TurnEndedError as error:
        raise ApplicationError(str(error), type=TURN_ENDED, non_retryable=True) from error


async def when_storage_is_back(store: Callable[[], Awaitable[T]], window: float) -> T:
    """Repeat `store` in this attempt, for up to `window` seconds, while the database is unreachable.

    For results that are too large for a checkpoint: the next attempt would not have them.
    """
    deadline, pause = time.monotonic() + window, STORE_PAUSE_S
    while True:
        try:
            with storage_faults():
                return await store()
        except ApplicationError as error:
            if error.type != STORAGE_UNAVAILABLE or time.monotonic() > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, STORE_PAUSE_MAX_S)


async def stored_despite_stop(
    store: Callable[[], Awaitable[T]], window: float, *, keep: Callable[[T], bool] | None = None
) -> T:
    """`when_storage_is_back`, completed also when Stop arrives meanwhile; then `keep` says whether Stop is too late.

    Raises:
        ApplicationError: `HandedOver`; this worker shuts down.
    """
    storing = asyncio.ensure_future(when_storage_is_back(store, window))
    try:
        return await asyncio.shield(storing)
    except asyncio.CancelledError:
        if stop_requested():
            stored = await storing
            if keep is not None and keep(stored):
                return stored
            raise
        storing.cancel()
        if activity.is_worker_shutdown():
            raise handed_over() from None
        raise


def stop_requested() -> bool:
    """Whether a person pressed Stop; also in a worker that is shutting down at the same time."""
    reason = activity.cancellation_details()
    return reason is not None and reason.cancel_requested


def handed_over() -> ApplicationError:
    """This worker shuts down: another one takes the activity over at once. Not counted as a failure."""
    return ApplicationError(
        "The worker shut down; another one continues.",
        type=HANDED_OVER,
        next_retry_delay=timedelta(milliseconds=1),
        category=ApplicationErrorCategory.BENIGN,
    )


class TurnStreams:
    """The streams of turns, as activities write them."""

    def __init__(self, redis: "Redis", settings: Settings) -> None:
        self.redis = redis
        self._flush_s = settings.stream_flush_ms / 1000
        self._load = ProcessLoad()
        self._max_bytes = settings.stream_max_bytes

    def publisher(self, turn: TurnRef) -> StreamPublisher:
        """The writing end of a turn's stream, for this attempt of the running activity."""
        info = activity.info()
        # Activity ids start again at 1 when a turn continues as new, so the run's id is part of the writer's name.
        return self.publisher_of(turn, ActivityAttempt(f"{info.workflow_run_id}:{info.activity_id}", info.attempt))

    def publisher_of(self, turn: TurnRef, attempt: ActivityAttempt) -> StreamPublisher:
        """The writing end of a turn's stream, for work outside of activities."""
        return StreamPublisher(
            self.redis,
            turn.turn_id,
            flush_s=self._flush_s,
            published=turn.published,
            attempt=attempt,
            max_bytes=self._max_bytes,
            parent=ParentUpdates(self.redis, turn, self._max_bytes) if turn.parent_turn_id else None,
            load=self._load,
        )
