"""Record a history of every kind of turn: `python -m tests.workflows.record [KIND…]`.

Do it after a change of workflow code, and keep the old files as long as turns of that code may still run: they are
what the replay test holds the new code against. Files are named by kind and time.
"""

import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus

from longhaul.temporal import workflow_id
from testkit.client import RecordingClient
from testkit.pool import Pool
from testkit.product import Product
from testkit.wait import until
from tests.workflows.kinds import KINDS, Kind

FOLDER = Path(__file__).with_name("histories")


async def record(names: list[str]) -> None:
    """Run a turn of each kind on real servers and write its history."""
    with tempfile.TemporaryDirectory(prefix="longhaul-record-") as folder:
        pool = Pool(Path(folder))
        try:
            async with AsyncExitStack() as stack:
                product = await pool.make(stack)
                for name in names:
                    for file, text in (await histories(product, name, KINDS[name])).items():
                        (FOLDER / file).write_text(text)
                        print(file)
        finally:
            await pool.close()


async def histories(product: Product, name: str, kind: Kind) -> dict[str, str]:
    """File names and histories of one kind."""
    api = await api_with(product, kind)
    session = await api.create_session()
    await kind.make(api, session)
    temporal, at = await product.temporal(), datetime.now(UTC).strftime("%Y-%m-%dT%H%M")
    found = dict(zip(_names(name, kind, at), await runs(temporal, session, kind.runs), strict=True))
    if kind.child:
        children = (await api.call("GET", f"/sessions/{session}/tree")).body["children"]
        for number, child in enumerate(children, start=1):
            [found[f"{name}_child_{number}.{at}.json"]] = await runs(temporal, child["session_id"], 1)
    return found


def _names(name: str, kind: Kind, at: str) -> list[str]:
    if kind.runs == 1:
        return [f"{name}.{at}.json"]
    return [f"{name}_{number}.{at}.json" for number in range(1, kind.runs + 1)]


def without_traces(found: Any) -> Any:
    """A history without stack traces: they say where the sources lie, and replay does not look at them."""
    if isinstance(found, dict):
        return {name: without_traces(value) for name, value in found.items() if name != "stackTrace"}
    return [without_traces(value) for value in found] if isinstance(found, list) else found


async def api_with(product: Product, kind: Kind) -> RecordingClient:
    """A client of an API with the settings of this kind."""
    return product.client(await product.start_api(dict(kind.settings))) if kind.settings else product.api


async def runs(temporal: Client, session: str, count: int) -> list[str]:
    """Histories of the first `count` runs of a session's newest turn, once that has ended."""
    handle = temporal.get_workflow_handle(workflow_id(session))

    async def closed() -> WorkflowExecutionDescription | None:
        found = await handle.describe()
        return found if found.status is not WorkflowExecutionStatus.RUNNING else None

    described = await until(closed, what="the turn's last run has ended")
    run_id = described.raw_info.first_run_id or described.run_id
    found: list[str] = []
    while len(found) < count:
        history = await temporal.get_workflow_handle(workflow_id(session), run_id=run_id).fetch_history()
        found.append(json.dumps(without_traces(json.loads(history.to_json())), separators=(",", ":"), sort_keys=True))
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    asyncio.run(record(sys.argv[1:] or list(KINDS)))
