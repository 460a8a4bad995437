"""What the sub-session tools answer, status by status."""

from urllib.parse import urlsplit

import pytest

from testkit.checks import check_rows
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.servers import calling
from tests.scenarios.sub_sessions import (
    GET,
    RUN,
    nothing_runs,
    results,
    running,
    say,
    stop_all,
    sub_of,
    tree,
    use,
    walk,
)

pytestmark = pytest.mark.backends("postgresql")  # other tests read the same rows on both
KEYS = {
    "status",
    "sub_session_id",
    "link",
    "response",
    "tool_calls",
    "usage",
    "elapsed_seconds",
    "progress",
    "message",
}


async def test_completed(product: Product) -> None:
    session = await product.api.create_session()
    found = (await use(product, session, RUN, prompt="6*7", system_context="Be kind.")).json
    assert set(found) == KEYS
    assert (found["status"], found["tool_calls"], found["progress"]) == (
        "completed",
        [{"name": "calculator", "outcome": "ok"}],
        None,
    )
    assert "42" in found["response"]
    assert found["usage"]["calls"] == 2
    assert found["usage"]["cost_microdollars"] > 0
    sub_id = found["sub_session_id"]
    assert found["link"].startswith("http://")
    opened = await product.api.http.get(urlsplit(found["link"]).path)
    assert opened.json()["id"] == sub_id
    assert (await product.api.session(sub_id))["parent_session_id"] == session
    await check_rows(product.database, sessions=[session, sub_id])


async def test_a_handle_and_its_poll_in_a_later_turn(product: Product) -> None:
    session = await product.api.create_session()
    handle = (await use(product, session, RUN, prompt="wait 6 s and 6*7", wait_for_result=0)).json
    assert (handle["status"], handle["response"]) == ("running", None)
    sub_id = handle["sub_session_id"]
    seen = (await use(product, session, GET, sub_session_id=sub_id, wait_if_running=0)).json
    assert (seen["status"], seen["response"]) == ("running", None)
    done = (await use(product, session, GET, sub_session_id=sub_id, wait_if_running=60)).json
    assert done["status"] == "completed"
    assert "42" in done["response"]
    again = (await use(product, session, GET, sub_session_id=sub_id)).json
    assert (again["status"], again["response"]) == ("completed", done["response"])
    await check_rows(product.database, sessions=[session, sub_id])


async def test_a_handle_and_its_poll_in_the_same_turn(product: Product) -> None:
    session = await product.api.create_session()
    turn = await say(product, session, "delegate slowly: wait 2 s and 6*7")
    assert [one.json["status"] for one in await results(product, session, RUN, turn)] == ["running"]
    polled = (await results(product, session, GET, turn))[-1].json
    assert polled["status"] == "completed"
    assert "42" in polled["response"]


async def test_one_that_runs_again_shows_no_old_answer(product: Product) -> None:
    session = await product.api.create_session()
    sub_id = (await use(product, session, RUN, prompt="6*7")).json["sub_session_id"]
    await product.api.start(sub_id, "wait 30 s")
    seen = (await use(product, session, GET, sub_session_id=sub_id, wait_if_running=0)).json
    assert (seen["status"], seen["response"], seen["tool_calls"]) == ("running", None, [])
    await stop_all(product, session)


async def test_a_prompt_to_a_busy_one_is_queued(product: Product) -> None:
    session = await product.api.create_session()
    sub_id = (await use(product, session, RUN, prompt="wait 6 s", wait_for_result=0)).json["sub_session_id"]
    found = (await use(product, session, RUN, prompt="6*7", sub_session_id=sub_id, wait_for_result=0)).json
    assert (found["status"], found["queued"], found["response"]) == ("queued", True, None)
    awaited = (await use(product, session, RUN, prompt="5*5", sub_session_id=sub_id, wait_for_result=60)).json
    assert (awaited["status"], awaited["queued"]) == ("completed", True)
    assert "42" in awaited["response"]
    assert "25" in awaited["response"]
    rows = await check_rows(product.database, sessions=[session, sub_id])
    assert [row.content for row in rows.of(sub_id, "user")] == ["wait 6 s", "6*7", "5*5"]


async def test_one_goes_on_in_an_idle_one(product: Product) -> None:
    session = await product.api.create_session()
    sub_id = (await use(product, session, RUN, prompt="6*7")).json["sub_session_id"]
    found = (await use(product, session, RUN, prompt="5*5", system_context="Now:", sub_session_id=sub_id)).json
    assert (found["status"], found["sub_session_id"]) == ("completed", sub_id)
    assert "25" in found["response"]
    assert "queued" not in found
    rows = await check_rows(product.database, sessions=[session, sub_id])
    assert [row.content for row in rows.of(sub_id, "user")] == ["6*7", "Now:\n\n5*5"]
    assert len(rows.turns[sub_id]) == 2


