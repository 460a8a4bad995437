"""An API that dies or is restarted in mid-stream: its clients go on at another one, and the whole is identical."""

import asyncio

import httpx2

from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.streamlog import StreamLog
from testkit.wait import until
from tests.scenarios.support import api_raised_nothing, next_message_works, same_as_stored

PRODUCT: ProductOptions = {"apis": 3}


async def test_clients_go_on_at_another_api(product: Product) -> None:
    """Eight clients, three turns; one API is killed, one asked to end. No client sees a gap or a repetition."""
    *going, staying = [product.client(api) for api in product.apis]
    sessions = [await staying.create_session() for _ in range(3)]
    watched = [await going[0].open(session, "speak 300 [delay=20]") for session in sessions]
    logs = [StreamLog() for _ in range(5)]
    readers = [asyncio.create_task(going[n % 2].resume(sessions[n % 3], log)) for n, log in enumerate(logs)]
    for live in watched:
        await live.until_seen("text-delta", 10)
    await until(lambda: all(log.count("text-delta") for log in logs), what="all clients read")
    with product.servers.model.paused():
        product.kill(product.apis[0])
        await product.terminate(product.apis[1])
        await asyncio.wait(readers)
    seen = [(sessions[n % 3], log) for n, log in enumerate(logs)]
    seen += [(session, await live.cut()) for session, live in zip(sessions, watched, strict=True)]
    assert not any(log.finished for _, log in seen), [log.types[-3:] for _, log in seen]
    await asyncio.gather(*(staying.resume(session, log) for session, log in seen))
    for session, log in seen:
        await same_as_stored(product, session, log)
        assert log.connections == 2
        assert not log.voided
    await next_message_works(product, sessions[0], staying)
    api_raised_nothing(product)


async def test_from_api_to_api_in_one_turn(product: Product) -> None:
    """The client follows from one to the next; tools, a timer and several rounds are in the turn."""
    clients = [product.client(api) for api in product.apis]
    session = await clients[0].create_session()
    log = StreamLog()
    await clients[0].start(session, "rounds 4 and wait 2 s and speak 400 [delay=10]")
    for number in range(2):
        reading = asyncio.create_task(clients[number].resume(session, log))
        behind = len(log.events)
        await until(lambda: reading.done() or len(log.events) > behind + 8, what="it reads")  # noqa: B023
        assert not reading.done()
        product.kill(product.apis[number])
        await asyncio.wait([reading])
        assert isinstance(reading.exception(), httpx2.HTTPError)
    await clients[2].resume(session, log)
    await same_as_stored(product, session, log)
    assert not log.voided
    assert log.connections == 3


async def test_cut_off_just_before_the_end(product: Product) -> None:
    """A client whose API died when the turn was all but over still gets the rest, from another API."""
    clients = [product.client(api) for api in product.apis]
    session = await clients[0].create_session()
    live = await clients[0].open(session, "speak 60 [delay=10]")
    await live.until_seen("text-delta", 3)
    product.apis[0].pause()  # it hands nothing on any more while the turn comes to its end
    await clients[1].wait_for_turn(session, live.log.turn_id)
    product.kill(product.apis[0])
    log = await live.cut()
    assert not log.finished
    await clients[1].resume(session, log)
    await same_as_stored(product, session, log)
