"""`make bench-viewers`: how far behind viewers are, what they cost the API, and what polls cost turns beside them."""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import redis.asyncio
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from longhaul.db import sessions, turns
from longhaul.db.models import utc_now
from longhaul.streams.events import FIELD, FINISH_ID, START_ID, encode, start_part, stream_key
from testkit.pool import Pool
from testkit.process import kill_all
from testkit.product import Product
from testkit.wait import until

DELTA = b'"delta":"'
TIME_BYTES = 17  # of `time.time()` with six digits behind the point
WARM_UP_S = 3.0
TICK_S = 0.005
# Adds one part to the streams of many turns at once, so that publishing costs little beside what is measured.
PUBLISH = "for _, key in ipairs(KEYS) do redis.call('XADD', key, '*', 'e', ARGV[1]) end"


class Viewer(asyncio.Protocol):
    """Reads one stream and notes how old its deltas are when they arrive."""

    def __init__(self, request: bytes, lags: list[float]) -> None:
        self._request = request
        self._lags = lags
        self._rest = b""
        self.done = asyncio.get_running_loop().create_future()
        self.answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)  # uvloop's has no such base

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self.answered = True
        data = self._rest + data
        at = 0
        while (found := data.find(DELTA, at)) >= 0 and len(data) >= found + len(DELTA) + TIME_BYTES:
            at = found + len(DELTA) + TIME_BYTES
            self._lags.append(now - float(data[found + len(DELTA) : at]))
        self._rest = data[at:][-len(DELTA) - TIME_BYTES :]

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        if not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True)
class Watched:
    """The figures of one way to watch. Lags in milliseconds; `cpu`: of the API, in cores."""

    lags: Sequence[float]
    deltas_per_s: float
    cpu: float
    bytes_each: float
    connections: int


@dataclass(frozen=True)
class Polled:
    """Turns beside polls. `whole`: milliseconds of each turn."""

    whole: Sequence[float]
    polls_per_s: float


async def new_turns(product: Product, count: int) -> list[tuple[str, str]]:
    """Sessions with one turn each that no worker runs: their streams are written here."""
    made = [(str(uuid4()), str(uuid4())) for _ in range(count)]
    async with product.database.write() as connection:
        for session, turn in made:
            await sessions.create(connection, sessions.NewSession(session, "local"))
            new = turns.NewTurn(turn, session, "local", "m", "fast", "standard", utc_now())
            await turns.start(connection, new)
    return made


async def watch(product: Product, turn_count: int, viewers: int, rate: float, seconds: float) -> Watched:
    """Let so many viewers watch so many turns whose text comes at `rate` deltas a second."""
    client = redis.asyncio.Redis.from_url(product.servers.redis.url(product.redis_database))
    made = await new_turns(product, turn_count)
    for _, turn in made:
        first = [start_part(turn), {"type": "start-step"}, {"type": "text-start", "id": "1"}]
        for part in first:
            await client.xadd(stream_key(turn), {FIELD: encode(part)}, id=START_ID if part["type"] == "start" else "*")
    api = psutil.Process(product.apis[0].pid)
    memory = api.memory_info().rss
    lags: list[float] = []
    watching = await connect(product, [made[number % turn_count] for number in range(viewers)], lags)
    keys = [stream_key(turn) for _, turn in made]
    publishing = asyncio.create_task(publish(client, keys, rate))
    await asyncio.sleep(WARM_UP_S)
    lags.clear()
    used, began = cpu_of(api), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    measured, cpu = list(lags), (cpu_of(api) - used) / took
    grown = api.memory_info().rss - memory
    connections = sum(one["cmd"] in ("xread", "xrange", "exists") for one in await client.client_list())
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    for _, turn in made:
        await client.xadd(stream_key(turn), {FIELD: encode({"type": "finish"})}, id=FINISH_ID)
    await asyncio.wait_for(asyncio.gather(*(one.done for one in watching)), 60)
    await client.aclose()
    return Watched([lag * 1000 for lag in measured], len(measured) / took, cpu, grown / viewers, connections)


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def connect(product: Product, watched: Sequence[tuple[str, str]], lags: list[float]) -> list[Viewer]:
    """Open a stream for each and wait until all have begun."""
    url = urlsplit(product.url())
    viewers = []
    for session, turn in watched:
        path = f"/v1/sessions/{session}/stream?turn_id={turn}"
        request = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode()
        _, viewer = await asyncio.get_running_loop().create_connection(
            lambda request=request: Viewer(request, lags),  # type: ignore[misc]
            url.hostname or "",
            url.port or 0,
        )
        viewers.append(viewer)
    await until(lambda: all(viewer.answered for viewer in viewers), what="all streams have begun")
    return viewers


