"""How a stream ends, on a real Redis: sealed if it agrees with the rows, withdrawn if it does not."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from longhaul.contracts import TurnStatus
from longhaul.db.messages import StoredMessage
from longhaul.redis import connect
from longhaul.settings import load_settings
from longhaul.streams.ending import Ending, seal_compared, seal_trusted
from longhaul.streams.events import Part, data_part, stream_key, tool_output_part, writers_key
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.scripts import ActivityAttempt
from longhaul.streams.step_writer import StepWriter
from testkit.servers import RedisServer

CANCELLED = "Cancelled."
STOPPED = Ending(TurnStatus.CANCELLED, 1, None, closing_text="", step_open=False, unanswered=CANCELLED)
ABORTED = ["data-progress", "abort", "finish"]


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator["Redis"]:
    client = connect(load_settings(redis_url=redis_server.url(0)))
    yield client
    await client.aclose()


def row(role: str, content: str = "", **values: Any) -> StoredMessage:
    same = dict.fromkeys(StoredMessage._fields)
    base = {"id": str(uuid4()), "kind": "message", "round": 1, "is_error": False, "created_at": datetime.now(UTC)}
    return StoredMessage(**{**same, **base, "role": role, "content": content, **values})


def call(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "n", "arguments": "{}"}}


async def ended(redis: "Redis", parts: list[Part], rows: list[StoredMessage], ending: Ending = STOPPED) -> list[Part]:
    """What is in Redis when a turn has ended whose activities had published `parts` and stored `rows`."""
    turn_id = str(uuid4())
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        for part in parts:
            publisher.put(part)
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await seal_compared(publisher, ending, rows, 60)
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        return (await publisher.content()).parts


def step(text: str = "", *calls: str, round_: int = 1, complete: bool = True) -> list[Part]:
    parts: list[Part] = []
    writer = StepWriter(parts.append, round_, 1)
    writer.begin()
    if text:
        writer.text(text)
    for call_id in calls:
        writer.tool_available(call_id, "n", "{}")
    if complete:
        writer.end(keep_open=bool(calls))
    return parts


def types(parts: list[Part]) -> list[str]:
    return [part["type"] for part in parts]


async def test_a_stopped_turn_whose_partial_text_is_stored(redis: "Redis") -> None:
    parts = await ended(redis, step("half"), [row("assistant", "half", kind="partial"), row("system", kind="stop")])
    assert types(parts)[-4:] == ["finish-step", *ABORTED]


async def test_a_stopped_turn_whose_text_was_never_published(redis: "Redis") -> None:
    """The model call's publisher broke, and Stop ended the call before it could report that."""
    parts = await ended(redis, [], [row("assistant", "half", kind="partial")])
    assert parts == [{"type": "withdrawn"}]


async def test_a_stopped_turn_whose_text_was_never_stored(redis: "Redis") -> None:
    """The worker died while the text was shown, and Stop left no attempt to store or to void it."""
    parts = await ended(redis, step("half", complete=False), [row("system", kind="stop")])
    assert parts == [{"type": "withdrawn"}]


async def test_announced_calls_of_a_stopped_turn_get_an_output(redis: "Redis") -> None:
    shown = [*step("x", "a", "b", "c"), tool_output_part("a", "1", is_error=False)]
    rows = [row("assistant", "x", tool_calls=[call("a"), call("b"), call("c")]), row("tool", "1", tool_call_id="a")]
    rows += [row("tool", CANCELLED, tool_call_id=call_id, is_error=True) for call_id in "bc"]
    parts = await ended(redis, shown, rows)
    assert [part["toolCallId"] for part in parts if part["type"] == "tool-output-error"] == ["b", "c"]
    assert types(parts)[-4:] == ["finish-step", *ABORTED]


