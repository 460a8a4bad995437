"""The programs of the stack: their command lines, health checks and time limits."""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from cli.stack.environment import api_environment, migration_environment, server_environment, worker_environment
from cli.stack.ports import LOOPBACK
from cli.stack.process import HealthCheck, Program
from longhaul.settings import Settings
from longhaul.temporal import SEARCH_ATTRIBUTES

_HEALTH_S = 5.0
_ALIVE_S = 30.0
# Temporal's own values are made for large clusters of many users; these make a turn about seven times as fast, and let
# users take their turns.
TEMPORAL_DYNAMIC_CONFIG: Mapping[str, int | bool | str] = {
    "history.transferProcessorMaxPollRPS": 2000,  # else 20 tasks a second per shard: 50 ms per step of a turn
    "system.enableActivityEagerExecution": True,
    "history.workflowIdReuseMinimalInterval": "0s",  # else the next turn of a session waits up to 1 s
    "matching.enableFairness": True,  # else the tasks of a user wait behind all tasks that other users queued before
    # Temporal is fair within a partition of a task queue. With its default of four, a user's task can wait in one that
    # the worker reads last.
    "matching.numTaskqueueReadPartitions": 1,
    "matching.numTaskqueueWritePartitions": 1,
    # The dev server sets these two to true, and then reads its database in each request.
    "system.forceSearchAttributesCacheRefreshOnRead": False,
    "system.forceNexusEndpointRefreshOnRead": False,
}
_TEMPORAL_FLAGS = (
    *(f"--dynamic-config-value={name}={json.dumps(value)}" for name, value in TEMPORAL_DYNAMIC_CONFIG.items()),
    *("--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=normal"),
    *("--log-level", "warn"),
)


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """Run one of our modules; `-P` keeps a module of the same name in the current folder from taking its place."""
    return (sys.executable, "-P", "-m", module, *arguments)


def temporal_command(binary: Path, database: Path, port: int, ui_port: int | None, namespace: str) -> tuple[str, ...]:
    """The dev server with its database on disk and our search attributes. Without `ui_port` it has no Web UI."""
    ui = ("--ui-port", str(ui_port)) if ui_port is not None else ("--headless",)
    attributes = [word for name in SEARCH_ATTRIBUTES for word in ("--search-attribute", f"{name}=Keyword")]
    return (
        *(str(binary), "server", "start-dev", "--ip", LOOPBACK, "--port", str(port), *ui),
        *("--db-filename", str(database), "--namespace", namespace),
        *_TEMPORAL_FLAGS,
        *attributes,
    )


def temporal(binary: Path, settings: Settings, ports: Mapping[str, int], env: Mapping[str, str]) -> Program:
    """Temporal. Its Web UI asks the frontend, so one request checks UI, frontend and namespace."""
    port, ui_port, namespace = ports["temporal"], ports["temporal_ui"], settings.temporal_namespace
    return Program(
        name="temporal",
        argv=temporal_command(binary, settings.home.absolute() / "temporal.db", port, ui_port, namespace),
        env={"GOGC": "400", **server_environment(env)},  # four times fewer garbage collections, for some 100 MB more
        health=http_ok(f"http://{LOOPBACK}:{ui_port}/api/v1/namespaces/{namespace}"),
        start_seconds=90,
    )


def redis(binary: Path, settings: Settings, port: int, env: Mapping[str, str]) -> Program:
    """Redis with snapshots: everything in it can be rebuilt, so an append-only file would only cost time."""
    folder = settings.home.absolute() / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    return Program(
        name="redis",
        argv=(
            *(str(binary), "--bind", LOOPBACK, "--port", str(port), "--dir", str(folder)),
            *("--save", "60 1", "--appendonly", "no", "--daemonize", "no"),
        ),
        env=server_environment(env),
        health=redis_pong(port),
        start_seconds=30,
    )


def model(port: int, env: Mapping[str, str]) -> Program:
    """The offline model."""
    argv = python_module("offline_model", "--host", LOOPBACK, "--port", str(port))
    health = http_ok(f"http://{LOOPBACK}:{port}/healthz")
    return Program(name="model", argv=argv, env=server_environment(env), health=health, grace=5)


def migrate(env: Mapping[str, str]) -> Program:
    """The migration of the database, in a process of its own, so that a database that hangs can be given up."""
    argv = python_module("cli", "migrate")
    return Program(name="migrate", argv=argv, env=migration_environment(env), health=None, start_seconds=900)


def worker(settings: Settings, env: Mapping[str, str]) -> Program:
    """The worker, which gets its own grace and a little more before it is killed."""
    ready = settings.home.absolute() / "run" / "worker.ready"
    return Program(
        name="worker",
        argv=python_module("worker"),
        env={**worker_environment(env), "LONGHAUL_READY_FILE": str(ready)},
        health=touched_lately(ready),
        grace=settings.shutdown_grace + 5,
        ready_file=ready,
    )


def api(url: str, env: Mapping[str, str]) -> Program:
    """The API. Ready means that it reaches the database and Temporal too."""
    return Program(name="api", argv=python_module("api"), env=api_environment(env), health=http_ok(f"{url}/readyz"))


def local_client(**options: Any) -> httpx2.AsyncClient:
    """A client for plain HTTP on this machine. It has no certificates: loading them takes longer than a request."""
    return httpx2.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False, **options)


def http_ok(url: str) -> HealthCheck:
    """Healthy when the URL answers 200."""

    async def check() -> str | None:
        try:
            async with local_client(timeout=_HEALTH_S) as client:
                answer = await client.get(url)
        except httpx2.HTTPError as error:
            return f"{url}: {type(error).__name__} {error}".strip()
        return None if answer.status_code == 200 else f"{url}: {answer.status_code} {answer.text[:200]}"

    return check


def redis_pong(port: int) -> HealthCheck:
    """Healthy when Redis answers PING (it answers LOADING while it reads its file)."""

    async def check() -> str | None:
        try:
            async with asyncio.timeout(_HEALTH_S):
                reader, writer = await asyncio.open_connection(LOOPBACK, port)
                writer.write(b"PING\r\n")
                answer = await reader.readline()
                writer.close()
        except (OSError, TimeoutError) as error:
            return f"redis on port {port}: {type(error).__name__} {error}"
        return None if answer.startswith(b"+PONG") else f"redis on port {port}: {answer.decode(errors='replace')}"

    return check


def touched_lately(path: Path) -> HealthCheck:
    """Healthy while the child touches its ready file: the worker does every 5 s, unless it hangs."""

    async def check() -> str | None:
        try:
            age = time.time() - (await asyncio.to_thread(path.stat)).st_mtime
        except FileNotFoundError:
            return f"{path.name} does not exist yet"
        return None if age < _ALIVE_S else f"{path.name} was last touched {age:.0f} s ago"

    return check
