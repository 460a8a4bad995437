"""A model call that fails: retried for a time that is a setting, shown while it waits, and its text kept at the end."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import httpx2
import openai
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import attempt as attempts
from activities.model import CallState, ModelActivities
from longhaul.contracts import CallModel
from longhaul.db import conversation, ledger, messages, sessions
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.errors import MODEL_FAILED, MODEL_RETRY, ContextTooLongError, StreamBrokenError
from longhaul.llm.tokens import tokens_of_request
from longhaul.tools import default_tools
from tests.activities.conftest import SETTINGS, TURN

CALL = CallModel(turn=TURN.model_copy(update={"published": True}), round=1, model="m")
PROVIDERS_WORDS = "org-4711 said: your prompt was 'my secret'"


class Recorder(AsyncExitStack):
    """A turn's stream in memory."""

    broken = False

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[dict[str, Any]] = []

    def publisher(self, _: object) -> "Recorder":
        return self

    def put(self, part: dict[str, Any], once: str = "") -> None:  # noqa: ARG002
        self.parts.append(part)

    async def open_step(self) -> list[dict[str, Any]]:
        starts = [index for index, part in enumerate(self.parts) if part["type"] == "start-step"]
        return self.parts[starts[-1] :] if starts else []

    def visible(self) -> str:
        """The text that a client shows."""
        voided = {part_id for part in self.parts if part["type"] == "data-voided" for part_id in part["data"]["ids"]}
        deltas = [part for part in self.parts if part["type"] == "text-delta" and part["id"] not in voided]
        return "".join(part["delta"] for part in deltas)


