"""MCP servers in a running stack: tools of programs in turns, across the death of a server and of a worker."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from testkit.client import RecordingClient
from testkit.pool import MakeProduct
from testkit.servers import script
from testkit.wait import until

RUDE = Path(__file__).parents[1] / "longhaul" / "mcp" / "rude_server.py"
BERLIN = {"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}
NUMBER = {"call": "rude__do", "arguments": {"how": "say your number"}}


async def results(api: RecordingClient, session: str, *calls: dict[str, Any]) -> dict[str, str]:
    """What the tools of one turn said, by their names."""
    turn = await api.start(session, script(*calls))
    await api.wait_for_turn(session, turn)
    of_turn = [row for row in await api.messages(session) if row["role"] == "tool" and row["turn_id"] == turn]
    return {row["tool_name"]: row["content"] for row in of_turn}


@pytest.mark.backends("sqlite")
async def test_servers_and_workers_come_and_go(make_product: MakeProduct, tmp_path: Path) -> None:
    servers = {
        "time": {"command": sys.executable, "args": ["-m", "mcp_server_time"]},
        "rude": {"command": sys.executable, "args": [str(RUDE)]},
    }
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    product = await make_product(settings={"LONGHAUL_MCP_CONFIG": str(config)})
    session = await product.api.create_session()

    said = await results(product.api, session, {"call": "time__convert_time", "arguments": BERLIN}, NUMBER)
    assert json.loads(said["time__convert_time"])["target"]["timezone"] == "Asia/Tokyo"
    first = int(said["rude__do"])

    os.kill(first, signal.SIGKILL)
    second = int((await results(product.api, session, NUMBER))["rude__do"])
    assert second != first

    product.kill(product.workers[0])
    await product.start_worker()
    third = int((await results(product.api, session, NUMBER))["rude__do"])

    assert third != second

    async def has_ended() -> bool:
        return not psutil.pid_exists(second)

    await until(has_ended, what="the program of the killed worker has ended")
