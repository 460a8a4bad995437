"""Tools that a test can watch and hold: each run is noted in a file and ends when the test opens the gate."""

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from longhaul.tools import Registry, Tool, ToolContext, tool

FOLDER = "LONGHAUL_TEST_FOLDER"
POLL_S = 0.02


class Sum(BaseModel):
    expression: str


class Payment(BaseModel):
    amount: int


class Length(BaseModel):
    length: int


def _note(what: str) -> None:
    with (Path(os.environ[FOLDER]) / "runs").open("a") as runs:
        runs.write(f"{os.getpid()} {what}\n")


async def _held(what: str) -> None:
    folder = Path(os.environ[FOLDER])
    _note(what)
    while not await asyncio.to_thread((folder / "gate").exists):  # noqa: ASYNC110  # the test is another process
        await asyncio.sleep(POLL_S)


async def calculator(given: Sum, context: ToolContext) -> str:
    """In the place of the real one, because the offline model calls that by itself, several at once."""
    await _held(f"calculator {context.tool_call_id}")
    return f"computed {given.expression}"


async def ponder(given: Sum, context: ToolContext) -> str:
    await _held(f"ponder {given.expression}")
    return f"pondered {given.expression}"


async def recite(given: Length, _: ToolContext) -> str:
    """A long result; the second note says that it is about to be stored."""
    await _held(f"recite {given.length}")
    _note(f"recited {given.length}")
    return "x" * given.length


async def pay(given: Payment, context: ToolContext) -> str:
    await _held(f"pay {given.amount}")
    return f"paid {given.amount}"


@tool(timeout=100)
async def dig(metres: int, context: ToolContext) -> str:
    """Dig, and report it."""
    context.progress("digging", done=1, total=metres)
    await _held(f"dig {metres}")
    return f"dug {metres}"


def registry() -> Registry:
    """For `LONGHAUL_TOOLS`."""
    return Registry(
        [
            Tool("calculator", "Compute.", Sum, calculator),
            Tool("recite", "Recite.", Length, recite),
            Tool("ponder", "Ponder.", Sum, ponder, quick=True),
            Tool("pay", "Pay.", Payment, pay, repeatable=False, changes=True),
            dig,
        ]
    )


class Gate:
    """The test's end of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def settings(self) -> dict[str, str]:
        """For the workers."""
        return {"LONGHAUL_TOOLS": "tests.scenarios.held_tools:registry", FOLDER: str(self.folder)}

    def runs(self, what: str = "") -> list[tuple[int, str]]:
        """Process id and words of every run that has begun."""
        file = self.folder / "runs"
        lines = file.read_text().splitlines() if file.exists() else []
        pairs = [line.split(" ", 1) for line in lines]
        return [(int(pid), words) for pid, words in pairs if words.startswith(what)]

    def open(self) -> None:
        """Let them end."""
        (self.folder / "gate").touch()
