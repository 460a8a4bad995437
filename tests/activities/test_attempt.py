"""Checkpoints: each attempt sees the newest one, however many attempts there are and whatever they send."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.attempt import HeartbeatInterceptor, checkpoint, last_checkpoint

BEATS = 3


class Paid(BaseModel):
    answer: str


class Body(ActivityInboundInterceptor):
    """The activity itself."""

    def __init__(self, body: Callable[[], Awaitable[object]]) -> None:
        self._body = body

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ARG002
        return await self._body()


async def attempt(number: int, details: list[Any], body: Callable[[], Awaitable[object]]) -> list[Any]:
    """Run one attempt until it has sent some heartbeats of its own; the details that the next attempt gets."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=number, heartbeat_details=details, is_local=False)
    newest, beats, enough = details, 0, asyncio.Event()

    def sent(*state: Any) -> None:
        nonlocal newest, beats
        newest, beats = [one.model_dump() if isinstance(one, BaseModel) else one for one in state], beats + 1
        if beats >= BEATS:
            enough.set()

    async def until_enough() -> None:
        await body()
        await asyncio.wait_for(enough.wait(), 60)

    environment.on_heartbeat = sent
    inbound = HeartbeatInterceptor(0.01).intercept_activity(Body(until_enough))
    await environment.run(inbound.execute_activity, cast("Any", None))
    return newest


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
