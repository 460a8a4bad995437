"""The measurements: the same answers of the same offline model, by Longhaul and by a plain loop, in one run."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from uuid import uuid4

import psutil

from bench.plain import PlainLoop, Timed
from longhaul.db import messages
from longhaul.db.messages import NewMessage
from longhaul.temporal import workflow_id
from testkit.product import Product
from testkit.streamlog import StreamLog

WARM_UP = 2
LONG_SESSION = 10_000
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Workload:
    """How much to measure. `singles`, `paced` and `stops`: turns in each round."""

    rounds: int
    at_once: int
    waves: int
    singles: int
    paced: int
    stops: int
    tokens: int
    delay_ms: int
    long_session: int = LONG_SESSION

    @property
    def fast(self) -> str:
        """A message whose answers come as fast as the model can send them."""
        return f"calc then speak {self.tokens}: 6*7 [ttft=0 delay=0]"

    @property
    def real_pace(self) -> str:
        """A message whose last answer comes at the pace of a real model."""
        return f"calc then speak {self.tokens}: 6*7 [ttft=20 delay={self.delay_ms}]"


@dataclass
class Side:
    """One round's figures of Longhaul, or of the plain loop. Times in milliseconds; CPU of one turn.

    CPU at a real pace is Longhaul's own, without client and model; the plain loop is its own client.
    """

    per_second: float = 0.0
    cpu: float = 0.0
    cpu_real_pace: float = 0.0
    whole: list[float] = field(default_factory=list)
    first_text: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)


@dataclass
class Round:
    """One round: everything is measured once, Longhaul and the plain loop by turns."""

    ours: Side = field(default_factory=Side)
    plain: Side = field(default_factory=Side)
    stops: list[float] = field(default_factory=list)
    cpu_by_process: dict[str, float] = field(default_factory=dict)
    #: One turn after another, in a short session and in a long one.
    short: Side = field(default_factory=Side)
    long: Side = field(default_factory=Side)


@dataclass
class Figures:
    """All rounds, and events and bytes of the history of a turn in a short session and in a long one."""

    rounds: list[Round] = field(default_factory=list)
    history: tuple[int, int] = (0, 0)
    history_long: tuple[int, int] = (0, 0)


async def measure(product: Product, workload: Workload) -> Figures:
    """Measure all figures. Longhaul and the plain loop alternate, so a machine that slows down slows both."""
    bench = Bench(product, workload)
    figures = Figures()
    async with PlainLoop(product.servers.model.base_url) as plain:
        await bench.prepare(plain)
        figures.rounds = [await bench.round(plain) for _ in range(workload.rounds)]
    figures.history = await history(product, bench.session)
    figures.history_long = await history(product, bench.long_session)
    return figures


class Bench:
    """Measures one product."""

    def __init__(self, product: Product, workload: Workload) -> None:
        self._product = product
        self._workload = workload
        self.session = ""
        self.long_session = ""

    async def prepare(self, plain: PlainLoop) -> None:
        """Make the sessions, and warm everything up."""
        self.session = await self._product.api.create_session()
        self.long_session = await self._product.api.create_session()
        for _ in range(WARM_UP):
            await plain.turn(self._workload.fast)
            await self._turn(self.session, self._workload.fast)
        await fill(self._product, self.long_session, self._workload.long_session)
        for _ in range(WARM_UP):
            await self._turn(self.long_session, self._workload.fast)

    async def round(self, plain: PlainLoop) -> Round:
        found = Round()
        await self._crowds(found, plain)
        await self._one_by_one(found, plain)
        await self._at_real_pace(found, plain)
        for _ in range(self._workload.stops):
            found.stops.append(await one_stop(self._product))
        return found

    async def _crowds(self, found: Round, plain: PlainLoop) -> None:
        """Many at once, each client with its own conversation."""
        crowd, waves, text = self._workload.at_once, self._workload.waves, self._workload.fast
        turns = crowd * waves

        async def plain_client() -> None:
            for _ in range(waves):
                await plain.turn(text)

        async def our_client(session: str) -> None:
            for _ in range(waves):
                await self._read(session, text)

        sessions = [await self._product.api.create_session() for _ in range(crowd)]
        seconds, used = await self._timed(lambda: _all(plain_client() for _ in range(crowd)))
        found.plain.per_second, found.plain.cpu = turns / seconds, (used["client"] + used["model"]) / turns
        seconds, used = await self._timed(lambda: _all(our_client(session) for session in sessions))
        found.ours.per_second, found.ours.cpu = turns / seconds, sum(used.values()) / turns
        found.cpu_by_process = {name: milliseconds / turns for name, milliseconds in used.items()}

    async def _one_by_one(self, found: Round, plain: PlainLoop) -> None:
        """A turn of each kind by turns, alone on the machine."""
        text = self._workload.fast
        for _ in range(self._workload.singles):
            _note(found.plain, await plain.turn(text))
            for session, side in ((self.session, found.short), (self.long_session, found.long)):
                timed: list[Timed] = []

                async def one(session: str = session, timed: list[Timed] = timed) -> None:
                    timed.append(await self._turn(session, text))

                _, used = await self._timed(one)
                _note(side, timed[0])
                side.cpu += sum(used.values()) / self._workload.singles
        found.ours.whole, found.ours.first_text = found.short.whole, found.short.first_text

    async def _at_real_pace(self, found: Round, plain: PlainLoop) -> None:
        """Some turns at once whose tokens come as a real model sends them."""
        text, count = self._workload.real_pace, self._workload.paced
        sessions = [await self._product.api.create_session() for _ in range(count)]
        kept: list[list[Timed]] = [[], []]

        async def plain_client() -> None:
            kept[0].append(await plain.turn(text))

        async def our_client(session: str) -> None:
            kept[1].append(await self._turn(session, text))

        _, used = await self._timed(lambda: _all(plain_client() for _ in sessions))
        found.plain.cpu_real_pace = used["client"] / count
        _, used = await self._timed(lambda: _all(our_client(session) for session in sessions))
        found.ours.cpu_real_pace = sum(cpu for name, cpu in used.items() if name not in ("client", "model")) / count
        for side, turns in zip((found.plain, found.ours), kept, strict=True):
            for timed in turns:
                side.lags += await self._lags(timed)

    async def _turn(self, session: str, text: str) -> Timed:
        clock = time.time() - time.monotonic()
        started = time.monotonic()
        log = await self._product.api.stream(session, text)
        done = time.monotonic()
        return Timed(started + clock, done + clock, f"{log.headers['x-longhaul-turn-id']}:2", _deltas(log, clock))

    async def _read(self, session: str, text: str) -> None:
        """A client that only reads."""
        url, body = f"/v1/sessions/{session}/stream", {"message": text}
        async with self._product.api.http.stream("POST", url, json=body) as response:
            assert response.status_code == 200, "this turn was not begun by its own message"
            async for _chunk in response.aiter_raw():
                pass

    async def _lags(self, timed: Timed) -> list[float]:
        """How long after its due time each token has come. The due times are those of the model's pace."""
        calls = (await self._product.servers.model.stats())["recent"]
        first = float(next(call["first_chunk_at"] for call in calls if call["key"] == timed.key))
        found, token = [], 0
        for delta, at in timed.deltas:
            for _ in delta.split():
                found.append((at - first - token * self._workload.delay_ms / 1000) * 1000)
                token += 1
        return found

    async def _timed(self, work: Callable[[], Awaitable[object]]) -> tuple[float, dict[str, float]]:
        """Seconds, and CPU milliseconds by process, until its servers are done with it."""
        before, started = cpu_seconds(self._product), time.perf_counter()
        await work()
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.1)  # what follows a turn, such as the end of its workflow, belongs to it
        after = cpu_seconds(self._product)
        return seconds, {name: (after[name] - before[name]) * 1000 for name in after}


