"""The reading end of a stream, on a real Redis; and what a client is sent when Redis cannot say any more."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import orjson
import pytest
from redis.asyncio import Redis

from longhaul.contracts import TurnStatus
from longhaul.redis import connect_for_reading
from longhaul.settings import load_settings
from longhaul.streams.events import FIELD, FINISH_ID, START_ID, encode, start_part, stream_key
from longhaul.streams.feed import StreamLostError, TurnFeeds
from longhaul.streams.from_rows import RowParts
from longhaul.streams.reader import StreamReader, newest_id
from longhaul.streams.viewer import ViewerState
from testkit.servers import RedisServer

Part = dict[str, Any]


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator["Redis"]:
    client = connect_for_reading(load_settings(redis_url=redis_server.url(0)))
    yield client
    await client.aclose()


@contextmanager
def follow(redis: "Redis", turn_id: str, state: ViewerState | None = None) -> Iterator[StreamReader]:
    """A viewer with a reader of its own."""
    feeds = TurnFeeds(redis)
    with feeds.follow(turn_id) as feed:
        yield StreamReader(feeds, feed, state or ViewerState())


async def publish(redis: "Redis", turn_id: str, parts: Sequence[Part]) -> list[str]:
    ids = []
    for part in parts:
        fixed = {"start": START_ID, "finish": FINISH_ID}.get(part["type"], "*")
        added = await redis.xadd(stream_key(turn_id), {FIELD: encode(part)}, id=fixed)
        ids.append(str(added, "ascii") if isinstance(added, bytes) else str(added))
    return ids


def step(round_: int, *parts: Part) -> list[Part]:
    progress = {"type": "data-progress", "data": {"round": round_, "status": "running"}, "transient": True}
    return [{"type": "start-step"}, progress, *parts, {"type": "finish-step"}]


def text(part_id: str, *deltas: str) -> list[Part]:
    middle = [{"type": "text-delta", "id": part_id, "delta": delta} for delta in deltas]
    return [{"type": "text-start", "id": part_id}, *middle, {"type": "text-end", "id": part_id}]


async def test_entries_come_through_byte_for_byte_and_end_with_finish(redis: "Redis") -> None:
    turn_id, state = str(uuid4()), ViewerState()
    parts = [start_part(turn_id), *step(1, *text("1.1.0", "Hë", "llo")), {"type": "finish"}]
    ids = await publish(redis, turn_id, parts)
    with follow(redis, turn_id, state) as reader:
        entries = await reader.read()
    assert [part for _, part in entries] == [encode(part) for part in parts]
    assert [key.decode() for key, _ in entries] == ids
    assert state.finished
    assert state.rounds_done == {1}


async def test_a_silent_stream_gives_nothing_and_a_later_entry_at_once(redis: "Redis") -> None:
    turn_id = str(uuid4())
    with follow(redis, turn_id) as reader:
        assert await reader.read() == []
        assert not await reader.exists()
        await publish(redis, turn_id, [start_part(turn_id)])
        assert len(await reader.read()) == 1


async def test_a_client_goes_on_behind_what_it_has(redis: "Redis") -> None:
    turn_id, state = str(uuid4()), ViewerState()
    parts = [start_part(turn_id), *step(1, *text("1.1.0", *("x" * 500))), {"type": "finish"}]
    ids = await publish(redis, turn_id, parts)
    rest = []
    with follow(redis, turn_id, state) as reader:
        await reader.skip_to(ids[300])
        assert state.open_blocks == {"1.1.0": "text"}
        while not state.finished:
            rest += await reader.read()
    assert [key.decode() for key, _ in rest] == ids[301:]


async def test_an_id_of_another_stream_starts_over(redis: "Redis") -> None:
    turn_id = str(uuid4())
    await publish(redis, turn_id, [start_part(turn_id)])
    with follow(redis, turn_id) as reader:
        await reader.skip_to("123-0")
        assert len(await reader.read()) == 1


async def test_a_stream_without_its_beginning_is_lost(redis: "Redis") -> None:
    turn_id = str(uuid4())
    await publish(redis, turn_id, text("1.1.0", "half"))
    with follow(redis, turn_id) as reader, pytest.raises(StreamLostError):
        await reader.read()


async def test_a_redis_that_is_away_is_a_lost_stream() -> None:
    client = connect_for_reading(load_settings(redis_url="redis://127.0.0.1:1/0"))
    with follow(client, "any") as reader:
        for attempt in (reader.exists, reader.read):
            with pytest.raises(StreamLostError):
                await attempt()
    assert await newest_id(client, "any") is None


async def test_a_redis_that_hangs_is_noticed(make_hanging_redis: RedisServer) -> None:
    client = connect_for_reading(load_settings(redis_url=make_hanging_redis.url(0)))
    state = ViewerState()

    async def read_to_the_end(reader: StreamReader) -> None:
        while not state.finished:
            await reader.read()

    with follow(client, "any", state) as reader, pytest.raises(StreamLostError):
        await read_to_the_end(reader)
    await client.aclose()


@pytest.fixture
async def make_hanging_redis(tmp_path: Any) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    server.pause()
    yield server
    server.resume()
    await server.stop()


class Stored:
    """A row as queries give it."""

    def __init__(self, role: str, round_: int, content: str = "", **values: Any) -> None:
        base = {"id": str(uuid4()), "kind": "message", "is_error": False}
        base |= dict.fromkeys(("tool_calls", "tool_call_id", "tool_name", "usage", "context", "duration_ms"))
        self.__dict__.update({**base, "role": role, "round": round_, "content": content, **values})


def called(call_id: str) -> Part:
    return {"id": call_id, "type": "function", "function": {"name": "calculator", "arguments": '{"a":1}'}}


def continued(state: ViewerState, rows: Sequence[Stored], status: TurnStatus, error: str | None = None) -> list[Part]:
    """What a client is sent that has seen this much."""
    made = RowParts(state, "turn-1")
    sent = [state.note_and_encode(part) for part in made.opening()]
    for row in rows:
        sent += [state.note_and_encode(part) for part in made.row(row)]  # type: ignore[arg-type]  # quacks like one
    sent += [state.note_and_encode(part) for part in made.closing(status, error)]
    return [orjson.loads(part) for part in sent]


def after(*parts: Part) -> ViewerState:
    state = ViewerState()
    for part in parts:
        state.note_json(encode(part))
    return state


def types(parts: Sequence[Part]) -> list[str]:
    return [part["type"] for part in parts if part["type"] != "data-progress"]


WHOLE = [
    Stored("user", 0, "1 + 1?"),
    Stored("reasoning", 1, "hm"),
    Stored("assistant", 1, "", tool_calls=[called("c1"), called("c2")]),
    Stored("tool", 1, "2", tool_call_id="c1"),
    Stored("tool", 1, "no", tool_call_id="c2", is_error=True),
    Stored("assistant", 2, "It is 2."),
]


def test_a_client_that_has_seen_nothing_gets_it_all() -> None:
    sent = continued(ViewerState(), WHOLE, TurnStatus.COMPLETED)
    block = ["text-start", "text-delta", "text-end"]
    assert types(sent) == [
        "start",
        "start-step",
        *(kind.replace("text", "reasoning") for kind in block),
        "tool-input-available",
        "tool-input-available",
        "tool-output-available",
        "tool-output-error",
        "finish-step",
        "start-step",
        *block,
        "finish-step",
        "finish",
    ]


def test_what_is_half_seen_is_closed_voided_and_said_again() -> None:
    opened = [start_part("turn-1"), *step(1)[:2], {"type": "text-start", "id": "1.1.0"}]
    rows = [Stored("assistant", 1, "whole")]
    sent = continued(after(*opened), rows, TurnStatus.COMPLETED)
    assert types(sent)[:3] == ["text-end", "data-voided", "finish-step"]
    assert sent[1]["data"]["ids"] == ["1.1.0"]
    assert [part["delta"] for part in sent if part["type"] == "text-delta"] == ["whole"]
    assert "start" not in types(sent)


def test_whole_rounds_and_seen_outputs_are_not_said_again() -> None:
    tool = {"type": "tool-input-available", "toolCallId": "c1", "toolName": "calculator", "input": {}}
    output = {"type": "tool-output-available", "toolCallId": "c1", "output": "2"}
    state = after(start_part("turn-1"), *step(1, *text("1.1.0", "a")), *step(2, tool, output)[:-1])
    rows = [
        Stored("assistant", 1, "a"),
        Stored("assistant", 2, "", tool_calls=[called("c1"), called("c2")]),
        Stored("tool", 2, "2", tool_call_id="c1"),
        Stored("tool", 2, "3", tool_call_id="c2"),
    ]
    sent = continued(state, rows, TurnStatus.COMPLETED)
    assert types(sent) == [
        "finish-step",
        "start-step",
        "tool-input-available",
        "tool-output-available",
        "finish-step",
        "finish",
    ]
    assert {part["toolCallId"] for part in sent if "toolCallId" in part} == {"c2"}


def test_a_round_that_was_voided_live_is_said_from_its_row() -> None:
    voided = {"type": "data-voided", "data": {"ids": ["1.1.0"], "round": 1}}
    state = after(start_part("turn-1"), *step(1, *text("1.1.0", "ha"), voided))
    sent = continued(state, [Stored("assistant", 1, "whole")], TurnStatus.COMPLETED)
    assert types(sent) == ["start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]


def test_a_call_of_a_retried_attempt_may_come_again_under_its_id() -> None:
    """What answered the first attempt's call is not the output of the second's."""
    begun = {"type": "tool-input-start", "toolCallId": "c1", "toolName": "calculator"}
    retried = {"type": "tool-output-error", "toolCallId": "c1", "errorText": "The model call was retried."}
    voided = {"type": "data-voided", "data": {"ids": [], "round": 1}}
    rows = [Stored("assistant", 1, tool_calls=[called("c1")]), Stored("tool", 1, "2", tool_call_id="c1")]
    sent = continued(after(start_part("turn-1"), *step(1, begun, retried, voided)), rows, TurnStatus.COMPLETED)
    assert types(sent) == ["start-step", "tool-input-available", "tool-output-available", "finish-step", "finish"]


def test_every_announced_call_gets_an_output() -> None:
    begun = {"type": "tool-input-start", "toolCallId": "lost", "toolName": "calculator"}
    state = after(start_part("turn-1"), *step(1, begun)[:-1])
    sent = continued(state, [Stored("assistant", 1, "no tool after all")], TurnStatus.COMPLETED)
    assert [part["toolCallId"] for part in sent if part["type"] == "tool-output-error"] == ["lost"]
    assert types(sent)[-2:] == ["finish-step", "finish"]


@pytest.mark.parametrize(
    ("status", "expected"), [(TurnStatus.FAILED, ["error", "finish"]), (TurnStatus.CANCELLED, ["abort", "finish"])]
)
def test_a_turn_that_did_not_complete_says_so_once(status: TurnStatus, expected: list[str]) -> None:
    rows = [Stored("assistant", 2, "The model is away.", kind="error"), Stored("system", 2, "stopped", kind="stop")]
    assert types(continued(after(start_part("turn-1")), rows, status, "The model is away.")) == expected
    state = after(start_part("turn-1"), {"type": expected[0], "errorText": "x"})
    assert types(continued(state, rows, status, "x")) == ["finish"]


def test_follow_ups_are_told_once() -> None:
    told = {"type": "data-follow-up", "data": {"message_id": "m1", "round": 1}}
    rows = [Stored("user", 1, "and?", kind="follow_up", client_message_id=name) for name in ("m1", "m2")]
    sent = continued(after(start_part("turn-1"), told), rows, TurnStatus.COMPLETED)
    assert [part["data"]["message_id"] for part in sent if part["type"] == "data-follow-up"] == ["m2"]
