"""Tools on workers that have nothing but the addresses of Temporal and the API."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from longhaul.remote_tools.keys import Claim, WorkerKey
from longhaul.temporal import workflow_id
from testkit.client import RecordingClient
from testkit.grammar import check_stream
from testkit.pool import Pool
from testkit.product import Product
from testkit.servers import calling, script
from testkit.wait import until
from tests.scenarios.queue_tools import FOLDER

SECRET = "a secret that only this test knows, long enough"
TOOLS = {"LONGHAUL_TOOLS": "tests.scenarios.queue_tools"}
BEAT = {"LONGHAUL_HEARTBEAT_INTERVAL": "0.3"}
WORD = "Geheimnis"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where held tools leave their tokens."""
    return tmp_path_factory.mktemp("tool-workers")


@pytest.fixture(scope="module")
async def product(server_pool: Pool, folder: Path) -> AsyncIterator[Product]:
    """A product with a tool worker for the queue `gpu`; one for all tests here."""
    settings = {"LONGHAUL_AUTH": "jwt", "LONGHAUL_JWT_SECRET": SECRET, **TOOLS}
    async with AsyncExitStack() as stack:
        product = await server_pool.make(stack, settings=settings)
        await product.start_tool_worker("gpu", {**TOOLS, **BEAT, FOLDER: str(folder)})
        yield product


def alice(product: Product) -> RecordingClient:
    token = jwt.encode({"sub": "alice", "exp": 2**32}, SECRET, "HS256")
    return product.client(headers={"Authorization": f"Bearer {token}"})


async def results(api: RecordingClient, session: str) -> dict[str, str]:
    """The stored results of a session's tools, by the tools' names."""
    rows = await api.messages(session)
    names = {call["id"]: call["function"]["name"] for row in rows for call in row.get("tool_calls") or ()}
    return {names[row["tool_call_id"]]: row["content"] for row in rows if row["role"] == "tool"}


class Thief:
    """Has stolen what the worker of a held call has in its memory, and uses it from elsewhere."""

    def __init__(self, product: Product, folder: Path) -> None:
        self.api = product.client()
        self._folder = folder

    async def stolen(self, word: str, after: int = 0) -> dict[str, Any]:
        """What the newest attempt behind `after` has left for the test, once its token counts."""

        async def newest() -> dict[str, Any] | None:
            files = sorted(self._folder.glob(f"{word}.*"), key=lambda file: int(file.suffix[1:]))
            if not files or int(files[-1].suffix[1:]) <= after:
                return None
            found: dict[str, Any] = json.loads(files[-1].read_text() or "{}")
            return found if found and await self.post("progress", found["token"], text="it is real") == 204 else None

        return await until(newest, what=f"an attempt at {word} behind {after} runs")

    async def post(self, path: str, token: str, **body: Any) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return (await self.api.call("POST", f"/tool-calls/{path}", headers=headers, json=body)).status

    async def give(self, token: str, output: str) -> int:
        return await self.post("result", token, status="ok", output=output)


async def test_all_that_a_tool_worker_can_reach(product: Product) -> None:
    api = alice(product)
    session = await api.create_session()
    calls = [{"call": "look_around", "arguments": {"word": WORD}}, {"call": "read_notes", "arguments": {}}]
    log = check_stream(await api.stream(session, script(*calls)))
    found = await results(api, session)
    assert "has no access to the files of the session" in found["read_notes"]
    seen = json.loads(found["look_around"])
    assert (seen["word"], seen["user"]) == (WORD, "alice")
    given = {"PYTHONPATH", "TEMPORAL_ADDRESS", "LONGHAUL_API_URL", "LONGHAUL_TASK_QUEUE", "LONGHAUL_READY_FILE"}
    assert set(seen["started_with"]) <= given | {*TOOLS, *BEAT, FOLDER, "LC_CTYPE"}
    assert set(seen["settings"]) == {"api_url", "heartbeat_interval", "task_queue", "temporal_address", "tools"}
    temporal_port = urlsplit(f"//{product.servers.temporal.address}").port
    assert set(seen["peers"]) <= {temporal_port, urlsplit(product.url()).port}
    assert (seen["listens"], seen["files"]) == ([], [])
    assert not [path for path in seen["open"] if ".db" in path]
    assert {part["data"]["text"] for part in log.parts("data-tool-progress")} == {"looking"}
    history = await (await product.temporal()).get_workflow_handle(workflow_id(session)).fetch_history()
    assert WORD.encode() not in b"".join(event.SerializeToString() for event in history.events)


async def test_a_stolen_token_and_a_killed_worker(product: Product, folder: Path) -> None:
    api, thief = alice(product), Thief(product, folder)
    session = await api.create_session()
    turn = await api.start(session, calling("hold", word="one"))
    stolen = await thief.stolen("one")
    token, call = stolen["token"], stolen["call"]
    # It opens nothing else, and nothing else opens its call.
    user = jwt.encode({"sub": "alice", "exp": 2**32}, SECRET, "HS256")
    assert await thief.give(user, "by a user") == 401
    assert (await thief.api.call("GET", "/sessions", headers={"Authorization": f"Bearer {token}"})).status == 401
    head, _, signature = token.split(".")
    body = {**jwt.decode(token, options={"verify_signature": False}), "sub": "another call"}
    other = jwt.encode(body, SECRET, "HS256").split(".")[1]
    assert await thief.give(f"{head}.{other}.{signature}", "for another call") == 401
    for claim in (Claim(call, stolen["attempt"]), Claim(call, stolen["attempt"] + 1), Claim("no such call", 1)):
        assert await thief.post("begin", WorkerKey().proof(claim)) == 401

    product.kill(product.workers[-1])
    await product.start_tool_worker("gpu", {**TOOLS, **BEAT, FOLDER: str(folder)})
    again = await thief.stolen("one", after=stolen["attempt"])
    assert [await thief.give(token, "late"), await thief.post("progress", token)] == [409, 409]
    # A token that counts answers its call, once.
    assert await thief.give(again["token"], "stolen") == 204
    assert [await thief.give(again["token"], "stolen"), await thief.give(again["token"], "twice")] == [204, 409]
    (folder / "gate").touch()
    assert (await api.wait_for_turn(session, turn))["status"] == "completed"
    (folder / "gate").unlink()
    assert await results(api, session) == {"hold": "stolen"}
    assert [await thief.give(again["token"], "stolen"), await thief.post("progress", again["token"])] == [410, 410]


async def test_a_stop_ends_the_call_and_its_token(product: Product, folder: Path) -> None:
    api, thief = alice(product), Thief(product, folder)
    session = await api.create_session()
    turn = await api.start(session, calling("hold", word="two"))
    stolen = await thief.stolen("two")
    assert (await api.cancel(session)).status == 200
    assert (await api.wait_for_turn(session, turn))["status"] == "cancelled"
    assert await thief.give(stolen["token"], "after the end") == 410
    assert "after the end" not in (await results(api, session))["hold"]
