"""What one user may have at once: running turns, streams, polls that wait."""

import asyncio
from typing import Any

from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Backend, Product
from testkit.wait import until

LONG = "wait 90 s"


def chat(session: str) -> dict[str, Any]:
    """A message as the AI SDK posts it."""
    return {"id": session, "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}


def completion(session: str) -> dict[str, Any]:
    """A message as OpenAI's clients post it."""
    message = {"role": "user", "content": "hello"}
    return {"model": "standard", "messages": [message], "metadata": {"session_id": session}}


async def test_running_turns(make_product: MakeProduct, backend: Backend) -> None:
    """Six posts at once for two places; a follow-up is none of them, nor a post that is repeated."""
    product = await make_product(backend=backend, settings={"LONGHAUL_MAX_RUNNING_TURNS": "2"})
    api = product.api
    sessions = [await api.create_session() for _ in range(6)]
    answers = await asyncio.gather(
        *(api.post(session, LONG, f"{number:032x}") for number, session in enumerate(sessions))
    )
    statuses = [answer.status for answer in answers]
    assert sorted(statuses) == [202, 202, 429, 429, 429, 429]
    running = {
        session: answer.body["turn_id"]
        for session, answer in zip(sessions, answers, strict=True)
        if answer.status == 202
    }
    for answer in answers:
        if answer.status == 429:
            assert answer.body["type"] == "urn:longhaul:problem:too-many-turns"
            named = {one["session_id"]: one["turn_id"] for one in answer.body["running"]}
            assert named == running
            assert "/cancel" in answer.body["detail"]
    (session, turn), (stopped, _) = running.items()
    assert (await api.post(session, "and this?")).body["disposition"] == "queued"
    again = await api.post(session, LONG, f"{sessions.index(session):032x}")
    assert (again.status, again.body["turn_id"]) == (202, turn)
    refused = sessions[statuses.index(429)]
    assert (await api.post(refused, "hello")).status == 429
    for path, body in (
        (f"/sessions/{refused}/ask", {"message": "hello"}),
        ("/chat", chat(refused)),
        ("/chat/completions", completion(refused)),
    ):
        answer = await api.call("POST", path, json=body)
        assert (answer.status, answer.body["type"]) == (429, "urn:longhaul:problem:too-many-turns")
    assert (await api.session(refused))["messages"] == [], "a message that was refused is not kept"
    assert (await api.cancel(stopped)).body["status"] == "cancelled"
    assert (await api.post(refused, "hello")).status == 202
    await asyncio.gather(*(api.cancel(one) for one in sessions))


async def test_streams_and_polls(make_product: MakeProduct) -> None:
    product = await make_product(settings={"LONGHAUL_MAX_STREAMS": "2", "LONGHAUL_MAX_LONG_POLLS": "1"})
    api = product.api
    session, other = await api.create_session(), await api.create_session()
    live = await api.open(session, LONG)
    turn = live.log.headers["x-longhaul-turn-id"]

    async def waits() -> bool:
        return bool((await api.progress(session, turn))["tools_running"])

    await until(waits, what="the tool runs")
    second = asyncio.create_task(api.resume(session))
    await until_open(product, 2)
    third = await api.resume(session)
    assert (third.status, third.body["type"]) == (429, "urn:longhaul:problem:too-many-streams")
    refused = await api.stream(other, "hello")
    assert refused.status == 429
    assert (await api.session(other))["messages"] == [], "a turn whose stream is refused does not begin"
    for path, body in (("/chat", chat("unheard-of")), ("/chat/completions", completion("unheard-of"))):
        assert (await api.call("POST", path, json=body)).status == 429
    assert (await api.call("GET", "/sessions/unheard-of")).status == 404, "nor is a session made for it"
    assert (await api.call("GET", f"/chat/{session}/stream")).status == 429
    path = f"/v1/sessions/{session}/turns/{turn}"
    polls = [asyncio.create_task(api.http.get(path, params={"wait": "60"})) for _ in range(3)]
    await until(lambda: sum(poll.done() for poll in polls) == 2, what="two of three polls are refused")
    for poll in polls:
        if poll.done():
            assert poll.result().status_code == 429
            assert poll.result().json()["type"] == "urn:longhaul:problem:too-many-waiting-polls"
    assert (await api.http.get(path)).status_code == 200, "a poll that does not wait is not counted"
    asked = await api.call("POST", f"/sessions/{other}/ask", json={"message": "hello"})
    assert (asked.status, asked.body["type"]) == (429, "urn:longhaul:problem:too-many-waiting-polls")
    assert (await api.call("POST", f"/sessions/{session}/stream", json={"message": "more"})).status == 202
    await api.cancel(session)
    assert sorted(answer.status_code for answer in await asyncio.gather(*polls)) == [200, 429, 429]
    assert (await api.http.get(path, params={"wait": "0.1"})).status_code == 200
    await live.done()
    await second
    await until_open(product, 0)
    check_stream(await api.stream(other, "hello"))


async def until_open(product: Product, count: int) -> None:
    async def right() -> bool:
        return f"\nlonghaul_streams_open {count}.0\n" in (await product.api.http.get("/metrics")).text

    await until(right, what=f"{count} streams are open")
