"""A worker process: builds clients and activities, runs them until SIGTERM, closes what it opened.

Nothing is taken any more after SIGTERM; what runs gets `LONGHAUL_SHUTDOWN_GRACE` seconds, then it is handed over.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.attempt import HeartbeatInterceptor, TurnStreams
from activities.model import ModelActivities
from activities.sub_sessions import SubSessionActivities
from activities.title import Titles
from activities.tools import ToolActivities
from activities.turns import TurnActivities
from longhaul import __version__, redis, temporal
from longhaul.db.database import Database
from longhaul.errors import SetupError, UnavailableError
from longhaul.llm.client import ModelClient
from longhaul.settings import Settings, SettingsError, load_settings
from longhaul.tools import Registry, default_tools
from longhaul.tools.registry import load_tools
from workflows.turn import SubSessionWorkflow, TurnWorkflow

log = logging.getLogger("longhaul.worker")
CONNECT_PATIENCE_S, CONNECT_PAUSE_S = 60.0, 1.0
# Importing our modules anew for every replayed run would take time and find nothing.
RESTRICTIONS = SandboxRestrictions.default.with_passthrough_modules("activities", "longhaul", "pydantic", "workflows")

# A bug in workflow code ends the run where people see it, instead of a task retried for ever. Left out on purpose is
# `NondeterminismError`: code that does not fit a running turn must be taken back, and the turn then goes on.
DEFECTS = [ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError]


def workflow_options(*, sandboxed: bool = True) -> dict[str, Any]:
    """How workflow code is run, here and where recorded histories are replayed.

    The linter and the replays, which run in the sandbox, watch over our workflow code. A worker runs it without: the
    sandbox would take a tenth of its CPU.
    """
    return {
        "workflows": [TurnWorkflow, SubSessionWorkflow],
        "workflow_runner": SandboxedWorkflowRunner(restrictions=RESTRICTIONS)
        if sandboxed
        else UnsandboxedWorkflowRunner(),
        "workflow_failure_exception_types": DEFECTS,
    }


def build(
    client: Client,
    settings: Settings,
    *,
    database: Database,
    streams: TurnStreams,
    model_client: ModelClient,
    titles: Titles,
    registry: Registry,
) -> Worker:
    """A worker for one task queue; its workflows are pinned to its build id when it has one."""
    turns = TurnActivities(database, streams, titles, settings)
    model = ModelActivities(database, streams, model_client, registry, settings)
    tools = ToolActivities(database, streams, registry, settings)
    subs = SubSessionActivities(database, streams, client, settings)
    versioning = None
    if settings.build_id:
        versioning = WorkerDeploymentConfig(
            version=WorkerDeploymentVersion(settings.deployment_name, settings.build_id),
            use_worker_versioning=True,
            default_versioning_behavior=VersioningBehavior.PINNED,
        )
    return Worker(
        client,
        task_queue=settings.task_queue,
        activities=[
            turns.open_turn,
            turns.take_inbox,
            turns.close_turn,
            model.call_model,
            tools.run_tool,
            tools.store_tool_result,
            tools.quick_tool,
            subs.prepare_sub_session,
            subs.look_at_sub_session,
            subs.report_sub_session,
        ],
        interceptors=[HeartbeatInterceptor(settings.heartbeat_interval)],
        max_concurrent_activities=settings.max_concurrent_activities,
        max_heartbeat_throttle_interval=timedelta(seconds=settings.heartbeat_interval),
        graceful_shutdown_timeout=timedelta(seconds=settings.shutdown_grace),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=min(5.0, settings.heartbeat_timeout)),
        deployment_config=versioning,
        # Else the SDK reads and hashes every imported module for a name: most of a worker's start.
        build_id=None if versioning else f"longhaul-{__version__}",
        **workflow_options(sandboxed=False),
    )


async def run(settings: Settings, tools: Registry) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        database = Database(settings.sqlalchemy_url)
        stack.push_async_callback(database.close)
        redis_client = redis.connect(settings)
        stack.push_async_callback(redis_client.aclose)
        model_client = ModelClient(settings)
        stack.push_async_callback(model_client.close)
        streams = TurnStreams(redis_client, settings)
        titles = Titles(database, streams, model_client, settings.model_small)
        stack.push_async_callback(titles.close)
        client = await _connected(settings, stop)
        if client is None:
            return
        async with build(
            client,
            settings,
            database=database,
            streams=streams,
            model_client=model_client,
            titles=titles,
            registry=tools,
        ):
            log.info("worker ready on task queue %s", settings.task_queue)
            if ready := os.environ.get("LONGHAUL_READY_FILE"):
                await asyncio.to_thread(Path(ready).touch)
            await stop.wait()
            log.info("worker drains for up to %g s", settings.shutdown_grace)


async def _connected(settings: Settings, stop: asyncio.Event) -> Client | None:
    """Temporal's client, as soon as it answers: it may be started later, or again. None: asked to stop meanwhile.

    Raises:
        UnavailableError: it did not answer for a minute; whoever supervises this process starts it anew.
    """
    runtime, patience = _runtime(settings), time.monotonic() + CONNECT_PATIENCE_S
    while not stop.is_set():
        try:
            async with temporal.reachable(settings.temporal_rpc_timeout):
                client = await temporal.connect(settings, runtime=runtime)
                await temporal.register_search_attributes(client)
                return client
        except UnavailableError:
            if time.monotonic() > patience:
                raise
            log.warning("Temporal at %s does not answer; the worker waits for it", temporal.address(settings))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), CONNECT_PAUSE_S)
    return None


def _runtime(settings: Settings) -> Runtime | None:
    if not settings.worker_metrics_port:
        return None
    return Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(f"127.0.0.1:{settings.worker_metrics_port}")))


def main() -> int:
    """The process; 0 after a clean stop, 1 without Temporal, 2 for a wrong setting."""
    try:
        settings = load_settings()
        tools = load_tools(settings.tools) if settings.tools else default_tools()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            uvloop.run(run(settings, tools))
        except SetupError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        except UnavailableError as error:
            sys.stderr.write(f"{error} (TEMPORAL_ADDRESS: {temporal.address(settings)})\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
