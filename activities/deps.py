"""What activities are built from, and the one place where faults become Temporal failures."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from longhaul.contracts import TurnRef
from longhaul.db.database import Database
from longhaul.errors import HANDED_OVER, STORAGE_UNAVAILABLE, NotFoundError, UnavailableError
from longhaul.llm.client import ModelClient
from longhaul.settings import Settings
from longhaul.streams.parent_updates import ParentNews
from longhaul.streams.publisher import StreamPublisher, Writer
from longhaul.tools import Registry

SESSION_GONE = "SessionGone"


@dataclass(frozen=True)
class Deps:
    """The collaborators of all activities of a worker."""

    settings: Settings
    db: Database
    redis: "Redis"
    model: ModelClient
    tools: Registry
    temporal: Client

    def publisher(self, turn: TurnRef) -> StreamPublisher:
        info = activity.info()
        # A workflow task that is done again elsewhere runs its local activities as first attempts: newer ones count.
        attempt = int(info.started_time.timestamp() * 1000) if info.is_local else info.attempt
        return StreamPublisher(
            self.redis,
            turn.turn_id,
            flush_s=self.settings.stream_flush_ms / 1000,
            published=turn.published,
            # Ids of activities begin anew when a turn continues as new.
            writer=Writer(f"{info.workflow_run_id}:{info.activity_id}", attempt),
            news=ParentNews(self.redis, turn) if turn.parent_turn_id else None,
        )


@contextmanager
def storage_faults(*, missing_is_final: bool = True) -> Iterator[None]:
    """An unreachable database is retried by Temporal; a deleted session is the end of its turn."""
    try:
        yield
    except UnavailableError as error:
        raise ApplicationError(str(error), type=STORAGE_UNAVAILABLE) from error
    except NotFoundError as error:
        if not missing_is_final:
            raise
        raise ApplicationError(str(error), type=SESSION_GONE, non_retryable=True) from error


def stop_requested() -> bool:
    """Whether a person pressed Stop; also in a worker that happens to shut down meanwhile."""
    reason = activity.cancellation_details()
    return reason is not None and reason.cancel_requested


def handed_over() -> ApplicationError:
    """This worker shuts down: another one takes the activity at once, and it is nobody's failure."""
    return ApplicationError(
        "The worker shut down; another one goes on.",
        type=HANDED_OVER,
        next_retry_delay=timedelta(milliseconds=1),
        category=ApplicationErrorCategory.BENIGN,
    )
