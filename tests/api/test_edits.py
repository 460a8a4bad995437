"""A conversation that is forked, edited, answered again, retried, added to and cut, over the API."""

import json
from uuid import uuid4

from testkit import checks
from testkit.product import Product


def texts(rows: list[dict[str, object]], *roles: str) -> list[object]:
    return [row["content"] for row in rows if row["role"] in (roles or ("user", "assistant"))]


async def asked(product: Product, session: str, text: str) -> str:
    """Ask and wait; the message's id."""
    message = str(uuid4())
    await product.api.wait_for_turn(session, await product.api.start(session, text, message))
    await product.api.until_idle(session)
    return message


async def test_a_fork_is_a_session_that_goes_on(product: Product) -> None:
    api = product.api
    session = await api.create_session(title="First", deny_tools=["write_file"])
    await asked(product, session, "What is 17 * 23?")
    second = await asked(product, session, "and 6*7?")
    before = await api.messages(session)
    path, key = f"/sessions/{session}/fork", {"Idempotency-Key": str(uuid4())}
    status, fork = await api.call("POST", path, json={"message_id": second, "before": True}, headers=key)
    assert (status, fork["forked_from"], fork["title"]) == (201, session, "First")
    assert fork["deny_tools"] == ["write_file"]
    again = await api.call("POST", path, json={"message_id": second, "before": True}, headers=key)
    assert again == (201, fork), "the same key is the same fork"
    copied = await api.messages(fork["id"])
    assert texts(copied, "user", "assistant", "tool") == texts(before[: len(copied)], "user", "assistant", "tool")
    assert [row["sequence"] for row in copied] == list(range(len(copied)))
    ui = (await api.http.get(f"/v1/sessions/{fork['id']}/ui-messages")).json()
    [_, answer] = ui
    assert any(part.get("output") == "391" for part in answer["parts"])
    at_answer = await api.call("POST", path, json={"message_id": answer["id"]})
    assert at_answer.status == 404, "a message of another session"
    await asked(product, fork["id"], "and 2+2?")
    assert await api.messages(session) == before, "the source has not changed"
    await checks.check_rows(product.database, sessions=[fork["id"], session])


async def test_edited_and_answered_again(product: Product) -> None:
    api = product.api
    session = await api.create_session()
    first = await asked(product, session, "What is 2*3?")
    path = f"/sessions/{session}/messages/{first}"
    status, edited = await api.call("POST", f"{path}/edit", json={"message": "What is 2*4?"})
    assert (status, edited["disposition"]) == (202, "started")
    await api.wait_for_turn(session, edited["turn_id"])
    answer = (await api.messages(session))[-1]
    status, again = await api.call("POST", f"/sessions/{session}/messages/{answer['id']}/regenerate")
    assert status == 202
    await api.wait_for_turn(session, again["turn_id"])
    assert texts(await api.messages(session), "user") == ["What is 2*4?"]
    status, found = await api.call("GET", f"{path}/versions")
    assert [version["content"] for version in found["versions"]] == ["What is 2*3?", "What is 2*4?", "What is 2*4?"]
    assert [version["current"] for version in found["versions"]] == [False, False, True]
    assert (await api.call("POST", f"/sessions/{session}/messages/unknown/regenerate")).status == 404


