"""A tool of one's own at work: people see how far it is, and the plan, in the stream and by polling."""

from pathlib import Path
from typing import Any

import pytest

from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.servers import script
from testkit.wait import until
from tests.scenarios.held_tools import Gate

PLAN = [{"step": "dig", "status": "in_progress"}, {"step": "rest", "status": "pending"}]
REPORT = {"text": "digging", "done": 1.0, "total": 3.0}


@pytest.mark.backends("sqlite")
async def test_progress_and_plan(make_product: MakeProduct, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    product = await make_product(settings=gate.settings)
    session = await product.api.create_session()
    calls = [
        {"call": "update_plan", "arguments": {"plan": PLAN}},
        {"call": "dig", "arguments": {"metres": 3}},
    ]
    live = await product.api.open(session, script(*calls))
    await live.until_seen("data-tool-progress")
    turn = live.log.turn_id

    async def shown() -> dict[str, Any] | None:
        progress = await product.api.progress(session, turn)
        reports = [tool["progress"] for tool in progress["tools_running"] if tool["name"] == "dig"]
        return progress if reports == [REPORT] and progress["plan"] == PLAN else None

    await until(shown, what="a poll sees the tool's report and the plan")
    gate.open()
    log = check_stream(await live.done())
    [plan] = [event.part for event in log.valid if event.type == "data-plan"]
    assert plan == {"type": "data-plan", "id": "plan", "data": {"plan": PLAN}}
    [report] = [event.part for event in log.valid if event.type == "data-tool-progress"]
    assert report is not None
    assert report["data"]["text"] == "digging"
    ended = await product.api.wait_for_turn(session, turn)
    assert (ended["plan"], ended["tools_running"]) == (PLAN, [])
    history = (await product.api.http.get(f"/v1/sessions/{session}/ui-messages")).json()
    assert [part for part in history[-1]["parts"] if part["type"] == "data-plan"] == [plan]
