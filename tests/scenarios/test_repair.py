"""`longhaul sessions repair`: a session that an operator's hand has left stuck is explained and mended."""

import asyncio
from pathlib import Path
from uuid import uuid4

from sqlalchemy import update

from longhaul.db import acceptance
from longhaul.db.models import SessionRow
from longhaul.llm import prompts
from longhaul.settings import load_settings
from longhaul.temporal import workflow_id
from longhaul.turns.repair import ERROR, connected
from testkit.checks import check_rows
from testkit.pool import MakeProduct
from testkit.product import Backend, Product
from testkit.wait import until
from tests.scenarios.held_tools import Gate
from tests.scenarios.support import start_working


async def repair(product: Product, session: str, *options: str) -> str:
    """Run the command as a person does; its output."""
    code, said = await product.command("sessions", "repair", session, *options)
    assert code == 0, said
    return said


async def test_a_terminated_turn(make_product: MakeProduct, backend: Backend) -> None:
    """Its row, its open tool call and the message that waited for it; twice, and with a look before."""
    product = await make_product(backend=backend)
    session, waiting = await product.api.create_session(), str(uuid4())
    turn = await start_working(product, session, "wait 60 s")
    await product.api.start(session, "6*7", waiting)
    await (await product.temporal()).get_workflow_handle(workflow_id(session)).terminate("by hand")
    looked = await repair(product, session, "--dry-run")
    assert turn in looked
    assert waiting in looked
    assert "nothing was changed" in looked
    assert [message["id"] for message in await product.api.pending(session)] == [waiting]
    assert "repaired: 3" in await repair(product, session)

    async def answered() -> bool:
        newest = (await product.api.turns(session))[0]
        return bool(newest["turn_id"] != turn and newest["status"] == "completed")

    await until(answered, what="the waiting message is answered")
    assert "nothing is wrong" in await repair(product, session)
    found = await check_rows(product.database)
    assert {t.turn_id: t.status for t in found.turns[session]}[turn] == "failed"
    assert [row.content for row in found.of(session, "tool") if row.turn_id == turn] == [prompts.LOST_CALL]
    assert [row.content for row in found.of(session, "assistant") if row.kind == "error"] == [ERROR]
    assert "42" in found.of(session, "assistant")[-1].content
    assert (await product.api.progress(session, turn))["status"] == "failed"


async def test_a_session_that_is_well(make_product: MakeProduct, tmp_path: Path) -> None:
    """A turn that runs is left alone, with its open calls and its inbox."""
    gate = Gate(tmp_path)
    product = await make_product(settings=gate.settings)
    session = await product.api.create_session()
    turn = await start_working(product, session, "2*3")
    await product.api.start(session, "and this")
    said = await repair(product, session)
    assert f"runs turn {turn}" in said
    assert "nothing is wrong" in said
    gate.open()
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    await check_rows(product.database, sessions=[session])


async def test_beside_turns_that_come_and_go(product: Product) -> None:
    """It takes no running turn for a dead one and sets no counter back, at whichever moment it looks."""
    session = await product.api.create_session()
    settings = load_settings(
        database_url=product.database_url,
        redis_url=product.servers.redis.url(product.redis_database),
        temporal_address=product.servers.temporal.address,
        task_queue=product.task_queue,
    )
    turns: list[str] = []

    async def talk() -> None:
        for _ in range(6):
            turns.append(await product.api.start(session, "rounds 3"))
            await product.api.wait_for_turn(session, turns[-1])

    async with connected(settings) as mechanic:
        talking = asyncio.create_task(talk())
        while not talking.done():
            await mechanic.repair(await mechanic.examine(session))
        await talking
    found = await check_rows(product.database, sessions=[session])
    assert {turn.turn_id: turn.status for turn in found.turns[session]} == dict.fromkeys(turns, "completed")
    assert not any(row.is_error for row in found.of(session))


async def test_a_counter_that_was_set_back(product: Product) -> None:
    """As a database restored in parts may have it: no row can be stored any more."""
    session = await product.api.create_session()
    await product.api.wait_for_turn(session, await product.api.start(session, "hello"))
    async with product.database.write() as connection:
        await connection.execute(update(SessionRow).where(SessionRow.id == session).values(next_sequence=0))
    assert "counter is behind" in await repair(product, session)
    turn = await product.api.start(session, "6*7")
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    await check_rows(product.database, sessions=[session])


async def test_a_message_that_never_reached_temporal(product: Product) -> None:
    """The API died between the row and the signal, and its client never tried again."""
    session, lost = await product.api.create_session(), str(uuid4())
    async with product.database.write() as connection:
        await acceptance.accept(
            connection, session_id=session, user_id="local", message_id=lost, content="6*7", context=None, limit=0
        )
    outputs = await asyncio.gather(repair(product, session), repair(product, session))
    assert any("repaired" in said for said in outputs)

    async def answered() -> bool:
        turns = await product.api.turns(session)
        return bool(turns) and all(turn["status"] == "completed" for turn in turns)

    await until(answered, what="the message is answered")
    found = await check_rows(product.database, {session: [lost]})
    assert len(found.turns[session]) == 1


async def test_no_such_session(product: Product) -> None:
    code, said = await product.command("sessions", "repair", "nothing")
    assert code == 1
    assert "There is no session nothing" in said
