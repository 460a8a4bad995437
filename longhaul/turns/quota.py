"""How many turns of a user, and how many sub-sessions of a tree, run at once."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from typing import TypeVar

from longhaul.db import turns
from longhaul.db.connection import Connection
from longhaul.db.models import utc_now
from longhaul.errors import OpenTurn, TooManyTurnsError
from longhaul.settings import Settings
from longhaul.turns.status import TurnLookup

# A signal to Temporal takes a few seconds at most.
LOST_AFTER_S = 30
T = TypeVar("T")


class TurnQuota:
    """Refuses one turn more than a user, or than the sub-sessions of a tree, may have at once.

    Rows are counted, and turns whose workflow is lost are left out. Two checks of a user are made one after the other.
    """

    def __init__(self, settings: Settings, lookup: TurnLookup) -> None:
        self._of_user = settings.max_running_turns
        self._of_tree = settings.max_running_sub_sessions
        self._lookup = lookup

    async def within(self, attempt: Callable[[Collection[str]], Awaitable[T]]) -> T:
        """Do what checks the quota, and do it again without the turns that turn out to be lost.

        `attempt` is given the ids of the lost turns that are known.

        Raises:
            TooManyTurnsError: so many turns run.
            UnavailableError: the limit is reached, and Temporal does not say which of the turns run.
        """
        lost: set[str] = set()
        while True:
            try:
                return await attempt(lost)
            except TooManyTurnsError as error:
                more = set(await self._lost(error.running)) - lost
                if not more:
                    raise
                lost |= more

    async def check_user(self, connection: Connection, user_id: str, session_id: str, lost: Collection[str]) -> None:
        """Check the turns of a user, except those of sub-sessions and of the session `session_id`.

        Raises:
            TooManyTurnsError: so many run, not counting those in `lost`.
        """
        if self._of_user:
            await connection.lock_name(f"turns of {user_id}")
            _check(await turns.open_of_user(connection, user_id, session_id), lost, self._of_user)

    async def check_tree(
        self, connection: Connection, user_id: str, root_session_id: str, session_id: str, lost: Collection[str]
    ) -> None:
        """Check the sub-sessions below a root, detached ones included, except `session_id`.

        Raises:
            TooManyTurnsError: so many run, not counting those in `lost`.
        """
        if self._of_tree:
            await connection.lock_name(f"turns of {user_id}")
            _check(await turns.open_below(connection, root_session_id, session_id), lost, self._of_tree)

    async def _lost(self, running: Sequence[OpenTurn]) -> list[str]:
        """Those of the turns whose workflow was lost, or never started: they would count for ever.

        A turn whose message was accepted a moment ago may be about to start, and so may one whose parent's turn runs.
        """
        before = utc_now() - timedelta(seconds=LOST_AFTER_S)
        older = [one for one in running if one.since < before]
        runs = await asyncio.gather(*map(self._runs, older))
        return [one.turn_id for one, is_running in zip(older, runs, strict=True) if not is_running]

    async def _runs(self, turn: OpenTurn) -> bool:
        if await self._lookup.is_running(turn.session_id, turn.turn_id):
            return True
        return turn.started_by is not None and await self._lookup.running(turn.started_by) is not None


def _check(found: Sequence[OpenTurn], lost: Collection[str], limit: int) -> None:
    running = [one for one in found if one.turn_id not in lost]
    if len(running) >= limit:
        raise TooManyTurnsError(running, limit)
