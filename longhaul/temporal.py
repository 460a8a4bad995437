"""Temporal for API, worker and CLI: its names, each written once; the client; one error for "cannot be reached"."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import quote

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import (
    Client,
    Interceptor,
    Plugin,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import Priority, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from longhaul.contracts import Empty, TurnInput, TurnStatus
from longhaul.errors import SetupError, UnavailableError
from longhaul.payloads import data_converter
from longhaul.settings import Settings

log = logging.getLogger(__name__)
DEFAULT_ADDRESS = "localhost:7233"

# Workflows, signals and queries. The API uses these names instead of the definitions: importing those would bring in
# what only workers need, and half as much again to the start of its process.
TURN_WORKFLOW = "TurnWorkflow"
SUB_SESSION_WORKFLOW = "SubSessionWorkflow"
REDELIVER_WORKFLOW = "RedeliverWorkflow"
BILLS_WORKFLOW = "BillsWorkflow"
SCHEDULED_RUN_WORKFLOW = "ScheduledRunWorkflow"
WEBHOOK_WORKFLOW = "WebhookWorkflow"
SEND_BY_HAND_WORKFLOW = "SendByHandWorkflow"
WAKE_SIGNAL = "wake"
FOLLOW_UP_SIGNAL = "follow_up"
SUB_SESSION_ENDED_SIGNAL = "sub_session_ended"
CALL_ANSWERED_SIGNAL = "call_answered"
PROGRESS_QUERY = "progress"
RUN_REMOTE_TOOL_ACTIVITY = "run_remote_tool"

# Memo of a turn's run: its turn; the message that started it; once it closes, the turn that a message would start.
TURN_ID_MEMO = "turn_id"
NEXT_TURN_ID_MEMO = "next_turn_id"

# Search attributes: by these the Web UI searches for turns.
USER_ATTRIBUTE = SearchAttributeKey.for_keyword("LonghaulUser")
SESSION_ATTRIBUTE = SearchAttributeKey.for_keyword("LonghaulSession")
STATUS_ATTRIBUTE = SearchAttributeKey.for_keyword("LonghaulStatus")
MODEL_ATTRIBUTE = SearchAttributeKey.for_keyword("LonghaulModel")
SEARCH_ATTRIBUTES = (USER_ATTRIBUTE.name, SESSION_ATTRIBUTE.name, STATUS_ATTRIBUTE.name, MODEL_ATTRIBUTE.name)

# A redelivery that hangs, or is pinned to a build without workers, must not keep the next ones from starting for ever.
REDELIVERY_MAX = timedelta(minutes=10)
BILLS_EVERY = timedelta(minutes=1)

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})

# A worker answers a workflow task in milliseconds, on an overloaded machine in half a second. Local activities extend
# it. When a worker dies in a task, its turn stands still for the rest of this time.
WORKFLOW_TASK_MAX = timedelta(seconds=5)

# What gRPC calls "not now"; everything else is an answer.
NOT_NOW = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.INTERNAL,
        RPCStatusCode.UNKNOWN,
    }
)


def workflow_url(settings: Settings, session_id: str) -> str | None:
    """The address of a session's turns in the Web UI; None: it is not known where people open that."""
    if not settings.temporal_ui_url:
        return None
    name = quote(workflow_id(session_id), safe="")
    return f"{settings.temporal_ui_url.rstrip('/')}/namespaces/{settings.temporal_namespace}/workflows/{name}"


def workflow_id(session_id: str) -> str:
    """The one workflow id of a session's turns: two of them cannot run at once because Temporal does not let them."""
    return f"turn:{session_id}"


def schedule_id(id_: str) -> str:
    """The id of a user's Schedule, and the first part of the ids of its runs: none of them is that of a turn."""
    return f"schedule:{id_}"


def webhook_id(id_: str) -> str:
    """The workflow id of what sends a webhook its events: one at a time, so that they keep their order."""
    return f"webhook:{id_}"


def stores_task_queue(task_queue: str) -> str:
    """The task queue of the activities that only store: they have slots of their own, beside the calls' slots."""
    return f"{task_queue}-stores"


