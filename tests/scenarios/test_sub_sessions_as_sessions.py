"""A sub-session is a session: listed, watched, talked to, stopped; and its parent shows how it stands."""

import asyncio
import json

import pytest

from longhaul.temporal import workflow_id
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product
from tests.scenarios.sub_sessions import (
    GET,
    RUN,
    nothing_runs,
    results,
    say,
    stop_all,
    sub_of,
    subs,
    tree,
    use,
    waiting,
    walk,
)

pytestmark = pytest.mark.backends("postgresql")  # sessions are tested on both


async def test_it_is_listed_under_its_parent(product: Product) -> None:
    session = await product.api.create_session()
    await say(product, session, "delegate: 1+1; 2+2")
    found = await subs(product, session)
    assert sorted(one["title"] for one in found) == ["1+1", "2+2"]
    assert {(one["parent_session_id"], one["root_session_id"]) for one in found} == {(session, session)}
    status, body = await product.api.call("GET", "/sessions", params={"limit": 200})
    assert status == 200
    listed = {one["id"] for one in body["sessions"]}
    assert session in listed
    assert not listed & {one["id"] for one in found}
    missing = await product.api.call("GET", "/sessions", params={"parent": "missing"})
    assert (missing.status, missing.body["sessions"], missing.body["next_cursor"]) == (200, [], None)


async def test_its_stream_and_a_message_to_a_running_leaf(product: Product) -> None:
    """The leaf answers the message itself; those above it get that answer as the leaf's."""
    session = await product.api.create_session()
    live = await product.api.open(session, "delegate: (delegate: (rounds 25 [delay=30]))")
    await live.until_seen("tool-input-available")
    (child,) = await sub_of(product, session)
    (leaf,) = await sub_of(product, child)
    watched = asyncio.create_task(product.api.resume(leaf))
    status, body = await product.api.post(leaf, "What is 20+22?")
    assert (status, body["disposition"]) == (202, "queued")
    log = check_stream(await watched)
    assert "42" in log.text()
    assert log.count("data-follow-up") == 1
    outer = check_stream(await live.done())
    assert "42" in outer.text()
    found = await check_rows(product.database, sessions=[session, child, leaf])
    assert [row.content for row in found.of(leaf, "user")][1] == "What is 20+22?"
    assert [len(found.of(one, "user")) for one in (session, child)] == [1, 1]
    assert len(found.turns[leaf]) == 1


async def test_stop_of_a_sub_session(product: Product) -> None:
    """Its parent goes on and gets the status."""
    session = await product.api.create_session()
    turn = await product.api.start(session, "delegate: wait 60 s; 6*7")
    await waiting(product, session, turn)
    waits = next(one["id"] for one in await subs(product, session) if one["title"] == "wait 60 s")
    await sub_of(product, session, 2)
    assert (await product.api.cancel(waits)).body["status"] == "cancelled"
    ended = await product.api.wait_for_turn(session, turn)
    assert ended["status"] == "completed"
    statuses = {one["task"]: one["status"] for one in ended["sub_sessions"]}
    assert statuses == {"wait 60 s": "cancelled", "6*7": "completed"}
    statuses_of_calls = [one.json["status"] for one in await results(product, session, RUN, turn)]
    assert sorted(statuses_of_calls) == ["cancelled", "completed"]


async def test_it_outlives_its_parents_turn(product: Product) -> None:
    """The parent's progress and the tree show how it stands now, not how it stood at the end of the turn."""
    session = await product.api.create_session()
    turn = await say(product, session, "delegate detached: (wait 6 s and 6*7)")
    (sub_id,) = await sub_of(product, session)
    before = await product.api.progress(session, turn)
    assert (before["status"], [one["status"] for one in before["sub_sessions"]]) == ("completed", ["running"])
    (node,) = (await tree(product, session))["children"]
    assert node["status"] == "running"
    assert (node["progress"]["round"], node["progress"]["tools_running"]) == (1, ["wait"])
    path = f"/v1/sessions/{session}/turns/{turn}"
    tag = (await product.api.http.get(path)).headers["etag"]
    later = await product.api.http.get(path, params={"wait": "30"}, headers={"If-None-Match": tag})
    assert later.status_code == 200
    assert [one["status"] for one in later.json()["sub_sessions"]] == ["completed"]
    assert (await tree(product, session))["children"][0]["status"] == "completed"
    await nothing_runs(product, [sub_id])


