"""People who use the product while it breaks: they post, join, stop, lose their connection and come back."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any
from uuid import UUID

import httpx2

from longhaul.streams.reader import BEGINNING
from testkit.client import FINAL, RecordingClient
from testkit.grammar import grammar_problems
from testkit.product import Product
from testkit.servers import script
from testkit.streamlog import StreamLog

TEXTS = (
    "hello",
    "2*3 and 4*5 and what time is it",
    "rounds 3",
    "speak 60 [delay=10]",
    "wait 300 ms and 6*7",
    "think: why",
    "delegate: (6*7)",
    "write file notes.txt: remember",
    "hello [fault=status:503 times=1]",
    "speak 40 [fault=cut:5 times=1]",
    "2*3 [fault=status:429 times=2]",
)
#: Nine large results in one round, about a second after their call.
LARGE_TEXT = script(*[{"call": "large_result", "arguments": {"seconds": 1}}] * 9)
FOLLOW_UPS = ("and 1+1", "make it short", "what of this")
STOPS_EVERY = 4  # sessions
STOP_MOMENTS_S = 0.03  # around a Stop, a message is posted within this time
PATIENCE_S, LARGE_PATIENCE_S = 120.0, 10.0
BROKEN_OFF = (httpx2.TransportError, JSONDecodeError)  # a connection or an answer that ended in its middle


@dataclass(frozen=True)
class Posted:
    """A message that the API accepted, and the turn that its answer named. `after`: the turn that had been stopped."""

    session: str
    message_id: str
    turn_id: str
    after: str = ""


class Load:
    """All users. `accepted` has all messages that the API accepted."""

    def __init__(self, product: Product, chance: random.Random) -> None:
        self._product = product
        self._chance = chance
        self._clients: list[RecordingClient] = []
        self._closing = asyncio.Event()
        self._sessions: list[str] = []
        self._large_session = ""
        self._people = asyncio.TaskGroup()
        self.accepted: list[Posted] = []
        self.stops = 0
        self.streams: list[tuple[str, StreamLog]] = []
        self.problems: list[str] = []

    async def prepare(self, sessions: int) -> None:
        """Create the sessions."""
        self._clients = [self._product.client(api) for api in self._product.apis]
        self._sessions = [await self._clients[0].create_session() for _ in range(sessions)]
        self._large_session = await self._clients[0].create_session()

    async def run(self) -> None:
        """Run until `close` is called and each user has finished the current turn."""
        async with self._people as people:
            for number, session in enumerate(self._sessions):
                people.create_task(self._person(session, stops=number % STOPS_EVERY == 0))

    def close(self) -> None:
        """Let users begin nothing new."""
        self._closing.set()

    def _client(self) -> RecordingClient:
        return self._chance.choice(self._clients)

    async def large_turn(self) -> None:
        """Begin a turn with large tool results; return when its tools run, or when that takes too long."""
        turn = await self._hand_in(self._large_session, LARGE_TEXT)
        if turn is not None:
            self._people.create_task(self._follow(self._large_session, turn))
            await self._until(self._large_session, turn, lambda progress: progress["tools_running"], LARGE_PATIENCE_S)

    async def _person(self, session: str, *, stops: bool) -> None:
        while not self._closing.is_set():
            turn = await self._hand_in(session, self._chance.choice(TEXTS))
            async with asyncio.TaskGroup() as doing:
                if turn is not None:
                    doing.create_task(self._follow(session, turn))
                if self._chance.random() < 0.4:
                    doing.create_task(self._join(session))
                if stops and self._chance.random() < 0.4:
                    doing.create_task(self._stop(session))
            if turn is not None and self._chance.random() < 0.7:
                await self._until_ended(session, turn)

    async def _hand_in(self, session: str, text: str, *, after: str = "") -> str | None:
        """Post a message until it is accepted, always under the same id, as a good client does; its turn."""
        message_id = str(UUID(int=self._chance.getrandbits(128), version=4))
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                status, body = await self._client().post(session, text, message_id)
            except BROKEN_OFF:
                status, body = 0, {}
            if status == 202:
                self.accepted.append(Posted(session, message_id, str(body["turn_id"]), after))
                return str(body["turn_id"])
            if 400 <= status < 500:
                self.problems.append(f"{session}: a message was refused: {status} {body}")
                return None
            await asyncio.sleep(0.3)
        self.problems.append(f"{session}: message {message_id} could not be handed in for {PATIENCE_S:g} s")
        return None

    async def _join(self, session: str) -> None:
        for _ in range(self._chance.randint(1, 3)):
            await asyncio.sleep(self._chance.uniform(0, 1))
            await self._hand_in(session, self._chance.choice(FOLLOW_UPS))

    async def _stop(self, session: str) -> None:
        """Stop, and post within milliseconds of the request, of its answer, or of both."""
        await asyncio.sleep(self._chance.uniform(0, 1.5))
        async with asyncio.TaskGroup() as doing:
            if self._chance.random() < 0.5:
                doing.create_task(self._post_soon(session))
            try:
                status, body = await self._client().cancel(session)
            except BROKEN_OFF:
                return
            if status != 200:
                return
            self.stops += 1
            if self._chance.random() < 0.7:
                await self._post_soon(session, after=body["turn_id"] if body["cancelled"] else "")

    async def _post_soon(self, session: str, *, after: str = "") -> None:
        await asyncio.sleep(self._chance.uniform(0, STOP_MOMENTS_S))
        turn = await self._hand_in(session, self._chance.choice(TEXTS), after=after)
        if turn is not None:
            await self._follow(session, turn)

    async def _follow(self, session: str, turn: str) -> None:
        """Read a turn's stream over connections that are cut and resumed at any API."""
        log = StreamLog()
        deadline = time.monotonic() + PATIENCE_S
        while not log.count("finish") and time.monotonic() < deadline:
            if log.last_id == BEGINNING:
                # Events without an id are sent again, as to a page that is loaded anew.
                log = StreamLog(began=log.events[-1].at if log.events else log.began)
            cut_after = self._chance.choice((None, None, 4, 20))
            with contextlib.suppress(*BROKEN_OFF):
                await self._client().resume(session, log, cut_after=cut_after, turn_id=turn)
            await asyncio.sleep(0.1)
        if not log.count("finish"):
            self.problems.append(f"{session}: a stream did not end for {PATIENCE_S:g} s: {log.types[-5:]}")
            return
        self.streams.append((session, log))
        if log.finished:  # and not cut between its last part and its end
            self.problems += [
                f"{session}: stream of turn {log.turn_id}: {problem}" for problem in grammar_problems(log)
            ]

    async def _until_ended(self, session: str, turn: str) -> None:
        if not await self._until(session, turn, lambda progress: progress["status"] in FINAL, PATIENCE_S):
            self.problems.append(f"{session}: turn {turn} did not end for {PATIENCE_S:g} s")

    async def _until(self, session: str, turn: str, holds: Callable[[dict[str, Any]], bool], seconds: float) -> bool:
        """Poll until a turn's progress is so; False after so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                status, body = await self._client().call("GET", f"/sessions/{session}/turns/{turn}")
            except BROKEN_OFF:
                status, body = 0, {}
            if status == 200 and holds(body):
                return True
            await asyncio.sleep(0.3)
        return False
