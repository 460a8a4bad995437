"""A conversation is summarised once, booked, and read from its summary on; a model that fails costs nothing else."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.answers import load_prompt, unsummarised
from activities.compaction import CompactionActivities
from longhaul.contracts import Budget, CallModel, CompactContext, CompactedContext, Scope
from longhaul.db import conversation, ledger, messages, sessions
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.errors import ContextTooLongError, StreamBrokenError
from longhaul.llm.compaction import ROWS, compaction_due, kept_from
from longhaul.llm.fit import NEWEST_KEPT
from tests.activities.conftest import SETTINGS, TURN
from tests.activities.model_calls import Recorder, booked

COMPACT = CompactContext(turn=TURN.model_copy(update={"published": True}), round=3, model="gpt-4.1-mini")
CALL = CallModel(turn=TURN, round=4, model="m")
SMALL = SETTINGS.model_copy(update={"context_window": 4_000})


class Summariser:
    """Answers each request with the next of its texts, or fails as the next of them says."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []

    async def stream(self, body: dict[str, Any], *, call_key: str) -> AsyncGenerator[dict[str, Any], None]:
        assert call_key.startswith(f"compaction:{TURN.turn_id}:")
        self.requests.append(body)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield {"choices": [{"delta": {"content": answer}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 70}}


async def talk(database: Database, count: int, size: int = 40) -> None:
    rows = [NewMessage(f"{n}", ("user", "assistant")[n % 2], f"{n}: " + "word " * size) for n in range(count)]
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, rows)


async def compact(
    database: Database,
    model: Summariser,
    stream: Recorder | None = None,
    scope: Scope = Scope(),  # noqa: B008
    round_: int = 3,
) -> CompactedContext:
    activities = CompactionActivities(database, cast("Any", stream or Recorder()), cast("Any", model), SMALL)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, is_local=False)
    return await environment.run(
        activities.compact_context, COMPACT.model_copy(update={"scope": scope, "round": round_})
    )


async def kinds(database: Database) -> list[tuple[str, int | None]]:
    async with database.read() as connection:
        session = await sessions.get(connection, TURN.session_id)
        rows = await conversation.rows_of_turn(connection, TURN.turn_id)
    return [(row.kind, session.summarised_until) for row in rows]


async def test_a_summary_is_stored_booked_shown_and_stands_for_the_rows(database: Database) -> None:
    await talk(database, 100)
    model, stream = Summariser("They counted to 80."), Recorder()
    compacted = await compact(database, model, stream)
    assert compacted.compacted
    assert compacted.usage.prompt_tokens == 70
    async with database.read() as connection:
        prompt = await load_prompt(connection, CALL)
        spent = await ledger.usage_of_each(connection, [TURN.session_id])
        [row] = await conversation.rows_of_turn(connection, TURN.turn_id)
    assert spent[TURN.session_id].calls == 1
    assert (row.role, row.kind, row.content) == ("system", "summary", "They counted to 80.")
    assert prompt.about.summary == row.content
    assert [one.id for one in prompt.rows] == ["0", *(f"{n}" for n in range(100 - len(prompt.rows) + 1, 100))]
    assert len(prompt.rows) <= NEWEST_KEPT + 1
    [part] = [part for part in stream.parts if part["type"] == "data-compaction"]
    until = 99 - (len(prompt.rows) - 1)
    assert part["data"] == {"message_id": row.id, "round": 3, "until": until, "rows": until + 1}
    [request] = model.requests
    assert "tools" not in request
    transcript = request["messages"][1]["content"]
    assert f"[user] {until - 1}: " in transcript or f"[assistant] {until - 1}: " in transcript
    assert f" {until + 1}: " not in transcript


async def test_the_next_summary_is_made_from_the_one_before(database: Database) -> None:
    await talk(database, 60)
    await compact(database, Summariser("The first summary."))
    async with database.write() as connection:
        rows = [NewMessage(f"more {n}", ("user", "assistant")[n % 2], f"more {n}: " + "word " * 40) for n in range(60)]
        await messages.append(connection, TURN.session_id, rows)
    model = Summariser("The second summary.")
    assert (await compact(database, model, round_=5)).compacted
    transcript = model.requests[0]["messages"][1]["content"]
    assert "The first summary." in transcript
    assert "[user] 10: " not in transcript, "it is in the first summary"
    async with database.read() as connection:
        prompt = await load_prompt(connection, CALL)
    assert prompt.about.summary == "The second summary."
    assert prompt.rows[0].id == "0"
    assert all(row.id.startswith("more") for row in prompt.rows[1:])


async def test_a_second_attempt_asks_for_nothing_and_shows_it(database: Database) -> None:
    await talk(database, 60)
    first = await compact(database, Summariser("A summary."))
    stream = Recorder()
    assert await compact(database, Summariser(), stream) == first
    assert [part["type"] for part in stream.parts] == ["data-compaction"]
    async with database.read() as connection:
        assert (await ledger.usage_of_each(connection, [TURN.session_id]))[TURN.session_id].calls == 1


@pytest.mark.parametrize(
    ("failure", "calls"), [(StreamBrokenError("broke"), 1), (ContextTooLongError(), 0), (TimeoutError(), 1)]
)
async def test_a_model_that_fails_changes_nothing_but_the_ledger(
    database: Database, failure: Exception, calls: int
) -> None:
    await talk(database, 60)
    compacted = await compact(database, Summariser(*[failure] * 99))
    assert not compacted.compacted
    assert compacted.usage.calls == calls
    assert [row.status for row in await booked(database)] == ["estimated"] * calls
    assert await kinds(database) == []


