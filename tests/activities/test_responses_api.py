"""Model calls by the Responses API, over HTTP: all is stored, shown and booked as by Chat Completions."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from longhaul.db import conversation, messages
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.db.models import EncryptedReasoningRow, LedgerRow
from longhaul.errors import MODEL_FAILED, MODEL_RETRY
from longhaul.llm.client import ModelClient
from longhaul.settings import Settings
from testkit.offline import offline_model
from tests.activities.conftest import SETTINGS, TURN, database_with_a_session
from tests.activities.model_calls import CALL, Recorder, attempt

THINKS = CALL.model_copy(update={"model": "offline-standard", "mode": "extended_thinking"})


class Client(ModelClient):
    """Keeps what it sends."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.sent: list[tuple[str, dict[str, Any]]] = []

    async def _post(self, path: str, body: dict[str, Any], call_key: str) -> Any:
        self.sent.append((path, body))
        return await super()._post(path, body, call_key)

    def items(self, number: int = -1) -> list[dict[str, Any]]:
        """The encrypted reasoning of a request."""
        return [item for item in self.sent[number][1]["input"] if item.get("type") == "reasoning"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with offline_model() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """The server, which has forgotten the faults of other tests."""
    httpx2.delete(f"{server}/faults")
    return server


def settings_for(url: str, api: str, **more: Any) -> Settings:
    endpoint = {"openai_base_url": f"{url}/v1", "openai_api_key": SecretStr("anything"), "model_api": api}
    return SETTINGS.model_copy(update=endpoint | more)


@pytest.fixture
def settings(url: str) -> Settings:
    return settings_for(url, "responses")


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    client = Client(settings)
    yield client
    await client.close()


async def say(database: Database, text: str, turn_id: str = TURN.turn_id) -> None:
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [NewMessage(text, "user", text, turn_id=turn_id)])


async def rows(database: Database, round_: int = 1) -> list[tuple[Any, ...]]:
    async with database.read() as connection:
        stored = await conversation.rows_of_round(connection, TURN.turn_id, round_)
    calls = [
        [(call["function"]["name"], call["function"]["arguments"]) for call in row.tool_calls or ()] for row in stored
    ]
    return [
        (row.role, row.kind, row.content, made, row.finish_reason, row.model, row.context)
        for row, made in zip(stored, calls, strict=True)
    ]


async def answer_calls(database: Database, round_: int = 1) -> None:
    """A result for each call of a round."""
    async with database.write() as connection:
        stored = await conversation.rows_of_round(connection, TURN.turn_id, round_)
        made = [call for row in stored for call in row.tool_calls or ()]
        results = [
            NewMessage(call["id"], "tool", "42", tool_call_id=call["id"], turn_id=TURN.turn_id, round=round_)
            for call in made
        ]
        await messages.append(connection, TURN.session_id, results)


def shown(stream: Recorder) -> list[tuple[str, str]]:
    """The parts of a stream without ids, which follow from the request's bytes."""
    return [(part["type"], str(part.get("delta") or part.get("toolName") or "")) for part in stream.parts]


@pytest.mark.parametrize(
    "text", ["think about it: 6*7", "speak 40", "hello [fault=length]", "6*7 [fault=badargs]", "hello [fault=empty]"]
)
async def test_rows_and_stream_are_those_of_chat_completions(
    template: Path, tmp_path: Path, url: str, text: str
) -> None:
    found = []
    for api in ("chat", "responses"):
        settings = settings_for(url, api)
        client, stream = Client(settings), Recorder()
        async with database_with_a_session(template, tmp_path / api) as database:
            await say(database, text)
            _, failure = await attempt(database, client, stream, None, 1, 0, THINKS, settings)
            assert failure is None
            async with database.read() as connection:
                [booked] = [*await connection.execute(select(*LedgerRow.__table__.columns))]
            found.append((await rows(database), shown(stream), booked.completion_tokens, booked.reasoning_tokens))
        assert client.sent[0][0] == {"chat": "/chat/completions", "responses": "/responses"}[api]
        assert (booked.status, booked.cost_microdollars > 0) == ("booked", True)
        await client.close()
    assert found[0] == found[1]


async def test_encrypted_reasoning_goes_back_within_its_turn_only(
    database: Database, settings: Settings, client: Client
) -> None:
    await say(database, "think about it: 6*7")
    stream = Recorder()
    state, failure = await attempt(database, client, stream, None, 1, 0, THINKS, settings)
    assert failure is None
    assert client.items() == []
    assert client.sent[-1][1]["include"] == ["reasoning.encrypted_content"]
    assert client.sent[-1][1]["store"] is False
    async with database.read() as connection:
        [kept] = [*await connection.execute(select(*EncryptedReasoningRow.__table__.columns))]
    sealed = kept.items[0]["item"]["encrypted_content"]
    assert sealed.startswith("offline:")
    assert state is not None
    for seen in (stream.parts, await rows(database), state.model_dump_json()):
        assert "offline:" not in str(seen)
    await answer_calls(database)
    assert await ask_next(database, client, settings, 2) is None
    assert [item["encrypted_content"] for item in client.items()] == [sealed]
    other = THINKS.model_copy(update={"model": "offline-advanced", "round": 3})
    _, failure = await attempt(database, client, Recorder(), None, 1, 0, other, settings)
    assert failure is None
    assert client.items() == [], "another model cannot read it"
    await say(database, "and now: 6*8", "another turn")
    turn = TURN.model_copy(update={"turn_id": "another turn", "published": True})
    later = THINKS.model_copy(update={"turn": turn, "round": 2})
    _, failure = await attempt(database, client, Recorder(), None, 1, 0, later, settings)
    assert failure is None
    assert client.items() == []


