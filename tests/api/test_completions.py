"""OpenAI's own client, unmodified: a durable turn behind each completion, and no answer lost with a connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
    ChatCompletionUserMessageParam,
)

from longhaul.llm import prompts
from longhaul.redis import connect
from longhaul.settings import load_settings
from longhaul.streams.events import stream_key
from testkit.checks import check_rows
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
pytestmark = pytest.mark.backends("postgresql")


@pytest.fixture
async def client(product: Product) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{product.url()}/v1", api_key="none", max_retries=0) as found:
        yield found


async def stored(product: Product, session: str) -> str:
    """All texts of the assistant, as a completion joins them."""
    rows = await product.api.messages(session)
    return "\n\n".join(row["content"] for row in rows if row["role"] == "assistant" and row["content"])


async def test_a_completion(product: Product, client: AsyncOpenAI) -> None:
    session = uuid4().hex
    answer = await client.chat.completions.create(
        model="standard",
        messages=[{"role": "user", "content": "What is 17 * 23?"}],
        metadata={"session_id": session},
    )
    said = answer.choices[0].message.content
    assert said == await stored(product, session)
    assert said is not None
    assert "391" in said
    [turn] = await product.api.turns(session)
    assert answer.id == f"chatcmpl-{turn['turn_id']}"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == turn["usage"]["prompt_tokens"] > 0


async def test_nobody_is_asked(client: AsyncOpenAI) -> None:
    """A client of OpenAI's cannot answer a question, so its request would wait for ever."""
    question = '{"script": [{"call": "ask_user", "arguments": {"question": "Which?"}}]}'
    answer = await client.chat.completions.create(model="standard", messages=[{"role": "user", "content": question}])
    assert "not allowed in this session" in (answer.choices[0].message.content or "")


