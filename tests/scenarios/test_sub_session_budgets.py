"""Budgets: shared by a session and all below it, and never exceeded by a further model call."""

from datetime import timedelta

import pytest

from longhaul.temporal import workflow_id
from testkit.checks import check_rows, stored
from testkit.grammar import check_stream
from testkit.product import Product
from tests.scenarios.sub_sessions import RUN, nothing_runs, results, say, stop_all, sub_of, tree, use, walk

pytestmark = pytest.mark.backends("sqlite")  # but for the sums over a tree, which are SQL


async def calls(product: Product, sessions: list[str]) -> int:
    """How often the model was asked for these sessions."""
    turns = [turn["turn_id"] for session in sessions for turn in await product.api.turns(session)]
    return sum([sum((await product.servers.model.asked(turn)).values()) for turn in turns])


async def test_money_of_one_session(product: Product) -> None:
    session = await product.api.create_session(title="t", max_cost_microdollars=500)
    live = await product.api.open(session, "rounds 50")
    log = check_stream(await live.done())
    (said,) = log.parts("error")
    assert said["errorText"].startswith("The budget of this session is used up: ")
    assert "of 500 microdollars. Nothing more was asked of the model." in said["errorText"]
    found = await check_rows(product.database, sessions=[session])
    assert found.turns[session][0].status == "failed"
    assert found.of(session)[-1].kind == "error"
    assert found.of(session)[-1].content == said["errorText"]
    costs = [row.cost_microdollars for row in found.ledger]
    assert sum(costs) >= 500 > sum(costs[:-1])
    asked = await calls(product, [session])
    assert asked == len(costs)
    turn = await say(product, session, "6*7")
    assert (await product.api.progress(session, turn))["error"] == said["errorText"]
    assert await calls(product, [session]) == asked, "the model was asked without money"


@pytest.mark.backends("sqlite", "postgresql")
async def test_money_is_shared_with_all_below(product: Product) -> None:
    """The budget is the root's; it ends the work below, in both branches, and then the root's own.

    One branch may use it up before the other has delegated: there are three or four sessions.
    """
    session = await product.api.create_session(title="t", max_cost_microdollars=1500)
    turn = await say(product, session, "delegate: (delegate: rounds 60); (rounds 60)")
    nodes = list(walk(await tree(product, session)))
    ids = [node["session_id"] for node in nodes]
    assert [node["status"] for node in nodes] in (["failed"] * 3, ["failed"] * 4)
    whose = [node["progress"]["error"].partition(" is used up")[0] for node in nodes]
    assert whose == ["The budget of this session", *[f"The budget of session {session} above it"] * (len(nodes) - 1)]
    assert [one.json["status"] for one in await results(product, session, RUN, turn)] == ["error", "error"]
    found = await check_rows(product.database, sessions=ids)
    spent = sum(row.cost_microdollars for row in found.ledger)
    assert spent == nodes[0]["total_usage"]["cost_microdollars"]
    most = max(row.cost_microdollars for row in found.ledger)
    assert 1500 <= spent < 1500 + most, "the branches together exceed it by one call at most"
    assert await calls(product, ids) == len(found.ledger)


async def test_money_of_a_sub_session_alone(product: Product) -> None:
    session = await product.api.create_session(title="t")
    used = (await use(product, session, RUN, prompt="rounds 50", max_cost_microdollars=300)).json
    assert used["status"] == "error"
    assert "The budget of this session is used up" in used["message"]
    assert (await product.api.turns(session))[0]["status"] == "completed"


async def test_a_wider_budget_below_does_not_help(product: Product) -> None:
    session = await product.api.create_session(title="t", max_cost_microdollars=600)
    await use(product, session, RUN, prompt="rounds 50", max_cost_microdollars=10**9, max_seconds=10**6)
    nodes = list(walk(await tree(product, session)))
    assert [node["status"] for node in nodes] == ["failed", "failed"]
    assert f"The budget of session {session} above it is used up" in nodes[1]["progress"]["error"]


async def test_time_is_shared_with_all_below(product: Product) -> None:
    session = await product.api.create_session(title="t", max_seconds=4)
    turn = await product.api.start(session, "delegate: (delegate detached: wait 60 s); (wait 60 s)")
    ended = await product.api.wait_for_turn(session, turn)
    assert ended["status"] == "failed"
    assert ended["error"] == (
        "The time budget of this session is used up: 4 seconds. Nothing more was asked of the model."
    )
    assert 4_000 <= ended["duration_ms"] < 60_000
    nodes = list(walk(await tree(product, session)))
    for node in nodes[1:]:
        if node["turn_id"]:
            await product.api.wait_for_turn(node["session_id"], node["turn_id"])
    root = await tree(product, session)
    # The two were started at once, so either may come first.
    delegating, held = sorted(root["children"], key=lambda node: not node["children"])
    [detached] = delegating["children"]
    nodes = [root, delegating, detached, held]
    ids = [node["session_id"] for node in nodes]
    assert [node["status"] for node in nodes] == ["failed", "completed", "failed", "failed"]
    assert f"The time budget of session {session} above it is used up" in detached["progress"]["error"]
    found = await check_rows(product.database, sessions=ids)
    assert found.of(session)[-1].kind == "error"
    asked = await calls(product, ids)
    for one in (session, ids[3]):  # neither the session nor a person in a sub-session of it gets more time
        again = await say(product, one, "6*7")
        assert (await product.api.progress(one, again))["status"] == "failed"
    assert await calls(product, ids) == asked, "the model was asked without time"
    await nothing_runs(product, ids)


async def test_time_goes_on_in_a_later_turn(product: Product) -> None:
    """A sub-session that is gone on in keeps to the deadline of the turn that does so."""
    session = await product.api.create_session(title="t", max_seconds=30)
    sub_id = (await use(product, session, RUN, prompt="wait 1 s")).json["sub_session_id"]
    await use(product, session, RUN, prompt="wait 90 s", sub_session_id=sub_id, wait_for_result=0)
    client = await product.temporal()
    history = await client.get_workflow_handle(workflow_id(sub_id)).fetch_history()
    timers = [e.timer_started_event_attributes for e in history.events if e.HasField("timer_started_event_attributes")]
    longest = min(timer.start_to_fire_timeout.ToTimedelta() for timer in timers)
    assert timedelta(seconds=5) < longest < timedelta(seconds=29)
    await stop_all(product, session)
    assert (await stored(product.database, [sub_id])).turns[sub_id][-1].status == "cancelled"
    assert await sub_of(product, session) == [sub_id]
