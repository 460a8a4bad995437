"""Time-outs and retry policies, named and in one place; a typo here fails at import, not in a hanging run."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig, LocalActivityConfig

from longhaul import temporal
from longhaul.contracts import TurnLimits

# Defects: trying again cannot help, and the turn should fail visibly instead.
DEFECTS = [
    *("TypeError", "ValueError", "KeyError", "IndexError", "AttributeError", "AssertionError", "RuntimeError"),
    "PayloadsTooLarge",  # Temporal's own name for a result beyond its limit; it would be as large the next time
    *("ValidationError", "IntegrityError", "ProgrammingError", "DataError", "MissingGreenlet", "JSONDecodeError"),
]

# The database may be away for as long as `storage_window`; its time-out, not a count, ends the tries.
STORAGE_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
    non_retryable_error_types=DEFECTS,
)
# Waits between tries are set by the activity (`next_retry_delay`); this policy spaces those after a dead worker.
CALL_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=100),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
    non_retryable_error_types=DEFECTS,
)
STORE_ONCE = timedelta(seconds=60)
# Beyond what the activity itself gives the model (`COMPACTION_S`), so that it still books the call.
COMPACT_ONCE = timedelta(seconds=360)
# A scheduled message that cannot be delivered for so long is given up; the next run delivers the next one.
SCHEDULED_DELIVERY_MAX = timedelta(hours=1)
# A turn may wait for people for days. A run that waits longer than this does not keep the next ones from starting.
SCHEDULED_TURN_MAX = timedelta(days=7)
# Between attempts to reach the receiver of a webhook; the last one stays. A day has 17 of them.
WEBHOOK_PAUSES = (
    *(timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10)),
    *(timedelta(minutes=30), timedelta(hours=1), timedelta(hours=2)),
)
# An activity that sends events works for half a minute, and then for as long as one receiver may take.
SEND_ONCE, SEND_MAX, SEND_SILENT = timedelta(minutes=5), timedelta(hours=1), timedelta(seconds=30)
# The longest wait before a tool that ended by an exception is started again.
TOOL_RETRY_MAX_S = 30.0
# Beyond this a wait between tries is a timer: waiting inside a workflow task holds one of the worker's few slots.
LOCAL_RETRY_THRESHOLD = timedelta(milliseconds=300)


def storing(limits: TurnLimits, summary: str) -> ActivityConfig:
    """Options of activities that read and write rows. Their own task queue keeps them from waiting behind calls."""
    return {
        "task_queue": temporal.stores_task_queue(workflow.info().task_queue),
        "start_to_close_timeout": STORE_ONCE,
        "schedule_to_close_timeout": timedelta(seconds=limits.storage_window),
        "heartbeat_timeout": timedelta(seconds=limits.heartbeat_timeout),
        "retry_policy": STORAGE_RETRY,
        "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        "summary": summary,
    }


def placing(limits: TurnLimits, summary: str) -> LocalActivityConfig:
    """Options of local activities that place messages: done inside the workflow task, at a third of the cost.

    A local activity may be done again, with more messages, when its task is: fine for placing, whose rows stay where
    they are. Ending a turn is not of that kind (it must not be done in a task that the server then refuses), and
    model calls and tools want heartbeats; all those are ordinary activities.
    """
    return {
        "start_to_close_timeout": STORE_ONCE,
        "schedule_to_close_timeout": timedelta(seconds=limits.storage_window),
        "local_retry_threshold": LOCAL_RETRY_THRESHOLD,
        "retry_policy": STORAGE_RETRY,
        "summary": summary,
    }


def redelivering() -> ActivityConfig:
    """Options of the redelivery of forgotten messages. The Schedule repeats it, so few tries are enough."""
    return {
        "task_queue": temporal.stores_task_queue(workflow.info().task_queue),
        "start_to_close_timeout": STORE_ONCE,
        "schedule_to_close_timeout": temporal.REDELIVERY_MAX / 2,
        "retry_policy": RetryPolicy(maximum_attempts=3, non_retryable_error_types=DEFECTS),
        "summary": "deliver forgotten messages again",
    }


def asking_for_bills() -> ActivityConfig:
    """Options of asking for the bills of calls that broke off. The Schedule repeats it, so one try is enough."""
    return {
        "task_queue": temporal.stores_task_queue(workflow.info().task_queue),
        "start_to_close_timeout": temporal.REDELIVERY_MAX / 2,
        "retry_policy": RetryPolicy(maximum_attempts=1),
        "summary": "ask for the bills of calls that broke off",
    }


def delivering_scheduled() -> ActivityConfig:
    """Options of the delivery of a scheduled message, while the database or Temporal is away for a while."""
    return {
        "task_queue": temporal.stores_task_queue(workflow.info().task_queue),
        "start_to_close_timeout": STORE_ONCE,
        "schedule_to_close_timeout": SCHEDULED_DELIVERY_MAX,
        "retry_policy": RetryPolicy(
            initial_interval=timedelta(seconds=1),
            maximum_interval=timedelta(seconds=30),
            non_retryable_error_types=DEFECTS,
        ),
        "summary": "deliver the scheduled message",
    }


def awaiting_scheduled() -> ActivityConfig:
    """Options of the wait for a scheduled turn: each look is an attempt, and attempts add nothing to the history."""
    return {
        "task_queue": temporal.stores_task_queue(workflow.info().task_queue),
        "start_to_close_timeout": STORE_ONCE,
        "schedule_to_close_timeout": SCHEDULED_TURN_MAX,
        "retry_policy": RetryPolicy(
            initial_interval=timedelta(seconds=1),
            backoff_coefficient=1.5,
            maximum_interval=timedelta(seconds=30),
            non_retryable_error_types=DEFECTS,
        ),
        "summary": "wait for the turn",
    }


def webhook_pause(failures: int) -> timedelta:
    """The pause behind so many attempts that failed in a row."""
    return WEBHOOK_PAUSES[min(failures, len(WEBHOOK_PAUSES)) - 1]


def sending_events() -> ActivityConfig:
    """Options of sending events. It waits for receivers, so it runs among the calls; its retries are for the database:
    a receiver that fails is a result.
    """
    return {
        "start_to_close_timeout": SEND_ONCE,
        "schedule_to_close_timeout": SEND_MAX,
        "heartbeat_timeout": SEND_SILENT,
        "retry_policy": STORAGE_RETRY,
        "summary": "send events",
    }


def sending_by_hand() -> ActivityConfig:
    """Options of sending one event because somebody waits for it: a late one would be of no use."""
    return {
        "start_to_close_timeout": STORE_ONCE,
        "schedule_to_close_timeout": STORE_ONCE,
        "heartbeat_timeout": SEND_SILENT,
        "retry_policy": STORAGE_RETRY,
        "summary": "send one event",
    }


def calling_model(limits: TurnLimits, summary: str) -> ActivityConfig:
    """Options of a model call; its stop waits until the partial text is stored.

    The activity itself ends a call after `model_max_seconds`, and then waits for the database.
    """
    longest = timedelta(seconds=limits.model_max_seconds + limits.storage_window)
    return {
        "start_to_close_timeout": longest,
        "schedule_to_close_timeout": longest,
        "heartbeat_timeout": timedelta(seconds=limits.heartbeat_timeout),
        "retry_policy": CALL_RETRY,
        "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        "summary": summary,
    }


def compacting(limits: TurnLimits, summary: str) -> ActivityConfig:
    """Options of a compaction: it is optional, so it is not tried for long."""
    return {
        "start_to_close_timeout": COMPACT_ONCE,
        "schedule_to_close_timeout": COMPACT_ONCE * 2,
        "heartbeat_timeout": timedelta(seconds=limits.heartbeat_timeout),
        "retry_policy": CALL_RETRY,
        "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        "summary": summary,
    }


def running_quick_tool(limits: TurnLimits, summary: str) -> LocalActivityConfig:
    """Options of a tool run as a local activity: for tools that may be run again with their workflow task.

    As with `running_tool`, the activity itself ends the tool; its result then has `STORE_ONCE` to be stored.
    """
    return {
        "start_to_close_timeout": timedelta(seconds=limits.tool_timeout) + STORE_ONCE,
        "schedule_to_close_timeout": timedelta(seconds=limits.tool_timeout + limits.storage_window) + STORE_ONCE,
        "local_retry_threshold": LOCAL_RETRY_THRESHOLD,
        "retry_policy": CALL_RETRY,
        "summary": summary,
    }


def running_remote_tool(
    limits: TurnLimits, summary: str, timeout: float, retries: int, queue: str, remote_call_id: str
) -> ActivityConfig:
    """Options of a tool run on a tool worker, which waits for the API as others wait for the database.

    The activity has the id of the call's row, so that the API knows which worker has the call.
    """
    waits_s = limits.storage_window
    options = running_tool(limits, summary, timeout, retries)
    longest = options["schedule_to_close_timeout"] or timedelta()
    return {
        **options,
        "task_queue": temporal.tools_task_queue(workflow.info().task_queue, queue),
        "schedule_to_start_timeout": timedelta(seconds=waits_s),
        "schedule_to_close_timeout": longest + timedelta(seconds=waits_s),
        "activity_id": remote_call_id,
    }


def running_tool(limits: TurnLimits, summary: str, timeout: float, retries: int) -> ActivityConfig:
    """Options of a tool run. The activity itself ends a tool after `timeout` seconds, and then waits for the database.

    `retries`: how often a tool that ended by an exception is started again.
    """
    starts = limits.tool_tries + retries
    longest_s = timeout * starts + retries * TOOL_RETRY_MAX_S + limits.storage_window
    return {
        "start_to_close_timeout": timedelta(seconds=timeout + limits.storage_window),
        "schedule_to_close_timeout": timedelta(seconds=longest_s),
        "heartbeat_timeout": timedelta(seconds=limits.heartbeat_timeout),
        "retry_policy": CALL_RETRY,
        "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        "summary": summary,
    }