async def test_a_stream(product: Product, client: AsyncOpenAI) -> None:
    session = uuid4().hex
    stream = await client.chat.completions.create(
        model="offline-advanced",
        messages=[{"role": "user", "content": "6*7? speak 30"}],
        metadata={"session_id": session},
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == await stored(product, session)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert (await product.api.turns(session))[0]["tier"] == "advanced"


async def test_a_session_by_user_and_its_history(product: Product, client: AsyncOpenAI) -> None:
    """A new session begins with what the caller sends; later only the last message counts."""
    user = uuid4().hex
    sessions = []
    for text in ("2+3", "4+5"):
        raw = await client.chat.completions.with_raw_response.create(
            model="standard",
            messages=[
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hello, too."},
                {"role": "user", "content": text},
            ],
            user=user,
        )
        sessions.append(raw.headers["x-longhaul-session-id"])
    assert sessions[0] == sessions[1]
    rows = await product.api.messages(sessions[0])
    said = [row["content"] for row in rows if row["role"] == "user"]
    assert said == ["Hello", "2+3", "4+5"]
    assert rows[1]["content"] == "Hello, too."


def asks_for(*cities: str, words: int = 60) -> ChatCompletionUserMessageParam:
    """A message upon which the model calls the caller's tool for each city, and then speaks."""
    calls = [{"call": "weather", "arguments": {"city": city}} for city in cities]
    return {"role": "user", "content": json.dumps({"script": [*calls, {"speak": words}, {"delay": 20}]})}


def results_of(answer: ChatCompletion, *results: str) -> list[ChatCompletionMessageParam]:
    """What a client adds to its messages: the calls, as the API gave them, and a result of each."""
    message = answer.choices[0].message
    found: list[ChatCompletionMessageParam] = [message.model_dump(exclude_none=True)]  # type: ignore[list-item]
    for call, result in zip(message.tool_calls or (), results, strict=True):
        found.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return found


async def test_the_callers_tools(product: Product, client: AsyncOpenAI) -> None:
    """Two calls, whose results come one by one and then again; no session is named. It is one turn."""
    asked = asks_for("Rome", "Oslo", words=5)

    async def begin() -> ChatCompletion:
        return await client.chat.completions.create(
            model="standard", messages=[asked], tools=[WEATHER], extra_headers={"Idempotency-Key": "the callers tools"}
        )

    first = await begin()
    assert first.choices[0].finish_reason == "tool_calls"
    calls = first.choices[0].message.tool_calls or []
    given = [(call.function.name, call.function.arguments) for call in calls if call.type == "function"]
    assert given == [("weather", '{"city":"Rome"}'), ("weather", '{"city":"Oslo"}')]
    both = results_of(first, "sunny", "rain")
    half = await client.chat.completions.create(model="standard", messages=[asked, *both[:2]], tools=[WEATHER])
    assert [call.id for call in half.choices[0].message.tool_calls or ()] == [calls[1].id]
    for again in range(3):
        if again == 2:  # from rows
            streams: Any = connect(load_settings(redis_url=product.environment()["REDIS_URL"]))
            assert await streams.delete(stream_key(first.id.removeprefix("chatcmpl-")))
            await streams.aclose()
            assert (await begin()).choices == first.choices
        raw = await client.chat.completions.with_raw_response.create(
            model="standard", messages=[asked, *both], tools=[WEATHER]
        )
        last = raw.parse()
        assert last.choices[0].finish_reason == "stop"
        assert (last.choices[0].message.content or "").endswith("w5")
    session = raw.headers["x-longhaul-session-id"]
    rows = (await check_rows(product.database, sessions=[session])).of(session, "tool")
    assert {row.content for row in rows} == {"sunny", "rain"}
    [turn] = await product.api.turns(session)
    assert last.usage is not None
    assert first.usage is not None
    assert 0 < first.usage.prompt_tokens < last.usage.prompt_tokens < turn["usage"]["prompt_tokens"]
    with pytest.raises(openai.ConflictError):
        await client.chat.completions.create(model="standard", messages=[asked, *results_of(first, "snow", "rain")])
    unknown: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    with pytest.raises(openai.UnprocessableEntityError, match="no tool call"):
        await client.chat.completions.create(model="standard", messages=[asked, unknown])


async def test_a_message_in_place_of_results(product: Product, client: AsyncOpenAI) -> None:
    """The turn goes on with the message. The model gets the result that came, and is told that the other did not."""
    session = uuid4().hex
    stream = await client.chat.completions.create(
        model="standard",
        messages=[asks_for("Rome", "Oslo")],
        tools=[WEATHER],
        metadata={"session_id": session},
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    deltas = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.index for call in deltas] == [0, 1]
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 0
    last = await client.chat.completions.create(
        model="standard",
        messages=[
            {"role": "tool", "tool_call_id": deltas[0].id or "", "content": "sunny"},
            {"role": "user", "content": "never mind, what is 6*7?"},
        ],
        metadata={"session_id": session},
    )
    assert "42" in (last.choices[0].message.content or "")
    rows = (await check_rows(product.database, sessions=[session])).of(session, "tool")
    assert {row.content for row in rows if row.tool_name == "weather"} == {"sunny", prompts.CLIENT_SKIPPED}
    assert len(await product.api.turns(session)) == 1


async def test_what_is_refused(client: AsyncOpenAI) -> None:
    ours: ChatCompletionToolParam = {"type": "function", "function": {"name": "ask_user"}}
    for refused, options in (
        ("ask_user is Longhaul's own", {"tools": [ours]}),
        ("another tool is called weather", {"tools": [WEATHER, WEATHER]}),
        ("only `auto` and `none`", {"tools": [WEATHER], "tool_choice": "required"}),
        ("the old form of `tools`", {"functions": [WEATHER["function"]]}),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=refused):
            await client.chat.completions.create(
                model="standard", messages=[{"role": "user", "content": "hi"}], extra_body=options
            )
    with pytest.raises(openai.NotFoundError, match="There is no model gpt-9"):
        await client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])
    assert {"standard", "advanced"} <= {model.id async for model in client.models.list()}


async def test_a_turn_that_fails(client: AsyncOpenAI) -> None:
    text = "hello [fault=status:400]"
    with pytest.raises(openai.InternalServerError) as refused:
        await client.chat.completions.create(model="standard", messages=[{"role": "user", "content": text}])
    assert refused.value.status_code == 502
    stream = await client.chat.completions.create(
        model="standard", messages=[{"role": "user", "content": text}], stream=True
    )
    with pytest.raises(openai.APIError):
        _ = [chunk async for chunk in stream]


