"""Progress, Stop, the list of turns, the tree."""

import asyncio
from uuid import uuid4

from longhaul.temporal import workflow_id
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until


async def running_tool(product: Product, text: str = "wait 90 s") -> tuple[str, str]:
    session = await product.api.create_session()
    turn = await product.api.start(session, text)

    async def waits() -> bool:
        return bool((await product.api.progress(session, turn))["tools_running"])

    await until(waits, what="the tool runs", every=0.05)
    return session, turn


async def test_wait_returns_early_on_a_change(product: Product) -> None:
    session, turn = await running_tool(product)
    path = f"/v1/sessions/{session}/turns/{turn}"
    now = await product.api.http.get(path)
    tag = now.headers["etag"]
    assert (await product.api.http.get(path, headers={"If-None-Match": tag})).status_code == 304
    same = await product.api.http.get(path, params={"wait": "1"}, headers={"If-None-Match": tag})
    assert same.status_code == 304
    assert same.elapsed.total_seconds() > 0.9
    waiting = asyncio.create_task(product.api.http.get(path, params={"wait": "60"}, headers={"If-None-Match": tag}))
    plain = asyncio.create_task(product.api.http.get(path, params={"wait": "60"}))

    async def both_answered() -> bool:
        """After a change; the first may come before the API has begun to wait."""
        await product.api.start(session, "one more thing")
        return waiting.done() and plain.done()

    await until(both_answered, limit=40, what="both polls answer", every=2)
    for answer in await asyncio.gather(waiting, plain):
        assert answer.status_code == 200
        assert answer.json()["inbox"]
        assert answer.headers["etag"] != tag
    stopped = await product.api.cancel(session)
    assert stopped.body == {"cancelled": True, "turn_id": turn, "status": "cancelled"}
    ended = await product.api.http.get(path, params={"wait": "60"})
    assert ended.json()["status"] == "cancelled"
    assert ended.elapsed.total_seconds() < 50, "what has ended does not change any more"
    for bad in ("61", "-1", "x", "nan"):
        assert (await product.api.http.get(path, params={"wait": bad})).status_code == 422
    assert (await product.api.call("GET", f"/sessions/{session}/turns/{uuid4()}")).status == 404


async def test_the_timeline_of_a_turn(product: Product) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, "What is 6 * 7?")
    await product.api.wait_for_turn(session, turn)
    timeline = (await product.api.call("GET", f"/sessions/{session}/turns/{turn}/timeline")).body
    assert [(span["kind"], span["name"], span["round"]) for span in timeline["spans"]] == [
        ("model", "", 1),
        ("tool", "calculator", 1),
        ("model", "", 2),
    ]
    times = [span["started_at"] for span in timeline["spans"]]
    assert timeline["started_at"] <= times[0]
    assert times == sorted(times)
    assert (await product.api.call("GET", f"/sessions/{session}/turns/{uuid4()}/timeline")).status == 404


async def test_stop_is_idempotent_and_the_session_goes_on(product: Product) -> None:
    session, turn = await running_tool(product)
    first, second = await asyncio.gather(product.api.cancel(session), product.api.cancel(session))
    assert {first.status, second.status} == {200}
    assert turn in (first.body["turn_id"], second.body["turn_id"])
    assert (await product.api.cancel(session)).body == {"cancelled": False, "turn_id": None, "status": None}
    following = await product.api.start(session, "What is 6 * 7?")
    assert following != turn
    assert (await product.api.wait_for_turn(session, following))["status"] == "completed"
    listed = await product.api.turns(session)
    assert [(t["turn_id"], t["status"]) for t in listed] == [(following, "completed"), (turn, "cancelled")]


async def test_progress_is_the_same_while_it_runs_and_afterwards(product: Product) -> None:
    session, turn = await running_tool(product, "wait 1 s")
    running = await product.api.progress(session, turn)
    ended = await product.api.wait_for_turn(session, turn)
    assert set(running) == set(ended)
    assert ended["tools_done"] == 1
    assert ended["usage"]["calls"] == 2
    [listed] = await product.api.turns(session)
    assert (listed["status"], listed["usage"]) == ("completed", ended["usage"])
    assert listed["duration_ms"] == ended["duration_ms"] >= 1000


async def test_a_running_turn_without_a_worker_is_told_from_its_row(make_product: MakeProduct) -> None:
    product = await make_product()
    session, turn = await running_tool(product)
    product.kill(product.workers[0])
    assert (await product.api.progress(session, turn))["status"] == "running"
    [listed] = await product.api.turns(session)
    assert listed["status"] == "running"
    assert (await product.api.session(session))["active_turn"]["turn_id"] == turn
    await (await product.temporal()).get_workflow_handle(workflow_id(session)).terminate()
    assert (await product.api.progress(session, turn))["status"] == "failed", (
        "ended by force, it never reads as running"
    )
    tree = (await product.api.call("GET", f"/sessions/{session}/tree")).body
    assert (tree["status"], tree["turn_id"]) == ("failed", turn)


async def test_the_tree_of_one(product: Product) -> None:
    session = await product.api.create_session(title="Root")
    tree = (await product.api.call("GET", f"/sessions/{session}/tree")).body
    assert (tree["session_id"], tree["title"], tree["status"], tree["children"]) == (session, "Root", None, [])
    turn = await product.api.start(session, "What is 6 * 7?")
    await product.api.wait_for_turn(session, turn)
    tree = (await product.api.call("GET", f"/sessions/{session}/tree")).body
    assert (tree["status"], tree["turn_id"], tree["usage"]["calls"]) == ("completed", turn, 2)
