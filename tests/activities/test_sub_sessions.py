"""The activities of the sub-session tools: which sessions may be polled, which stopped, and what a result says."""

import asyncio
import json
import zlib
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select, update
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.sub_sessions import SubSessionActivities, result_of
from longhaul.contracts import (
    LookAtSubSession,
    PrepareSubSession,
    Progress,
    ReportSubSession,
    Scope,
    StopSubSessions,
    SubSessionState,
    TurnStatus,
)
from longhaul.db import acceptance, messages, sessions, turns
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.db.models import MessageRow, utc_now
from longhaul.db.sessions import NewSession
from longhaul.tools import default_tools
from longhaul.turns.quota import LOST_AFTER_S
from testkit.spending import usage_limits
from tests.activities.conftest import NO_REDIS, NO_STREAMS, SETTINGS, TURN

CALL = {"id": "c1", "type": "function", "function": {"name": "calculator", "arguments": "{}"}}
TOOLS = default_tools()
BROKEN = {"id": "c2", "type": "function", "function": {"name": "read_file", "arguments": "{}"}}


class FakeTemporal:
    """A Temporal that runs only what a test says, and records what was cancelled; cancelling ends a workflow."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.cancelled: list[str] = []

    def get_workflow_handle(self, workflow_id: str, **_: Any) -> Any:
        async def memo_value(*_: Any, **__: Any) -> str:
            return workflow_id.replace("turn:", "next-turn-")

        async def describe(**_: Any) -> Any:
            if workflow_id not in self.running:
                raise RPCError("not found", RPCStatusCode.NOT_FOUND, b"")
            return SimpleNamespace(
                status=WorkflowExecutionStatus.RUNNING,
                typed_search_attributes={},
                memo_value=memo_value,
                start_time=utc_now(),
                run_id="run",
                raw_info=SimpleNamespace(first_run_id="run"),
            )

        async def cancel(**_: Any) -> None:
            self.cancelled.append(workflow_id)
            self.running.discard(workflow_id)

        return SimpleNamespace(describe=describe, cancel=cancel)


@pytest.fixture
def temporal() -> FakeTemporal:
    return FakeTemporal()


@pytest.fixture
async def activities(database: Database, temporal: FakeTemporal) -> SubSessionActivities:
    """With three sub-sessions that have answered: below TURN's session, below another one, of another user."""
    for name, user, parent in (("below", "u", "s"), ("elsewhere", "u", "other"), ("foreign", "u2", "s")):
        async with database.write() as connection:
            session = NewSession(name, user, name, parent_session_id=parent, scope=Scope(ancestors=(parent,)))
            await sessions.create(connection, session)
            turn = turns.NewTurn(f"turn-{name}", name, user, "m", "fast", "standard", utc_now())
            await turns.start(connection, turn)
            ended = Progress(turn_id=turn.turn_id, session_id=name, status=TurnStatus.COMPLETED, started_at=utc_now())
            await turns.end(connection, turn, ended)
            rows = [
                NewMessage(f"{name}-1", "assistant", tool_calls=[CALL, BROKEN], turn_id=turn.turn_id, round=1),
                NewMessage(f"{name}-2", "tool", "391", tool_call_id="c1", turn_id=turn.turn_id, round=1),
                NewMessage(
                    f"{name}-3", "tool", "gone", tool_call_id="c2", turn_id=turn.turn_id, round=1, is_error=True
                ),
                NewMessage(f"{name}-4", "assistant", "It is 391.", turn_id=turn.turn_id, round=2),
            ]
            await messages.append(connection, name, rows)
    return SubSessionActivities(
        database, NO_STREAMS, cast("Client", temporal), NO_REDIS, TOOLS, usage_limits(database), SETTINGS
    )


async def look(activities: SubSessionActivities, sub_id: str, *, cancel: bool = False) -> Any:
    asked = LookAtSubSession(turn=TURN, scope=Scope(ancestors=("above",)), sub_session_id=sub_id, cancel=cancel)
    return await ActivityEnvironment().run(activities.look_at_sub_session, asked)


