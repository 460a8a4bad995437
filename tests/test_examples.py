"""The programs in `examples/` run as they are."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from testkit.product import Product

pytestmark = pytest.mark.backends("sqlite")
ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"
#: What each prints.
PRINTED = {
    "ask_and_wait.py": "391",
    "follow_up_and_stop.py": "joins the turn",
    "openai_client.py": "391",
    "schedule.py": "delivered: completed",
    "stream.py": "84",
    "sub_sessions.py": "  completed: ",
    "webhook_receiver.py": "turn.ended: completed",
    "tour.sh": '"title":"A tour"',
}


def test_every_example_is_here() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".md"} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
async def test_an_example(product: Product, name: str) -> None:
    argv = ["bash"] if name.endswith(".sh") else [sys.executable]
    process = await asyncio.create_subprocess_exec(
        *argv,
        str(FOLDER / name),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LONGHAUL_API_URL": product.url(), "PYTHONPATH": str(ROOT)},
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert PRINTED[name] in output.decode()
