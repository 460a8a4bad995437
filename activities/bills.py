"""Asks the endpoint for the bills of calls that broke off before they told their usage."""

import logging

from openai import OpenAIError
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from longhaul.contracts import CorrectedEstimates, Empty
from longhaul.db import ledger
from longhaul.db.database import Database
from longhaul.db.ledger import Unbilled
from longhaul.errors import STORAGE_UNAVAILABLE, UnavailableError
from longhaul.llm.client import ModelClient

log = logging.getLogger(__name__)
#: What one run asks for; the next one goes on with what is left.
PAGE = 50


class BillActivities:
    """Replaces estimates in the ledger by bills."""

    def __init__(self, database: Database, model_client: ModelClient) -> None:
        self._database = database
        self._model_client = model_client

    @activity.defn
    async def correct_estimates(self, _: Empty) -> CorrectedEstimates:
        """Ask for the bills that are due. A bill replaces its estimate once; a call without one is asked for again
        later, a few times. Harmless if repeated.

        Raises:
            ApplicationError: the database is away; benign, because a later run does the same.
        """
        corrected = 0
        try:
            async with self._database.read() as connection:
                due = await ledger.unbilled(connection, PAGE)
            for row in due:
                corrected += await self._correct(row)
        except UnavailableError as error:
            benign = ApplicationErrorCategory.BENIGN
            raise ApplicationError(str(error), type=STORAGE_UNAVAILABLE, category=benign) from error
        if corrected:
            log.info("%d estimated costs were replaced by the endpoint's bill", corrected)
        return CorrectedEstimates(rows=corrected)

    async def _correct(self, row: Unbilled) -> bool:
        try:
            usage = await self._model_client.bill(row.call.generation_id or "")
        except OpenAIError as error:
            log.warning("the bill of %s is not to be had now: %s", row.call.generation_id, type(error).__name__)
            usage = None
        async with self._database.write() as connection:
            await ledger.lock(connection, row.call.session_id)
            if usage is None:
                await ledger.ask_later(connection, row)
            else:
                await ledger.book(connection, row.call, usage)
        return usage is not None