async def test_one_that_dies_without_a_word(product: Product) -> None:
    """Ended by force: nothing waits for its word, everything shows that it failed."""
    session = await product.api.create_session()
    turn = await product.api.start(session, "delegate: wait 60 s")
    await waiting(product, session, turn)
    (sub_id,) = await sub_of(product, session)
    await (await product.temporal()).get_workflow_handle(workflow_id(sub_id)).terminate()
    ended = await product.api.wait_for_turn(session, turn)
    assert [one["status"] for one in ended["sub_sessions"]] == ["error"]
    assert (await results(product, session, RUN, turn))[0].json["status"] == "error"
    assert (await tree(product, session))["children"][0]["status"] == "failed"
    assert (await use(product, session, GET, sub_session_id=sub_id)).json["status"] == "error"


async def test_children_are_found_again_after_a_turn_continued_as_new(make_product: MakeProduct) -> None:
    product = await make_product(settings={"LONGHAUL_CONTINUE_AS_NEW_EVENTS": "20"})
    session = await product.api.create_session()
    turn = await product.api.start(session, "delegate slowly: wait 5 s and 6*7; wait 6 s and 5*5")
    handle = (await product.temporal()).get_workflow_handle(workflow_id(session))
    first = (await handle.describe()).run_id
    ended = await product.api.wait_for_turn(session, turn)
    assert (await handle.describe()).run_id != first
    assert (ended["status"], [one["status"] for one in ended["sub_sessions"]]) == ("completed", ["completed"] * 2)
    polled = [one.json for one in await results(product, session, GET, turn)][-2:]
    assert [one["status"] for one in polled] == ["completed", "completed"]
    assert [one["elapsed_seconds"] < 30 for one in polled] == [True, True]
    ids = [node["session_id"] for node in walk(await tree(product, session))]
    await check_rows(product.database, sessions=ids)


async def test_stop_reaches_children_of_a_turn_that_continued_as_new(make_product: MakeProduct) -> None:
    product = await make_product(settings={"LONGHAUL_CONTINUE_AS_NEW_EVENTS": "20"})
    session = await product.api.create_session()
    turn = await product.api.start(session, "delegate slowly: wait 60 s; wait 61 s")
    await waiting(product, session, turn, GET)
    (*found,) = await sub_of(product, session, 2)
    assert (await product.api.cancel(session)).body["status"] == "cancelled"
    await nothing_runs(product, [session, *found])


async def test_what_the_web_ui_shows(product: Product) -> None:
    """Child and timer name the sub-session; its task is in the progress and the tree, not in the history."""
    session = await product.api.create_session()
    turn = await product.api.start(session, "delegate: wait 60 s")
    await waiting(product, session, turn)
    handle = (await product.temporal()).get_workflow_handle(workflow_id(session))
    summaries = [
        json.loads(event.user_metadata.summary.data)
        for event in (await handle.fetch_history()).events
        if event.HasField("timer_started_event_attributes")
        or event.HasField("start_child_workflow_execution_initiated_event_attributes")
    ]
    (sub_id,) = await sub_of(product, session)
    name = f"sub-session {sub_id[:8]}"
    assert summaries == [f"{name} · offline-standard", f"wait for {name}"]
    (record,) = (await product.api.progress(session, turn))["sub_sessions"]
    assert record["task"] == "wait 60 s"
    await stop_all(product, session)