async def publish(client: "redis.asyncio.Redis", keys: Sequence[str], rate: float) -> None:
    """Add a delta to each stream `rate` times a second, a part of the streams at a time."""
    script = client.register_script(PUBLISH)
    ticks = max(1, round(1 / rate / TICK_S))
    parts = [keys[number::ticks] for number in range(ticks)]
    began = time.monotonic()
    for tick in itertools.count():
        if part := parts[tick % ticks]:
            await script(keys=part, args=[encode({"type": "text-delta", "id": "1", "delta": f"{time.time():.6f}"})])
        await asyncio.sleep(max(0.0, began + (tick + 1) / rate / ticks - time.monotonic()))


async def with_polls(product: Product, at_once: int, polls_per_s: float, tokens: int, delay_ms: int) -> Polled:
    """Run turns at a real pace, each with polls that wait a second for a change, and come again at once."""
    api, polls, ended = product.api, 0, asyncio.Event()
    text = f"calc then speak {tokens}: 6*7 [ttft=20 delay={delay_ms}]"
    each = round(polls_per_s / at_once)

    async def poll(session: str, turn: str) -> None:
        nonlocal polls
        path, tag = f"/v1/sessions/{session}/turns/{turn}", ""
        while not ended.is_set():
            began = time.monotonic()
            answer = await api.http.get(path, params={"wait": "1"}, headers={"If-None-Match": tag} if tag else {})
            tag = answer.headers["etag"]
            polls += 1
            await asyncio.sleep(max(0.0, began + 1 - time.monotonic()))  # once a second each

    async def turn_of(session: str) -> float:
        began = time.monotonic()
        live = await api.open(session, text)
        pollers = [asyncio.create_task(poll(session, live.log.headers["x-longhaul-turn-id"])) for _ in range(each)]
        await live.done()
        took = time.monotonic() - began
        for poller in pollers:
            poller.cancel()
        await asyncio.gather(*pollers, return_exceptions=True)
        return took * 1000

    made = [await api.create_session() for _ in range(at_once)]
    began = time.monotonic()
    whole = await asyncio.gather(*(turn_of(session) for session in made))
    ended.set()
    return Polled(whole, polls / (time.monotonic() - began))


@asynccontextmanager
async def running(workers: int) -> AsyncIterator[Product]:
    with tempfile.TemporaryDirectory(prefix="longhaul-bench-") as folder:
        pool = Pool(Path(folder))
        try:
            async with AsyncExitStack() as stack:
                yield await pool.make(stack, backend="sqlite", workers=workers)
            await pool.close()
        finally:
            kill_all()


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main(
    viewers: Annotated[int, typer.Option(help="Viewers, of one turn and then of as many turns.")] = 1000,
    rate: Annotated[float, typer.Option(help="Deltas of each turn per second.")] = 20,
    seconds: Annotated[float, typer.Option(help="How long they are watched.")] = 15,
    polls: Annotated[float, typer.Option(help="Polls per second beside 50 turns. 0: leave this out.")] = 500,
    rounds: Annotated[int, typer.Option(help="Rounds with and without polls, one after the other.")] = 3,
    delay: Annotated[int, typer.Option(help="Milliseconds from token to token of those turns.")] = 60,
) -> None:
    """Measure on real servers, started for this run alone. Publisher and clients run on the same machine."""
    uvloop.run(_run(Console(), viewers, rate, seconds, polls, rounds, delay))


async def _run(
    console: Console, viewers: int, rate: float, seconds: float, polls: float, rounds: int, delay: int
) -> None:
    table = Table(title=f"{viewers} viewers, {rate:g} deltas a second of each turn")
    for column in ("watched", "lag p50", "p95", "p99", "deltas/s", "API, cores", "KB each", "Redis connections"):
        table.add_column(column, justify="left" if column == "watched" else "right")
    for name, count in (("one turn", 1), (f"{viewers} turns", viewers)):
        async with running(workers=0) as product:
            seen = await watch(product, count, viewers, rate, seconds)
        lags = [f"{percentile(seen.lags, share):.0f} ms" for share in (0.5, 0.95, 0.99)]
        rest = (f"{seen.deltas_per_s:.0f}", f"{seen.cpu:.2f}", f"{seen.bytes_each / 1024:.0f}", f"{seen.connections}")
        table.add_row(name, *lags, *rest)
    console.print(table)
    if not polls:
        return
    async with running(workers=1) as product:
        await with_polls(product, 10, 0, 20, 0)  # warm up
        found: dict[float, list[Polled]] = {0: [], polls: []}
        for _ in range(rounds):
            for wanted, results in found.items():
                results.append(await with_polls(product, 50, wanted, 200, delay))
    table = Table(title=f"50 turns at once, 200 tokens, one each {delay} ms")
    for column in ("polls/s wanted", "polls/s", "whole turn, median", "p95"):
        table.add_column(column, justify="right")
    for wanted, results in found.items():
        whole = [value for one in results for value in one.whole]
        table.add_row(
            f"{wanted:g}",
            f"{statistics.median(one.polls_per_s for one in results):.0f}",
            f"{statistics.median(whole):.0f} ms",
            f"{percentile(whole, 0.95):.0f} ms",
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
