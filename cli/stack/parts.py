"""The children of the stack: their command lines, health checks and time limits."""

import sys
from collections.abc import Mapping
from pathlib import Path

from cli.stack.child import ChildSpec
from cli.stack.health import file_exists, http_ok, redis_pong
from cli.stack.redis_binary import RedisBinary
from cli.stack.temporal_binary import TemporalBinary
from longhaul.settings import Settings
from longhaul.temporal import SEARCH_ATTRIBUTES

LOOPBACK = "127.0.0.1"
# Here and not beside their registration, so that the command line need not load the Temporal SDK.
# Stock, the dev server hands out 20 tasks a second per shard; these flags make a turn seven times as fast.
_TEMPORAL_FLAGS = (
    *("--dynamic-config-value", "history.transferProcessorMaxPollRPS=2000"),
    *("--dynamic-config-value", "system.enableActivityEagerExecution=true"),
    *("--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=normal"),
    *("--log-level", "warn"),
)


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """Run one of our modules; `-P` keeps a module of the same name in the current folder from taking its place."""
    return (sys.executable, "-P", "-m", module, *arguments)


def temporal_command(binary: Path, database: Path, port: int, ui_port: int | None, namespace: str) -> tuple[str, ...]:
    """The dev server with its database on disk, our search attributes and its limits lifted. No `ui_port`: no UI."""
    ui = ("--ui-port", str(ui_port)) if ui_port is not None else ("--headless",)
    attributes = [part for name in SEARCH_ATTRIBUTES for part in ("--search-attribute", f"{name}=Keyword")]
    return (
        *(str(binary), "server", "start-dev", "--ip", LOOPBACK, "--port", str(port), *ui),
        *("--db-filename", str(database), "--namespace", namespace),
        *_TEMPORAL_FLAGS,
        *attributes,
    )


def temporal_part(
    binary: TemporalBinary, settings: Settings, ports: Mapping[str, int], env: Mapping[str, str]
) -> ChildSpec:
    """Temporal; its Web UI asks the frontend, so one request checks UI, frontend and namespace."""
    port, ui_port, namespace = ports["temporal"], ports["temporal_ui"], settings.temporal_namespace
    return ChildSpec(
        name="temporal",
        argv=temporal_command(binary.path, settings.home.absolute() / "temporal.db", port, ui_port, namespace),
        env=env,
        health=http_ok(f"http://{LOOPBACK}:{ui_port}/api/v1/namespaces/{namespace}"),
        start_seconds=90,
    )


def redis_part(binary: RedisBinary, settings: Settings, ports: Mapping[str, int], env: Mapping[str, str]) -> ChildSpec:
    """Redis with snapshots: what it holds can be had again, so an append-only file would only cost time."""
    folder = settings.home.absolute() / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    port = ports["redis"]
    return ChildSpec(
        name="redis",
        argv=(
            *(str(binary.path), "--bind", LOOPBACK, "--port", str(port), "--dir", str(folder)),
            *("--save", "60 1", "--appendonly", "no", "--daemonize", "no"),
        ),
        env=env,
        health=redis_pong(LOOPBACK, port),
        start_seconds=30,
    )


def model_part(ports: Mapping[str, int], env: Mapping[str, str]) -> ChildSpec:
    """The offline model."""
    port = ports["model"]
    return ChildSpec(
        name="model",
        argv=python_module("offline_model", "--host", LOOPBACK, "--port", str(port)),
        env=env,
        health=http_ok(f"http://{LOOPBACK}:{port}/healthz"),
        grace=5,
    )


def worker_part(settings: Settings, env: Mapping[str, str]) -> ChildSpec:
    """The worker, which gets its own grace and a little more before it is killed."""
    ready = settings.home.absolute() / "run" / "worker.ready"
    return ChildSpec(
        name="worker",
        argv=python_module("worker"),
        env={**env, "LONGHAUL_READY_FILE": str(ready)},
        health=file_exists(ready),
        grace=settings.shutdown_grace + 5,
        ready_file=ready,
    )


def api_part(api_url: str, env: Mapping[str, str]) -> ChildSpec:
    """The API; ready means that it reaches the database and Temporal too."""
    return ChildSpec(name="api", argv=python_module("api"), env=env, health=http_ok(f"{api_url}/readyz"), grace=10)


__all__ = [
    "LOOPBACK",
    "api_part",
    "model_part",
    "python_module",
    "redis_part",
    "temporal_command",
    "temporal_part",
    "worker_part",
]
