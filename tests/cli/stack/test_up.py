"""The whole stack, as a person runs it: `longhaul up`, Ctrl-C, a second start, a death, two copies side by side."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import psutil
import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from cli.stack.binaries import find_temporal
from cli.stack.ports import LOOPBACK
from cli.stack.state import read_state
from longhaul.settings import Settings, variable_of
from longhaul.temporal import SEARCH_ATTRIBUTES, register_search_attributes
from testkit.servers import TemporalServer
from testkit.wait import until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
SECRETS = {"LONGHAUL_JWT_SECRET": "s3cret" * 6, "LONGHAUL_TOKEN": "s3cret", "MY_TOOL_KEY": "s3cret"}
NAMES_OF_ALL = ["temporal", "redis", "model", "worker", "api"]


class Copy:
    """One home, and the command line run on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        settings = {variable_of(field) for field in Settings.model_fields}
        kept = {name: value for name, value in os.environ.items() if name not in settings}
        self.env = {**kept, **SECRETS, "LONGHAUL_HOME": str(home), "PYTHONPATH": str(ROOT)}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cli", *arguments),
            env=self.env,
            cwd=self.home.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, *arguments: str) -> tuple[int, str]:
        process = await self.start(*arguments)
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def status(self) -> dict[str, Any]:
        _, output = await self.run("status", "--json")
        found: dict[str, Any] = orjson.loads(output)
        return found

    async def until_status(self, good: Any, seconds: float = 60) -> dict[str, Any]:
        async def found() -> dict[str, Any] | None:
            status = await self.status()
            return status if good(status) else None

        return await until(found, limit=seconds, what="the status that the test waits for", every=1)


@pytest.fixture
async def copy(tmp_path: Path) -> AsyncIterator[Copy]:
    found = Copy(tmp_path / "home")
    yield found
    await found.run("down")


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that works for this home, known by its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LONGHAUL_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def all_healthy(status: dict[str, Any]) -> bool:
    names = [process["name"] for process in status["processes"] if process["healthy"]]
    return sorted(names) == sorted(NAMES_OF_ALL)


async def test_up_ctrl_c_and_a_second_start_that_mends_itself(copy: Copy) -> None:
    session = await up_until_ctrl_c(copy)
    first = read_state(copy.home)
    assert first is not None
    code, output = await copy.run("up", "--detach")
    assert code == 0, output
    before = await copy.status()
    assert before["api_url"] == first.endpoints.api_url
    page = httpx2.get(f"{before['api_url']}/v1/sessions/{session}").json()
    assert "84" in "".join(row["content"] or "" for row in page["messages"])
    pids = {process["name"]: process["pid"] for process in before["processes"]}
    for name in ("worker", "redis", "temporal"):
        os.kill(pids[name], signal.SIGKILL)

    def back(status: dict[str, Any]) -> bool:
        again = {process["name"] for process in status["processes"] if process["restarts"] >= 1}
        return all_healthy(status) and again >= {"worker", "redis", "temporal"}

    await copy.until_status(back)
    code, log = await copy.run("logs", "supervisor")
    assert code == 0
    assert "redis died (signal SIGKILL)" in log
    code, answer = await copy.run("send", "And 6 * 7?", "--session", session)
    assert code == 0, answer
    assert "42" in answer
    assert (await copy.run("down"))[0] == 0
    assert processes_of(copy.home) == []


async def up_until_ctrl_c(copy: Copy) -> str:
    """A first start in the foreground, all that it says tried, and its end; the session that it answered in."""
    up = await copy.start("up")
    assert up.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(120):
        while "Ctrl-C stops it" not in (line := (await up.stdout.readline()).decode()):
            assert line, "".join(lines)
            lines.append(line)
    output = "".join(lines)
    status = await copy.status()
    secrets = {
        process["name"]: set(psutil.Process(process["pid"]).environ()) & SECRETS.keys()
        for process in status["processes"]
    }
    api, worker = secrets.pop("api"), secrets.pop("worker")
    assert (api, worker) == ({"LONGHAUL_JWT_SECRET"}, {"MY_TOOL_KEY"})
    assert not any(secrets.values()), secrets
    assert all_healthy(status)
    assert {"longhaul", "python", "temporalio", "temporal", "redis"} <= set(status["versions"])
    for url in (f"{status['api_url']}/docs", status["temporal_ui_url"]):
        assert url in output
        assert httpx2.get(url, follow_redirects=True).status_code == 200
    assert "s3cret" not in output
    assert f"curl -N {status['api_url']}/v1/sessions/" in output
    code, second = await copy.run("up")
    assert code == 0
    assert "already running" in second
    code, answer = await copy.run("send", "What is 12 * (3 + 4)?")
    assert code == 0, answer
    assert "84" in answer
    up.send_signal(signal.SIGINT)
    assert await up.wait() == 0
    assert processes_of(copy.home) == []
    state = read_state(copy.home)
    assert state is not None
    assert state.status == "stopped"
    return answer.rstrip().rpartition("session ")[2]


async def test_two_copies_side_by_side_and_a_killed_supervisor(copy: Copy, tmp_path: Path) -> None:
    other = Copy(tmp_path / "other")
    try:
        for code, output in await asyncio.gather(copy.run("up", "--detach"), other.run("up", "--detach")):
            assert code == 0, output
        mine, theirs = await copy.status(), await other.status()
        assert all_healthy(mine)
        assert all_healthy(theirs)
        for key in ("api_url", "temporal_address", "temporal_ui_url", "redis_url", "model_base_url", "database_url"):
            assert mine[key] != theirs[key]
        state = read_state(other.home)
        assert state is not None
        os.kill(state.supervisor_pid, signal.SIGKILL)
        await until(lambda: not processes_of(other.home), what="all children of the killed supervisor end")
        assert (await other.status())["processes"] == []
        code, output = await other.run("up", "--detach")
        assert code == 0, output
        assert all_healthy(await other.status())
        assert (await other.run("down"))[0] == 0
        assert all_healthy(await copy.status())
    finally:
        await other.run("down")


async def test_a_start_that_fails_leaves_nothing(copy: Copy) -> None:
    copy.env["DATABASE_URL"] = "postgresql://nobody:s3cret@127.0.0.1:9/nothing"
    code, output = await copy.run("up")
    assert code == 1
    assert "Database: postgresql://nobody:***@127.0.0.1:9/nothing" in output
    assert "migrate ended with exit code 1" in output
    assert "s3cret" not in output
    assert "s3cret" not in "".join(log.read_text() for log in (copy.home / "logs").iterdir())
    assert processes_of(copy.home) == []


async def test_search_attributes_are_registered_once(tmp_path: Path) -> None:
    """On a Temporal that is not ours the worker registers them; two workers at once do no harm."""
    temporal = BareTemporal(tmp_path)
    await temporal.start()
    try:
        client = await Client.connect(temporal.address)
        await asyncio.gather(register_search_attributes(client), register_search_attributes(client))
        await register_search_attributes(client)
        request = ListSearchAttributesRequest(namespace="default")
        present = await client.operator_service.list_search_attributes(request)
        assert set(SEARCH_ATTRIBUTES) <= set(present.custom_attributes)
    finally:
        await temporal.stop()


class BareTemporal(TemporalServer):
    """A dev server without our search attributes."""

    async def argv(self) -> list[str]:
        options = ("--headless", "--ip", LOOPBACK, "--port", str(self.port))
        return [str(find_temporal().path), "server", "start-dev", *options]
