"""Watching a turn: resumed, cut, from several APIs, and with Redis gone."""

from uuid import uuid4

from longhaul.temporal import workflow_id
from testkit.client import RecordingClient
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.streamlog import StreamLog

LONG = "speak 150 [delay=10]"


async def stored_text(client: RecordingClient, session: str, turn: str) -> str:
    rows = await client.messages(session)
    return "".join(row["content"] for row in rows if row["role"] == "assistant" and row["turn_id"] == turn)


async def test_cut_and_resumed_is_the_identical_whole(make_product: MakeProduct) -> None:
    product = await make_product(apis=2)
    first, second = product.client(product.apis[0]), product.client(product.apis[1])
    session, message_id = await first.create_session(), str(uuid4())
    cut = await first.stream(session, LONG, message_id, cut_after=20)
    assert not cut.finished
    for client in (second, first):
        cut = await client.resume(session, cut, cut_after=20)
    cut = await second.resume(session, cut)
    whole = await first.stream(session, LONG, message_id)  # a repeated POST shows the turn from its start
    assert [(event.id, event.part) for event in cut] == [(event.id, event.part) for event in whole]
    assert check_stream(cut).text() == await stored_text(first, session, cut.turn_id)
    assert cut.connections == 4


async def test_nothing_runs_is_204_but_a_missed_end_is_served(product: Product) -> None:
    session = await product.api.create_session()
    assert (await product.api.resume(session)).status == 204
    log = await product.api.stream(session, "hello", cut_after=3)
    await product.api.wait_for_turn(session, log.turn_id)
    resumed = await product.api.resume(session, log)
    assert check_stream(resumed).text() == await stored_text(product.api, session, log.turn_id)
    assert (await product.api.resume(session, resumed)).status == 204, "it has the end"
    assert (await product.api.resume(session)).status == 204
    path = f"/v1/sessions/{session}/stream"
    assert (await product.api.http.get(path, params={"after": resumed.events[2].id})).status_code == 200
    assert (await product.api.http.get(path, params={"turn_id": log.turn_id})).status_code == 200
    assert (await product.api.http.get(path, params={"turn_id": str(uuid4())})).status_code == 404
    for bad in ("x", "1", "1-", "-1", "1-0\n2"):
        assert (await product.api.http.get(path, params={"after": bad})).status_code == 422, bad
        if "\n" not in bad:
            assert (await product.api.http.get(path, headers={"Last-Event-ID": bad})).status_code == 422, bad


async def test_a_client_that_leaves_stops_nothing(product: Product) -> None:
    session = await product.api.create_session()
    log = await product.api.stream(session, "speak 50 [delay=10]", cut_after=4)
    assert (await product.api.wait_for_turn(session, log.turn_id))["status"] == "completed"


async def test_keep_alive_comes_while_a_turn_is_silent(make_product: MakeProduct) -> None:
    product = await make_product(settings={"LONGHAUL_STREAM_KEEP_ALIVE": "0.5"})
    session = await product.api.create_session()
    log = check_stream(await product.api.stream(session, "wait 3 s"))
    assert log.comments >= 2


async def test_a_resume_without_redis_starts_over_and_says_so(make_product: MakeProduct) -> None:
    product = await make_product(own_redis=True)
    session = await product.api.create_session()
    log = await product.api.stream(session, LONG, cut_after=20)
    product.servers.redis.kill()
    rest = await product.api.resume(session, StreamLog(events=list(log.events)))
    assert rest.finished
    assert rest.count("data-voided") == 1
    assert rest.text() == await stored_text(product.api, session, log.turn_id)


async def test_an_api_that_ends_lets_go_of_its_streams_and_another_goes_on(make_product: MakeProduct) -> None:
    product = await make_product(apis=2)
    first, second = product.client(product.apis[0]), product.client(product.apis[1])
    session = await first.create_session()
    stream = await first.open(session, "speak 200 [delay=20]")
    await stream.until_seen("text-delta", 3)
    await product.terminate(product.apis[0])
    log = await stream.done()
    assert not log.finished
    assert await product.servers.model.answered(log.turn_id) == {}, "it held its streams until the turn had ended"
    log = check_stream(await second.resume(session, log))
    assert log.text() == await stored_text(second, session, log.turn_id)


async def test_a_turn_ended_by_force_ends_its_stream(make_product: MakeProduct) -> None:
    product = await make_product(workers=0)
    session = await product.api.create_session()
    stream = await product.api.open(session, "hello")
    await (await product.temporal()).get_workflow_handle(workflow_id(session)).terminate()
    log = check_stream(await stream.done())
    assert log.count("error") == 1