async def test_a_failed_one_reads_error(product: Product) -> None:
    session = await product.api.create_session()
    turn = await say(product, session, "delegate: (6*7 [fault=status:400 times=9])")
    found = (await results(product, session, RUN, turn))[0].json
    assert (found["status"], found["response"]) == ("error", None)
    assert found["message"].startswith("It failed. ")
    later = (await use(product, session, GET, sub_session_id=found["sub_session_id"])).json
    assert (later["status"], later["message"]) == ("error", found["message"])
    assert [node["status"] for node in walk(await tree(product, session))] == ["completed", "failed"]


async def test_cancel_stops_all_below_also_detached_ones(product: Product) -> None:
    session = await product.api.create_session()
    prompt = "delegate detached: (delegate: wait 60 s); (delegate: wait 60 s)"
    child = (await use(product, session, RUN, prompt=prompt)).json["sub_session_id"]
    below = await sub_of(product, child, 2)
    leaves = [leaf for one in below for leaf in await sub_of(product, one)]
    assert set(await running(product, [child, *below, *leaves])) == {*below, *leaves}
    finished = (await use(product, session, GET, sub_session_id=child, cancel=True)).json
    assert (finished["status"], finished["message"]) == ("completed", "It has finished. There was nothing to stop.")
    stopped = (await use(product, child, GET, sub_session_id=below[0])).json
    assert stopped["status"] == "cancelled"
    await nothing_runs(product, [child, *below, *leaves])
    assert [n["status"] for n in walk(await tree(product, session))][2:] == ["cancelled"] * 4


async def test_cancel_of_one_that_runs(product: Product) -> None:
    session = await product.api.create_session()
    sub_id = (await use(product, session, RUN, prompt="wait 60 s", wait_for_result=0)).json["sub_session_id"]
    found = (await use(product, session, GET, sub_session_id=sub_id, cancel=True)).json
    assert (found["status"], found["message"]) == ("cancelled", "It was stopped.")
    await nothing_runs(product, [sub_id])
    again = (await use(product, session, GET, sub_session_id=sub_id, cancel=True)).json
    assert again["status"] == "cancelled"


async def test_progress(product: Product) -> None:
    session = await product.api.create_session()
    sub_id = (await use(product, session, RUN, prompt="rounds 3")).json["sub_session_id"]
    await say(product, sub_id, "x" * 1000)
    found = (await use(product, session, GET, sub_session_id=sub_id, include_progress=True)).json["progress"]
    rows = (await check_rows(product.database, sessions=[sub_id])).of(sub_id)
    assert found["messages"] == len(rows)
    newest = [row for row in rows if row.role != "reasoning"][-5:]
    assert found["recent"] == [{"role": row.role, "content": row.content[:400]} for row in newest]
    assert len(found["recent"]) == 5
    assert max(len(entry["content"]) for entry in found["recent"]) == 400


async def test_waits_are_clamped(make_product: MakeProduct) -> None:
    product = await make_product(settings={"LONGHAUL_MAX_TOOL_WAIT": "1.5"})
    session = await product.api.create_session()
    most = (await use(product, session, RUN, prompt="wait 60 s", wait_for_result=10_000)).json
    assert most["status"] == "running"
    assert 1.5 <= most["elapsed_seconds"] < 60
    least = (await use(product, session, RUN, prompt="wait 60 s", wait_for_result=-5)).json
    assert least["status"] == "running"
    sub_id = least["sub_session_id"]
    polled = (await use(product, session, GET, sub_session_id=sub_id, wait_if_running=10_000)).json
    assert polled["status"] == "running"
    assert 1.5 <= polled["elapsed_seconds"] < 60
    await stop_all(product, session)


async def test_a_wait_for_one_two_levels_below(product: Product) -> None:
    """It tells its end to its own parent, not to who waits here; so it is looked at."""
    session = await product.api.create_session()
    child = (await use(product, session, RUN, prompt="delegate detached: wait 4 s")).json["sub_session_id"]
    (leaf,) = await sub_of(product, child)
    found = (await use(product, session, GET, sub_session_id=leaf)).json
    assert found["status"] == "completed"
    assert found["elapsed_seconds"] < 30
    assert calling(GET, sub_session_id=leaf) in [row["content"] for row in await product.api.messages(session)]
