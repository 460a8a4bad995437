"""A tree of depth 3 with 2 × 2 × 2 leaves is right in rows, tree, progress and stream, also when workers are killed."""

from typing import Any

import pytest

from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Backend, Product
from testkit.streamlog import StreamLog
from testkit.wait import until
from tests.scenarios.sub_sessions import RUN, Node, nothing_runs, results, tree, walk

LEAVES = ("11+31", "12+31", "13+31", "14+31", "15+31", "16+31", "17+31", "18+31")
SUMS = ("42", "43", "44", "45", "46", "47", "48", "49")


def asked(pace: str = "") -> str:
    """The message that makes the tree."""
    items = [f"({leaf}{pace})" for leaf in LEAVES]
    while len(items) > 1:
        items = [f"(delegate: {one}; {two})" for one, two in zip(items[::2], items[1::2], strict=True)]
    return items[0][1:-1]


async def check_tree(product: Product, session: str, log: StreamLog, *, workers_killed: bool = False) -> list[Node]:
    """Every row, cost and status of a finished tree, in the tree, in progress and on the stream.

    A call whose worker was killed has no cost: only the endpoint knows the price of its model.
    """
    top = await tree(product, session)
    nodes = list(walk(top))
    ids = [node["session_id"] for node in nodes]
    assert [node["depth"] for node in nodes] == [0, *[1, 2, 3, 3, 2, 3, 3] * 2]
    assert {node["status"] for node in nodes} == {"completed"}
    found = await check_rows(product.database, sessions=ids)
    for node in nodes:
        costs = [row.cost_microdollars or 0 for row in found.ledger if row.session_id == node["session_id"]]
        assert node["usage"]["cost_microdollars"] == sum(costs) > 0
        assert (node["progress"]["round"], node["progress"]["tools_done"]) == (2, len(node["children"]) or 1)
        progress = await product.api.progress(node["session_id"], node["turn_id"])
        listed = {one["sub_session_id"]: one["status"] for one in progress["sub_sessions"]}
        assert listed == {child["session_id"]: "completed" for child in node["children"]}
        answers = [one.json for one in await results(product, node["session_id"], RUN)]
        assert {one["sub_session_id"] for one in answers} == set(listed)
        assert {one["status"] for one in answers} <= {"completed"}
    assert top["total_usage"]["cost_microdollars"] == sum(row.cost_microdollars or 0 for row in found.ledger)
    leaves = [node for node in nodes if node["depth"] == 3]
    said = {found.of(leaf["session_id"], "assistant")[-1].content.split(".")[0] for leaf in leaves}
    assert said == {f"{leaf} = {answer}" for leaf, answer in zip(LEAVES, SUMS, strict=True)}
    assert log.text() == "".join(row.content for row in found.of(session, "assistant"))
    assert all(f"= {answer}." in log.text() for answer in SUMS)
    check_parts(log, [child["session_id"] for child in top["children"]], workers_killed=workers_killed)
    return nodes


def check_parts(log: StreamLog, children: list[str], *, workers_killed: bool) -> None:
    """Check what the parent's stream shows of each of its children: started, progress, ended.

    Updates that a killed worker had not sent are not sent again; the tree and the tool's result have what they say.
    """
    shown: dict[str, list[dict[str, Any]]] = {child: [] for child in children}
    for part in log.parts("data-sub-session"):
        shown[part["data"]["sub_session_id"]].append(part["data"])
    for parts in shown.values():
        events = [one["event"] for one in parts]
        assert events[0] == "started"
        assert "progress" in events
        assert events[-1] == "ended"
        assert parts[0]["task"].startswith("delegate: (delegate: ")
        assert workers_killed or RUN in [one.get("tool") for one in parts]
        assert {one["status"] for one in parts if one["event"] == "ended"} == {"completed"}


@pytest.mark.backends("postgresql")
async def test_it_finishes(product: Product) -> None:
    session = await product.api.create_session(title="Tree")
    live = await product.api.open(session, asked())
    log = check_stream(await live.done())
    nodes = await check_tree(product, session, log)
    for node in nodes:
        assert await product.servers.model.asked(node["turn_id"]) == {1: 1, 2: 1}


@pytest.mark.backends("sqlite")
async def test_it_finishes_while_workers_are_killed(make_product: MakeProduct, backend: Backend) -> None:
    product = await make_product(backend=backend, workers=2)
    session = await product.api.create_session(title="Tree")
    live = await product.api.open(session, asked(" [delay=300]"))  # longer than a worker takes to start
    for depth, worker in ((1, 0), (3, 1)):
        await reached(product, session, depth)
        product.kill(product.workers[worker])
        await product.revive()
    log = check_stream(await live.done())
    await check_tree(product, session, log, workers_killed=True)


async def reached(product: Product, session: str, depth: int) -> None:
    """Wait until the tree has grown to a depth, and something there runs."""

    async def deep() -> bool:
        nodes = walk(await tree(product, session))
        return any(node["depth"] == depth and node["status"] == "running" for node in nodes)

    await until(deep, what=f"something runs at depth {depth}")


@pytest.mark.backends("postgresql")
async def test_stopped_it_leaves_nothing_running(product: Product) -> None:
    session = await product.api.create_session(title="Tree")
    live = await product.api.open(session, asked(" [delay=60]").replace("+31", "+31 and wait 60 s"))
    await reached(product, session, 3)
    status, body = await product.api.cancel(session)
    assert (status, body["status"]) == (200, "cancelled")
    check_stream(await live.done())
    nodes = list(walk(await tree(product, session)))
    ids = [node["session_id"] for node in nodes]
    await nothing_runs(product, ids)
    assert {node["status"] for node in nodes} == {"cancelled"}
    await check_rows(product.database, sessions=ids, answered=False)
