"""Reports the activities of workers that died on this host as failed, so that the server repeats them at once.

Without a report, the server notices a dead worker only when its heartbeats are missing for the heartbeat timeout.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflowservice.v1 import ResetStickyTaskQueueRequest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError, RPCStatusCode

from activities.journal import Journals, Run
from longhaul import temporal
from longhaul.errors import WORKER_DIED, UnavailableError

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0
AT_ONCE = 20
STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED


class DeadWorkers:
    """Finds the journals of dead workers and reports what these had. `patience`: seconds for the server to answer."""

    def __init__(self, client: Client, journals: Journals, patience: float) -> None:
        self._client = client
        self._journals = journals
        self._patience = patience

    async def watch(self) -> None:
        """Report at once, and then every second, until this is cancelled."""
        known_problem = ""
        while True:
            try:
                await self.report()
                await asyncio.to_thread(self._journals.remove_old)
                known_problem = ""
            except OSError as error:
                if str(error) != known_problem:
                    known_problem = str(error)
                    log.warning("journals of dead workers cannot be read: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def report(self) -> None:
        """Report the activities of every dead worker, once: later, the server notices the death by itself.

        Raises:
            OSError: a journal cannot be read or removed.
        """
        with ExitStack() as stack:
            for journal in await asyncio.to_thread(self._journals.of_the_dead):
                stack.callback(journal.close)
                runs, unreadable = journal.read()
                if unreadable:
                    log.warning("journal %s: %d entries cannot be read", journal.path.name, unreadable)
                some = asyncio.Semaphore(AT_ONCE)
                repeated = await asyncio.gather(*(self._release(run, journal.identity, some) for run in runs))
                log.warning("worker %s died; %d of its activities are repeated", journal.identity, sum(repeated))
                journal.remove()

    async def _release(self, run: Run, identity: str, some: asyncio.Semaphore) -> int:
        """Make the server give a run's activities and workflow tasks to other workers; the number of activities."""
        reset = ResetStickyTaskQueueRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id),
        )
        repeated = 0
        async with some:
            for activity_id in await self._left_by(identity, run):
                # Without details: the server then keeps the last checkpoint for the next attempt.
                handle = self._client.get_async_activity_handle(
                    workflow_id=run.workflow_id, run_id=run.run_id, activity_id=activity_id
                )
                async with self._asking():
                    await handle.fail(worker_died())
                    repeated += 1
            async with self._asking():
                # Else the next workflow task would first wait for the dead worker.
                await self._client.workflow_service.reset_sticky_task_queue(reset)
        return repeated

    async def _left_by(self, identity: str, run: Run) -> list[str]:
        """The activities of a run that a worker had when it died."""
        async with self._asking():
            described = await self._client.get_workflow_handle(run.workflow_id, run_id=run.run_id).describe()
            pending = described.raw_description.pending_activities
            return [one.activity_id for one in pending if one.state == STARTED and one.last_worker_identity == identity]
        return []

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Ask the server. That it knows a run or an attempt no more is no problem: it has ended meanwhile."""
        problem: Exception
        try:
            async with temporal.reachable(self._patience):
                yield
            return
        except UnavailableError as error:
            problem = error
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return
            problem = error
        log.warning("what a dead worker left could not be reported, so its heartbeats time out: %s", problem)


def worker_died() -> ApplicationError:
    """The failure of an attempt whose worker died. The next one follows the retry policy, and not at once: an activity
    that kills its worker must not do so ever faster.
    """
    text = "The worker died; another one continues."
    return ApplicationError(text, type=WORKER_DIED, category=ApplicationErrorCategory.BENIGN)
