"""Handing in messages: what is accepted, what is refused and how, and that the same message is one message."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from testkit.checks import check_rows
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until


def ui(text: str, message_id: str = "m1", **more: Any) -> dict[str, Any]:
    message = {"id": message_id, "role": "user", "parts": [{"type": "text", "text": text}]}
    earlier = [
        {"id": "m0", "role": "user", "parts": [{"type": "text", "text": "before"}]},
        {"id": "a0", "role": "assistant", "parts": [{"type": "step-start"}, {"type": "text", "text": "yes"}]},
    ]
    return {"id": "chat", "messages": [*earlier, message], "trigger": "submit-message", **more}


BAD: list[tuple[Any, str]] = [
    ({}, "message"),
    ([], ""),
    ({"message": ""}, "message"),
    ({"message": " \n\t "}, "message"),
    ({"message": 5}, "message"),
    ({"message": None}, "message"),
    ({"message": "x" * 32_001}, "message"),
    ({"message": "hi", "message_id": "no uuid"}, "message_id"),
    ({"message": "hi", "context": "here"}, "context"),
    ({"message": "hi", "context": {"url": "x" * 2001}}, "context.url"),
    ({"message": "hi", "context": {"content": "x" * 32_001}}, "context.content"),
    ({"message": "hi", "file_ids": ["f"] * 21}, "file_ids"),
    ({"message": "hi", "file_ids": [7]}, "file_ids.0"),
    ({"message": "hi", "mode": "slow"}, "mode"),
    ({"message": "hi", "tier": "best"}, "tier"),
    ({"messages": []}, "messages"),
    ({"messages": [{"id": "a", "role": "assistant", "parts": []}]}, "messages"),
    (ui("  "), "message"),
    (ui("x" * 32_001), "message"),
]


async def test_bad_bodies_are_422_idle_and_busy_alike(product: Product) -> None:
    session = await product.api.create_session()
    for busy in (False, True):
        if busy:
            await product.api.start(session, "wait 30 s")
        for route in ("stream", "messages"):
            for body, where in BAD:
                status, problem = await product.api.call("POST", f"/sessions/{session}/{route}", json=body)
                assert status == 422, body
                assert problem["status"] == 422
                assert problem["errors"][0]["loc"] == ["body", *(where.split(".") if where else [])] or any(
                    ".".join(map(str, error["loc"])) == f"body.{where}" for error in problem["errors"]
                ), (body, problem)
            response = await product.api.http.post(f"/v1/sessions/{session}/{route}", content=b"{broken")
            assert response.status_code == 422
            assert response.headers["content-type"] == "application/problem+json"
    await product.api.cancel(session)


async def test_the_longest_message_and_all_options(product: Product) -> None:
    session = await product.api.create_session()
    context = {"url": "https://example.com/" + "x" * 1980, "content": "ü" * 32_000}
    options: dict[str, Any] = {
        "context": context,
        "file_ids": [str(uuid4())] * 20,
        "mode": "extended_thinking",
        "tier": "advanced",
    }
    turn = await product.api.start(session, "x" * 32_000, **options)
    await product.api.wait_for_turn(session, turn)
    [listed] = await product.api.turns(session)
    assert (listed["mode"], listed["tier"], listed["model"]) == ("extended_thinking", "advanced", "offline-advanced")
    first = (await product.api.messages(session))[0]
    assert first["content"] == "x" * 32_000
    assert first["context"] == context


@pytest.mark.parametrize("route", ["stream", "messages"])
async def test_the_same_message_five_times_at_once_is_one(product: Product, route: str) -> None:
    session, message_id = await product.api.create_session(), str(uuid4())
    path, body = f"/v1/sessions/{session}/{route}", {"message": "What is 6 * 7?", "message_id": message_id}
    answers = await asyncio.gather(*(product.api.http.post(path, json=body) for _ in range(5)))
    turns = {answer.headers["x-longhaul-turn-id"] for answer in answers}
    assert len(turns) == 1
    assert {answer.status_code for answer in answers} == {200 if route == "stream" else 202}
    if route == "stream":
        assert len({answer.content for answer in answers}) == 1, "all five see the same stream"
    turn = turns.pop()
    await product.api.wait_for_turn(session, turn)
    later = await product.api.http.post(path, json=body)
    assert later.headers["x-longhaul-turn-id"] == turn
    await check_rows(product.database, {session: [message_id]})
    assert [listed["turn_id"] for listed in await product.api.turns(session)] == [turn]


async def test_the_same_message_at_random_moments_is_one(product: Product) -> None:
    session, message_id = await product.api.create_session(), str(uuid4())

    async def post(delay: float) -> str:
        await asyncio.sleep(delay)
        return await product.api.start(session, "hello", message_id)

    turns = set(await asyncio.gather(*(post(n * 0.02) for n in range(40))))
    assert len(turns) == 1
    await product.api.wait_for_turn(session, turns.pop())

    async def quiet() -> bool:
        return (await product.api.session(session))["active_turn"] is None

    await until(quiet, what="nothing runs any more")
    await check_rows(product.database, {session: [message_id]})


async def test_a_message_to_a_busy_session_joins(product: Product) -> None:
    session, message_id = await product.api.create_session(), str(uuid4())
    turn = await product.api.start(session, "wait 2 s")

    async def opened() -> bool:
        return bool(await product.api.turns(session))

    await until(opened, what="the turn is open")
    status, body = await product.api.call(
        "POST", f"/sessions/{session}/stream", json={"message": "and 3 * 4?", "message_id": message_id}
    )
    assert status == 202
    expected = {"turn_id": turn, "message_id": message_id, "turn_in_flight": True, "buffer_length": 1}
    assert body == {**expected, "max_buffer_length": 10}
    waiting = await product.api.pending(session)
    assert [(entry["id"], entry["content"]) for entry in waiting] == [(message_id, "and 3 * 4?")]
    assert (await product.api.session(session))["pending"]["count"] == 1
    assert [entry["message_id"] for entry in (await product.api.progress(session, turn))["inbox"]] == [message_id]
    again = await product.api.start(session, "and 3 * 4?", message_id)
    assert again == turn
    await product.api.wait_for_turn(session, turn)
    assert await product.api.pending(session) == []
    contents = [row["content"] for row in await product.api.messages(session) if row["role"] == "user"]
    assert contents == ["wait 2 s", "and 3 * 4?"]


async def test_ten_wait_and_the_eleventh_is_refused(product: Product) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, "wait 30 s")

    async def waits() -> bool:
        return bool((await product.api.progress(session, turn))["tools_running"])

    await until(waits, what="the tool runs")
    for number in range(10):
        status, body = await product.api.post(session, f"follow-up {number}")
        assert (status, body["disposition"], body["buffer_length"]) == (202, "queued", number + 1)
    response = await product.api.http.post(f"/v1/sessions/{session}/stream", json={"message": "one too many"})
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
    assert len(await product.api.pending(session)) == 10
    await product.api.cancel(session)


async def test_thirty_a_minute_over_all_sessions(make_product: MakeProduct) -> None:
    product = await make_product(
        workers=0,
        settings={
            "LONGHAUL_FOLLOW_UP_RATE_LIMIT": "5",
            "LONGHAUL_NEW_TURN_RATE_LIMIT": "4",
            "LONGHAUL_MAX_PENDING_MESSAGES": "0",
        },
    )
    first, second = await product.api.create_session(), await product.api.create_session()
    for session in (first, second):
        await product.api.start(session, "starts a turn, which is counted on its own")
    statuses = [(await product.api.post(session, "more")).status for session in (first, second) * 4]
    assert statuses == [202] * 5 + [429] * 3
    for status in (202, 202, 429):
        idle = await product.api.create_session()
        response = await product.api.http.post(f"/v1/sessions/{idle}/messages", json={"message": "starts a turn"})
        assert response.status_code == status
    assert 0 < int(response.headers["retry-after"]) <= 60
    assert response.json()["detail"] == "4 turns a minute may be begun."


async def test_the_ai_sdk_body(product: Product) -> None:
    session = await product.api.create_session()
    path = f"/sessions/{session}/messages"
    status, first = await product.api.call("POST", path, json=ui("What is 2 + 3?", "short-id", mode="fast"))
    assert status == 202
    again = (await product.api.call("POST", path, json=ui("What is 2 + 3?", "short-id"))).body
    assert (again["turn_id"], again["message_id"]) == (first["turn_id"], first["message_id"])
    await product.api.wait_for_turn(session, first["turn_id"])
    assert [m["content"] for m in await product.api.messages(session) if m["role"] == "user"] == ["What is 2 + 3?"]
    wanted = str(uuid4())
    named = (await product.api.call("POST", path, json=ui("And 4?", wanted))).body
    assert named["message_id"] == wanted
    await product.api.wait_for_turn(session, named["turn_id"])


async def test_temporal_down_is_503_and_the_retry_delivers(make_product: MakeProduct) -> None:
    product = await make_product(own_temporal=True, settings={"LONGHAUL_TEMPORAL_RPC_TIMEOUT": "1.5"})
    session, message_id = await product.api.create_session(), str(uuid4())
    for down in (product.servers.temporal.pause, product.servers.temporal.kill):
        down()
        path = f"/v1/sessions/{session}/stream"
        response = await product.api.http.post(path, json={"message": "6 * 7?", "message_id": message_id})
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert (await product.api.call("GET", f"/sessions/{session}")).status == 200
    await product.servers.temporal.start()

    async def delivered() -> str | None:
        status, body = await product.api.post(session, "6 * 7?", message_id)
        return body["turn_id"] if status == 202 else None

    turn = await until(delivered, what="the message is accepted", every=0.5)
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    await check_rows(product.database, {session: [message_id]})
