"""`make bench-calls`: one turn with 100 tool calls of 5 KB, one after another, in a conversation of 200,000 tokens."""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from bench.turns import middle
from longhaul.db import messages
from longhaul.temporal import workflow_id
from testkit.checks import check_rows
from testkit.pool import Pool
from testkit.process import kill_all
from testkit.product import Product
from testkit.servers import script

#: Fewer than are read without a summary, with those of the turn.
ROWS = 150
FILE = "notes.txt"
SENTENCE = "Every message of this conversation is kept, whatever happens to the workers. "


class Figures(NamedTuple):
    """Of the turn: its outcome, calls made, events and bytes of its history, the median of the first and the last ten
    rounds in milliseconds, and the prompt tokens of its last call."""

    status: str
    calls: int
    events: int
    history_bytes: int
    first_ms: float
    last_ms: float
    tokens: int


async def fill(product: Product, session: str, tokens: int) -> None:
    """Give a session a past of about so many tokens, which the offline model counts as four bytes each."""
    text = SENTENCE * (tokens * 4 // ROWS // len(SENTENCE))
    rows = [
        {
            "id": messages.row_id(session, "past", n),
            "session_id": session,
            "sequence": n,
            "role": ("user", "assistant")[n % 2],
            "content": f"{n}: {text}",
        }
        for n in range(ROWS)
    ]
    async with product.database.write() as connection:
        await connection.execute(messages.INSERT, rows)
        await connection.execute(messages.ADVANCE, {"session": session, "following": ROWS})


async def measure(product: Product, calls: int, size: int, tokens: int) -> Figures:
    session = await product.api.create_session(title="t")
    await fill(product, session, tokens)
    content = (SENTENCE * (size // len(SENTENCE) + 1))[:size]
    written = script({"call": "write_file", "arguments": {"path": FILE, "content": content}})
    await product.api.wait_for_turn(session, await product.api.start(session, written))
    begun = time.perf_counter()
    live = await product.api.open(session, script({"rounds": calls, "read": FILE}))
    log = await live.done()
    steps = [event.at for event in log if event.type == "finish-step"]
    took = [1000 * (end - start) for start, end in pairwise(steps)]
    turn = (await product.api.turns(session))[0]
    await product.api.until_idle(session)
    described = await (await product.temporal()).get_workflow_handle(workflow_id(session)).describe()
    found = await check_rows(product.database, sessions=[session])
    made = [row for row in found.of(session, "tool") if row.turn_id == turn["turn_id"]]
    Console().print(f"the turn took {time.perf_counter() - begun:.1f} s")
    return Figures(
        turn["status"],
        sum(len(row.content) >= size for row in made),
        described.history_length,
        described.raw_info.history_size_bytes,
        middle(took[:10]),
        middle(took[-10:]),
        max(row.prompt_tokens for row in found.ledger),
    )


async def _run(calls: int, size: int, tokens: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="longhaul-bench-") as folder:
        pool = Pool(Path(folder))
        try:
            async with AsyncExitStack() as stack:
                # Nothing is summarised or left out, so that the conversation is as long as it says.
                settings = {"LONGHAUL_CONTEXT_WINDOW": "2000000", "LONGHAUL_MAX_ROUNDS": str(calls + 5)}
                product = await pool.make(stack, settings=settings)
                figures = await measure(product, calls, size, tokens)
            await pool.close()
        finally:
            kill_all()
    return figures


def main(
    calls: Annotated[int, typer.Option(help="Tool calls, one after another.")] = 100,
    size: Annotated[int, typer.Option(help="Bytes of each result.")] = 5_000,
    tokens: Annotated[int, typer.Option(help="Tokens of the conversation before.")] = 200_000,
) -> None:
    """Measure on real servers, started for this run alone; exit 1 unless the turn made all calls and completed."""
    found = asyncio.run(_run(calls, size, tokens))
    console = Console()
    console.print(f"{found.status}: {found.calls} calls of {size} bytes; the last prompt had {found.tokens} tokens")
    console.print(f"history: {found.events} events, {found.history_bytes} bytes")
    console.print(f"a round took {found.first_ms:.0f} ms at the beginning, {found.last_ms:.0f} ms at the end (medians)")
    raise typer.Exit(found.status != "completed" or found.calls < calls)


if __name__ == "__main__":
    typer.run(main)