async def test_one_below_is_polled_and_stopped(activities: SubSessionActivities, temporal: FakeTemporal) -> None:
    seen = await look(activities, "below", cancel=True)
    assert (seen.status, seen.detached, seen.far, seen.error) == (SubSessionState.COMPLETED, False, False, None)
    assert temporal.cancelled == [], "it has ended"
    temporal.running = {"turn:below"}
    seen = await look(activities, "below", cancel=True)
    assert (seen.status, seen.turn_id) == (SubSessionState.RUNNING, "next-turn-below")
    assert temporal.cancelled == ["turn:below"]


async def test_one_elsewhere_is_polled_and_never_stopped(
    activities: SubSessionActivities, temporal: FakeTemporal
) -> None:
    """`detached`: a Stop of the polling turn leaves it alone."""
    seen = await look(activities, "elsewhere")
    assert (seen.status, seen.detached, seen.far, seen.error) == (SubSessionState.COMPLETED, True, True, None)
    refused = await look(activities, "elsewhere", cancel=True)
    assert "only poll it" in refused.error
    assert temporal.cancelled == []


@pytest.mark.parametrize("sub_id", ["foreign", "missing"])
async def test_a_foreign_one_reads_as_missing(activities: SubSessionActivities, sub_id: str) -> None:
    assert (await look(activities, sub_id)).error == f"There is no sub-session {sub_id} of this session."


async def test_stop_marks_and_cancels(
    activities: SubSessionActivities, temporal: FakeTemporal, database: Database
) -> None:
    """Those that run; one that has ended is left alone."""
    temporal.running = {"turn:below"}
    stop = StopSubSessions(turn=TURN, sub_session_ids=["below", "elsewhere"])
    await ActivityEnvironment().run(activities.stop_sub_sessions, stop)
    assert temporal.cancelled == ["turn:below"]
    async with database.write() as connection:
        assert (await messages.lock_session(connection, "below")).stopped_turn_id == "next-turn-below"
        assert (await messages.lock_session(connection, "elsewhere")).stopped_turn_id is None


@pytest.mark.parametrize("sub_id", ["s", "above"])
async def test_none_waits_for_itself(activities: SubSessionActivities, sub_id: str) -> None:
    assert "cannot wait for itself" in (await look(activities, sub_id)).error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"prompt": "x", "agent": "analyst"}', "there are no agent profiles"),
        ('{"prompt": "x", "sub_session_id": "elsewhere"}', "There is no sub-session elsewhere"),
        ('{"prompt": "x", "sub_session_id": "foreign"}', "There is no sub-session foreign"),
        ('{"prompt": "x", "sub_session_id": "below", "dry_run": true}', "dry_run can be set for a new sub-session"),
    ],
)
async def test_prompts_that_are_refused(
    activities: SubSessionActivities, database: Database, arguments: str, said: str
) -> None:
    prepared = await prepare(activities, database, "c", Scope(), **json.loads(arguments))
    assert said in str(prepared.error)
    assert "analyst" not in str(prepared.error), "the error is in a history, and repeats what the model wrote"


async def test_a_result_names_its_tool_calls_and_a_link(activities: SubSessionActivities, database: Database) -> None:
    report = ReportSubSession(
        turn=TURN,
        round=1,
        tool_call_id="c",
        name="get_sub_session_result",
        sub_session_id="elsewhere",
        sub_turn_id="turn-elsewhere",
        status=SubSessionState.COMPLETED,
    )
    async with database.read() as connection:
        result = await result_of(connection, report, "https://chat.example.com")
    assert result["tool_calls"] == [
        {"name": "calculator", "outcome": "ok"},
        {"name": "read_file", "outcome": "error"},
    ]
    assert result["link"] == "https://chat.example.com/v1/sessions/elsewhere"
    assert result["response"] == "It is 391."


