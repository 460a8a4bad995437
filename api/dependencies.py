"""What handlers depend on: the parts of this process, the calling user, the session that a path names."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Path
from redis.asyncio import Redis
from starlette.requests import HTTPConnection
from temporalio.client import Client

from api.callers import KnownCallers
from api.long_polls import LongPolls
from api.ownership import SessionRecord, SessionsOfOwners
from api.problems import ProblemError
from api.rate_limit import RateLimit
from api.slots import Slot, UserSlots
from longhaul import redis, temporal
from longhaul.auth import Authenticator, Caller
from longhaul.credentials.credentials import Credentials
from longhaul.db.database import Database
from longhaul.files.store import FileStore
from longhaul.limits.counters import SpendingCounters
from longhaul.limits.resets import Resets
from longhaul.limits.usage import UsageLimits
from longhaul.redis import connect_for_reading
from longhaul.remote_tools.calls import RemoteCalls
from longhaul.settings import Settings
from longhaul.streams.feed import TurnFeeds
from longhaul.turns.answers import CallAnswers
from longhaul.turns.deliver import MessageDelivery, limits
from longhaul.turns.schedules import Schedules
from longhaul.turns.status import TurnLookup
from longhaul.turns.stop import TurnStopper
from longhaul.webhooks.wake import WebhookAlarm


@dataclass
class Dependencies:
    """The parts of an API process. `closing`: the process shuts down, so open streams end and resume elsewhere."""

    settings: Settings
    database: Database
    redis: "Redis"
    stream_redis: "Redis"
    temporal: Client
    auth: Authenticator
    closing: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        self.files = FileStore(settings)
        self.feeds = TurnFeeds(self.stream_redis)
        self.sessions = SessionsOfOwners(self.database, self.redis, settings.session_copy_ttl)
        self.turns = TurnLookup(self.database, self.temporal, settings.temporal_rpc_timeout)
        self.polls = LongPolls(self.turns, self.feeds)
        self.stopper = TurnStopper(self.database, self.temporal, self.redis, self.turns, settings.temporal_rpc_timeout)
        counters = SpendingCounters(self.redis, self.database, settings.redis_timeout)
        self.cost_limits = limits(settings).cost
        self.usage = UsageLimits(self.database, counters, settings.tiers)
        self.resets = Resets(self.database, counters, self.usage, cost=settings.reset_credits, most=settings.max_resets)
        self.callers = KnownCallers(self.database)
        self.delivery = MessageDelivery(settings, self.database, self.temporal, self.turns, self.usage)
        self.answers = CallAnswers(self.database, self.temporal, settings.temporal_rpc_timeout)
        self.alarm = WebhookAlarm(self.database, self.temporal, settings)
        self.schedules = Schedules(self.temporal, settings)
        self.remote_calls = RemoteCalls(settings, self.database, self.temporal, self.redis)
        self.credentials = Credentials(self.database, settings)
        self.rate_limit = RateLimit(
            self.redis,
            follow_ups=settings.follow_up_rate_limit,
            new_turns=settings.new_turn_rate_limit,
            of_tool_workers=settings.tool_worker_rate_limit,
            redis_timeout=settings.redis_timeout,
        )
        self.stream_slots = UserSlots(settings.max_streams, "streams")
        self.poll_slots = UserSlots(settings.max_long_polls, "waiting polls")
        self._tasks: set[asyncio.Task[None]] = set()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that goes on when the request that asks for it is gone; `settle` waits for its end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until nothing runs in the background."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Dependencies]:
    """The parts of a process; Temporal and Redis are connected with their first use."""
    dependencies = Dependencies(
        settings=settings,
        database=Database(settings.sqlalchemy_url),
        redis=redis.connect(settings),
        stream_redis=connect_for_reading(settings),
        temporal=await temporal.connect(settings, lazy=True, identity="longhaul-api"),
        auth=Authenticator(settings),
    )
    try:
        yield dependencies
    finally:
        dependencies.closing = True
        await dependencies.settle()
        await dependencies.feeds.aclose()
        await dependencies.stream_redis.aclose()
        await dependencies.redis.aclose()
        await dependencies.database.close()


def dependencies_of(connection: HTTPConnection) -> Dependencies:
    dependencies: Dependencies = connection.app.state.dependencies
    return dependencies


Deps = Annotated[Dependencies, Depends(dependencies_of)]


async def current_caller(connection: HTTPConnection, deps: Deps) -> Caller:
    """Who calls. EventSource and WebSockets cannot send headers, so a GET may use `?token=`."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    reads = connection.scope.get("method", "GET") == "GET"
    if scheme.lower() == "bearer" and token:
        caller = await deps.auth.caller(token.strip())
    else:
        caller = await deps.auth.caller(connection.query_params.get("token") if reads else None)
    await deps.callers.note(caller)
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


async def current_user(caller: CurrentCaller) -> str:
    """The calling user."""
    return caller.user_id


async def current_admin(caller: CurrentCaller) -> str:
    """The calling user, who is an admin.

    Raises:
        ProblemError: 403.
    """
    if not caller.is_admin:
        raise ProblemError(403, "not-an-admin", "Only admins may do this: the token names no role that allows it.")
    return caller.user_id


CurrentUser = Annotated[str, Depends(current_user)]
CurrentAdmin = Annotated[str, Depends(current_admin)]
# PostgreSQL cannot compare a text that holds NUL. In a path, `NoNulInPath` answers 404.
ID = r"^[^\x00]*$"
SessionId = Annotated[str, Path(max_length=64, description="Id of a session.")]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=200, pattern=ID, description="The same key again does nothing twice."),
]


async def own_session(session_id: SessionId, user: CurrentUser, deps: Deps) -> SessionRecord:
    """The session that a path names if it is the caller's; otherwise the same 404 as for a missing one."""
    return await deps.sessions.get(session_id, user)


OwnSession = Annotated[SessionRecord, Depends(own_session)]


async def stream_slot(user: CurrentUser, deps: Deps) -> AsyncIterator[Slot]:
    """The slot of a request that may open a stream: its handler takes it, and the end of the response gives it back."""
    with deps.stream_slots.slot(user) as slot:
        yield slot


async def poll_slot(user: CurrentUser, deps: Deps) -> AsyncIterator[Slot]:
    """The same for a poll that may wait."""
    with deps.poll_slots.slot(user) as slot:
        yield slot


StreamSlot = Annotated[Slot, Depends(stream_slot)]
PollSlot = Annotated[Slot, Depends(poll_slot)]
