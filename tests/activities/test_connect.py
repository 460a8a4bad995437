"""Tools that sign in for their user: what they are given, when a person is asked, and that nobody sees the secret."""

import logging
from typing import Any, cast

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import attempt as module
from activities.call_credentials import CONNECTS_MAX
from activities.parked import ParkedActivities
from activities.tools import ToolActivities
from longhaul.contracts import GiveUp, ParkCall, ParkedCall, ParkKind, RunTool, SettleCall, ToolOutcome, ToolStatus
from longhaul.credentials.credentials import Credentials
from longhaul.credentials.vault import new_key
from longhaul.db import conversation, messages, parked, turns
from longhaul.db.database import Database
from longhaul.db.models import ParkedStatus, utc_now
from longhaul.db.parked import Answer
from longhaul.llm import prompts
from longhaul.settings import Settings, load_settings
from longhaul.tools import NotConnectedError, Registry, ToolContext, ToolError, tool
from tests.activities.conftest import NO_STREAMS, SETTINGS, TURN

PROVIDERS = (
    '{"github": {"title": "GitHub", "client_id": "c", "authorize_url": "https://a/", "token_url": "https://a/token"}}'
)
TOKEN = "s3cret-token"


def settings(**more: Any) -> Settings:
    given = {"credential_keys": KEY, "oauth_providers": PROVIDERS, **more}
    return load_settings(home=SETTINGS.home, redis_url=SETTINGS.redis_url, **given)


KEY = new_key()
ON = settings()


class Job(BaseModel):
    how: str = "says"


@tool(Job, "Signs in.", changes=True)
async def sign_in(arguments: Job, context: ToolContext) -> str:
    secret = await context.credential("github")
    match arguments.how:
        case "refuses":
            raise ToolError(f"401 for {secret}")
        case "crashes":
            raise RuntimeError(f"401 for {secret}")
        case "rejects":
            raise NotConnectedError("github")
        case "reports":
            context.progress(f"signed in by {secret}")
    return f"signed in by {secret}, that is {len(secret)} characters"


@pytest.fixture(autouse=True)
async def calls(database: Database) -> None:
    """A turn whose model has made a call of each kind."""
    module._heartbeat_details.set([])
    made = [{"id": how, "function": {"name": "sign_in", "arguments": f'{{"how": "{how}"}}'}} for how in HOW]
    row = messages.NewMessage("row", "assistant", tool_calls=made, turn_id=TURN.turn_id, round=1)
    new = turns.NewTurn(TURN.turn_id, TURN.session_id, "u", "m", "fast", "standard", utc_now())
    async with database.write() as connection:
        await turns.start(connection, new)
        await messages.append(connection, TURN.session_id, [row])


HOW = ["says", "refuses", "crashes", "rejects", "reports"]


async def run(database: Database, call: str = "says", used: Settings = ON, **more: Any) -> ToolOutcome:
    tools = ToolActivities(database, NO_STREAMS, Registry([sign_in]), used)
    given = RunTool(turn=TURN, round=1, message_id="row", tool_call_id=call, name="sign_in", timeout=60, **more)
    return cast("ToolOutcome", await ActivityEnvironment().run(tools.run_tool, given))


async def park(database: Database, call: str = "says", connects: int = 1) -> ParkedCall:
    given = ParkCall(
        turn=TURN,
        round=1,
        message_id="row",
        tool_call_id=call,
        name="sign_in",
        kind=ParkKind.CONNECT,
        credential="github",
        connects=connects,
    )
    asked = ParkedActivities(database, NO_STREAMS, Registry([sign_in]), ON)
    return cast("ParkedCall", await ActivityEnvironment().run(asked.park_call, given))


async def settle(database: Database, call: ParkedCall, give_up: GiveUp | None = None) -> ParkedCall:
    given = SettleCall(
        turn=TURN, round=1, tool_call_id="says", name="sign_in", approval_id=call.approval_id, give_up=give_up
    )
    asked = ParkedActivities(database, NO_STREAMS, Registry([sign_in]), ON)
    return cast("ParkedCall", await ActivityEnvironment().run(asked.settle_call, given))


async def connect(database: Database, token: str = TOKEN) -> None:
    await Credentials(database, ON).put_token(TURN.user_id, "github", token)


async def results(database: Database) -> dict[str, str]:
    """What the model is told, by call."""
    async with database.read() as connection:
        rows = await conversation.rows_of_round(connection, TURN.turn_id, 1)
    return {row.tool_call_id: row.content for row in rows if row.tool_call_id}


