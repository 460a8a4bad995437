"""Checkpoints: each attempt sees the newest one, however many attempts there are and whatever they send."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.attempt import HeartbeatInterceptor, checkpoint, last_checkpoint
from longhaul.contracts import CallModel, Scope
from tests.activities.conftest import TURN

BEATS = 3


class Paid(BaseModel):
    answer: str


class Body(ActivityInboundInterceptor):
    """The activity itself."""

    def __init__(self, body: Callable[[], Awaitable[object]]) -> None:
        self._body = body

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ARG002
        return await self._body()


async def attempt(
    number: int,
    details: list[Any],
    body: Callable[[], Awaitable[object]],
    *,
    interval: float = 0.01,
    call: CallModel | None = None,
    stopped: str = "",
) -> list[Any]:
    """Run one attempt until it has sent some heartbeats of its own; the details that the next attempt gets.

    `stopped`: the session of a notice that arrives while it runs.
    """
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=number, heartbeat_details=details, is_local=False)
    newest, beats, enough, begun = details, 0, asyncio.Event(), asyncio.Event()

    def sent(*state: Any) -> None:
        nonlocal newest, beats
        newest, beats = [one.model_dump() if isinstance(one, BaseModel) else one for one in state], beats + 1
        if beats >= BEATS:
            enough.set()

    async def until_enough() -> None:
        begun.set()
        await body()
        await asyncio.wait_for(enough.wait(), 60)

    environment.on_heartbeat = sent
    heartbeats = HeartbeatInterceptor(interval)
    inbound = heartbeats.intercept_activity(Body(until_enough))
    running = asyncio.ensure_future(environment.run(inbound.execute_activity, started(call)))
    try:
        await begun.wait()
        heartbeats.session_stopped(stopped)
        await running
    finally:
        running.cancel()
    return newest


def started(call: CallModel | None) -> ExecuteActivityInput:
    return ExecuteActivityInput(fn=saves, args=[call] if call else [], executor=None, headers={})


async def saves() -> None:
    checkpoint(Paid(answer="42"))


async def sees() -> None:
    assert last_checkpoint(Paid) == Paid(answer="42")


async def sees_nothing() -> None:
    assert last_checkpoint(Paid) is None


@pytest.mark.parametrize("attempts", [2, 5])
async def test_a_checkpoint_survives_any_number_of_attempts(attempts: int) -> None:
    details = await attempt(1, [], saves)
    for number in range(2, attempts + 1):
        details = await attempt(number, details, sees)


async def test_a_later_checkpoint_replaces_the_earlier_one() -> None:
    async def replaces() -> None:
        await sees()
        checkpoint(Paid(answer="43"))

    details = await attempt(2, await attempt(1, [], saves), replaces)
    assert details == [{"answer": "43"}]


async def test_without_a_checkpoint_there_is_none() -> None:
    await attempt(2, await attempt(1, [], sees_nothing), sees_nothing)


async def nothing() -> None: ...


@pytest.mark.parametrize("stopped", [TURN.session_id, "above"])
async def test_a_notice_of_a_stop_brings_heartbeats_at_once(stopped: str) -> None:
    """They carry the checkpoint of the attempts before, as every heartbeat must."""
    call = CallModel(turn=TURN, round=1, model="m", scope=Scope(ancestors=("above",)))
    paid = [{"answer": "42"}]
    assert await attempt(2, paid, nothing, interval=3600, call=call, stopped=stopped) == paid


async def test_the_text_of_a_defect_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks() -> None:
        raise KeyError("INSERT INTO messages VALUES ('my secret')")

    with pytest.raises(ApplicationError) as raised:
        await attempt(1, [], breaks)
    assert raised.value.type == "KeyError"
    assert raised.value.__cause__ is None
    assert "secret" not in str(raised.value)
    assert str(raised.value).partition("Reference: ")[2].rstrip(".") in caplog.text
    assert "my secret" in caplog.text