async def prepare(
    activities: SubSessionActivities, database: Database, call_id: str, scope: Scope, **arguments: Any
) -> Any:
    """Let an assistant's row ask for a sub-session, each call in a round of its own, and prepare it."""
    round_ = zlib.crc32(call_id.encode()) % 10_000
    asked = {"name": "run_sub_session", "arguments": json.dumps({"prompt": "x", **arguments})}
    made = [{"id": call_id, "type": "function", "function": asked}]
    row_id = messages.row_id(TURN.turn_id, round_, "assistant")
    row = NewMessage(row_id, "assistant", tool_calls=made, turn_id=TURN.turn_id, round=round_)
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [row])
    call = PrepareSubSession(turn=TURN, round=round_, tool_call_id=call_id, scope=scope)
    return await ActivityEnvironment().run(activities.prepare_sub_session, call)


async def test_running_sub_sessions_are_limited_over_the_whole_tree(database: Database, temporal: FakeTemporal) -> None:
    """Ten at once get the three places. Detached ones count; a repeated call and one that is at work need no place."""
    settings = SETTINGS.model_copy(update={"max_running_sub_sessions": 3})
    activities = SubSessionActivities(
        database, NO_STREAMS, cast("Client", temporal), NO_REDIS, TOOLS, usage_limits(database), settings
    )
    scope = Scope(root_session_id=TURN.session_id)
    ids = [f"c{number}" for number in range(10)]
    tried = await asyncio.gather(*(prepare(activities, database, id_, scope, detached=True) for id_ in ids))
    made = {id_: one for id_, one in zip(ids, tried, strict=True) if one.error is None}
    assert len(made) == 3
    assert {one.error for one in tried if one.error} == {
        "run_sub_session: 3 sub-sessions of this conversation are running already, and the limit is 3. Wait for some "
        "of them to end, or do this task yourself."
    }
    first, prepared = next(iter(made.items()))
    assert (await prepare(activities, database, first, scope, detached=True)).sub_session_id == prepared.sub_session_id
    follow_up = await prepare(activities, database, "again", scope, sub_session_id=prepared.sub_session_id)
    assert (follow_up.error, follow_up.sub_session_id) == (None, prepared.sub_session_id)
    turn = turns.NewTurn(prepared.turn_id, prepared.sub_session_id, TURN.user_id, "m", "fast", "standard", utc_now())
    async with database.write() as connection:
        await acceptance.place_waiting(
            connection, turn.session_id, turn_id=turn.turn_id, round_=0, kind="message", of_all_turns=True
        )
        await turns.start(connection, turn)
    assert (await prepare(activities, database, "one more", scope)).error is not None
    ended = Progress(
        turn_id=turn.turn_id, session_id=turn.session_id, status=TurnStatus.COMPLETED, started_at=utc_now()
    ).model_copy(update={"ended_at": utc_now()})
    async with database.write() as connection:
        await turns.end(connection, turn, ended)
    assert (await prepare(activities, database, "one more", scope)).error is None


async def test_sub_sessions_whose_workflow_is_lost_do_not_count(database: Database, temporal: FakeTemporal) -> None:
    """Else a tree that has lost as many as the limit allows could never delegate again."""
    settings = SETTINGS.model_copy(update={"max_running_sub_sessions": 2})
    activities = SubSessionActivities(
        database, NO_STREAMS, cast("Client", temporal), NO_REDIS, TOOLS, usage_limits(database), settings
    )
    scope = Scope(root_session_id=TURN.session_id)
    for id_ in ("begun", "prepared"):
        assert (await prepare(activities, database, id_, scope)).error is None
    async with database.write() as connection:
        sub_ids = list(await connection.scalars(select(MessageRow.session_id).where(MessageRow.sequence.is_(None))))
        long_ago = utc_now() - timedelta(seconds=LOST_AFTER_S + 1)
        await connection.execute(
            update(MessageRow).where(MessageRow.session_id.in_(sub_ids)).values(created_at=long_ago)
        )
    parent = temporal.running = {f"turn:{TURN.session_id}"}
    assert (await prepare(activities, database, "refused", scope)).error is not None, "its parent may start it"
    temporal.running = {*parent, *(f"turn:{sub_id}" for sub_id in sub_ids)}
    assert (await prepare(activities, database, "refused", scope)).error is not None, "both run"
    temporal.running = set()
    assert (await prepare(activities, database, "third", scope)).error is None
