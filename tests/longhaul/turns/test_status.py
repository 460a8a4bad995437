"""How a turn stands that has been accepted and has not begun: the turn before it still closes, or no workflow runs."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from longhaul.db import acceptance
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.turns.status import TurnLookup
from tests.longhaul.turns.conftest import SESSION, USER


class FakeTemporal:
    """Runs a turn that answers no query, or nothing."""

    def __init__(self, turn_id: str) -> None:
        self.turn_id = turn_id

    def get_workflow_handle(self, _: str) -> Any:
        return self

    async def memo_value(self, *_: Any, **__: Any) -> str:
        return self.turn_id

    async def query(self, *_: Any, **__: Any) -> Any:
        raise RPCError("no worker", RPCStatusCode.DEADLINE_EXCEEDED, b"")

    async def describe(self, **_: Any) -> Any:
        if not self.turn_id:
            raise RPCError("not found", RPCStatusCode.NOT_FOUND, b"")
        return SimpleNamespace(
            status=WorkflowExecutionStatus.RUNNING,
            typed_search_attributes={},
            memo_value=self.memo_value,
            start_time=utc_now(),
            run_id="run",
            raw_info=SimpleNamespace(first_run_id="run"),
        )


@pytest.mark.parametrize("running", ["the turn before", ""])
async def test_a_turn_that_has_not_begun(database: Database, running: str) -> None:
    async with database.write() as connection:
        accepted = await acceptance.accept(
            connection, session_id=SESSION, user_id=USER, message_id="m", content="hello", context=None, limit=0
        )
    turns = TurnLookup(database, cast("Client", FakeTemporal(running)), 1.0)
    progress = await turns.progress(SESSION, accepted.turn_id)
    assert progress is not None
    assert (progress.turn_id, progress.status, progress.round) == (accepted.turn_id, "running", 0)
    assert await turns.is_running(SESSION, accepted.turn_id) is bool(running)
    assert await turns.exists(SESSION, accepted.turn_id) is bool(running)
    assert await turns.progress(SESSION, "no turn") is None
    assert not await turns.exists(SESSION, "no turn")