async def test_a_summary_without_text_is_paid_for_and_not_used(database: Database) -> None:
    await talk(database, 60)
    compacted = await compact(database, Summariser(" "))
    assert (compacted.compacted, compacted.usage.prompt_tokens) == (False, 70)
    assert await kinds(database) == []


async def test_a_transcript_larger_than_the_window_is_cut_until_the_endpoint_takes_it(database: Database) -> None:
    await talk(database, 60, size=2_000)
    model = Summariser(ContextTooLongError(), ContextTooLongError(), "A summary.")
    assert (await compact(database, model)).compacted
    sizes = [len(str(request["messages"])) for request in model.requests]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


async def test_nothing_is_asked_when_there_is_nothing_to_summarise_or_no_money(database: Database) -> None:
    await talk(database, 2)
    assert not (await compact(database, Summariser())).compacted
    await talk(database, 60)
    budget = Budget(session_id=TURN.session_id, max_cost_microdollars=0)
    assert not (await compact(database, Summariser(), scope=Scope(budgets=(budget,)))).compacted


@pytest.mark.parametrize(
    ("failure", "statuses"),
    [(None, ["booked"]), (StreamBrokenError("broke"), ["estimated"]), (ContextTooLongError(), [])],
)
async def test_a_summary_is_reserved_and_settled(
    database: Database, failure: Exception | None, statuses: list[str]
) -> None:
    await talk(database, 60)
    budget = Budget(session_id=TURN.session_id, max_cost_microdollars=1_000_000)
    model = Summariser(*[failure or "A summary."] * 99)
    compacted = await compact(database, model, scope=Scope(budgets=(budget,)))
    assert compacted.compacted is (failure is None)
    assert model.requests[0]["max_tokens"] == SMALL.budget_answer_tokens
    assert [row.status for row in await booked(database)] == statuses


async def test_a_summary_does_not_take_the_last_money(database: Database) -> None:
    await talk(database, 60)
    budget = Budget(session_id=TURN.session_id, max_cost_microdollars=1)
    assert not (await compact(database, Summariser(), scope=Scope(budgets=(budget,)))).compacted
    assert await booked(database) == []


async def test_a_call_stays_with_its_results(database: Database) -> None:
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "n", "arguments": "{}"}} for n in range(50)]
    rows = [NewMessage(f"{n}", "user", f"{n}") for n in range(30)]
    rows.append(NewMessage("caller", "assistant", tool_calls=calls, turn_id=TURN.turn_id))
    rows += [NewMessage(f"r{n}", "tool", "r", tool_call_id=f"c{n}", turn_id=TURN.turn_id) for n in range(50)]
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, rows)
        session = await sessions.get(connection, TURN.session_id)
        stored = await unsummarised(connection, session)
    assert stored[kept_from(SMALL.context_window, None, stored)].id == "caller"


async def test_results_that_the_model_has_not_seen_are_kept_however_large_they_are(database: Database) -> None:
    await talk(database, 30)
    call = {"id": "c", "type": "function", "function": {"name": "n", "arguments": "{}"}}
    rows = [NewMessage("caller", "assistant", tool_calls=[call], turn_id=TURN.turn_id)]
    rows.append(NewMessage("result", "tool", "word " * 20_000, tool_call_id="c", turn_id=TURN.turn_id))
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, rows)
    assert (await compact(database, Summariser("A summary."))).compacted
    async with database.read() as connection:
        prompt = await load_prompt(connection, CALL)
    assert [row.id for row in prompt.rows] == ["0", "28", "caller", "result"]


async def test_ids_of_summarised_calls_stay_taken(database: Database) -> None:
    """Some endpoints count their calls from zero in each answer; an id must name one call of the turn."""
    call = {"id": "call_0", "type": "function", "function": {"name": "n", "arguments": "{}"}}
    async with database.write() as connection:
        rows = [NewMessage("u", "user", "hello", turn_id=TURN.turn_id)]
        rows.append(NewMessage("a", "assistant", tool_calls=[call], turn_id=TURN.turn_id))
        rows.append(NewMessage("r", "tool", "word " * 900, tool_call_id="call_0", turn_id=TURN.turn_id))
        await messages.append(connection, TURN.session_id, rows)
    await talk(database, 60)
    assert (await compact(database, Summariser("A summary."))).compacted
    async with database.read() as connection:
        prompt = await load_prompt(connection, CALL)
    assert "call_0" in prompt.call_ids
    assert not any(row.tool_calls for row in prompt.rows)


def test_when_it_is_due() -> None:
    assert not compaction_due(100_000, 0.7, ROWS, 69_999)
    assert compaction_due(100_000, 0.7, 10, 70_001)
    assert compaction_due(100_000, 0.7, ROWS + 1, 10), "rows take time to read, however small they are"


async def test_a_stop_ends_the_call(database: Database) -> None:
    await talk(database, 60)

    asked = asyncio.Event()

    class Hanging(Summariser):
        async def stream(self, body: dict[str, Any], *, call_key: str) -> AsyncGenerator[dict[str, Any], None]:
            asked.set()
            await asyncio.Event().wait()
            yield {"never": (body, call_key)}

    running = asyncio.ensure_future(compact(database, Hanging()))
    await asyncio.wait_for(asked.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await kinds(database) == []
    assert [row.status for row in await booked(database)] == ["estimated"]
