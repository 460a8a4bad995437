"""A worker is killed while it sends an event: the receiver gets every event, in order, and can tell which it knows."""

from standardwebhooks.webhooks import Webhook as Verifier

from testkit.pool import ProductOptions
from testkit.process import Process
from testkit.product import Product
from testkit.receiver import Receiver
from testkit.wait import until

PRODUCT: ProductOptions = {"backend": "postgresql", "settings": {"LONGHAUL_MODEL_SMALL": ""}}


async def test_a_worker_is_killed_between_the_receivers_answer_and_its_row(product: Product) -> None:
    receiver, [worker] = Receiver(), product.workers
    killed: list[Process] = []

    def kill_once() -> None:
        if not killed:
            killed.append(worker)
            product.kill(worker)

    receiver.before_answer = kill_once
    await receiver.start()
    try:
        made = (await product.api.call("POST", "/webhooks", json={"url": receiver.url})).body
        session = await product.api.create_session()
        first = await product.api.start(session, "6*7")
        await until(lambda: bool(killed), what="the worker is killed")
        await product.start_again(worker)
        second = await product.api.start(session, "7*8")

        def both() -> bool:
            return second in [one.event["data"]["turn_id"] for one in receiver.received]

        await until(both, what="the second turn's end is received")
        events = (await product.api.call("GET", "/events")).body["data"]
        assert [one["data"]["turn_id"] for one in events] == [first, second]
        ids = [one.id for one in receiver.received]
        assert list(dict.fromkeys(ids)) == [one["id"] for one in events], "each, in order; some of them twice"
        for one in receiver.received:
            assert Verifier(made["secret"]).verify(one.body, one.headers)["data"]["status"] == "completed"
        await product.api.call("DELETE", f"/webhooks/{made['id']}")
    finally:
        await receiver.stop()