async def test_no_client_asks_twice_because_the_api_restarts(make_product: MakeProduct) -> None:
    """The message was accepted, and the request has no key: OpenAI's client would send it again by itself."""
    product = await make_product()
    messages: list[Any] = [{"role": "user", "content": "speak 60 [delay=50]"}]

    async def runs() -> bool:
        status, body = await product.api.call("GET", "/sessions/whole/turns")
        return status == 200 and bool(body["turns"])

    async with AsyncOpenAI(base_url=f"{product.url()}/v1", api_key="none") as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model="standard", messages=messages, metadata={"session_id": "whole"})
        )
        await until(runs, what="the turn runs")
        await product.apis[0].terminate()
        with pytest.raises(openai.InternalServerError) as cut:
            await asking
    assert (cut.value.status_code, cut.value.response.headers["x-should-retry"]) == (503, "false")
    api = product.client(await product.start_api())
    await api.until_idle("whole")
    assert len(await api.turns("whole")) == 1
    rows = await check_rows(product.database, sessions=["whole"])
    assert len(rows.of("whole", "user")) == 1


async def test_the_api_is_killed_in_the_middle(make_product: MakeProduct) -> None:
    """The same request with the same key, at another API, gets the same answer; each turn ran once."""
    product = await make_product(backend="postgresql", apis=2)
    text, question = "speak 300 [delay=20]", asks_for("Rome", words=300)

    async def collected(stream: AsyncStream[ChatCompletionChunk], seen: list[str], *, killing: bool = False) -> None:
        async for chunk in stream:
            seen.append(chunk.choices[0].delta.content or "")
            if killing and len(seen) == 5:
                product.kill(product.apis[0])

    async def streamed(client: AsyncOpenAI, seen: list[str], *, killing: bool = False) -> None:
        stream = await client.chat.completions.create(
            model="standard",
            messages=[{"role": "user", "content": text}],
            metadata={"session_id": "streamed"},
            extra_headers={"Idempotency-Key": "a"},
            stream=True,
        )
        await collected(stream, seen, killing=killing)

    async def whole(client: AsyncOpenAI) -> str:
        answer = await client.chat.completions.create(
            model="standard",
            messages=[{"role": "user", "content": text}],
            metadata={"session_id": "whole"},
            extra_headers={"Idempotency-Key": "b"},
        )
        return answer.choices[0].message.content or ""

    async def told(client: AsyncOpenAI, seen: list[str], results: list[ChatCompletionMessageParam]) -> None:
        stream = await client.chat.completions.create(
            model="standard", messages=[question, *results], tools=[WEATHER], stream=True
        )
        await collected(stream, seen)

    async def calling(client: AsyncOpenAI) -> ChatCompletion:
        return await client.chat.completions.create(
            model="standard",
            messages=[question],
            tools=[WEATHER],
            metadata={"session_id": "tools"},
            extra_headers={"Idempotency-Key": "c"},
        )

    async def runs() -> bool:
        status, body = await product.client(product.apis[1]).call("GET", "/sessions/whole/turns")
        return status == 200 and bool(body["turns"])

    first, second = (
        AsyncOpenAI(base_url=f"{product.url(api)}/v1", api_key="none", max_retries=0) for api in product.apis
    )
    async with first, second:
        called = await calling(first)
        results = results_of(called, "sunny")
        waiting = asyncio.create_task(whole(first))
        lost_call: list[str] = []
        telling = asyncio.create_task(told(first, lost_call, results))
        await until(lambda: len(lost_call) > 1, what="the turn goes on with the result")
        await until(runs, what="the turn runs")
        lost: list[str] = []
        with pytest.raises(openai.APIConnectionError):
            await streamed(first, lost, killing=True)
        for task in (waiting, telling):
            with pytest.raises(openai.APIConnectionError):
                await task
        again: list[str] = []
        await streamed(second, again)
        assert (await calling(second)).choices == called.choices
        after_call: list[str] = []
        await told(second, after_call, results)
        answers = {"streamed": "".join(again), "whole": await whole(second), "tools": "".join(after_call)}
        assert await whole(second) == answers["whole"]
    assert answers["tools"].startswith("".join(lost_call))
    assert answers["streamed"].startswith("".join(lost))
    api = product.client(product.apis[1])
    for session, answer in answers.items():
        [row] = [row for row in await api.messages(session) if row["role"] == "assistant" and not row["tool_calls"]]
        assert row["content"] == answer
        assert len(await api.turns(session)) == 1
    await check_rows(product.database)