async def test_a_failed_turn_is_retried_where_it_failed(product: Product) -> None:
    """The tool that it has run does not run again, and no message is sent."""
    api = product.api
    session = await api.create_session()
    steps = [{"call": "calculator", "arguments": {"expression": "6*7"}}, {"fault": "status:400", "round": 2}]
    failed = await api.start(session, json.dumps({"script": steps}))
    for _ in range(2):
        assert (await api.wait_for_turn(session, failed))["status"] == "failed"
        rows = await api.messages(session)
        assert [row["role"] for row in rows] == ["user", "assistant", "tool", "assistant"]
        assert [row["turn_id"] for row in rows if row["kind"] == "error"] == [failed]
        status, taken = await api.call("POST", f"/sessions/{session}/turns/{failed}/retry")
        again = await api.call("POST", f"/sessions/{session}/turns/{failed}/retry")
        assert (status, again.status, again.body["turn_id"]) == (202, 202, taken["turn_id"])
        await api.wait_for_turn(session, taken["turn_id"])
        newest, older, *_ = await api.turns(session)
        assert (newest["turn_id"], newest["retry_of"], older["turn_id"]) == (taken["turn_id"], failed, failed)
        assert newest["message_id"] == older["message_id"] == taken["message_id"]
        failed = taken["turn_id"]
    unknown = await api.call("POST", f"/sessions/{session}/turns/{uuid4()}/retry")
    assert unknown.status == 404


async def test_a_retry_answers_the_message(product: Product) -> None:
    api = product.api
    session = await api.create_session(title="Titled, so that no call but the turn's has this text")
    # Digits would be arithmetic to the offline model.
    text = "hello " + "".join(chr(ord("a") + int(digit, 16)) for digit in uuid4().hex)
    await product.servers.model.fault("status:400", match=text)
    failed = await api.start(session, text)
    assert (await api.wait_for_turn(session, failed))["status"] == "failed"
    _, taken = await api.call("POST", f"/sessions/{session}/turns/{failed}/retry")
    assert (await api.wait_for_turn(session, taken["turn_id"]))["status"] == "completed"
    await api.until_idle(session)
    assert (await api.call("POST", f"/sessions/{session}/turns/{failed}/retry")).body["turn_id"] == taken["turn_id"]
    rows = await api.messages(session)
    assert [row["role"] for row in rows] == ["user", "assistant"], rows
    asked, answer = rows
    assert (asked["turn_id"], answer["turn_id"]) == (failed, taken["turn_id"])
    shown = (await api.http.get(f"/v1/sessions/{session}/ui-messages")).json()
    assert [one["role"] for one in shown] == ["user", "assistant"]
    assert "status" not in shown[1].get("metadata", {})


async def test_only_a_failed_turn_is_retried(product: Product) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, "hello")
    await product.api.wait_for_turn(session, turn)
    status, problem = await product.api.call("POST", f"/sessions/{session}/turns/{turn}/retry")
    assert (status, problem["type"]) == (409, "urn:longhaul:problem:not-retried")


async def test_messages_without_a_turn(product: Product) -> None:
    api = product.api
    session = await api.create_session()
    path = f"/sessions/{session}/messages/add"
    said = [("system", "The customer is called Ada."), ("user", "Hello, I am Ada."), ("assistant", "Hello Ada.")]
    for role, content in said:
        status, row = await api.call("POST", path, json={"role": role, "content": content})
        assert (status, row["role"], row["turn_id"]) == (201, role, None)
    assert await api.turns(session) == []
    message = await asked(product, session, "What is 6*7?")
    rows = await api.messages(session)
    assert [(row["role"], row["content"]) for row in rows[:3]] == said
    assert "42" in str(rows[-1]["content"])
    turn = await api.start(session, "wait 20 s")
    busy = await api.call("POST", path, json={"role": "user", "content": "x"})
    assert (busy.status, busy.body["type"]) == (409, "urn:longhaul:problem:turn-runs")
    assert (await api.call("DELETE", f"/sessions/{session}/messages/{message}")).status == 409
    await api.cancel(session)
    await api.wait_for_turn(session, turn)
    await api.until_idle(session)
    assert (await api.call("DELETE", f"/sessions/{session}/messages/{message}")).status == 204
    assert (await api.call("DELETE", f"/sessions/{session}/messages/{message}")).status == 404
    assert texts(await api.messages(session), "user", "system")[:3] == [said[0][1], said[1][1], "wait 20 s"]
    bad = await api.call("POST", path, json={"role": "tool", "content": "x"})
    assert bad.status == 422
