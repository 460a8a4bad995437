"""A tier's models in their order, over HTTP: when the retries of one are used up, the next one answers."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from activities.model_attempt import CallState
from longhaul.contracts import CallModel, Progress, TurnStatus
from longhaul.db import conversation, messages, turns
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.db.models import LedgerRow, utc_now
from longhaul.db.turns import NewTurn
from longhaul.errors import MODEL_FAILED, MODEL_RETRY
from longhaul.llm.client import ModelClient
from longhaul.llm.outages import Outages
from longhaul.settings import Settings
from testkit.offline import offline_model
from tests.activities.conftest import SETTINGS, TURN
from tests.activities.model_calls import CALL, Recorder, attempt, rows

DOWN, GONE, ANSWERS = "offline-status-503", "offline-status-404", "offline-standard"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with offline_model() as url:
        yield url


@pytest.fixture
def settings(url: str) -> Settings:
    endpoint = {"openai_base_url": f"{url}/v1", "openai_api_key": SecretStr("anything")}
    tiers = {"model_standard": DOWN, "model_standard_fallbacks": [GONE, ANSWERS], "model_fallback_after": 0}
    return SETTINGS.model_copy(update=endpoint | tiers)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[ModelClient]:
    client = ModelClient(settings)
    yield client
    await client.close()


async def said(database: Database) -> None:
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [NewMessage("said", "user", "hello", turn_id=TURN.turn_id)])


def call_of(**values: Any) -> CallModel:
    return CALL.model_copy(update={"model": DOWN, **values})


async def models_asked(database: Database) -> list[str]:
    async with database.read() as connection:
        found = await connection.execute(select(LedgerRow.model).order_by(LedgerRow.attempt))
    return [row.model for row in found]


async def test_the_next_model_answers_and_everything_says_so(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    await said(database)
    stream = Recorder()
    state, failure = await attempt(database, client, stream, None, 1, 0, call_of(), settings)
    for number, next_model in ((2, GONE), (3, ANSWERS)):
        assert failure is not None
        assert (failure.type, failure.non_retryable) == (MODEL_RETRY, False)
        assert f"{next_model} is asked instead" in str(failure)
        state, failure = await attempt(database, client, stream, state, number, 0, call_of(), settings)
    assert failure is None
    async with database.read() as connection:
        [row] = await conversation.rows_of_round(connection, TURN.turn_id, 1)
    assert (row.content == stream.visible() != "", row.model) == (True, ANSWERS)
    assert await models_asked(database) == [ANSWERS], "refused attempts cost nothing"
    [usage] = [part["data"] for part in stream.parts if part["type"] == "data-usage"]
    assert usage["model"] == ANSWERS


async def test_a_model_is_retried_before_the_next_one_is_asked(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    patient = settings.model_copy(update={"model_fallback_after": 60.0})
    state, failure = await attempt(database, client, Recorder(), None, 1, 600, call_of(), patient)
    assert failure is not None
    assert "instead" not in str(failure)
    assert state is not None
    assert (state.model, state.failures) == ("", 1)
    assert state.failing_since is not None
    long_ago = state.model_copy(update={"failing_since": state.failing_since - 61})
    state, failure = await attempt(database, client, Recorder(), long_ago, 2, 600, call_of(), patient)
    assert state is not None
    assert (state.model, state.exhausted, state.failures, state.failing_since) == (GONE, [DOWN], 0, None)


async def test_the_last_model_has_the_retries_of_a_call_without_fallbacks(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    down = settings.model_copy(update={"model_standard_fallbacks": ["offline-status-500"]})
    state: CallState | None = CallState(model="offline-status-500", exhausted=[DOWN])
    state, failure = await attempt(database, client, Recorder(), state, 2, 600, call_of(), down)
    assert failure is not None
    assert failure.type == MODEL_RETRY
    _, failure = await attempt(database, client, Recorder(), state, 3, 0, call_of(), down)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (MODEL_FAILED, True)
    assert f"Other models failed before: {DOWN}." in str(failure)


async def test_a_later_call_of_the_turn_begins_with_the_fallback(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    await said(database)
    status = TurnStatus.RUNNING
    progress = Progress(turn_id=TURN.turn_id, session_id=TURN.session_id, status=status, started_at=utc_now())
    call = call_of(fallback=ANSWERS, progress=progress)
    async with database.write() as connection:
        new = NewTurn(TURN.turn_id, TURN.session_id, TURN.user_id, DOWN, "fast", "standard", progress.started_at)
        await turns.start(connection, new)
    _, failure = await attempt(database, client, Recorder(), None, 1, 0, call, settings)
    assert failure is None
    async with database.read() as connection:
        turn = await turns.get(connection, TURN.session_id, TURN.turn_id)
    assert turn is not None
    assert turn.progress is not None
    assert (turn.model, turn.progress["model"]) == (DOWN, ANSWERS)


@pytest.mark.parametrize(
    ("model", "tier", "left"),
    [
        (DOWN, "standard", [DOWN, GONE, ANSWERS]),
        (DOWN, "advanced", [DOWN]),
        ("another", "standard", ["another"]),
        (SETTINGS.model_advanced, "advanced", [SETTINGS.model_advanced]),
    ],
)
def test_only_the_model_of_a_tier_has_its_fallbacks(settings: Settings, model: str, tier: str, left: list[str]) -> None:
    assert settings.models_for(model, tier) == left


async def test_a_model_that_is_down_is_left_out_and_tried_again(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    """Each turn lost the retries of the first model anew. A model that refuses a request is not down."""
    await said(database)
    now = 0.0
    outages = Outages(60, lambda: now)
    settings = settings.model_copy(update={"model_standard_fallbacks": [ANSWERS], "model_fallback_after": 60.0})
    asked = (database, client, Recorder())
    long_ago = CallState(failures=3, failing_since=utc_now().timestamp() - 61)
    state, failure = await attempt(*asked, long_ago, 4, 600, call_of(), settings, outages)
    assert failure is not None
    _, failure = await attempt(*asked, state, 5, 600, call_of(), settings, outages)
    assert failure is None
    second = call_of(round=2)
    _, failure = await attempt(database, client, Recorder(), None, 1, 600, second, settings, outages)
    assert failure is None, "the next call begins with the fallback"
    now = 61.0
    third = call_of(round=3)
    state, failure = await attempt(database, client, Recorder(), None, 1, 600, third, settings, outages)
    assert failure is not None
    assert f"{ANSWERS} is asked instead" in str(failure), "it is tried once, and its failure not waited out again"
    gone = settings.model_copy(update={"model_standard": GONE})
    await attempt(database, client, Recorder(), None, 1, 600, call_of(model=GONE), gone, outages)
    assert not outages.is_down(GONE)


async def test_a_refused_key_is_refused_to_all_models(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    refused = settings.model_copy(update={"model_standard": "offline-status-401"})
    call = call_of(model="offline-status-401")
    _, failure = await attempt(database, client, Recorder(), None, 1, 600, call, refused)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (MODEL_FAILED, True)
    assert await rows(database) == []


async def test_a_model_that_is_no_fallback_any_more_is_not_asked(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    """The settings changed between two attempts, or two rounds."""
    await said(database)
    other = settings.model_copy(update={"model_standard": ANSWERS, "model_standard_fallbacks": []})
    call = call_of(model=ANSWERS, fallback=GONE)
    _, failure = await attempt(database, client, Recorder(), CallState(model=GONE), 2, 0, call, other)
    assert failure is None
    assert await models_asked(database) == [ANSWERS]
