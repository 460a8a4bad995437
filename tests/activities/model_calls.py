"""Attempts at a model call, without a model: each follows a script, and its stream is kept in memory."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.engine import Row
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import attempt as attempts
from activities.model import ModelActivities
from activities.model_attempt import CallState
from longhaul.contracts import CallModel
from longhaul.db import conversation
from longhaul.db.database import Database
from longhaul.db.models import LedgerRow
from longhaul.errors import StreamBrokenError
from longhaul.files.store import FileStore
from longhaul.llm.client import ModelClient
from longhaul.llm.outages import Outages
from longhaul.llm.tokens import tokens_of_request
from longhaul.settings import Settings
from longhaul.tools import default_tools
from tests.activities.conftest import SETTINGS, TURN

CALL = CallModel(turn=TURN.model_copy(update={"published": True}), round=1, model="m")
BROKEN = StreamBrokenError("The model's stream broke off.")
#: A request that is never answered any further.
HANGS = TimeoutError("a script that hangs")


class Recorder(AsyncExitStack):
    """A turn's stream in memory."""

    broken = False

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[dict[str, Any]] = []

    def publisher(self, _: object) -> "Recorder":
        return self

    def put(self, part: dict[str, Any], once: str = "") -> None:  # noqa: ARG002
        self.parts.append(part)

    async def open_step(self) -> list[dict[str, Any]]:
        starts = [index for index, part in enumerate(self.parts) if part["type"] == "start-step"]
        return self.parts[starts[-1] :] if starts else []

    async def seal(self, parts: list[dict[str, Any]], outcome: dict[str, Any] | None, ttl_s: float) -> None:  # noqa: ARG002
        self.parts += [*parts, *([outcome] if outcome else []), {"type": "finish"}]

    def visible(self) -> str:
        """The text that a client shows."""
        voided = {part_id for part in self.parts if part["type"] == "data-voided" for part_id in part["data"]["ids"]}
        deltas = [part for part in self.parts if part["type"] == "text-delta" and part["id"] not in voided]
        return "".join(part["delta"] for part in deltas)


class Model:
    """Gives each request its script: pieces of text, then a failure or None for a proper end.

    `usage` comes with such an end; or `counts`, the prompt tokens that it counts for an estimated one.
    """

    def __init__(
        self, *scripts: tuple[str, BaseException | None], usage: dict[str, Any] | None = None, counts: float = 0
    ) -> None:
        self.scripts = list(scripts)
        self.requests: list[dict[str, Any]] = []
        self._usage = usage
        self._counts = counts

    async def stream(self, request: dict[str, Any], *, call_key: str) -> AsyncGenerator[dict[str, Any], None]:
        assert call_key == f"{TURN.turn_id}:1"
        self.requests.append(request)
        text, failure = self.scripts.pop(0)
        if text:
            yield {"choices": [{"delta": {"content": text}}]}
        if failure is HANGS:
            await asyncio.Event().wait()
        if failure is not None:
            raise failure
        usage = {"prompt_tokens": round(self._counts * tokens_of_request(request))} if self._counts else self._usage
        yield {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage}


async def attempt(
    database: Database,
    model: Model | ModelClient,
    stream: Recorder,
    state: CallState | None,
    number: int,
    seconds: float,
    call: CallModel = CALL,
    settings: Settings = SETTINGS,
    outages: Outages | None = None,
) -> tuple[CallState | None, ApplicationError | None]:
    """One attempt: the checkpoint that it leaves, and its failure. `outages`: what its worker has found before."""
    environment = ActivityEnvironment()
    details = [state.model_dump(mode="json")] if state is not None else []
    environment.info = replace(environment.info, attempt=number, heartbeat_details=details, is_local=False)
    left: list[Any] = [state]
    environment.on_heartbeat = lambda *sent: left.append(sent[0])
    attempts._heartbeat_details.set([])
    settings = settings.model_copy(update={"model_retry_seconds": seconds})
    activities = ModelActivities(
        database, cast("Any", stream), cast("Any", model), default_tools(), FileStore(settings), settings
    )
    activities._outages = outages or activities._outages
    try:
        await environment.run(activities.call_model, call)
    except ApplicationError as error:
        return left[-1], error
    return left[-1], None


async def rows(database: Database) -> list[tuple[str, str, str, str | None]]:
    async with database.read() as connection:
        stored = await conversation.rows_of_round(connection, TURN.turn_id, 1)
    return [(row.role, row.kind, row.content, row.finish_reason) for row in stored]


async def booked(database: Database) -> list[Row[Any]]:
    columns = (LedgerRow.attempt, LedgerRow.status, LedgerRow.completion_tokens, LedgerRow.cost_microdollars)
    async with database.read() as connection:
        return await connection.execute(select(*columns).order_by(LedgerRow.attempt))
