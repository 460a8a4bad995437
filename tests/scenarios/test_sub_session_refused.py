"""What the sub-session tools refuse: with a tool error that says what to do instead, and nothing started."""

from uuid import NAMESPACE_OID, uuid5

import pytest

from longhaul.contracts import Scope
from longhaul.db import sessions
from testkit.checks import check_rows, stored
from testkit.product import Product
from testkit.servers import calling, script
from testkit.wait import until
from tests.scenarios.sub_sessions import GET, RUN, results, sub_of, subs, tree, use, walk

pytestmark = pytest.mark.backends("sqlite")  # the same lines refuse on any database
MISSING = "00000000-0000-4000-8000-000000000000"


async def foreign(product: Product) -> str:
    """A sub-session of another user."""
    found = str(uuid5(NAMESPACE_OID, f"foreign-{product.task_queue}-{product.backend}"))
    session = sessions.NewSession(found, "another user", parent_session_id="x", scope=Scope(ancestors=("x",)))
    async with product.database.write() as connection:
        await sessions.create(connection, session)
    return found


@pytest.mark.parametrize("prompt", ["", "  \n\t "])
async def test_a_blank_prompt(product: Product, prompt: str) -> None:
    session = await product.api.create_session()
    used = await use(product, session, RUN, prompt=prompt)
    assert used.is_error
    assert "prompt is empty" in used.output
    assert await subs(product, session) == []
    await check_rows(product.database, sessions=[session])


@pytest.mark.parametrize("tool", [RUN, GET])
async def test_a_foreign_id_reads_exactly_as_a_missing_one(product: Product, tool: str) -> None:
    session, other = await product.api.create_session(), await product.api.create_session()
    answers = set()
    for sub_id in (MISSING, await foreign(product), other):
        used = await use(product, session, tool, sub_session_id=sub_id, **({"prompt": "1+1"} if tool == RUN else {}))
        assert used.is_error
        answers.add(used.output.replace(sub_id, "ID"))
    assert answers == {"There is no sub-session ID of this session."}
    assert await subs(product, session) == []
    found = await stored(product.database, [await foreign(product)])
    assert not found.messages, "a message was left in another user's session"


async def test_a_sub_session_of_another_session_is_polled_and_no_more(product: Product) -> None:
    """It may be allowed more, so no prompt reaches it; and Stop of this turn is not for it."""
    other, session = await product.api.create_session(), await product.api.create_session()
    sub_id = (await use(product, other, RUN, prompt="wait 4 s and 6*7", wait_for_result=0)).json["sub_session_id"]
    assert (await use(product, session, RUN, sub_session_id=sub_id, prompt="1+1")).is_error
    cancel = await use(product, session, GET, sub_session_id=sub_id, cancel=True)
    assert cancel.is_error
    assert "only poll it" in cancel.output
    running = (await use(product, session, GET, sub_session_id=sub_id, wait_if_running=0)).json
    assert (running["status"], running["response"]) == ("running", None)
    done = (await use(product, session, GET, sub_session_id=sub_id, wait_if_running=60)).json
    assert done["status"] == "completed"
    assert "42" in done["response"]


async def test_stop_does_not_reach_a_polled_sub_session_of_another_session(product: Product) -> None:
    other, session = await product.api.create_session(), await product.api.create_session()
    sub_id = (await use(product, other, RUN, prompt="wait 30 s", wait_for_result=0)).json["sub_session_id"]
    arguments = {"sub_session_id": sub_id, "wait_if_running": 60}
    turn = await product.api.start(session, calling(GET, **arguments))

    async def polled() -> bool:
        return bool((await product.api.progress(session, turn))["sub_sessions"])

    await until(polled, what="the turn waits for the sub-session")
    assert (await product.api.cancel(session)).body["status"] == "cancelled"
    assert (await product.api.session(sub_id))["active_turn"] is not None
    await product.api.cancel(sub_id)


async def test_an_agent_that_does_not_exist(product: Product) -> None:
    session = await product.api.create_session()
    used = await use(product, session, RUN, prompt="1+1", agent="analyst")
    assert used.is_error
    assert "there are no agent profiles" in used.output
    assert await subs(product, session) == []


@pytest.mark.parametrize("tool", [RUN, GET])
async def test_ones_own_id(product: Product, tool: str) -> None:
    session = await product.api.create_session()
    prompt = {"prompt": "1+1"} if tool == RUN else {}
    used = await use(product, session, tool, sub_session_id=session, **prompt)
    assert used.is_error
    assert "cannot wait for itself" in used.output
    assert await product.api.pending(session) == []


async def test_an_ancestors_id(product: Product) -> None:
    session = await product.api.create_session()
    sub_id = (await use(product, session, RUN, prompt="1+1")).json["sub_session_id"]
    used = await use(product, sub_id, RUN, prompt="1+1", sub_session_id=session)
    assert used.is_error
    assert "one above it" in used.output
    used = await use(product, sub_id, GET, sub_session_id=session)
    assert used.is_error
    assert "one above it" in used.output
    assert await product.api.pending(session) == []


async def test_a_siblings_id(product: Product) -> None:
    """A sibling is not below: it may be allowed more. It can be polled, because its answer is the same user's."""
    session = await product.api.create_session()
    one, two = [(await use(product, session, RUN, prompt="1+1")).json["sub_session_id"] for _ in range(2)]
    used = await use(product, one, RUN, prompt="1+1", sub_session_id=two)
    assert used.output == f"There is no sub-session {two} of this session."
    assert (await use(product, one, GET, sub_session_id=two)).json["status"] == "completed"


async def test_the_fourth_level(product: Product) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, "delegate: (delegate: (delegate: (delegate: 1+1)))")
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    nodes = list(walk(await tree(product, session)))
    assert [node["depth"] for node in nodes] == [0, 1, 2, 3]
    deepest = nodes[-1]["session_id"]
    refused = (await results(product, deepest, RUN))[0]
    assert refused.is_error
    assert "3 levels deep and 3 are allowed; do the work here" in refused.output
    await check_rows(product.database, sessions=[node["session_id"] for node in nodes])


async def test_the_ninth_child(product: Product) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, "delegate: " + "; ".join(["wait 2 s"] * 9))
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    used = await results(product, session, RUN)
    assert sorted(one.is_error for one in used) == [False] * 8 + [True]
    refused = next(one.output for one in used if one.is_error)
    assert "8 sub-sessions are running already; wait for one of them" in refused
    assert len(await sub_of(product, session, 8)) == 8


async def test_narrowing_of_one_that_is_there(product: Product) -> None:
    """It would not hold for the turn that runs, so it is refused rather than ignored."""
    session = await product.api.create_session()
    sub_id = (await use(product, session, RUN, prompt="1+1")).json["sub_session_id"]
    used = await use(product, session, RUN, prompt="2+2", sub_session_id=sub_id, dry_run=True, allow_tools=[])
    assert used.is_error
    assert "allow_tools, dry_run can be set for a new sub-session only" in used.output
    assert len(await product.api.turns(sub_id)) == 1


@pytest.mark.parametrize("arguments", ['{"prompt": 5}', '{"prompt": "1+1", "max_seconds": 0}', '{"prompt"', "[]"])
async def test_arguments_that_do_not_fit(product: Product, arguments: str) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, script({"call": RUN, "arguments": arguments}))
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    assert (await results(product, session, RUN))[0].is_error
    assert await subs(product, session) == []