class Model:
    """Gives each request its script: pieces of text, then a failure or None for a proper end."""

    def __init__(self, *scripts: tuple[str, Exception | None]) -> None:
        self.scripts = list(scripts)
        self.requests: list[dict[str, Any]] = []

    async def stream(self, body: dict[str, Any], *, call_key: str) -> AsyncGenerator[dict[str, Any], None]:
        assert call_key == f"{TURN.turn_id}:1"
        self.requests.append(body)
        text, failure = self.scripts.pop(0)
        if text:
            yield {"choices": [{"delta": {"content": text}}]}
        if failure is not None:
            raise failure
        counted = 2 * tokens_of_request(body)
        yield {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": counted}}


async def attempt(
    database: Database, model: Model, stream: Recorder, state: CallState | None, number: int, seconds: float
) -> tuple[CallState | None, ApplicationError | None]:
    """One attempt: the checkpoint that it leaves, and its failure."""
    environment = ActivityEnvironment()
    details = [state.model_dump(mode="json")] if state is not None else []
    environment.info = replace(environment.info, attempt=number, heartbeat_details=details, is_local=False)
    left: list[Any] = [state]
    environment.on_heartbeat = lambda *sent: left.append(sent[0])
    attempts._heartbeat_details.set([])
    settings = SETTINGS.model_copy(update={"model_retry_seconds": seconds})
    activities = ModelActivities(database, cast("Any", stream), cast("Any", model), default_tools(), settings)
    try:
        await environment.run(activities.call_model, CALL)
    except ApplicationError as error:
        return left[-1], error
    return left[-1], None


async def rows(database: Database) -> list[tuple[str, str, str, str | None]]:
    async with database.read() as connection:
        stored = await conversation.rows_of_round(connection, TURN.turn_id, 1)
    return [(row.role, row.kind, row.content, row.finish_reason) for row in stored]


BROKEN = StreamBrokenError("The model's stream broke off.")


async def test_a_retry_takes_the_text_back_and_says_when(database: Database) -> None:
    stream, model = Recorder(), Model(("half", BROKEN), ("whole", None))
    state, failure = await attempt(database, model, stream, None, 1, 600)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (MODEL_RETRY, False)
    assert failure.next_retry_delay is not None
    progress = [part["data"] for part in stream.parts if part["type"] == "data-progress"][-1]
    assert progress["retrying_in"] == pytest.approx(failure.next_retry_delay.total_seconds(), abs=0.1)
    assert (progress["status"], progress["round"], progress["reason"]) == ("running", 1, str(BROKEN))
    assert stream.visible() == ""
    state, failure = await attempt(database, model, stream, state, 2, 600)
    assert failure is None
    assert stream.visible() == "whole"
    assert await rows(database) == [("assistant", "message", "whole", "stop")]


@pytest.mark.parametrize("last", ["", "newer half"])
async def test_text_stays_when_no_retry_is_left(database: Database, last: str) -> None:
    """The last attempt's text, or, if it got none, the newest that was shown."""
    stream, model = Recorder(), Model(("half", BROKEN), ("", BROKEN), (last, BROKEN))
    state: CallState | None = None
    for number in (1, 2):
        state, failure = await attempt(database, model, stream, state, number, 600)
        assert failure is not None
        assert failure.type == MODEL_RETRY
    assert await rows(database) == []
    state, failure = await attempt(database, model, stream, state, 3, 0)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (MODEL_FAILED, True)
    assert "Tried 3 times." in str(failure)
    assert stream.visible() == (last or "half")
    assert await rows(database) == [("assistant", "partial", last or "half", "cut_off")]
    async with database.read() as connection:
        assert await ledger.usage_of_each(connection, [TURN.session_id]) == {}


async def test_an_attempt_after_giving_up_asks_nothing_more(database: Database) -> None:
    stream, model = Recorder(), Model(("half", BROKEN))
    state, failure = await attempt(database, model, stream, None, 1, 0)
    assert failure is not None
    _, again = await attempt(database, model, stream, state, 2, 0)
    assert again is not None
    assert (again.type, again.non_retryable) == (MODEL_FAILED, True)
    assert stream.visible() == "half"


async def test_time_ends_the_retries(database: Database) -> None:
    stream, model = Recorder(), Model(("", BROKEN), ("", BROKEN))
    state, _ = await attempt(database, model, stream, None, 1, 600)
    assert state is not None
    assert state.failing_since is not None
    long_ago = state.model_copy(update={"failing_since": state.failing_since - 601})
    _, failure = await attempt(database, model, stream, long_ago, 2, 600)
    assert failure is not None
    assert failure.type == MODEL_FAILED
    assert await rows(database) == []


async def test_a_providers_words_stay_in_the_log(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    request = httpx2.Request("POST", "http://model/chat/completions")
    response = httpx2.Response(503, request=request)
    refusal = openai.InternalServerError(PROVIDERS_WORDS, response=response, body={"message": PROVIDERS_WORDS})
    stream, model = Recorder(), Model(("", refusal), ("", refusal))
    state, first = await attempt(database, model, stream, None, 1, 600)
    _, last = await attempt(database, model, stream, state, 2, 0)
    for failure in (first, last):
        assert failure is not None
        assert failure.__cause__ is None
        assert "secret" not in f"{failure} {stream.parts}"
        reference = str(failure).partition("Reference: ")[2].partition(".")[0]
        assert f"reference {reference}: {PROVIDERS_WORDS}" in caplog.text


async def said(database: Database, *texts: str) -> None:
    async with database.write() as connection:
        rows = [NewMessage(f"said {place}", "user", text, turn_id=TURN.turn_id) for place, text in enumerate(texts)]
        await messages.append(connection, TURN.session_id, rows)


TOLD = ContextTooLongError(window=8_000, counted=60_000)
NOT_TOLD = ContextTooLongError()


@pytest.mark.parametrize(("refusals", "asked"), [([TOLD], 2), ([NOT_TOLD] * 3, 4), ([NOT_TOLD, TOLD], 3)])
async def test_a_request_that_is_too_long_is_cut_harder_in_the_same_attempt(
    database: Database, refusals: list[Exception], asked: int
) -> None:
    await said(database, "持久的会话引擎" * 5_000)
    model = Model(*(("", refusal) for refusal in refusals), ("whole", None))
    stream = Recorder()
    _, failure = await attempt(database, model, stream, None, 1, 0)
    assert failure is None
    assert stream.visible() == "whole"
    sizes = [tokens_of_request(body) for body in model.requests]
    assert len(sizes) == asked
    assert all(after <= before * 0.67 for before, after in pairwise(sizes))
    if refusals == [TOLD]:
        counted_for_one = 60_000 / sizes[0]
        assert 0.7 * 8_000 < sizes[1] * counted_for_one < 0.85 * 8_000 + 1, "as long as the endpoint said"


async def test_what_the_endpoint_counted_calibrates_the_next_call(database: Database) -> None:
    await said(database, "some words of a person " * 40_000)
    model = Model(("whole", None))
    await attempt(database, model, Recorder(), None, 1, 0)
    async with database.read() as connection:
        assert (await sessions.get(connection, TURN.session_id)).token_scale == pytest.approx(2, abs=0.01)
    assert tokens_of_request(model.requests[0]) == pytest.approx(0.85 * SETTINGS.context_window, rel=0.01)


async def test_a_window_that_takes_nothing_fails_the_turn_with_the_remedy(database: Database) -> None:
    await said(database, "hello")
    model = Model(*[("", NOT_TOLD)] * 99)
    _, failure = await attempt(database, model, Recorder(), None, 1, 600)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (MODEL_FAILED, True)
    assert "LONGHAUL_CONTEXT_WINDOW" in str(failure)
    assert len(model.requests) < 25
