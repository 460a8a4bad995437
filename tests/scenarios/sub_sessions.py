"""What the tests of sub-sessions share: calling a tool with exact arguments, walking a tree, seeing what runs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from longhaul.temporal import workflow_id
from testkit.checks import stored
from testkit.product import Product
from testkit.servers import calling
from testkit.wait import until

RUN, GET = "run_sub_session", "get_sub_session_result"
Node = dict[str, Any]


@dataclass(frozen=True)
class Used:
    """What a tool answered: its JSON, or the text of an error."""

    output: str
    is_error: bool
    turn_id: str

    @property
    def json(self) -> dict[str, Any]:
        assert not self.is_error, self.output
        found: dict[str, Any] = json.loads(self.output)
        return found


async def results(product: Product, session: str, tool: str, turn_id: str | None = None) -> list[Used]:
    """What the calls of a tool have answered in a session (in one turn of it), in order."""
    rows = (await stored(product.database, [session])).of(session, "tool")
    return [
        Used(row.content, row.is_error, row.turn_id)
        for row in rows
        if row.tool_name == tool and turn_id in (None, row.turn_id)
    ]


async def use(product: Product, session: str, tool: str, **arguments: Any) -> Used:
    """Let the model of a session call a tool; what the tool answered."""
    turn_id = await say(product, session, calling(tool, **arguments))
    return (await results(product, session, tool, turn_id))[0]


async def say(product: Product, session: str, text: str) -> str:
    """Hand in a message and wait for the end of the turn that took it, which need not be the one that it joined."""
    message_id = str(uuid4())
    await product.api.start(session, text, message_id)

    async def taken() -> str | None:
        rows = (await stored(product.database, [session])).of(session, "user")
        return next((row.turn_id for row in rows if row.client_message_id == message_id), None)

    turn_id = await until(taken, what=f"a turn takes “{text[:40]}”")
    await product.api.wait_for_turn(session, turn_id)
    return turn_id


async def subs(product: Product, session: str) -> list[dict[str, Any]]:
    """The sub-sessions of a session, in the order in which they were made."""
    status, body = await product.api.call("GET", "/sessions", params={"parent": session})
    assert status == 200, body
    found: list[dict[str, Any]] = body["sessions"]
    return found[::-1]


async def sub_of(product: Product, session: str, count: int = 1) -> list[str]:
    """Ids of a session's sub-sessions, as soon as there are `count` that run or have run."""

    async def there() -> list[str] | None:
        found = [node["session_id"] for node in (await tree(product, session))["children"] if node["status"]]
        return found if len(found) >= count else None

    return await until(there, what=f"{session} has {count} sub-sessions")


async def tree(product: Product, session: str) -> Node:
    status, body = await product.api.call("GET", f"/sessions/{session}/tree")
    assert status == 200, body
    return body


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield node
    for child in node["children"]:
        yield from walk(child)


async def running(product: Product, sessions: list[str]) -> list[str]:
    """Those of these sessions that Temporal runs a turn of."""
    client, found = await product.temporal(), []
    for session in sessions:
        try:
            described = await client.get_workflow_handle(workflow_id(session)).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            continue
        if described.status is WorkflowExecutionStatus.RUNNING:
            found.append(session)
    return found


async def nothing_runs(product: Product, sessions: list[str]) -> None:
    """Wait until none of them runs: a run ends a moment after its turn's last row is stored."""

    async def quiet() -> bool:
        return not await running(product, sessions)

    await until(quiet, what="all of them have ended")


async def stop_all(product: Product, session: str) -> list[str]:
    """Stop a session and all below it, detached ones too; ids of all."""
    ids = [node["session_id"] for node in walk(await tree(product, session))]
    for one in ids:
        await product.api.cancel(one)
    return ids


async def waiting(product: Product, session: str, turn_id: str, tool: str = RUN) -> None:
    """Wait until a turn is in the midst of a call of this tool, and its sub-session has started."""

    async def at_it() -> bool:
        found = await product.api.progress(session, turn_id)
        called = tool in [record["name"] for record in found["tools_running"]]
        return called and bool(found["sub_sessions"])

    await until(at_it, what=f"{tool} runs")
