"""Who owns a session: answered by the database, and while it is away by the copy of the session in Redis.

With the copy a user goes on watching a turn, polls it and stops it while no row can be read. The copy is never read
while the database answers, so a stale one shows nowhere; a lost or corrupt one counts as none.
"""

import logging
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from redis.asyncio import Redis

from longhaul.db import sessions
from longhaul.db.database import Database
from longhaul.errors import NotFoundError, UnavailableError
from longhaul.redis import FAULTS

log = logging.getLogger(__name__)
# Seconds without copies after a fault, so that a Redis which hangs does not delay what the database can answer.
PAUSE_S = 10.0


class SessionRecord(BaseModel):
    """A session as its row has it, without its system context, which can be long and is for models only."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    user_id: str
    title: str | None
    parent_session_id: str | None
    root_session_id: str | None
    agent: str | None
    scope: Any  # Validated where it is needed, so that a broken one fails only there.
    max_cost_microdollars: int | None
    max_seconds: int | None
    model: str | None = None  # copies of older versions have none
    created_at: datetime
    updated_at: datetime
    forked_from: str | None = None
    labels: dict[str, str] | None = None


class SessionsOfOwners:
    """Reads sessions for their owners."""

    def __init__(self, database: Database, redis: "Redis", ttl_s: float) -> None:
        self._database = database
        self._redis = redis
        self._ttl_s = ttl_s
        self._paused_until = 0.0

    async def get(self, session_id: str, user_id: str) -> SessionRecord:
        """A session of a user.

        Raises:
            NotFoundError: there is none, or it is another user's.
            UnavailableError: the database is away, and there is no copy.
        """
        try:
            async with self._database.read() as connection:
                session = SessionRecord.model_validate(await sessions.get(connection, session_id, user_id))
        except UnavailableError:
            copy = await self._copy(session_id)
            if copy is None:
                raise
            if copy.user_id != user_id:
                raise NotFoundError(f"There is no session {session_id}.") from None
            return copy
        await self.keep(session)
        return session

    async def keep(self, session: SessionRecord) -> None:
        """Write the copy. Without Redis there is none, which is no error."""
        if not self._ttl_s or time.monotonic() < self._paused_until:
            return
        try:
            await self._redis.set(_key(session.id), session.model_dump_json(), px=round(self._ttl_s * 1000))
        except FAULTS as error:
            self._pause(error)

    async def forget(self, session_ids: Iterable[str]) -> None:
        """Remove the copies of deleted sessions."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for session_id in session_ids:
                    pipeline.delete(_key(session_id))  # one by one: in a Redis Cluster they lie in different slots
                await pipeline.execute()
        except FAULTS as error:
            self._pause(error)

    async def _copy(self, session_id: str) -> SessionRecord | None:
        try:
            stored = await self._redis.get(_key(session_id))
        except FAULTS as error:
            self._pause(error)
            return None
        if stored is None:
            return None
        try:
            copy = SessionRecord.model_validate_json(stored)
        except ValidationError as error:
            log.warning("the copy of session %s cannot be read and is ignored: %s", session_id, error)
            return None
        return copy if copy.id == session_id else None

    def _pause(self, error: Exception) -> None:
        log.warning("sessions are not copied to Redis for %g s: %s", PAUSE_S, error)
        self._paused_until = time.monotonic() + PAUSE_S


def _key(session_id: str) -> str:
    return f"longhaul:session:{session_id}"
