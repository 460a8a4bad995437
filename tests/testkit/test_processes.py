"""Processes and servers of the testkit start, die on a signal, come back on their port and leave nothing behind."""

import signal
from pathlib import Path

import psutil
import pytest

from testkit.pool import MakeProduct
from testkit.process import Process
from testkit.servers import RedisServer
from testkit.wait import until


async def test_until_says_what_did_not_happen() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.1 s: the moon rises \(last seen: 0\)"):
        await until(lambda: 0, limit=0.1, what="the moon rises")


async def test_a_process_dies_with_its_whole_group(tmp_path: Path) -> None:
    process = Process("shell", ["sh", "-c", "sleep 60 & echo $!; wait"], tmp_path / "log")
    process.start()
    child = int(await until(lambda: process.tail().strip(), what="the shell says its child"))
    process.pause()
    process.kill()
    assert process.code == -signal.SIGKILL
    gone = lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE  # noqa: E731
    await until(gone, what="the child is gone")


async def test_a_server_keeps_its_port(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    await server.start()
    port = server.port
    await server.restart()
    server.kill()
    assert not server.running
    await server.start()
    assert server.port == port
    await server.stop()


async def test_a_worker_can_be_killed_and_stopped(make_product: MakeProduct) -> None:
    product = await make_product(workers=2, apis=0)
    first, second = product.workers
    product.kill(first)
    assert first.code == -signal.SIGKILL
    assert await product.terminate(second) == 0
