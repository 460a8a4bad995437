"""A model call that fails: retried for a time that is a setting, shown while it waits, and its text kept at the end."""

from itertools import pairwise

import httpx2
import openai
import pytest

from activities.model_attempt import CallState
from longhaul.db import messages, sessions
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.errors import MODEL_FAILED, MODEL_RETRY, ContextTooLongError
from longhaul.llm.models import UNKNOWN_WINDOW
from longhaul.llm.tokens import tokens_of_request
from tests.activities.conftest import SETTINGS, TURN
from tests.activities.model_calls import BROKEN, HANGS, Model, Recorder, attempt, booked, rows

PROVIDERS_WORDS = "org-4711 said: your prompt was 'my secret'"


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
    assert [(row.attempt, row.status) for row in await booked(database)] == [(n, "estimated") for n in (1, 2, 3)]


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


async def test_a_call_that_takes_too_long_is_ended_once(database: Database) -> None:
    """Its text stays. It was made again and again until the activity's last time-out, and each attempt was paid."""
    short = SETTINGS.model_copy(update={"model_max_seconds": 0.5})
    stream, model = Recorder(), Model(("half", BROKEN), ("a long story", HANGS))
    state, failure = await attempt(database, model, stream, None, 1, 600)
    assert state is not None
    assert state.asking_since is not None
    state, failure = await attempt(database, model, stream, state, 2, 600, settings=short)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (MODEL_FAILED, True)
    assert "longer than 0.5 seconds" in str(failure)
    assert stream.visible() == "a long story"
    assert await rows(database) == [("assistant", "partial", "a long story", "cut_off")]
    assert [(row.attempt, row.status) for row in await booked(database)] == [(n, "estimated") for n in (1, 2)]


async def test_the_time_of_a_call_includes_its_retries(database: Database) -> None:
    stream, model = Recorder(), Model(("half", BROKEN), ("", HANGS))
    state, _ = await attempt(database, model, stream, None, 1, 600)
    assert state is not None
    assert state.asking_since is not None
    long_ago = state.model_copy(update={"asking_since": state.asking_since - SETTINGS.model_max_seconds})
    _, failure = await attempt(database, model, stream, long_ago, 2, 600)
    assert failure is not None
    assert failure.type == MODEL_FAILED
    assert stream.visible() == "half"


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
    model = Model(("whole", None), counts=2)
    await attempt(database, model, Recorder(), None, 1, 0)
    async with database.read() as connection:
        assert (await sessions.get(connection, TURN.session_id)).token_scale == pytest.approx(2, abs=0.01)
    assert tokens_of_request(model.requests[0]) == pytest.approx(0.85 * UNKNOWN_WINDOW, rel=0.01)


async def test_a_window_that_takes_nothing_fails_the_turn_with_the_remedy(database: Database) -> None:
    await said(database, "hello")
    model = Model(*[("", NOT_TOLD)] * 99)
    _, failure = await attempt(database, model, Recorder(), None, 1, 600)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (MODEL_FAILED, True)
    assert "LONGHAUL_CONTEXT_WINDOW" in str(failure)
    assert len(model.requests) < 25
