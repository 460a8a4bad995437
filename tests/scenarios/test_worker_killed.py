"""`kill -9` of a worker at every moment of a turn: another one goes on, and nothing is lost or done twice.

Waits here end long before the time limits of a model call or a tool: a turn that went on only because of those fails.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from longhaul.db.messages import row_id
from longhaul.db.models import MessageRow, SessionRow, TurnRow
from longhaul.llm import prompts
from longhaul.temporal import workflow_id
from testkit.checks import Stored, check_rows
from testkit.client import LiveStream
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Backend, Product
from testkit.servers import calling
from testkit.wait import until
from tests.scenarios.held_tools import Gate
from tests.scenarios.support import locked, until_answer_is_kept, until_asked, until_blocked, working_on


async def paid_once(product: Product, found: Stored, session: str) -> None:
    """Check that the model gave every answer once, and that it was booked once."""
    for turn in found.turns[session]:
        answers = [row for row in found.of(session, "assistant") if row.kind != "notice"]
        rounds = [row.round for row in answers if row.turn_id == turn.turn_id]
        assert await product.servers.model.answered(turn.turn_id) == dict.fromkeys(rounds, 1)
        booked = [row.round for row in found.ledger if row.turn_id == turn.turn_id and row.kind == "turn"]
        assert sorted(booked) == sorted(rounds)


async def test_in_mid_stream(make_product: MakeProduct, backend: Backend) -> None:
    product = await make_product(backend=backend, workers=2)
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 150 [delay=20]")
    await live.until_seen("text-delta", 10)
    with product.servers.model.paused():
        product.kill(await working_on(product, session))
    log = check_stream(await live.done())
    assert log.count("data-voided") == 1
    found = await check_rows(product.database)
    answer = found.of(session, "assistant")[-1].content
    assert (answer[:6], answer[-5:]) == ("w1 w2 ", " w150")
    assert log.text() == answer
    assert len(found.turns[session]) == 1
    assert found.turns[session][0].status == "completed"
    first, second = sorted((row for row in found.ledger if row.kind == "turn"), key=lambda row: row.attempt)
    assert (first.status, second.status) == ("estimated", "booked")
    assert 0 < first.completion_tokens < second.completion_tokens
    assert await product.servers.model.asked(log.turn_id) == {1: 2}
    assert await product.servers.model.answered(log.turn_id) == {1: 1}


async def test_in_mid_wait_with_the_only_worker_gone(make_product: MakeProduct) -> None:
    """A timer belongs to no worker: it fires while none is there."""
    product = await make_product()
    session = await product.api.create_session()
    live = await product.api.open(session, "wait 2 s")
    await live.until_seen("tool-input-available")
    product.kill(product.workers[0])
    await product.start_worker()
    log = check_stream(await live.done())
    found = await check_rows(product.database)
    assert log.text() == "".join(row.content for row in found.of(session, "assistant"))
    assert not log.voided


async def test_before_the_turn_is_opened(make_product: MakeProduct) -> None:
    """The worker has been given the new turn and dies before it has done anything."""
    product = await make_product()
    session = await product.api.create_session()
    [worker] = product.workers
    worker.pause()
    live = await product.api.open(session, "6*7")
    handle = (await product.temporal()).get_workflow_handle(workflow_id(session))

    async def given() -> bool:
        return (await handle.describe()).raw_description.pending_workflow_task.HasField("started_time")

    await until(given, what="the worker has been given the turn")
    await product.start_worker()
    product.kill(worker)
    check_stream(await live.done())
    found = await check_rows(product.database)
    assert "42" in found.of(session, "assistant")[-1].content
    await paid_once(product, found, session)


@pytest.mark.backends("sqlite")  # on PostgreSQL: `test_database_gone.py::test_the_worker_dies_while_the_answer_waits`
async def test_between_answer_and_row(make_product: MakeProduct, backend: Backend) -> None:
    """The model has answered, the database does not take it: the answer waits in Temporal and is not paid for twice."""
    product = await make_product(backend=backend, workers=2)
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 40 [delay=20]")
    await live.until_seen("text-delta", 3)
    async with locked(product, SessionRow, session):
        await until_answer_is_kept(product, session)
        product.kill(await working_on(product, session))
    log = check_stream(await live.done())
    found = await check_rows(product.database)
    answer = found.of(session, "assistant")[-1].content
    assert answer.endswith(" w40")
    assert log.text() == answer
    await paid_once(product, found, session)
    assert await product.servers.model.asked(log.turn_id) == {1: 1}


async def test_between_row_and_report(make_product: MakeProduct) -> None:
    """The answer is stored, but Redis hangs, so the worker is killed before it can tell Temporal."""
    product = await make_product(own_redis=True, workers=0)
    await product.start_worker({"LONGHAUL_REDIS_TIMEOUT": "60"})
    session = await product.api.create_session()
    turn = await product.api.start(session, "speak 60 [delay=50]")
    await until_asked(product, turn)
    product.servers.redis.pause()

    async def stored() -> bool:
        return any(row["role"] == "assistant" for row in (await product.api.session(session))["messages"])

    await until(stored, what="the answer is stored")
    product.kill(await working_on(product, session))
    product.servers.redis.resume()
    await product.start_worker()
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    found = await check_rows(product.database)
    await paid_once(product, found, session)
    assert await product.servers.model.asked(turn) == {1: 1}


@pytest.mark.backends("postgresql")
async def test_in_parallel_tools(make_product: MakeProduct, backend: Backend, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    product = await make_product(backend=backend, workers=2, settings=gate.settings)
    session = await product.api.create_session()
    live = await product.api.open(session, "2*3 and 4*5 and 6*7")
    await until(lambda: len(gate.runs("calculator")) == 3, what="three tools run")
    pids = [pid for pid, _ in gate.runs()]
    victim = next(worker for worker in product.workers if worker.pid == max(pids, key=pids.count))
    product.kill(victim)
    gate.open()
    log = check_stream(await live.done())
    found = await check_rows(product.database)
    assert sorted(row.content for row in found.of(session, "tool")) == ["computed 2*3", "computed 4*5", "computed 6*7"]
    assert len(log.outputs()) == 3
    assert len(gate.runs()) == 3 + pids.count(victim.pid)
    await paid_once(product, found, session)


@pytest.mark.backends("sqlite")
async def test_in_a_tool_that_must_not_run_twice(make_product: MakeProduct, backend: Backend, tmp_path: Path) -> None:
    """How far it came is unknown: it is reported as lost, to the person and to the model, and not run again."""
    gate = Gate(tmp_path)
    product = await make_product(backend=backend, workers=2, settings=gate.settings)
    session = await product.api.create_session()
    live = await product.api.open(session, calling("pay", amount=5))
    await until(lambda: gate.runs("pay"), what="the tool runs")
    product.kill(await working_on(product, session, "run_tool"))
    gate.open()
    log = check_stream(await live.done())
    assert [words for _, words in gate.runs()] == ["pay 5"]
    found = await check_rows(product.database)
    [result] = found.of(session, "tool")
    assert (result.content, result.is_error) == (prompts.LOST_CALL, True)
    [output] = log.outputs().values()
    assert output["errorText"] == prompts.LOST_CALL
    progress = await product.api.progress(session, log.turn_id)
    assert [(tool["name"], tool["status"]) for tool in progress["recent_tools"]] == [("pay", "lost")]
    assert progress["status"] == "completed"
    await paid_once(product, found, session)


async def test_in_a_quick_tool(make_product: MakeProduct, backend: Backend, tmp_path: Path) -> None:
    """It runs within a workflow task. Another worker does both again; the first one, which only hung, adds nothing."""
    gate = Gate(tmp_path)
    product = await make_product(backend=backend, workers=2, settings=gate.settings)
    session = await product.api.create_session()
    live = await product.api.open(session, calling("ponder", expression="6*7"))
    await until(lambda: gate.runs("ponder"), what="the tool runs")
    [(pid, _)] = gate.runs("ponder")
    hung = next(worker for worker in product.workers if worker.pid == pid)
    hung.pause()
    await until(lambda: len(gate.runs("ponder")) == 2, what="the other worker runs the tool")
    hung.resume()
    gate.open()
    log = check_stream(await live.done())
    found = await check_rows(product.database)
    assert [row.content for row in found.of(session, "tool")] == ["pondered 6*7"]
    assert [output["output"] for output in log.outputs().values()] == ["pondered 6*7"]
    assert log.count("tool-output-available") == 1
    await paid_once(product, found, session)
    following = check_stream(await product.api.stream(session, "hello"))
    assert following.text()


async def test_a_quick_tool_that_the_next_worker_lacks(make_product: MakeProduct, tmp_path: Path) -> None:
    """Is a tool error for the model, and the turn goes on."""
    gate = Gate(tmp_path)
    product = await make_product(settings=gate.settings)
    session = await product.api.create_session()
    live = await product.api.open(session, calling("ponder", expression="6*7"))
    await until(lambda: gate.runs("ponder"), what="the tool runs")
    product.kill(product.workers[0])
    await product.start_worker({"LONGHAUL_TOOLS": ""})
    log = check_stream(await live.done())
    found = await check_rows(product.database)
    [result] = found.of(session, "tool")
    assert result.is_error
    assert "ponder" in result.content
    assert len(log.outputs()) == 1
    assert found.turns[session][0].status == "completed"


async def test_in_every_activity_at_once(make_product: MakeProduct, tmp_path: Path) -> None:
    """Six turns, each held by a locked row in the middle of another activity, when their worker is killed.

    Placing messages (`open_turn`, `take_inbox`) is done inside a workflow task, whose time-out is the longer one.
    """
    gate = Gate(tmp_path)
    product = await make_product(backend="postgresql", workers=0, settings=gate.settings)
    api = product.api
    opening, answering, tool, waiting, joined, closing = [await api.create_session() for _ in range(6)]
    first = await api.start(opening, "1+1")
    async with AsyncExitStack() as locks:
        await locks.enter_async_context(locked(product, SessionRow, opening))
        await product.start_worker()
        streams: dict[str, LiveStream] = {
            answering: await api.open(answering, "speak 60 [delay=100]"),
            tool: await api.open(tool, calling("pay", amount=1)),
            waiting: await api.open(waiting, "wait 6 s"),
            joined: await api.open(joined, "speak 60 [delay=100]"),
            closing: await api.open(closing, "speak 60 [delay=100 fault=length]"),  # `close_turn` adds a notice
        }
        for session in (answering, joined, closing):
            await streams[session].until_seen("text-delta")
        await streams[waiting].until_seen("tool-input-available")
        await until(lambda: gate.runs("pay"), what="the tool runs")
        follow_up = str(uuid4())
        await api.start(joined, "and this", follow_up)
        for table, key in (
            (SessionRow, answering),
            (SessionRow, tool),
            (SessionRow, waiting),
            (MessageRow, row_id(joined, "user", follow_up)),
            (TurnRow, streams[closing].log.turn_id),
        ):
            await locks.enter_async_context(locked(product, table, key))
        gate.open()
        await until_blocked(product, 6)
        [worker] = product.workers
        for session, activity in (
            (answering, "call_model"),
            (tool, "run_tool"),
            (waiting, "store_tool_result"),
            (closing, "close_turn"),
        ):
            assert await working_on(product, session, activity) is worker
        await product.start_worker()
        product.kill(worker)
    for live in streams.values():
        check_stream(await live.done())
    await api.wait_for_turn(opening, first)
    found = await check_rows(product.database)
    for session in (opening, *streams):
        assert [turn.status for turn in found.turns[session]] == ["completed"]
        await paid_once(product, found, session)
    assert len(gate.runs("pay")) == 1
    assert [row.content for row in found.of(tool, "tool")] == ["paid 1"]