async def test_a_result_that_was_stored_but_not_shown(redis: "Redis") -> None:
    """Stop cancelled the tool's activity after it had stored its result: `Cancelled` would contradict the row."""
    rows = [row("assistant", "x", tool_calls=[call("a")]), row("tool", "1", tool_call_id="a")]
    assert await ended(redis, step("x", "a"), rows) == [{"type": "withdrawn"}]


async def test_a_follow_up_that_was_stored_but_not_shown(redis: "Redis") -> None:
    told = data_part("follow-up", {"message_id": "m", "round": 1})
    rows = [row("assistant", "x"), row("user", "and?", kind="follow_up", client_message_id="m")]
    assert types(await ended(redis, [*step("x"), told], rows))[-3:] == ABORTED
    assert await ended(redis, step("x"), rows) == [{"type": "withdrawn"}]


async def test_a_round_that_is_missing_in_the_middle(redis: "Redis") -> None:
    rows = [row("assistant", "one"), row("assistant", "two", round=2), row("assistant", "three", round=3)]
    shown = [*step("one"), *step("three", round_=3)]
    assert await ended(redis, shown, rows) == [{"type": "withdrawn"}]


async def test_a_failed_turn_shows_its_error_once(redis: "Redis") -> None:
    failed = Ending(TurnStatus.FAILED, 1, "No.", closing_text="", step_open=False, unanswered=CANCELLED)
    parts = await ended(redis, step("x"), [row("assistant", "x"), row("assistant", "No.", kind="error")], failed)
    assert parts[-2:] == [{"type": "error", "errorText": "No."}, {"type": "finish"}]


async def test_a_second_attempt_to_close_changes_nothing(redis: "Redis") -> None:
    """The first one may have sealed the stream, or not, before its worker died."""
    turn_id = str(uuid4())
    completed = Ending(TurnStatus.COMPLETED, 1, None, closing_text="bye", step_open=True, unanswered=CANCELLED)
    rows = [row("assistant", "x", tool_calls=[call("a")]), row("tool", "1", tool_call_id="a")]
    rows.append(row("assistant", "bye", kind="notice", round=2))
    contents = []
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        for part in [*step("x", "a"), tool_output_part("a", "1", is_error=False)]:
            publisher.put(part)
        await publisher.drain()
        for sealing in (seal_compared(publisher, completed, rows, 60), seal_trusted(publisher, completed, 60)):
            await sealing
            contents.append((await publisher.content()).parts)
    assert contents[0] == contents[1]
    assert types(contents[0]).count("finish") == types(contents[0]).count("finish-step") - 1 == 1


async def test_an_attempt_that_was_given_up_cannot_write_into_the_end(redis: "Redis") -> None:
    """It hung while `close_turn` read the stream, and came back before the seal."""
    turn_id = str(uuid4())
    zombie = StreamPublisher(redis, turn_id, flush_s=0, attempt=ActivityAttempt("zombie"))

    looks: list[Any] = []

    class Closing(StreamPublisher):
        async def content(self) -> Any:
            known = await super().content()
            looks.append(known)
            if len(looks) == 1:
                for part in step("late", complete=False):
                    zombie.put(part)
                await zombie.drain()
            return known

    async with Closing(redis, turn_id, flush_s=0) as closing, zombie:
        await closing.begin()
        await seal_compared(closing, STOPPED, [row("system", kind="stop")], 60)
        assert len(looks) == 2
        zombie.put({"type": "finish-step"})
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        assert (await publisher.content()).parts == [{"type": "withdrawn"}]


async def test_nothing_is_left_of_a_stream_but_what_readers_need(redis: "Redis") -> None:
    turn_id = str(uuid4())
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        assert await redis.exists(stream_key(turn_id), writers_key(turn_id)) == 2
        await seal_compared(publisher, STOPPED, [row("system", kind="stop")], 60)
    assert await redis.exists(stream_key(turn_id), writers_key(turn_id)) == 1
    assert 0 < await redis.ttl(stream_key(turn_id)) <= 60