def bills_id(task_queue: str) -> str:
    """The id of the Schedule that asks for bills."""
    return f"{task_queue}-bills"


def tools_task_queue(task_queue: str, name: str) -> str:
    """The task queue of the tool workers that serve the tools with `task_queue=name`."""
    return f"{task_queue}-tools-{name}"


def redelivery_id(task_queue: str) -> str:
    """The id of the Schedule that delivers forgotten messages again, and the first part of its workflows' ids."""
    return f"{task_queue}-redelivery"


def priority_of(user_id: str) -> Priority:
    """The priority of a user's turns: the server takes tasks from the users in turn, however many wait of one.

    Activities, sub-sessions and runs that continue as new inherit it. A key has at most 64 bytes and a user id may have
    more, hence the hash.
    """
    return Priority(fairness_key=hashlib.blake2b(user_id.encode(), digest_size=16).hexdigest())


def search_attributes_of(request: TurnInput) -> TypedSearchAttributes:
    """The search attributes that a turn starts with."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(USER_ATTRIBUTE, request.user_id),
            SearchAttributePair(SESSION_ATTRIBUTE, request.session_id),
            SearchAttributePair(STATUS_ATTRIBUTE, TurnStatus.RUNNING),
            SearchAttributePair(MODEL_ATTRIBUTE, request.model),
        ]
    )


def _config(settings: Settings) -> ClientConnectConfig:
    """How to connect: by Longhaul's settings, else by the environment and files that Temporal's own tools read."""
    config = ClientConfig.load_client_connect_config()
    if settings.temporal_address or "target_host" not in config:
        config["target_host"] = settings.temporal_address or DEFAULT_ADDRESS
    if "temporal_namespace" in settings.model_fields_set or "namespace" not in config:
        config["namespace"] = settings.temporal_namespace
    return config


def address(settings: Settings) -> str:
    """Where Temporal is."""
    return _config(settings)["target_host"]


async def connect(
    settings: Settings,
    *,
    lazy: bool = False,
    interceptors: Sequence[Interceptor] = (),
    plugins: Sequence[Plugin] = (),
    runtime: Runtime | None = None,
    identity: str | None = None,
) -> Client:
    """Connect the way every Temporal tool does (`TEMPORAL_*`, profiles of `temporal.toml`), our settings first.

    `lazy`: connect with the first call, so a process can start before Temporal does.

    Raises:
        SettingsError: the payload codec cannot be loaded.
    """
    config = _config(settings)
    on_loopback = config["target_host"].rpartition(":")[0] in LOOPBACK_HOSTS
    return await Client.connect(
        **config,
        data_converter=data_converter(settings.payload_codec),
        # Between processes of one machine, bytes cost less than their compression.
        grpc_compression=GrpcCompression.NONE if on_loopback else GrpcCompression.GZIP,
        interceptors=interceptors,
        plugins=plugins,
        runtime=runtime,
        identity=identity,
        lazy=lazy,
    )


@asynccontextmanager
async def reachable(seconds: float) -> AsyncIterator[None]:
    """Bound calls to Temporal, the SDK's own retries included; answers such as NOT_FOUND pass through.

    Raises:
        UnavailableError: no answer in time.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UnavailableError("Temporal") from error
    except RPCError as error:
        if error.status in NOT_NOW:
            raise UnavailableError("Temporal") from error
        raise
    except RuntimeError as error:
        # What the first call of a lazy client raises when it finds no server; only its text tells it from a bug.
        if "client connect" in str(error):
            raise UnavailableError("Temporal") from error
        raise