async def ask_next(database: Database, client: Client, settings: Settings, round_: int) -> Any:
    call = THINKS.model_copy(update={"round": round_})
    return (await attempt(database, client, Recorder(), None, 1, 0, call, settings))[1]


async def test_items_that_the_endpoint_cannot_read_are_left_out(
    database: Database, settings: Settings, client: Client
) -> None:
    """Its key was replaced while the turn ran."""
    await say(database, "think about it: 6*7")
    assert await ask_next(database, client, settings, 1) is None
    await answer_calls(database)
    async with database.write() as connection:
        [kept] = [*await connection.execute(select(*EncryptedReasoningRow.__table__.columns))]
        kept.items[0]["item"]["encrypted_content"] = "of another key"
        await connection.execute(update(EncryptedReasoningRow).values(items=kept.items))
    assert await ask_next(database, client, settings, 2) is None
    assert [len(client.items(n)) for n in (-2, -1)] == [1, 0]


async def test_a_request_that_is_too_long_drops_them_first(url: str, database: Database) -> None:
    settings = settings_for(url, "responses", context_window=20_000)
    client = Client(settings)
    await say(database, "think about it: 6*7")
    assert await ask_next(database, client, settings, 1) is None
    await answer_calls(database)
    async with database.write() as connection:
        [kept] = [*await connection.execute(select(*EncryptedReasoningRow.__table__.columns))]
        kept.items[0]["item"]["encrypted_content"] = "offline:" + "x" * 200_000
        await connection.execute(update(EncryptedReasoningRow).values(items=kept.items))
    assert await ask_next(database, client, settings, 2) is None
    assert client.items() == []
    assert client.sent[-1][1]["input"][0]["content"] == "think about it: 6*7"
    await client.close()


async def test_an_option_that_is_refused_is_left_out_from_then_on(
    database: Database, settings: Settings, client: Client
) -> None:
    """OpenAI shows summaries of reasoning to verified organisations only."""
    await say(database, "think about it: 6*7")
    call = THINKS.model_copy(update={"model": "offline-unverified"})
    for round_ in (1, 2):
        _, failure = await attempt(
            database, client, Recorder(), None, 1, 0, call.model_copy(update={"round": round_}), settings
        )
        assert failure is None
        await answer_calls(database)
    assert ["summary" in body["reasoning"] for _, body in client.sent] == [True, False, False]


async def test_a_model_is_sent_to_the_api_that_it_speaks(url: str, database: Database) -> None:
    settings = settings_for(url, "auto")
    client = Client(settings)
    await say(database, "think about it: 6*7")
    call = THINKS.model_copy(update={"model": "offline-responses-only"})
    for round_ in (1, 2):
        _, failure = await attempt(
            database, client, Recorder(), None, 1, 0, call.model_copy(update={"round": round_}), settings
        )
        assert failure is None
        await answer_calls(database)
    assert [path for path, _ in client.sent] == ["/chat/completions", "/responses", "/responses"]
    assert len(client.items()) == 1
    _, failure = await attempt(
        database, client, Recorder(), None, 1, 0, THINKS.model_copy(update={"round": 3}), settings
    )
    assert failure is None
    assert client.sent[-1][0] == "/chat/completions", "others are asked as before"
    assert "encrypted_reasoning" not in str(client.sent[-1])
    await client.close()


@pytest.mark.parametrize(
    ("fault", "kind", "retried"),
    [
        ("cut:5", "stream", True),
        ("badchunk:3", "not JSON", True),
        ("status:503", "status 503", True),
        ("status:400", "status 400", False),
        ("silence:30:4", "sent nothing", True),
    ],
)
async def test_faults_are_those_of_chat_completions(
    url: str, database: Database, fault: str, kind: str, retried: bool
) -> None:
    patient = settings_for(url, "responses")
    settings = patient.model_copy(update={"model_idle_timeout": 0.5}) if "silence" in fault else patient
    client, stream = Client(settings), Recorder()
    await say(database, f"speak 30 [fault={fault} times=1]")
    state, failure = await attempt(database, client, stream, None, 1, 600, THINKS, settings)
    await client.close()
    assert failure is not None
    assert (failure.type, kind in str(failure)) == (MODEL_RETRY if retried else MODEL_FAILED, True)
    if retried:
        client = Client(patient)
        _, failure = await attempt(database, client, stream, state, 2, 600, THINKS, patient)
        assert failure is None
        assert "w30" in stream.visible()
        await client.close()


async def test_a_refusal_by_length_is_answered_by_a_shorter_request(url: str, database: Database) -> None:
    settings = settings_for(url, "responses")
    client, stream = Client(settings), Recorder()
    await say(database, "." * 20_000)
    call = CALL.model_copy(update={"model": "offline-window-9000"})
    _, failure = await attempt(database, client, stream, None, 1, 0, call, settings)
    assert failure is None
    assert len(client.sent) > 1
    assert stream.visible()
    await client.close()
