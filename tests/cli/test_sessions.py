"""`longhaul sessions …` and `longhaul send --json`, against the real product."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from cli import CommandError
from cli.app import app
from longhaul.db.models import SessionRow
from testkit.product import Product
from testkit.wait import until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.backends("sqlite")  # the commands know nothing of the database


async def run(product: Product, *arguments: str, answer: str = "") -> Result:
    """Run a command beside the event loop."""
    return await asyncio.to_thread(
        CliRunner().invoke, app, [*arguments, "--api-url", product.url()], input=answer, env={"LONGHAUL_TOKEN": ""}
    )


async def ask(product: Product, text: str) -> dict[str, Any]:
    ended = await run(product, "send", "--json", text)
    assert ended.exit_code == 0
    answer: dict[str, Any] = orjson.loads(ended.stdout)
    return answer


async def runs(product: Product, session: str) -> bool:
    return (await product.api.session(session))["active_turn"] is not None


async def test_send_for_programs_says_how_the_turn_ended(product: Product) -> None:
    answered = await ask(product, "What is 6 * 7?")
    assert answered["status"] == "completed"
    assert "42" in answered["text"]
    failed = await run(product, "send", "--json", "hello [fault=status:400 times=50]")
    assert failed.exit_code == 3
    assert orjson.loads(failed.stdout)["error"]
    session = await product.api.create_session()
    stopped = asyncio.create_task(run(product, "send", "--json", "--session", session, "wait 250 s"))
    await until(lambda: runs(product, session), what="a running turn")
    await product.api.cancel(session)
    assert (await stopped).exit_code == 4
    refused = await run(product, "send", "--json", "--session", "no-such-session", "hello")
    assert isinstance(refused.exception, CommandError)


async def test_list_show_tree_and_export(product: Product, tmp_path: Path) -> None:
    session = (await ask(product, "delegate: what is 17 * 23?"))["session_id"]
    assert session in (await run(product, "sessions", "list", "-n", "200")).stdout
    listed = orjson.loads((await run(product, "sessions", "list", "-n", "200", "--json")).stdout)
    assert session in [one["id"] for one in listed]
    assert "## Copilot" in (await run(product, "sessions", "show", session)).stdout
    assert "└── " in (await run(product, "sessions", "tree", session)).stdout
    assert "## You\n\ndelegate: what is 17 * 23?" in (await run(product, "sessions", "export", session)).stdout
    file = tmp_path / "talk.json"
    assert (await run(product, "sessions", "export", session, str(file))).exit_code == 0
    rows = orjson.loads(file.read_bytes())["messages"]
    assert [row["sequence"] for row in rows] == list(range(len(rows)))
    unwritable = await run(product, "sessions", "export", session, str(tmp_path / "no" / "talk.md"))
    assert isinstance(unwritable.exception, CommandError)


async def test_delete_asks_first(product: Product) -> None:
    session = await product.api.create_session()
    assert (await run(product, "sessions", "delete", session, answer="n\n")).exit_code == 1
    assert (await product.api.call("GET", f"/sessions/{session}")).status == 200
    assert (await run(product, "sessions", "delete", session, "--yes")).exit_code == 0
    assert (await product.api.call("GET", f"/sessions/{session}")).status == 404


async def test_clean_deletes_what_is_old_and_idle(product: Product) -> None:
    old, busy, new = [await product.api.create_session() for _ in range(3)]
    await product.api.start(busy, "wait 250 s")
    async with product.database.write() as connection:
        long_ago = datetime.now(UTC) - timedelta(days=400)
        await connection.execute(update(SessionRow).where(SessionRow.id.in_([old, busy])).values(updated_at=long_ago))
    listed = await run(product, "sessions", "clean", "--older-than", "52w", "--dry-run")
    assert old in listed.stdout
    assert (await product.api.call("GET", f"/sessions/{old}")).status == 200
    cleaned = await run(product, "sessions", "clean", "--older-than", "52w", "--yes")
    assert cleaned.exit_code == 0
    statuses = [(await product.api.call("GET", f"/sessions/{one}")).status for one in (old, busy, new)]
    assert statuses == [404, 200, 200]
    assert isinstance((await run(product, "sessions", "clean", "--older-than", "soon")).exception, CommandError)
    await product.api.cancel(busy)


def test_the_shell_completes_commands() -> None:
    shell = {"_LONGHAUL_COMPLETE": "complete_bash", "COMP_WORDS": "longhaul sessions ex", "COMP_CWORD": "2"}
    completed = subprocess.run(
        [sys.executable, "-m", "cli"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **shell},
        check=False,
    )
    assert completed.stdout.split() == ["export"], completed.stderr
