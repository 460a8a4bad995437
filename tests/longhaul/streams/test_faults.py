"""What clients see of a turn keeps its grammar and agrees with its rows, whatever breaks at whatever moment."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import attempt as attempts
from activities.attempt import TurnStreams
from activities.model import ModelActivities
from activities.title import Titles
from activities.tools import ToolActivities
from activities.turns import TurnActivities
from api.dependencies import Dependencies
from api.sse import TurnEvents
from longhaul.contracts import (
    CallModel,
    ClosedTurn,
    CloseTurn,
    ModelAnswer,
    OpenTurn,
    Progress,
    RunTool,
    TakeInbox,
    TakenInbox,
    TurnRef,
    TurnStatus,
)
from longhaul.db import acceptance, conversation, sessions, turns
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.files.store import FileStore
from longhaul.redis import connect_for_reading
from longhaul.settings import Settings, load_settings
from longhaul.streams import feed, from_rows, reader
from longhaul.streams.events import stream_key, writers_key
from longhaul.streams.feed import TurnFeeds
from longhaul.streams.reader import BEGINNING
from longhaul.tools import Registry
from testkit.client import _note
from testkit.grammar import grammar_problems
from testkit.servers import RedisServer
from testkit.spending import usage_limits
from testkit.streamlog import StreamLog
from tests.longhaul.streams.faulty import Faults, FaultyModel, Process, echo

HEADERS = {"content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1"}
MAX_ATTEMPTS = 40
RUNS, SEEDS = 3, 8
AWAY = ("redis", "database")


class StoppedError(Exception):
    """Stop was pressed, and the activity has ended."""


@pytest.fixture(scope="session")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    path = tmp_path_factory.mktemp("streams") / "longhaul.db"
    await asyncio.to_thread(upgrade, f"sqlite:///{path}")
    database = Database(f"sqlite:///{path}")
    yield database
    await database.close()


class Turn:
    """A turn as its workflow runs it: attempts of activities until each succeeds, Stop at any moment."""

    def __init__(self, faults: Faults, database: Database, url: str, settings: Settings) -> None:
        self.faults = faults
        self._database = database
        self._url = url
        self._settings = settings
        self._model = FaultyModel(faults)
        self._registry = Registry([echo])
        self._ids = 0
        self._zombies: list[tuple[Process, asyncio.Task[Any]]] = []
        self.session_id, self.turn_id = str(uuid4()), ""
        self.started_at = datetime.now(UTC)
        self.published = True
        self.round, self.step_open, self.has_text = 0, False, False
        self._taken: set[str] = set()
        self.stop = asyncio.Event()
        self.running = True

    @property
    def ref(self) -> TurnRef:
        return TurnRef(session_id=self.session_id, turn_id=self.turn_id, user_id="u", published=self.published)

    def process(self) -> Process:
        return Process(self.faults, self._url, self._database)

    def _activity(self, process: Process, name: str) -> Callable[[Any], Any]:
        streams = TurnStreams(process.redis, self._settings)
        model = cast("Any", self._model)
        titles = Titles(process.database, streams, model, self._settings.model_copy(update={"model_small": ""}))
        found: Callable[[Any], Any]
        match name:
            case "call_model":
                found = ModelActivities(
                    process.database, streams, model, self._registry, FileStore(self._settings), self._settings
                ).call_model
            case "run_tool":
                found = ToolActivities(process.database, streams, self._registry, self._settings).run_tool
            case _:
                usage = usage_limits(process.database)
                found = getattr(TurnActivities(process.database, streams, titles, usage, self._settings), name)
        return found

    async def execute(self, name: str, argument: Any, *, stoppable: bool = True) -> Any:
        """Attempts until one succeeds; after a Stop there is no further one."""
        self._ids += 1
        activity_id, details = str(self._ids), list[Any]()
        for attempt in range(1, MAX_ATTEMPTS):
            last = attempt == MAX_ATTEMPTS - 1
            process = self.process()
            environment = ActivityEnvironment()
            environment.info = replace(
                environment.info, activity_id=activity_id, attempt=attempt, heartbeat_details=list(details)
            )

            def beat(*state: Any, process: Process = process) -> None:
                if not process.dead and process.runs.is_set():
                    details[:] = state

            environment.on_heartbeat = beat
            attempts._heartbeat_details.set([])
            task = asyncio.create_task(environment.run(self._activity(process, name), argument))
            fate = asyncio.create_task(self._fate(process, task, last=last))
            stop = asyncio.create_task(self.stop.wait())
            await asyncio.wait([task, fate, *([stop] if stoppable else [])], return_when=asyncio.FIRST_COMPLETED)
            if stoppable and self.stop.is_set() and not task.done() and not fate.done():
                environment.cancel()
                await asyncio.wait([task, fate], return_when=asyncio.FIRST_COMPLETED)
            for helper in (fate, stop):
                helper.cancel()
            stopped = stoppable and self.stop.is_set()
            while process.dead and not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.05)
            if not task.done():
                self._zombies.append((process, task))
            elif not process.dead:
                try:
                    return task.result()
                except ApplicationError as error:
                    if error.non_retryable and not stopped:
                        raise
                except asyncio.CancelledError:
                    pass
            if stopped:
                raise StoppedError
            await self.faults.moments(60)  # as Temporal waits before the next attempt
        raise AssertionError(f"{name} never succeeded")

    async def _fate(self, process: Process, task: "asyncio.Task[Any]", *, last: bool) -> None:
        """Kill the worker or let it hang, at some moment of the attempt; return when it is given up."""
        faults = self.faults
        kind = (
            "" if last else "kill" if faults.happens(faults.killed) else "hang" if faults.happens(faults.hung) else ""
        )
        if not kind:
            await asyncio.wait([task])
            return
        await faults.moments(200)
        if task.done():
            return
        if kind == "kill":
            process.dead = True
        else:
            process.runs.clear()
            faults.later(self._resume(process))

    async def _resume(self, process: Process) -> None:
        await self.faults.moments(400)
        process.runs.set()

    async def begin(self) -> None:
        """Store the session and its first message, whose turn this is."""
        async with self._database.write() as connection:
            await sessions.create(connection, sessions.NewSession(self.session_id, "u"))
        self.turn_id = await self.post()

    async def run(self) -> TurnStatus:
        """The whole turn; how it ended."""
        opening = OpenTurn(turn=self.ref, model="m", mode="fast", tier="standard", started_at=self.started_at)
        opened = await self.execute("open_turn", opening, stoppable=False)
        self.published &= opened.published
        must_go_on = False
        while True:
            try:
                if await self._work(must_go_on=must_go_on):
                    status = TurnStatus.COMPLETED
                    break
                status, error = TurnStatus.COMPLETED, None
            except StoppedError:
                status, error = TurnStatus.CANCELLED, None
            except ApplicationError as failure:
                status, error = TurnStatus.FAILED, failure.message
            closing = CloseTurn(
                turn=self.ref,
                progress=self._progress(status, error),
                answered_with_text=self.has_text,
                step_open=self.step_open,
                next_turn_id=str(uuid4()),
                model="m",
            )
            closed: ClosedTurn = await self.execute("close_turn", closing, stoppable=False)
            if closed.ended:
                status = closed.status or status
                break
            must_go_on = True
        self.running = False
        return status

    def _progress(self, status: TurnStatus, error: str | None = None) -> Progress:
        return Progress(
            turn_id=self.turn_id,
            session_id=self.session_id,
            status=status,
            round=self.round,
            started_at=self.started_at,
            ended_at=self.started_at if status.final else None,
            error=error,
        )

    async def post(self) -> str:
        """Accept one more message of the session; the turn that it belongs to."""
        async with self._database.write() as connection:
            accepted = await acceptance.accept(
                connection,
                session_id=self.session_id,
                user_id="u",
                message_id=str(uuid4()),
                content="hello",
                context=None,
                limit=0,
            )
        return accepted.turn_id

    async def press_stop(self) -> None:
        """As the API does: mark the turn, then cancel its workflow."""
        async with self._database.write() as connection:
            await turns.mark_stopped(connection, self.session_id, self.turn_id)
        self.stop.set()

    async def _take_inbox(self) -> bool:
        taking = TakeInbox(turn=self.ref, round=self.round)
        taken: TakenInbox = await self.execute("take_inbox", taking, stoppable=False)
        self.published &= taken.published
        took = bool(set(taken.taken) - self._taken)
        self._taken |= set(taken.taken)
        return took

    async def _work(self, *, must_go_on: bool) -> bool:
        """Rounds until an answer asks for no tool and no message waits; whether the last one has ended the turn."""
        if must_go_on:
            await self._take_inbox()
        while True:
            if self.stop.is_set():
                raise StoppedError
            self.round += 1
            call = CallModel(
                turn=self.ref,
                round=self.round,
                model="m",
                step_open=self.step_open,
                progress=self._progress(TurnStatus.RUNNING),
            )
            answer: ModelAnswer = await self.execute("call_model", call)
            self.published &= answer.published
            self.step_open, self.has_text = bool(answer.tool_calls), answer.has_text
            if answer.turn_ended_at is not None:
                return True
            if self.stop.is_set():
                raise StoppedError
            tools = [
                RunTool(
                    turn=self.ref,
                    round=self.round,
                    message_id=answer.message_id,
                    tool_call_id=made.tool_call_id,
                    name=made.name,
                )
                for made in answer.tool_calls
            ]
            ended = await asyncio.gather(*(self.execute("run_tool", tool) for tool in tools), return_exceptions=True)
            for outcome in ended:
                if isinstance(outcome, BaseException):
                    raise outcome
                self.published &= outcome.published
            if not await self._take_inbox() and not answer.tool_calls:
                return False

    async def end_zombies(self) -> None:
        """Everything that was given up comes back to life and does what it still can."""
        for process, task in self._zombies:
            process.runs.set()
            await asyncio.wait([task])
            with suppress(BaseException):
                task.result()
        while self.faults.background:
            waiting, self.faults.background = self.faults.background, set()
            await asyncio.gather(*waiting, return_exceptions=True)


class FakeLookup:
    """`TurnLookup` for a turn that has no workflow."""

    def __init__(self, turn: Turn, process: Process) -> None:
        self._turn = turn
        self._process = process

    async def stored(self, session_id: str, turn_id: str) -> turns.TurnPosition | None:
        async with self._process.database.read() as connection:
            return await turns.position(connection, session_id, turn_id)

    async def is_running(self, *_: str) -> bool:
        return self._turn.running


class FakeDependencies:
    """What `TurnEvents` needs of an API process."""

    def __init__(self, turn: Turn, process: Process, settings: Settings) -> None:
        self.settings, self.closing = settings, False
        self.database, self.feeds = process.database, TurnFeeds(process.redis)
        self.turns = FakeLookup(turn, process)


async def watch(turn: Turn, process: Process, settings: Settings, clients: int) -> list[StreamLog]:
    """Clients of one process."""
    deps = FakeDependencies(turn, process, settings)
    try:
        return await asyncio.gather(*(watch_alone(turn, cast("Any", deps)) for _ in range(clients)))
    finally:
        await deps.feeds.aclose()


async def watch_alone(turn: Turn, deps: Dependencies) -> StreamLog:
    """A client that loses its connection now and then, and comes back."""
    log = StreamLog(200, headers=HEADERS)
    while not log.count("finish"):
        if log.last_id == BEGINNING:
            log = StreamLog(200, headers=HEADERS)  # as on a page that is loaded anew
        left = turn.faults.random.randrange(1, 40) if turn.faults.happens(turn.faults.cut) else 10_000
        await read(turn, deps, log, left)
    return log


async def read(turn: Turn, deps: Dependencies, log: StreamLog, left: int) -> None:
    """One connection, which is lost when so many events have come."""
    log.connections += 1
    events = TurnEvents(deps, turn.session_id, turn.turn_id, log.last_id).events()
    async for chunk in events:
        for block in chunk.split(b"\n\n")[:-1]:
            if left > 0:
                left -= _note(log, block)
        if left <= 0:
            break
    await cast("Any", events).aclose()
    await asyncio.sleep(0)


async def check(turn: Turn, log: StreamLog, database: Database, status: TurnStatus) -> None:
    if log.finished:  # and not cut between its last part and its end
        assert list(grammar_problems(log)) == [], log.types
    async with database.read() as connection:
        rows = await conversation.rows_of_turn(connection, turn.turn_id)
    said = "".join(row.content for row in rows if row.role == "assistant" and row.kind != "error")
    assert log.text() == said, log.types
    outputs = log.outputs()
    results = {row.tool_call_id: row.content for row in rows if row.role == "tool"}
    for call_id, content in results.items():
        shown = outputs[str(call_id)]
        assert shown.get("output", shown.get("errorText")) == content
    taken = {part["data"]["message_id"] for part in log.parts("data-follow-up")}
    assert {row.client_message_id for row in rows if row.kind == "follow_up"} <= taken
    assert log.count("abort") == (status is TurnStatus.CANCELLED)
    assert log.count("error") == (status is TurnStatus.FAILED)


async def run(seed: int, database: Database, url: str, settings: Settings) -> None:
    faults = Faults(seed)
    settings = settings.model_copy(update={"model_retry_seconds": faults.random.choice((0, 600))})
    turn = Turn(faults, database, url, settings)
    await turn.begin()
    running = asyncio.create_task(turn.run())
    watching = [asyncio.create_task(watch(turn, turn.process(), settings, clients)) for clients in (1, 2)]
    others: list[asyncio.Task[None]] = []
    if faults.happens(faults.stop):
        others.append(asyncio.create_task(press_stop(turn)))
    others += [asyncio.create_task(post(turn)) for _ in range(faults.random.choice((0, 0, 1, 3)))]
    if faults.happens(faults.flush):
        others.append(asyncio.create_task(flush(turn)))
    others += [asyncio.create_task(go_away(turn, part)) for part in AWAY if faults.happens(faults.outage)]
    async with asyncio.timeout(30):
        status = await running
        logs = await asyncio.gather(*watching)
        await asyncio.gather(*others)
        await turn.end_zombies()
        turn.faults.end()
        late = await watch(turn, turn.process(), settings, 1)
    for log in (*logs[0], *logs[1], *late):
        await check(turn, log, database, status)


async def press_stop(turn: Turn) -> None:
    await turn.faults.moments(2_000)
    await turn.press_stop()


async def post(turn: Turn) -> None:
    await turn.faults.moments(2_000)
    await turn.post()


async def go_away(turn: Turn, part: str) -> None:
    """Nobody reaches a part for some time; Redis may come back empty."""
    await turn.faults.moments(1_500)
    turn.faults.away.add(part)
    await turn.faults.moments(turn.faults.random.choice((20, 100, 500)))
    if part == "redis" and turn.faults.happens(turn.faults.flush):
        await delete_stream(turn)
    turn.faults.away.discard(part)


async def flush(turn: Turn) -> None:
    await turn.faults.moments(2_000)
    await delete_stream(turn)


async def delete_stream(turn: Turn) -> None:
    client = connect_for_reading(load_settings(redis_url=turn._url))
    await client.delete(stream_key(turn.turn_id), writers_key(turn.turn_id))
    await client.aclose()


@pytest.fixture
def settings(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(reader, "BLOCK_S", 0.01)
    monkeypatch.setattr(feed, "BLOCK_S", 0.01)
    monkeypatch.setattr(from_rows, "POLL_S", 0.005)
    monkeypatch.setattr(attempts, "STORE_PAUSE_S", 0.001)
    monkeypatch.setattr(attempts, "STORE_PAUSE_MAX_S", 0.001)
    return load_settings(redis_url=redis_server.url(0), stream_flush_ms=0)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_every_client_sees_what_is_stored(
    seed: int, database: Database, redis_server: RedisServer, settings: Settings
) -> None:
    for one in range(seed * RUNS, (seed + 1) * RUNS):
        await run(one, database, redis_server.url(0), settings)


async def test_a_client_that_is_cut_off_when_it_starts_over(
    database: Database, redis_server: RedisServer, settings: Settings
) -> None:
    """Redis is away for a moment, the client is told to start over, and its connection breaks right then."""
    faults = Faults(0)
    faults.end()
    turn = Turn(faults, database, redis_server.url(0), settings)
    await turn.begin()
    status = await turn.run()
    deps = cast("Dependencies", FakeDependencies(turn, turn.process(), settings))
    log = StreamLog(200, headers=HEADERS)
    await read(turn, deps, log, left=5)
    faults.away.add("redis")
    await read(turn, deps, log, left=1)
    assert log.types[-1] == "data-voided"
    faults.away.clear()
    await read(turn, deps, log, left=10_000)
    await deps.feeds.aclose()
    await check(turn, log, database, status)
