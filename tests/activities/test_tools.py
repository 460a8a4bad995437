"""Running a tool: its result is stored once, its failure is a result, and what must not run twice does not."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import attempt as module
from activities.call_credentials import CallCredentials
from activities.model_report import UNKNOWN_TOOL
from activities.tool_results import ToolResult
from activities.tool_run import ToolState
from activities.tools import ROUND_CHECKPOINTS_BYTES, ToolActivities
from longhaul.contracts import RunTool, Scope, StoreToolResult, ToolOutcome, ToolStatus
from longhaul.db import conversation, messages, sessions
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.errors import TOOL_RETRY, UnavailableError
from longhaul.llm import prompts
from longhaul.tools import Registry, ToolContext, ToolError, default_tools, tool
from longhaul.tools.results import PartOfResult
from tests.activities.conftest import NO_STREAMS, SETTINGS, TURN

RUNS: list[str] = []
SENT: list[ToolState] = []
#: More than the share of a checkpoint that each of the ten calls has.
SAID = ROUND_CHECKPOINTS_BYTES // 9


class Nothing(BaseModel):
    pass


@tool(Nothing, "Works.")
async def works(arguments: Nothing, context: ToolContext) -> str:
    RUNS.append(context.session_id)
    return "done"


@tool(Nothing, "Works, but only once.", repeatable=False, changes=True)
async def once(arguments: Nothing, context: ToolContext) -> str:
    RUNS.append(context.session_id)
    return "done"


@tool(Nothing, "Refuses.")
async def refuses(arguments: Nothing, context: ToolContext) -> str:
    raise ToolError("No.")


@tool(Nothing, "Breaks.")
async def breaks(arguments: Nothing, context: ToolContext) -> str:
    raise ZeroDivisionError("by zero")


@tool(Nothing, "Hangs.", changes=True)
async def hangs(arguments: Nothing, context: ToolContext) -> str:
    RUNS.append(context.session_id)
    await asyncio.Event().wait()
    return "never"


@tool(Nothing, "Says much.")
async def says_much(arguments: Nothing, context: ToolContext) -> str:
    return "x" * SAID


@tool(repeatable=True, changes=True, would="mark the place")
async def flaky(context: ToolContext) -> str:
    """Works from the third start on."""
    RUNS.append(context.session_id)
    if len(RUNS) < 3:
        raise ConnectionError("secret address")
    return "done"


@pytest.fixture(autouse=True)
async def calls(database: Database) -> None:
    """One call of each tool, and calls that cannot be run."""
    module._heartbeat_details.set([])
    RUNS.clear()
    SENT.clear()
    made = [("works", "{}"), ("once", "{}"), ("refuses", "{}"), ("breaks", "{}"), ("wait", '{"seconds": 1}')]
    made += [("unknown", "{}"), ("works", "{"), ("works", "[" * 100_000), ("hangs", "{}"), ("says_much", "{}")]
    made += [("flaky", "{}")]
    written = [{"id": f"c{n}", "function": {"name": name, "arguments": text}} for n, (name, text) in enumerate(made)]
    row = messages.NewMessage("row", "assistant", tool_calls=written, turn_id=TURN.turn_id, round=1)
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, [row])


async def run(
    database: Database, call: str, name: str, *, attempt: int = 1, state: ToolState | None = None, **more: Any
) -> ToolOutcome:
    environment = ActivityEnvironment()
    details = [state] if state else []
    environment.info = replace(environment.info, attempt=attempt, heartbeat_details=details)

    environment.on_heartbeat = lambda *sent: SENT.extend(sent)
    tools = Registry([works, once, refuses, breaks, hangs, says_much, flaky, *default_tools()])
    activities = ToolActivities(database, NO_STREAMS, tools, SETTINGS)
    given = RunTool(**{"turn": TURN, "round": 1, "message_id": "row", "tool_call_id": call, "name": name, **more})
    return await environment.run(activities.run_tool, given)


async def result(database: Database, call: str) -> tuple[str, bool]:
    async with database.read() as connection:
        rows = await conversation.rows_of_round(connection, TURN.turn_id, 1)
    found = [row for row in rows if row.tool_call_id == call]
    assert len(found) == 1
    return found[0].content, found[0].is_error


@pytest.mark.parametrize(
    ("call", "name", "status", "said"),
    [
        ("c0", "works", ToolStatus.OK, "done"),
        ("c2", "refuses", ToolStatus.ERROR, "No."),
        ("c3", "breaks", ToolStatus.ERROR, "breaks failed by an unexpected error. Reference: "),
        ("c4", "wait", ToolStatus.ERROR, "The tool 'wait' cannot be run here."),
        ("c5", "unknown", ToolStatus.ERROR, "The tool 'unknown' does not exist. Available: "),
        ("c5", UNKNOWN_TOOL, ToolStatus.ERROR, "The tool 'unknown' does not exist. Available: "),
        ("c6", "works", ToolStatus.ERROR, "works: the arguments are not valid JSON"),
        ("c7", "works", ToolStatus.ERROR, "works: the arguments are not valid JSON"),
    ],
)
async def test_whatever_happens_is_a_result(
    database: Database, call: str, name: str, status: ToolStatus, said: str
) -> None:
    outcome = await run(database, call, name)
    assert outcome == ToolOutcome(tool_call_id=call, status=status, published=False)
    content, is_error = await result(database, call)
    assert content.startswith(said)
    assert is_error is (status is not ToolStatus.OK)


async def test_a_stored_result_is_not_made_again(database: Database) -> None:
    await run(database, "c0", "works")
    assert (await run(database, "c0", "works", attempt=2)).status is ToolStatus.OK
    await run(database, "c2", "refuses")
    assert (await run(database, "c2", "refuses", attempt=2)).status is ToolStatus.ERROR
    assert RUNS == ["s"]


async def test_a_result_in_the_checkpoint_is_stored_without_another_run(database: Database) -> None:
    kept = ToolState(starts=1, result=ToolResult(output="kept", status=ToolStatus.OK))
    await run(database, "c1", "once", attempt=2, state=kept)
    assert await result(database, "c1") == ("kept", False)
    assert RUNS == []


@pytest.mark.parametrize("state", [None, ToolState(starts=1)])
async def test_what_must_not_run_twice_is_lost_instead(database: Database, state: ToolState | None) -> None:
    assert (await run(database, "c1", "once", attempt=2, state=state)).status is ToolStatus.LOST
    assert await result(database, "c1") == (prompts.LOST_CALL, True)
    assert RUNS == []


@pytest.mark.parametrize(("starts", "runs"), [(0, 1), (2, 1), (3, 0)])
async def test_what_kills_its_workers_is_given_up(database: Database, starts: int, runs: int) -> None:
    outcome = await run(database, "c0", "works", attempt=starts + 1, state=ToolState(starts=starts), max_tries=3)
    assert outcome.status is (ToolStatus.OK if runs else ToolStatus.LOST)
    assert len(RUNS) == runs


async def test_a_dry_run_changes_nothing(database: Database) -> None:
    scope = Scope(dry_run=True)
    assert (await run(database, "c1", "once", scope=scope)).status is ToolStatus.OK
    assert await result(database, "c1") == ("Dry run: once was not run.", False)
    await run(database, "c0", "works", scope=scope)
    assert RUNS == ["s"], "what changes nothing runs"


async def test_a_dry_run_says_what_a_call_would_do(database: Database) -> None:
    assert (await run(database, "c10", "flaky", scope=Scope(dry_run=True))).status is ToolStatus.OK
    assert await result(database, "c10") == ("Dry run: flaky was not run. It would mark the place.", False)
    assert RUNS == []


async def test_a_tool_that_raises_is_started_again(database: Database) -> None:
    """After waits that grow, and with nothing of the exception in what Temporal keeps."""
    state, delays = None, []
    for attempt in (1, 2):
        SENT.clear()
        with pytest.raises(ApplicationError) as raised:
            await run(database, "c10", "flaky", attempt=attempt, state=state, retries=2)
        assert (raised.value.type, raised.value.non_retryable) == (TOOL_RETRY, False)
        assert "secret" not in str(raised.value)
        assert raised.value.__cause__ is None
        delays.append(raised.value.next_retry_delay)
        state = SENT[-1]
    assert state == ToolState(starts=2, failures=2)
    assert delays[0] is not None
    assert delays[1] is not None
    assert delays[0] < delays[1]
    assert (await run(database, "c10", "flaky", attempt=3, state=state, retries=2)).status is ToolStatus.OK
    assert await result(database, "c10") == ("done", False)


async def test_retries_end_and_dead_workers_are_counted_apart(database: Database) -> None:
    outcome = await run(database, "c10", "flaky", attempt=3, state=ToolState(starts=2, failures=2), retries=2)
    assert outcome.status is ToolStatus.ERROR
    assert "Reference: " in (await result(database, "c10"))[0]
    state = ToolState(starts=5, failures=2)
    assert (await run(database, "c3", "breaks", attempt=6, state=state, retries=3)).status is ToolStatus.LOST


async def test_a_refusal_is_not_retried(database: Database) -> None:
    assert (await run(database, "c2", "refuses", retries=2)).status is ToolStatus.ERROR


async def test_a_tool_that_is_not_allowed_does_not_run(database: Database) -> None:
    assert (await run(database, "c0", "works", scope=Scope(deny_tools=("works",)))).status is ToolStatus.ERROR
    assert "not allowed" in (await result(database, "c0"))[0]
    assert RUNS == []


async def test_a_call_that_nobody_made_is_a_fault_of_ours(database: Database) -> None:
    with pytest.raises(ApplicationError) as raised:
        await run(database, "c99", "works")
    assert raised.value.non_retryable


async def test_results_of_the_workflow_are_stored_the_same_way(database: Database) -> None:
    environment = ActivityEnvironment()
    given = StoreToolResult(turn=TURN, round=1, tool_call_id="c4", name="wait", output="waited", is_error=True)
    for _ in range(2):
        outcome = await environment.run(
            ToolActivities(database, NO_STREAMS, default_tools(), SETTINGS).store_tool_result, given
        )
        assert outcome.status is ToolStatus.ERROR
    assert await result(database, "c4") == ("waited", True)


async def test_a_time_out_ends_a_tool_once(database: Database) -> None:
    outcome = await run(database, "c8", "hangs", timeout=0.05)
    assert outcome.status is ToolStatus.ERROR
    content, is_error = await result(database, "c8")
    assert is_error
    assert "after 0.05 seconds" in content
    assert "poll" in content
    assert (await run(database, "c8", "hangs", attempt=2, timeout=0.05)).status is ToolStatus.ERROR
    assert RUNS == ["s"]


async def test_the_checkpoints_of_a_round_share_a_budget(database: Database) -> None:
    """Nine results of a megabyte would exceed what the server keeps for a turn, and it would terminate the turn."""
    await run(database, "c9", "says_much")
    assert [state.result for state in SENT] == [None], "too large for its share: not kept"
    SENT.clear()
    await run(database, "c0", "works")
    assert [state.result.output if state.result else None for state in SENT] == [None, "done"]


async def test_a_result_waits_for_the_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same attempt, because the next one would not have it."""
    write, refused = database.write, 0

    @asynccontextmanager
    async def refuses_twice() -> AsyncIterator[Connection]:
        nonlocal refused
        if refused < 2:
            refused += 1
            raise UnavailableError("The database")
        async with write() as connection:
            yield connection

    monkeypatch.setattr(database, "write", refuses_twice)
    await run(database, "c9", "says_much")
    assert refused == 2
    assert await result(database, "c9") == ("x" * SAID, False)


