"""Answer a call that waits for a person or a client: one transaction, then a signal to the turn that waits.

The transaction decides. A signal that does not reach Temporal is sent again by the redelivery, so whoever has answered
is told of success as soon as the answer is stored.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from longhaul import temporal
from longhaul.contracts import CallAnswered
from longhaul.db import parked
from longhaul.db.database import Database
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer, ParkedRow
from longhaul.errors import AnsweredError, UnavailableError

log = logging.getLogger(__name__)
CONNECTED = Answer(ParkedStatus.ALLOWED)


class CallAnswers:
    """Stores answers, and tells the turns that wait for them."""

    def __init__(self, database: Database, client: Client, rpc_timeout: float) -> None:
        self._database = database
        self._client = client
        self._rpc_timeout = rpc_timeout

    async def answer(self, approval_id: str, user_id: str, answer: Answer) -> ParkedRow:
        """Store an answer, once, and let the turn take it.

        Raises:
            NotFoundError: there is no such call, or it is another user's.
            AnsweredError: it waits for no answer any more.
            UnavailableError: the database is away.
        """
        async with self._database.write() as connection:
            row = await parked.answer(connection, approval_id, user_id, answer)
        try:
            await self.tell(row)
        except UnavailableError as error:
            log.warning("the answer to %s is stored, its turn hears of it later: %s", approval_id, error)
        return row

    async def skip_client_calls(self, user_id: str, calls: Iterable[ParkedRow]) -> None:
        """Their client sends a message in place of results, so the turn waits for these calls no longer.

        Raises:
            UnavailableError: the database is away.
        """
        for call in calls:
            with suppress(AnsweredError):  # answered, or its turn has ended
                await self.answer(call.id, user_id, Answer(ParkedStatus.SKIPPED))

    async def connected(self, user_id: str, credential: str) -> None:
        """Let the calls that wait for a credential go on, which is stored.

        Raises:
            UnavailableError: the database is away; the redelivery does the same later.
        """
        async with self._database.read() as connection:
            waiting = await parked.waiting_to_connect(connection, user_id, credential)
        for row in waiting:
            with suppress(AnsweredError):  # the person said no, or its time is over
                await self.answer(row.id, user_id, CONNECTED)

    async def tell(self, row: ParkedRow) -> None:
        """Tell a turn that a call of it has been answered; twice does no harm.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        handle = self._client.get_workflow_handle(temporal.workflow_id(row.session_id))
        try:
            async with temporal.reachable(self._rpc_timeout):
                await handle.signal(
                    temporal.CALL_ANSWERED_SIGNAL,
                    CallAnswered(approval_id=row.id),
                    rpc_timeout=timedelta(seconds=self._rpc_timeout),
                )
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            log.warning("call %s was answered, and the workflow of turn %s does not run", row.id, row.turn_id)
