"""`kill -9` of a worker: workers on its host report what it had, and nobody waits for the heartbeat timeout.

That time-out is far beyond the limit of each wait here, so a turn that went on only because of it fails its test.
"""

from pathlib import Path

import pytest

from longhaul.db.models import SessionRow
from longhaul.llm import prompts
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.servers import calling
from testkit.wait import until
from tests.scenarios.held_tools import Gate
from tests.scenarios.support import attempts, history, locked, until_answer_is_kept, working_on

NEVER = {"LONGHAUL_HEARTBEAT_TIMEOUT": "3600"}


async def repeated(product: Product, session: str, activity: str) -> list[tuple[int, str]]:
    """Of each run of an activity in a session's last turn: the attempt that ended it, and why the one before failed."""
    return [(attempt, failure) for attempt, failure, _ in attempts(await history(product, session), activity)]


async def test_in_mid_answer(make_product: MakeProduct) -> None:
    """The only worker dies, and its journal is damaged as well: a new worker goes on with what can be read."""
    product = await make_product(settings=NEVER)
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 100 [delay=20]")
    await live.until_seen("text-delta", 5)
    with product.servers.model.paused():
        product.kill(product.workers[0])
    [journal] = (product.folder / "home" / "journals").iterdir()
    with journal.open("ab") as file:
        file.write(b"\xffnonsense\n")
    worker = await product.start_worker()
    log = check_stream(await live.done())
    assert log.count("data-voided") == 1
    found = await check_rows(product.database)
    assert log.text() == found.of(session, "assistant")[-1].content
    assert log.text().endswith(" w100")
    assert await repeated(product, session, "call_model") == [(2, "WorkerDied")]
    assert await product.servers.model.answered(log.turn_id) == {1: 1}
    assert "1 entries cannot be read" in worker.tail()


@pytest.mark.backends("postgresql")
async def test_an_answer_that_was_paid_for_is_kept(make_product: MakeProduct, backend: str) -> None:
    """The report does not erase the checkpoint."""
    product = await make_product(backend="postgresql", settings=NEVER)
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 40 [delay=20]")
    await live.until_seen("text-delta", 3)
    async with locked(product, SessionRow, session):
        await until_answer_is_kept(product, session)
        product.kill(product.workers[0])
    await product.start_worker()
    log = check_stream(await live.done())
    found = await check_rows(product.database)
    assert log.text() == found.of(session, "assistant")[-1].content
    assert await repeated(product, session, "call_model") == [(2, "WorkerDied")]
    assert await product.servers.model.asked(log.turn_id) == {1: 1}


async def test_what_other_workers_run_is_left_alone(make_product: MakeProduct, tmp_path: Path) -> None:
    """Tools of the same turns, on two workers. The one that lives reports those of the other, and only those."""
    gate = Gate(tmp_path)
    product = await make_product(workers=2, settings={**NEVER, **gate.settings})
    streams = {}
    for _ in range(4):  # the first three tools of a turn go to the worker that asks for them, the others to any
        session = await product.api.create_session()
        streams[session] = await product.api.open(session, " and ".join(f"{number}*7" for number in range(2, 8)))
    await until(lambda: len(gate.runs()) == 24, what="all tools run")
    pids = [pid for pid, _ in gate.runs()]
    died = pids.count(product.workers[0].pid)
    assert 0 < died < 24
    product.kill(product.workers[0])
    await until(lambda: len(gate.runs()) == 24 + died, what="the tools of the dead worker run again")
    gate.open()
    ends = []
    for session, live in streams.items():
        check_stream(await live.done())
        ends += await repeated(product, session, "run_tool")
    await check_rows(product.database)
    assert sorted(ends) == [(1, "")] * (24 - died) + [(2, "WorkerDied")] * died
    assert len(gate.runs()) == 24 + died


async def test_a_tool_that_must_not_run_twice_is_lost(make_product: MakeProduct, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    product = await make_product(settings={**NEVER, **gate.settings})
    session = await product.api.create_session()
    live = await product.api.open(session, calling("pay", amount=5))
    await until(lambda: gate.runs("pay"), what="the tool runs")
    product.kill(await working_on(product, session, "run_tool"))
    await product.start_worker()
    log = check_stream(await live.done())
    assert [words for _, words in gate.runs()] == ["pay 5"]
    found = await check_rows(product.database)
    assert [(row.content, row.is_error) for row in found.of(session, "tool")] == [(prompts.LOST_CALL, True)]
    assert [output["errorText"] for output in log.outputs().values()] == [prompts.LOST_CALL]
    assert await repeated(product, session, "run_tool") == [(2, "WorkerDied")]


async def test_without_a_journal_work_goes_on(make_product: MakeProduct) -> None:
    """The folder of journals cannot be made: the worker says so once."""
    product = await make_product(workers=0)
    (product.folder / "home").mkdir(exist_ok=True)
    (product.folder / "home" / "journals").touch()
    worker = await product.start_worker()
    session = await product.api.create_session()
    check_stream(await product.api.stream(session, "2*3"))
    await check_rows(product.database)
    assert worker.tail().count("cannot be written") == 1
