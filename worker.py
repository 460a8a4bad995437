"""A worker process: builds clients and activities, runs them until SIGTERM, closes what it opened.

With `--role tools` it is a tool worker: it runs the tools of one queue, and knows neither database nor Redis nor model.

After SIGTERM it takes no new tasks; running activities get `LONGHAUL_SHUTDOWN_GRACE` seconds and are then handed over.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import platform
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.attempt import HEARTBEAT_THROTTLE, HeartbeatInterceptor, TurnStreams
from activities.bills import BillActivities
from activities.compaction import CompactionActivities
from activities.dead_workers import DeadWorkers
from activities.journal import Journal, JournalInterceptor, JournalRunner, Journals
from activities.model import ModelActivities
from activities.parked import ParkedActivities
from activities.queued_tools import QueuedToolActivities
from activities.redelivery import RedeliveryActivities
from activities.remote_api import ToolCallApi
from activities.remote_tools import RemoteToolActivities
from activities.schedules import ScheduleActivities
from activities.sub_sessions import SubSessionActivities
from activities.title import Titles
from activities.tools import ToolActivities
from activities.turns import TurnActivities
from activities.webhooks import WebhookActivities
from longhaul import __version__, redis, temporal
from longhaul.db.database import Database
from longhaul.errors import SetupError, UnavailableError
from longhaul.files.store import FileStore
from longhaul.limits.counters import SpendingCounters
from longhaul.limits.usage import UsageLimits
from longhaul.llm.bills import knows_bills
from longhaul.llm.client import ModelClient
from longhaul.mcp.config import ServerConfig, load_servers
from longhaul.payloads import data_converter
from longhaul.remote_tools.keys import WorkerKey
from longhaul.settings import Settings, SettingsError, load_settings
from longhaul.settings.values import without_secrets
from longhaul.tools import Registry
from longhaul.tools.load import load_tools
from longhaul.tools.registry import QUEUE_NAME
from longhaul.turns import stop_notices
from longhaul.webhooks.wake import WebhookAlarm
from workflows.bills import BillsWorkflow
from workflows.redelivery import RedeliverWorkflow
from workflows.schedules import ScheduledRunWorkflow
from workflows.turn import SubSessionWorkflow, TurnWorkflow
from workflows.webhooks import SendByHandWorkflow, WebhookWorkflow

log = logging.getLogger("longhaul.worker")
CONNECT_PATIENCE_S, CONNECT_PAUSE_S = 60.0, 1.0
ALIVE_EVERY_S = 5.0
# A tool worker hears of a Stop by its heartbeats alone.
TOOL_HEARTBEAT_S = 1.0
DEFAULT_QUEUE = "tools"
# A workflow task waits so long for the worker that has its run in memory, then for any. The run is then replayed.
STICKY_MAX = timedelta(seconds=2)
# Importing our modules again for every replayed run would take time and change nothing.
RESTRICTIONS = SandboxRestrictions.default.with_passthrough_modules("activities", "longhaul", "pydantic", "workflows")

# Else the SDK reads and hashes every imported module for a name: most of a worker's start.
BUILD_ID = f"longhaul-{__version__}"
WORKFLOWS = (
    *(TurnWorkflow, SubSessionWorkflow, RedeliverWorkflow, BillsWorkflow, ScheduledRunWorkflow),
    *(WebhookWorkflow, SendByHandWorkflow),
)

# A defect in workflow code ends the run visibly, instead of a task that is retried for ever. `NondeterminismError` is
# left out on purpose: code that does not fit a running turn must be rolled back, and then the turn goes on.
DEFECTS = [ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError]


def workflow_options(*, sandboxed: bool = True) -> dict[str, Any]:
    """How workflow code is run, here and where recorded histories are replayed.

    The linter and the replays, which run in the sandbox, watch over our workflow code. A worker runs it without: the
    sandbox would take a tenth of its CPU.
    """
    return {
        "workflows": WORKFLOWS,
        "workflow_runner": SandboxedWorkflowRunner(restrictions=RESTRICTIONS)
        if sandboxed
        else UnsandboxedWorkflowRunner(),
        "workflow_failure_exception_types": DEFECTS,
    }


@dataclass(frozen=True)
class Activities:
    """All activities of a worker. `calls` run models and tools and may take hours; `stores` take milliseconds."""

    calls: Sequence[Callable[..., Any]]
    stores: Sequence[Callable[..., Any]]


def build(
    client: Client,
    settings: Settings,
    activities: Activities,
    heartbeats: HeartbeatInterceptor,
    journal: Journal | None = None,
) -> list[Worker]:
    """The workers of a process: one for workflows and calls, one for stores, so that no store waits behind a call.

    Their workflows are pinned to their build id when the settings name one.
    """
    versioning = None
    if settings.build_id:
        versioning = WorkerDeploymentConfig(
            version=WorkerDeploymentVersion(settings.deployment_name, settings.build_id),
            use_worker_versioning=True,
            default_versioning_behavior=VersioningBehavior.PINNED,
        )
    interceptors: list[Interceptor] = [heartbeats]
    options = workflow_options(sandboxed=False)
    if journal is not None:
        interceptors.append(JournalInterceptor(journal))
        options["workflow_runner"] = JournalRunner(journal)
    same: dict[str, Any] = {
        **_same_options(settings),
        "interceptors": interceptors,
        "deployment_config": versioning,
        "build_id": None if versioning else BUILD_ID,
    }
    return [
        Worker(
            client,
            task_queue=settings.task_queue,
            # Stores run here as local activities, and for turns that were scheduled before stores had a queue.
            activities=[*activities.calls, *activities.stores],
            max_concurrent_activities=settings.max_concurrent_activities,
            sticky_queue_schedule_to_start_timeout=STICKY_MAX,
            **options,
            **same,
        ),
        Worker(
            client,
            task_queue=temporal.stores_task_queue(settings.task_queue),
            activities=activities.stores,
            max_concurrent_activities=settings.max_concurrent_stores,
            **same,
        ),
    ]


def _same_options(settings: Settings) -> dict[str, Any]:
    return {
        "max_heartbeat_throttle_interval": min(timedelta(seconds=settings.heartbeat_interval), HEARTBEAT_THROTTLE),
        "graceful_shutdown_timeout": timedelta(seconds=settings.shutdown_grace),
    }


@asynccontextmanager
async def polling(workers: Sequence[Worker]) -> AsyncIterator[None]:
    """Let workers poll until the block ends; then they all drain at the same time."""
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        try:
            yield
        finally:
            await asyncio.gather(*(worker.shutdown() for worker in workers))


@asynccontextmanager
async def serving(
    client: Client, settings: Settings, registry: Registry, mcp: Mapping[str, ServerConfig] | None = None
) -> AsyncIterator[None]:
    """Open the other clients, build the activities, and let the workers poll until the block ends."""
    async with AsyncExitStack() as stack:
        if mcp:
            from longhaul.mcp.servers import McpServers  # the SDK takes half a second, which others need not wait

            servers = await stack.enter_async_context(McpServers(mcp, registry, settings).running())
            registry = registry.with_source(servers)
        journals = Journals.of(settings.journals, f"{temporal.address(settings)} {client.namespace}")
        await stack.enter_async_context(_beside(DeadWorkers(client, journals, settings.heartbeat_timeout).watch()))
        database = Database(settings.sqlalchemy_url)
        stack.push_async_callback(database.close)
        redis_client = redis.connect(settings)
        stack.push_async_callback(redis_client.aclose)
        model_client = ModelClient(settings)
        stack.push_async_callback(model_client.close)
        streams = TurnStreams(redis_client, settings)
        titles = Titles(database, streams, model_client, settings)
        stack.push_async_callback(titles.close)
        counters = SpendingCounters(redis_client, database, settings.redis_timeout)
        database.count_bookings = counters.count
        usage = UsageLimits(database, counters, settings.tiers)
        turns = TurnActivities(database, streams, titles, usage, settings)
        model = ModelActivities(database, streams, model_client, registry, FileStore(settings), settings)
        compaction = CompactionActivities(database, streams, model_client, settings)
        tools = ToolActivities(database, streams, registry, settings)
        queued = QueuedToolActivities(database, streams, registry, settings)
        parked = ParkedActivities(database, streams, registry, settings)
        sub_sessions = SubSessionActivities(database, streams, client, redis_client, registry, usage, settings)
        scheduled = ScheduleActivities(database, client, usage, settings)
        alarm = WebhookAlarm(database, client, settings)
        stack.push_async_callback(alarm.close)
        database.announce_events = alarm.announce
        sending = WebhookActivities(database, settings)
        activities = Activities(
            calls=[
                *(model.call_model, compaction.compact_context, tools.run_tool, tools.quick_tool),
                *(sending.send_waiting, sending.send_by_hand),
            ],
            stores=[
                turns.open_turn,
                turns.take_inbox,
                turns.close_turn,
                tools.store_tool_result,
                queued.open_tool_call,
                queued.settle_tool_call,
                parked.park_call,
                parked.settle_call,
                sub_sessions.prepare_sub_session,
                sub_sessions.look_at_sub_session,
                sub_sessions.report_sub_session,
                sub_sessions.stop_sub_sessions,
                RedeliveryActivities(database, client, alarm, settings).redeliver_forgotten,
                BillActivities(database, model_client).correct_estimates,
                scheduled.deliver_scheduled,
                scheduled.await_scheduled,
            ],
        )
        heartbeats = HeartbeatInterceptor(settings.heartbeat_interval)
        await stack.enter_async_context(_beside(stop_notices.listen(redis_client, heartbeats.session_stopped)))
        journal = stack.enter_context(journals.own(client.identity))
        await stack.enter_async_context(polling(build(client, settings, activities, heartbeats, journal)))
        yield


@asynccontextmanager
async def serving_tools(
    client: Client, settings: Settings, registry: Registry, queue: str, key: WorkerKey
) -> AsyncIterator[None]:
    """Let a tool worker poll until the block ends. It opens connections to Temporal and to the API only."""
    url = settings.api_url or f"http://{settings.api_host}:{settings.api_port}"
    async with contextlib.aclosing(ToolCallApi(url, key, settings.storage_window)) as api:
        worker = Worker(
            client,
            task_queue=temporal.tools_task_queue(settings.task_queue, queue),
            activities=[RemoteToolActivities(api, registry).run_remote_tool],
            max_concurrent_activities=settings.max_concurrent_activities,
            interceptors=[HeartbeatInterceptor(min(settings.heartbeat_interval, TOOL_HEARTBEAT_S))],
            build_id=BUILD_ID,
            **_same_options(settings),
        )
        async with polling([worker]):
            log.info("tool worker ready on queue %s, with the API at %s", worker.task_queue, without_secrets(url))
            yield


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do other work until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def run_tools(settings: Settings, registry: Registry, queue: str) -> None:
    """Run a tool worker until SIGTERM or SIGINT."""
    stop, key = _stop_event(), WorkerKey()
    if not any(tool.task_queue == queue for tool in registry):
        log.warning("no tool here says task_queue=%r; set LONGHAUL_TOOLS as on the other workers", queue)
    client = await _connected(settings, stop, key.named(_identity()), sets_up=False)
    if client is None:
        return
    async with serving_tools(client, settings, registry, queue, key):
        await _show_alive(stop)
        log.info("tool worker drains for up to %g s", settings.shutdown_grace)


async def run(settings: Settings, registry: Registry, mcp: Mapping[str, ServerConfig] | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    stop = _stop_event()
    if not settings.workspaces:  # the embedded stack sets it
        log.warning(
            "LONGHAUL_WORKSPACES is not set: files of sessions are in %s, on this machine only. With workers or APIs "
            "on several hosts, set it on all of them to the same folder of a shared file system.",
            (settings.home / "workspaces").absolute(),
        )
    client = await _connected(settings, stop, _identity(), sets_up=True)
    if client is None:
        return
    async with serving(client, settings, registry, mcp):
        log.info("worker ready on task queue %s", settings.task_queue)
        await _show_alive(stop)
        log.info("worker drains for up to %g s", settings.shutdown_grace)


async def _show_alive(stop: asyncio.Event) -> None:
    """Touch the ready file until the worker is asked to stop. A worker whose event loop hangs does not touch it."""
    file = os.environ.get("LONGHAUL_READY_FILE")
    while not stop.is_set():
        try:
            if file:
                await asyncio.to_thread(Path(file).touch)
        except OSError as error:
            log.warning("the ready file cannot be touched: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), ALIVE_EVERY_S)


async def _connected(settings: Settings, stop: asyncio.Event, identity: str, *, sets_up: bool) -> Client | None:
    """Temporal's client, as soon as Temporal answers: it may be started after this process. None: stopped meanwhile.

    `identity`: the name of this process there. `sets_up`: make sure of what all workers need there.

    Raises:
        UnavailableError: Temporal did not answer for a minute; the supervisor of this process starts it again.
    """
    runtime, patience = _runtime(settings), time.monotonic() + CONNECT_PATIENCE_S
    while not stop.is_set():
        try:
            async with temporal.reachable(settings.temporal_rpc_timeout):
                client = await temporal.connect(settings, runtime=runtime, identity=identity)
                if sets_up:
                    await temporal.register_search_attributes(client)
                    await temporal.schedule_redelivery(client, settings)
                    await temporal.schedule_bills(client, settings, wanted=knows_bills(settings))
                return client
        except UnavailableError:
            if time.monotonic() > patience:
                raise
            log.warning("Temporal at %s does not answer; the worker waits for it", temporal.address(settings))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), CONNECT_PAUSE_S)
    return None


def _identity() -> str:
    """This process' name at the server. A container that is started again has the same host and process id."""
    return f"{os.getpid()}@{platform.node()}-{secrets.token_hex(4)}"


def _runtime(settings: Settings) -> Runtime | None:
    if not settings.worker_metrics_port:
        return None
    address = f"{settings.metrics_host}:{settings.worker_metrics_port}"
    return Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=address)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="longhaul worker")
    parser.add_argument("--role", choices=("all", "tools"), default="all")
    parser.add_argument("--queue", default=DEFAULT_QUEUE)
    arguments = parser.parse_args()
    if not QUEUE_NAME.fullmatch(arguments.queue):
        parser.error("a queue has 1 to 64 letters, digits, _, - and .")
    return arguments


def main() -> int:
    """The process; 0 after a clean stop, 1 without Temporal, 2 for a wrong setting or argument."""
    arguments = _arguments()
    try:
        settings = load_settings()
        registry = load_tools(settings)
        mcp = load_servers(settings)
        data_converter(settings.payload_codec)  # here, so that a wrong one is one line
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            is_tool_worker = arguments.role == "tools"
            work = run_tools(settings, registry, arguments.queue) if is_tool_worker else run(settings, registry, mcp)
            uvloop.run(work)
        except SetupError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        except UnavailableError as error:
            sys.stderr.write(f"{error} (TEMPORAL_ADDRESS: {temporal.address(settings)})\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