async def test_an_absent_database_does_not_count_as_a_run(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    read, refused = database.read, 0

    @asynccontextmanager
    async def refuses_once() -> AsyncIterator[Connection]:
        nonlocal refused
        if not refused:
            refused += 1
            raise UnavailableError("The database")
        async with read() as connection:
            yield connection

    monkeypatch.setattr(database, "read", refuses_once)
    assert (await run(database, "c1", "once")).status is ToolStatus.OK
    assert RUNS == ["s"]


async def test_a_worker_that_left_before_the_tool_ran_does_not_count(database: Database) -> None:
    assert (await run(database, "c1", "once", attempt=2, state=ToolState(starts=0))).status is ToolStatus.OK
    assert RUNS == ["s"]


async def test_a_workspace_is_the_root_sessions(database: Database) -> None:
    """What a sub-session writes, its root reads; another session does not."""
    root = f"root-{uuid4()}"
    texts = [("w", "write_file", '{"path": "a", "content": "from below"}'), ("r", "read_file", '{"path": "a"}')]
    made = [{"id": call, "function": {"name": name, "arguments": text}} for call, name, text in texts]
    async with database.write() as connection:
        row = messages.NewMessage("row-2", "assistant", tool_calls=made, turn_id=TURN.turn_id, round=1)
        await messages.append(connection, TURN.session_id, [row])
    folder = SETTINGS.workspace_of(root)
    assert not folder.exists()
    below = Scope(root_session_id=root, ancestors=(root,), depth=1)
    assert (await run(database, "w", "write_file", scope=below, message_id="row-2")).status is ToolStatus.OK
    assert (folder / "a").read_text() == "from below"
    assert (
        await run(database, "r", "read_file", scope=Scope(root_session_id=root), message_id="row-2")
    ).status is ToolStatus.OK
    assert (await result(database, "r"))[0] == "from below"
    assert not (SETTINGS.workspace_of(TURN.session_id) / "a").exists()
    shutil.rmtree(folder)


async def test_the_rest_of_a_cut_result_can_be_read(database: Database) -> None:
    """Of this session only, character by character."""
    whole = "".join(f"{number:05}" for number in range(10_000))
    rows = [messages.tool_row("earlier", 1, "call_1", "n", whole, is_error=False)]
    async with database.write() as connection:
        await messages.append(connection, TURN.session_id, rows)
        await sessions.create(connection, sessions.NewSession("other", TURN.user_id))
        await messages.append(connection, "other", [rows[0]._replace(id="x", tool_call_id="foreign")])
    activities = ToolActivities(database, NO_STREAMS, default_tools(), SETTINGS)
    call = RunTool(turn=TURN, round=1, message_id="m", tool_call_id="now", name="read_tool_result")
    given = CallCredentials(activities._credentials, call)
    tool, context = default_tools().get("read_tool_result", Scope()), activities._context(call, given, print)

    async def read(tool_call_id: str, offset: int) -> str:
        assert tool.run is not None
        return await tool.run(PartOfResult(tool_call_id=tool_call_id, offset=offset), context)

    shown, offset = "", 0
    while offset >= 0:
        part, _, note = (await read("call_1", offset)).partition("\n[")
        shown += part
        offset = int(note.rpartition("=")[2].rstrip("]")) if note else -1
    assert shown == whole
    for missing, at in (("foreign", 0), ("nothing", 0), ("call_1", len(whole))):
        with pytest.raises(ToolError):
            await read(missing, at)