def _note(side: Side, timed: Timed) -> None:
    side.whole.append(timed.whole_ms)
    side.first_text.append(timed.first_text_ms)


def _deltas(log: StreamLog, clock: float) -> list[tuple[str, float]]:
    parts = ((event.part, event.at + clock) for event in log.events if event.part)
    return [(part["delta"], at) for part, at in parts if part["type"] == "text-delta"]


async def _all(work: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*work)


def cpu_seconds(product: Product) -> dict[str, float]:
    """CPU seconds that each process has used so far, with this one as the client."""
    pids = {process.name: process.pid for process in product.processes} | {"client": os.getpid()}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: float(used.user + used.system) for name, used in times.items()}


async def fill(product: Product, session: str, count: int) -> None:
    """Give a session so many messages of 200 characters: questions and answers of earlier turns."""
    for first in range(0, count, ROWS_AT_ONCE):
        rows = [
            NewMessage(
                str(uuid4()),
                role="assistant" if number % 2 else "user",
                content=f"Message {number} of a long conversation. ".ljust(200, "x"),
            )
            for number in range(first, min(count, first + ROWS_AT_ONCE))
        ]
        async with product.database.write() as connection:
            await messages.append(connection, session, rows)


async def one_stop(product: Product) -> float:
    """Milliseconds from the request to stop a turn that streams to the API's answer that it has ended."""
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 2000 [delay=20]")
    await live.until_seen("text-delta", 5)
    started = time.monotonic()
    answer = await product.api.cancel(session)
    took = (time.monotonic() - started) * 1000
    assert answer.body["status"] == "cancelled"
    await live.done()
    return took


async def history(product: Product, session: str) -> tuple[int, int]:
    """Events and bytes of the history of the session's last turn."""
    await product.api.until_idle(session)
    client = await product.temporal()
    found = await client.get_workflow_handle(workflow_id(session)).fetch_history()
    return len(found.events), sum(event.ByteSize() for event in found.events)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def middle(values: list[float]) -> float:
    return statistics.median(values)
