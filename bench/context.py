"""`make bench-context`: long conversations in a small window that the endpoint enforces; no turn may fail."""

import asyncio
import base64
import random
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from bench.turns import middle
from testkit.checks import check_rows
from testkit.pool import Pool
from testkit.process import kill_all
from testkit.product import Product

ENGLISH = "The durable session keeps every message, whatever happens to the workers. "
CHINESE = "持久的会话引擎把每一轮对话都保存为可恢复的工作流，这样即使服务器崩溃，用户的消息也不会丢失。"
BASE64 = base64.b64encode(random.Random(1).randbytes(3_000)).decode()
WORD = "Quetzalcoatl"


class Figures(NamedTuple):
    """Of one conversation: turns that failed, whether the first message is known at the end, summaries, the median of
    the first and the last tenth of the turns in milliseconds, and the most tokens that a call took."""

    failed: int
    known: bool
    summaries: int
    first_ms: float
    last_ms: float
    most_tokens: int


async def converse(product: Product, text: str, turns: int, size: int) -> Figures:
    """A conversation of messages of `size` bytes."""
    api, failed, took = product.api, 0, list[float]()
    session = await api.create_session()
    message = (text * (size // len(text.encode()) + 2)).encode()[:size].decode("utf-8", "ignore")
    for number in range(turns):
        begun = time.perf_counter()
        log = await api.stream(session, f"My word is {WORD}." if number == 0 else f"{number}. {message}")
        took.append((time.perf_counter() - begun) * 1000)
        failed += "finish" not in log.types or "error" in log.types
    log = await api.stream(session, "What was my first message?")
    found = await check_rows(product.database, sessions=[session], answered=not failed)
    tenth = max(1, turns // 10)
    return Figures(
        failed,
        WORD in log.text(),
        sum(row.kind == "summary" for row in found.of(session, "system")),
        middle(took[:tenth]),
        middle(took[-tenth:]),
        max(row.prompt_tokens for row in found.ledger if row.session_id == session),
    )


async def _run(turns: int, window: int, size: int) -> dict[str, Figures]:
    settings = {"LONGHAUL_MODEL_STANDARD": f"offline-window-{window}", "LONGHAUL_CONTEXT_WINDOW": str(window)}
    with tempfile.TemporaryDirectory(prefix="longhaul-bench-") as folder:
        pool = Pool(Path(folder))
        try:
            async with AsyncExitStack() as stack:
                product = await pool.make(stack, settings=settings)
                texts = {"English": ENGLISH, "Chinese": CHINESE, "base64": BASE64}
                figures = {name: await converse(product, text, turns, size) for name, text in texts.items()}
            await pool.close()
        finally:
            kill_all()
    return figures


def main(
    turns: Annotated[int, typer.Option(help="Turns of each conversation.")] = 300,
    window: Annotated[int, typer.Option(help="Tokens that the endpoint takes.")] = 16_000,
    size: Annotated[int, typer.Option(help="Bytes of a message.")] = 2_000,
) -> None:
    """Measure on real servers, started for this run alone; exit 1 if a turn failed or the first message is lost."""
    figures = asyncio.run(_run(turns, window, size))
    table = Table(title=f"{turns} turns with messages of {size} bytes, in a window of {window} tokens")
    for column in ("", "failed", "first message known", "summaries", "first turns", "last turns", "most tokens"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in figures.items():
        times = (f"{found.first_ms:.0f} ms", f"{found.last_ms:.0f} ms")
        known = "yes" if found.known else "no"
        table.add_row(name, str(found.failed), known, str(found.summaries), *times, str(found.most_tokens))
    Console().print(table)
    raise typer.Exit(any(found.failed or not found.known for found in figures.values()))


if __name__ == "__main__":
    typer.run(main)
