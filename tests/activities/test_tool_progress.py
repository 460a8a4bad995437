"""What a tool reports while it runs, on its way to people."""

import asyncio
from typing import Any, cast

from activities import tool_progress
from activities.tool_progress import StreamReports, ToolReports
from longhaul.contracts import RunTool, ToolProgress
from testkit.wait import until
from tests.activities.conftest import NO_REDIS, TURN

CALL = RunTool(turn=TURN, round=1, message_id="m", tool_call_id="c", name="dig")


class Publisher:
    """The writing end of a stream that keeps what it is given."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []

    def put(self, part: dict[str, Any]) -> None:
        self.parts.append(part)

    @property
    def texts(self) -> list[str]:
        return [part["data"]["text"] for part in self.parts]


def reports(publisher: Publisher) -> ToolReports:
    return StreamReports(NO_REDIS, cast("Any", publisher), CALL)


async def test_the_first_and_the_last_report_are_shown_and_a_flood_is_not() -> None:
    publisher = Publisher()
    tool = reports(publisher)
    async with tool.showing():
        tool.report(ToolProgress(text="0", done=0, total=1000))
        await until(lambda: publisher.parts, what="the first report is shown", every=0.001)
        for number in range(1, 1000):
            tool.report(ToolProgress(text=str(number), done=number, total=1000))
    assert publisher.texts[0] == "0"
    assert publisher.texts[-1] == "999"
    assert len(publisher.parts) <= 4
    first = {"tool_call_id": "c", "tool": "dig", "text": "0", "done": 0, "total": 1000}
    assert publisher.parts[0] == {"type": "data-tool-progress", "id": "c", "transient": True, "data": first}


async def test_threads_may_report(monkeypatch: Any) -> None:
    monkeypatch.setattr(tool_progress, "PAUSE_S", 0.0)
    publisher = Publisher()
    tool = reports(publisher)
    async with tool.showing():
        await asyncio.to_thread(tool.report, ToolProgress(text="from a thread"))
        await until(lambda: publisher.parts, what="it is shown", every=0.001)
    assert publisher.texts == ["from a thread"]


async def test_a_thread_that_was_left_behind_shows_nothing_more() -> None:
    """Else its report would come behind the output of its call, or behind the turn's end."""
    publisher = Publisher()
    tool = reports(publisher)
    async with tool.showing():
        pass
    await asyncio.to_thread(tool.report, ToolProgress(text="late"))
    await asyncio.sleep(0)
    assert publisher.parts == []


async def test_a_tool_that_fails_shows_its_last_report() -> None:
    publisher = Publisher()
    tool = reports(publisher)
    try:
        async with tool.showing():
            tool.report(ToolProgress(text="almost"))
            raise ZeroDivisionError
    except ZeroDivisionError:
        assert publisher.texts == ["almost"]
    else:
        raise AssertionError("the tool's own error must come through")
