"""A turn's progress for polls. All polls of a turn in this process share their looks at it.

A poll that waits is woken by the turn's stream: whatever changes a turn's progress, except a message that another
process accepts, shows there. The workflow may be a moment behind its stream, so after news the looks become rarer only
gradually. Without a stream (Redis is away, or the turn has ended and a sub-session still runs) they stay frequent.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from longhaul.contracts import SubSessionState
from longhaul.errors import NotFoundError
from longhaul.streams.feed import TurnFeed, TurnFeeds
from longhaul.streams.reader import BEGINNING, newest_id
from longhaul.streams.tool_progress import with_tool_progress
from longhaul.turns.status import TurnLookup

# Seconds between two looks at a turn: at least, when news comes fast; after news; at most.
NEWS_GATHER_S = 0.25
LOOK_AFTER_S = 0.25
LOOK_AT_LEAST_EVERY_S = 2.0
LOOK_WITHOUT_STREAM_EVERY_S = 0.5
# A poll that has what the newest look saw waits for the next one, if that look is not older.
RECENT_S = 1.0
FIND_STREAM_S = 0.2


class View(NamedTuple):
    """A turn's progress as JSON, and its tag.

    `ended`: the turn has. `settled`: its sub-sessions, which may outlive it, have ended too.
    """

    body: str
    tag: str
    ended: bool
    settled: bool


class LongPolls:
    """Answers polls."""

    def __init__(self, turns: TurnLookup, feeds: TurnFeeds) -> None:
        self._turns = turns
        self._feeds = feeds

    async def now(self, session_id: str, turn_id: str) -> View:
        """How the turn stands now.

        Raises:
            NotFoundError: the session has no such turn.
            UnavailableError: the answer needs a part that is away.
        """
        with self._feeds.follow(turn_id) as feed:
            return await self._look(feed, session_id, time.monotonic())

    async def changed(
        self,
        session_id: str,
        turn_id: str,
        known: Collection[str],
        wait_s: float,
        give_up: Callable[[], Awaitable[bool]],
    ) -> View:
        """How the turn stands as soon as that differs from the tags `known`, or from now; at the latest after `wait_s`.

        A caller that knows the turn's end (by its tag) waits for its sub-sessions' ends.

        Raises:
            NotFoundError: the session has no such turn.
            UnavailableError: the answer needs a part that is away.
        """
        deadline = time.monotonic() + wait_s
        with self._feeds.follow(turn_id) as feed:
            seen = feed.news.count
            view = await self._look(feed, session_id, time.monotonic() - (RECENT_S if known else 0))
            if known and view.tag not in known:
                # What the caller has may be newer than a recent look of this process.
                view = await self._look(feed, session_id, time.monotonic())
            awaited = known or {view.tag}
            pause = LOOK_AFTER_S
            while view.tag in awaited and not (view.settled if known else view.ended):
                if (left := deadline - time.monotonic()) <= 0:
                    break
                await self._find_stream(feed)
                await feed.news.wait(seen, min(pause, left))
                if await give_up():
                    break
                has_news = feed.news.count != seen
                if has_news and not feed.ended:
                    await self._let_news_gather(feed, deadline)
                pause = LOOK_AFTER_S if has_news else min(2 * pause, self._longest_pause(feed))
                seen = feed.news.count
                since = feed.news.at if has_news else time.monotonic() - pause / 4
                view = await self._look(feed, session_id, since)
        return view

    async def _look(self, feed: TurnFeed, session_id: str, since: float) -> View:
        return await feed.looks.look("progress", lambda: self._view(session_id, feed.turn_id), since)

    async def _view(self, session_id: str, turn_id: str) -> View:
        now = await self._turns.progress(session_id, turn_id)
        if now is None:
            raise NotFoundError(f"There is no turn {turn_id} of session {session_id}.")
        ended = now.status.final
        if ended:
            now = await self._turns.with_current_sub_sessions(now)
        now = await self._turns.with_texts(now)
        now = await with_tool_progress(self._feeds.redis, now)
        tagged = now if ended else now.model_copy(update={"duration_ms": None})  # The clock alone is no change.
        digest = hashlib.blake2b(tagged.model_dump_json().encode(), digest_size=12).hexdigest()
        settled = ended and all(child.status is not SubSessionState.RUNNING for child in now.sub_sessions)
        return View(now.model_dump_json(), f'"{digest}"', ended, settled)

    async def _find_stream(self, feed: TurnFeed) -> None:
        """Let the turn's stream be read from now on. A Redis that does not answer in time holds nobody up."""

        async def begin() -> None:
            newest = await newest_id(self._feeds.redis, feed.turn_id)
            self._feeds.begin(feed, (newest or BEGINNING).encode())

        if feed.newest is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIND_STREAM_S):
                    await feed.look("newest", begin)

    async def _let_news_gather(self, feed: TurnFeed, deadline: float) -> None:
        now = time.monotonic()
        pause = min(feed.looks.began("progress") + NEWS_GATHER_S, deadline) - now
        if pause > 0:
            await asyncio.sleep(pause)

    def _longest_pause(self, feed: TurnFeed) -> float:
        has_stream = feed.newest is not None and not feed.lost and not feed.ended
        return LOOK_AT_LEAST_EVERY_S if has_stream else LOOK_WITHOUT_STREAM_EVERY_S