async def test_a_call_that_lacks_a_credential_has_no_result_and_runs_when_it_is_there(database: Database) -> None:
    """Also a tool that changes something: it did not begin."""
    outcome = await run(database)
    assert (outcome.lacks, outcome.status, await results(database)) == ("github", ToolStatus.RUNNING, {})
    asked = await park(database)
    assert asked.waits
    assert asked.connect is not None
    assert asked.connect.model_dump() == {
        "credential": "github",
        "provider": "GitHub",
        "url": "/v1/credentials/github/connect",
    }
    await connect(database)
    async with database.write() as connection:
        await parked.answer(connection, asked.approval_id, TURN.user_id, Answer(ParkedStatus.ALLOWED))
    taken = await settle(database, asked)
    assert (taken.waits, taken.outcome) == (False, None)
    assert (await run(database, connects=1)).status is ToolStatus.OK
    assert await results(database) == {"says": "signed in by ***, that is 12 characters"}


async def test_one_that_came_meanwhile_is_not_waited_for(database: Database) -> None:
    await connect(database)
    assert not (await park(database)).waits


async def test_the_credential_of_somebody_else_is_not_given_out(database: Database) -> None:
    await Credentials(database, ON).put_token("somebody else", "github", TOKEN)
    assert (await run(database)).lacks == "github"
    assert (await park(database)).waits


async def test_the_secret_is_in_no_result_log_or_report(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the tool does with it."""
    await connect(database)
    reported: list[str] = []
    tools = ToolActivities(database, NO_STREAMS, Registry([sign_in]), ON)
    make = tools._context

    def noting(call: RunTool, given: Any, report: Any) -> ToolContext:
        def note(progress: Any) -> None:
            reported.append(progress.text)
            report(progress)

        return make(call, given, note)

    tools._context = noting  # type: ignore[method-assign]
    with caplog.at_level(logging.DEBUG):
        for call in ("says", "refuses", "crashes", "reports"):
            given = RunTool(turn=TURN, round=1, message_id="row", tool_call_id=call, name="sign_in", timeout=60)
            await ActivityEnvironment().run(tools.run_tool, given)
    told = await results(database)
    assert told["refuses"] == "401 for ***"
    assert told["crashes"].startswith("sign_in failed by an unexpected error. Reference: ")
    assert reported == ["signed in by ***"]
    assert "RuntimeError: 401 for ***" in caplog.text
    assert "s3cret" not in str(told) + caplog.text


async def test_a_tool_that_is_started_again_tells_temporal_nothing(database: Database) -> None:
    await connect(database)
    again = tool(Job, "Signs in.", retries=1, name="sign_in")(sign_in.run)  # type: ignore[arg-type]
    tools = ToolActivities(database, NO_STREAMS, Registry([again]), ON)
    given = RunTool(turn=TURN, round=1, message_id="row", tool_call_id="crashes", name="sign_in", timeout=60, retries=1)
    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(tools.run_tool, given)
    assert "s3cret" not in str(raised.value) + repr(raised.value.details) + repr(raised.value.__cause__)


async def test_one_that_a_tool_rejects_is_asked_for_again_but_not_for_ever(database: Database) -> None:
    await connect(database)
    for connects in range(CONNECTS_MAX):
        assert (await run(database, "rejects", connects=connects)).lacks == "github"
        asked = await park(database, "rejects", connects + 1)
        assert asked.waits, "it is there, and does not work"
        await connect(database, f"{TOKEN} {connects}")
        async with database.write() as connection:
            await parked.answer(connection, asked.approval_id, TURN.user_id, Answer(ParkedStatus.ALLOWED))
    assert (await run(database, "rejects", connects=CONNECTS_MAX)).status is ToolStatus.ERROR
    told = (await results(database))["rejects"]
    assert told == prompts.STILL_NOT_CONNECTED.format(name="sign_in", credential="github", times=CONNECTS_MAX)


@pytest.mark.parametrize("give_up", [None, GiveUp.TIME, GiveUp.MESSAGE])
async def test_the_model_is_told_that_the_person_does_not_connect(database: Database, give_up: GiveUp | None) -> None:
    asked = await park(database)
    if give_up is None:
        async with database.write() as connection:
            await parked.answer(connection, asked.approval_id, TURN.user_id, Answer(ParkedStatus.DENIED, "Not now."))
    outcome = (await settle(database, asked, give_up)).outcome
    assert outcome is not None
    assert outcome.status is ToolStatus.ERROR
    if give_up is None:
        denied = prompts.DENIED_CONNECTION.format(credential="github", reason="Not now.")
        assert await results(database) == {"says": denied}


async def test_without_keys_nobody_is_asked(database: Database) -> None:
    assert (await run(database, used=settings(credential_keys=""))).status is ToolStatus.ERROR
    assert "LONGHAUL_CREDENTIAL_KEYS" in (await results(database))["says"]


def test_the_name_of_a_credential_is_no_text() -> None:
    """It is in histories and addresses."""
    for wrong in ("", "Git Hub", "../x", "x" * 65):
        with pytest.raises(ValueError, match="no name"):
            NotConnectedError(wrong)