async def register_search_attributes(client: Client) -> None:
    """Make sure that all search attributes exist in the client's namespace; calling it again changes nothing.

    The embedded stack's server gets them by flags at its start; this is for an external Temporal.

    Raises:
        SetupError: one exists with another type, or this client may not add them.
        RPCError: Temporal cannot be reached now.
    """
    try:
        present = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        known = present.custom_attributes
        wrong = [name for name in SEARCH_ATTRIBUTES if name in known and known[name] != keyword]
        if wrong:
            raise SetupError(
                f"search attributes {', '.join(wrong)} of namespace {client.namespace!r} are not of type Keyword; "
                "remove or rename them, or set TEMPORAL_NAMESPACE to another namespace"
            )
        missing = [name for name in SEARCH_ATTRIBUTES if name not in known]
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace, search_attributes=dict.fromkeys(missing, keyword)
                )
            )
    except RPCError as error:
        if error.status == RPCStatusCode.ALREADY_EXISTS:  # another worker was faster
            return
        if error.status in NOT_NOW:  # `reachable` gives that its name
            raise
        flags = " ".join(f"--name {name} --type Keyword" for name in SEARCH_ATTRIBUTES)
        raise SetupError(
            f"cannot register search attributes in Temporal namespace {client.namespace!r} ({error.status.name}: "
            f"{error.message}). An administrator of that namespace can create them: "
            f"temporal operator search-attribute create --namespace {client.namespace} {flags}"
        ) from error


async def schedule_redelivery(client: Client, settings: Settings) -> None:
    """Make sure of the Schedule that delivers forgotten messages again, or of its absence if the settings turn it off.

    Raises:
        RPCError: Temporal cannot be reached now.
    """
    await _schedule(
        client,
        settings.task_queue,
        redelivery_id(settings.task_queue),
        REDELIVER_WORKFLOW,
        timedelta(seconds=settings.redeliver_after),
        does="delivers forgotten messages again",
        refused="messages whose delivery failed wait for the next message of their session. Allow this worker to write "
        f"Schedules in namespace {client.namespace!r}, or set LONGHAUL_REDELIVER_AFTER=0.",
    )


async def schedule_bills(client: Client, settings: Settings, *, wanted: bool) -> None:
    """Make sure of the Schedule that asks for the bills of calls that broke off, or of its absence.

    Raises:
        RPCError: Temporal cannot be reached now.
    """
    await _schedule(
        client,
        settings.task_queue,
        bills_id(settings.task_queue),
        BILLS_WORKFLOW,
        BILLS_EVERY if wanted else timedelta(),
        does="asks for the bills of calls that broke off",
        refused="the costs of calls that broke off stay estimates. Allow this worker to write Schedules in namespace "
        f"{client.namespace!r}, or set LONGHAUL_MODEL_LATE_BILLS=false.",
    )


async def _schedule(
    client: Client, task_queue: str, schedule_id: str, workflow: str, after: timedelta, *, does: str, refused: str
) -> None:
    """Make sure of a Schedule, or of its absence if `after` is 0.

    An existing one gets the current interval and stays paused if it is paused. Without it nothing else is lost, so a
    server that refuses it costs a warning.
    """
    handle = client.get_schedule_handle(schedule_id)
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            workflow,
            Empty(),
            id=schedule_id,
            task_queue=task_queue,
            execution_timeout=REDELIVERY_MAX,
            static_summary=does,
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=max(after, timedelta(seconds=1)))]),
        # A run that is late, or that was missed while the server was away, is not made up for: the next one does it.
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=10)),
    )

    def updated(current: ScheduleUpdateInput) -> ScheduleUpdate | None:
        stored = current.description.schedule
        if [interval.every for interval in stored.spec.intervals] == [schedule.spec.intervals[0].every]:
            return None  # An update would undo a pause that the server does not show yet.
        schedule.state = stored.state
        return ScheduleUpdate(schedule)

    try:
        if not after:
            await handle.delete()
            return
        try:
            await client.create_schedule(schedule_id, schedule)
        except ScheduleAlreadyRunningError:
            await handle.update(updated)
    except RPCError as error:
        if error.status in NOT_NOW:  # `reachable` gives that its name
            raise
        if error.status == RPCStatusCode.NOT_FOUND:  # there is none to delete, or another worker deleted it
            return
        log.warning(
            "Temporal refuses the Schedule %s (%s: %s), so %s", schedule_id, error.status.name, error.message, refused
        )
