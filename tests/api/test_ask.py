"""Ask and wait: the answer of the turn that takes the message, or where to look for it."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from api.routes import ask
from longhaul.errors import UnavailableError
from longhaul.turns.deliver import Delivery
from testkit.product import Product
from tests.api.test_security import serving


async def test_the_answer_with_its_tool_calls(product: Product) -> None:
    session = await product.api.create_session()
    status, body = await product.api.call("POST", f"/sessions/{session}/ask", json={"message": "What is 17 * 23?"})
    assert (status, body["status"], body["error"]) == (200, "completed", None)
    rows = await product.api.messages(session)
    assert body["text"] == [row["content"] for row in rows if row["role"] == "assistant"][-1]
    assert [(call["name"], call["output"], call["is_error"]) for call in body["tool_calls"]] == [
        ("calculator", "391", False)
    ]
    [turn] = await product.api.turns(session)
    assert (body["turn_id"], body["usage"]) == (turn["turn_id"], turn["usage"])
    assert body["usage"]["calls"] == 2


async def test_past_the_wait_and_asked_again(product: Product) -> None:
    """Past the wait the caller learns where to look; the same question again is not a second one."""
    session = await product.api.create_session()
    question = {"message": "wait 2 s", "message_id": str(uuid4())}
    path = f"/v1/sessions/{session}/ask"
    early = await product.api.http.post(path, json=question, params={"wait": "0"})
    assert early.status_code == 202
    assert early.headers["location"] == early.json()["progress_url"]
    assert (await product.api.http.get(early.headers["location"])).status_code == 200
    late = await product.api.http.post(path, json=question)
    assert (late.status_code, late.json()["status"]) == (200, "completed")
    assert late.json()["turn_id"] == early.json()["turn_id"]
    assert len(await product.api.turns(session)) == 1


async def test_a_question_that_joins_a_turn(product: Product) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, "wait 1 s")
    status, body = await product.api.call("POST", f"/sessions/{session}/ask", json={"message": "and what is 6*7?"})
    assert status == 200
    assert "42" in body["text"]
    assert (await product.api.turns(session))[0]["turn_id"] == body["turn_id"]
    await product.api.wait_for_turn(session, turn)


async def test_a_turn_that_fails(product: Product) -> None:
    session = await product.api.create_session()
    status, body = await product.api.call(
        "POST", f"/sessions/{session}/ask", json={"message": "hello [fault=status:400]"}
    )
    assert (status, body["status"], body["text"]) == (200, "failed", "")
    assert body["error"] == (await product.api.turns(session))[0]["error"]


async def test_a_failure_behind_the_delivery_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without a message id would send the message again."""

    async def delivered(*_: Any, **__: Any) -> Delivery:
        return Delivery("the-turn", started=True, waiting=1)

    async def away(*_: Any) -> None:
        raise UnavailableError("The database")

    async with serving(tmp_path) as client:
        session = (await client.post("/v1/sessions")).json()["id"]
        monkeypatch.setattr(ask, "deliver", delivered)
        monkeypatch.setattr(ask, "end_of_turn", away)
        answer = await client.post(f"/v1/sessions/{session}/ask", json={"message": "hello"})
    assert answer.status_code == 202
    assert (answer.json()["turn_id"], answer.json()["message_id"] != "") == ("the-turn", True)
    assert answer.headers["location"] == f"/v1/sessions/{session}/turns/the-turn"
