"""A worker that is killed in the middle loses nothing: another one goes on."""

from temporalio.api.enums.v1 import PendingActivityState

from longhaul.temporal import workflow_id
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.process import Process
from testkit.product import Backend, Product
from testkit.wait import until

STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED


async def worker_of(product: Product, session: str) -> Process:
    """The worker that has a session's activity in its hands now."""
    handle = (await product.temporal()).get_workflow_handle(workflow_id(session))

    async def find() -> Process | None:
        described = await handle.describe()
        for pending in described.raw_description.pending_activities:
            for worker in product.workers:
                if pending.state == STARTED and pending.last_worker_identity.startswith(f"{worker.pid}@"):
                    return worker
        return None

    return await until(find, what=f"a worker has an activity of session {session}")


async def test_in_mid_stream(make_product: MakeProduct, backend: Backend) -> None:
    product = await make_product(backend, workers=2)
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 150 [delay=20]")
    await live.until_seen("text-delta", 10)
    product.kill(await worker_of(product, session))
    log = check_stream(await live.done())
    assert log.count("data-voided") == 1
    found = await check_rows(product.database)
    answer = found.of(session, "assistant")[-1].content
    assert (answer[:6], answer[-5:]) == ("w1 w2 ", " w150")
    assert log.text() == answer
    assert len(found.turns[session]) == 1
    assert found.turns[session][0].status == "completed"
    assert len([row for row in found.ledger if row.kind == "turn"]) == 1
    key = f"{live.log.turn_id}:1"
    stats = await product.servers.model.stats()
    assert (stats["by_key"][key], stats["completed_by_key"][key]) == (2, 1)


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
