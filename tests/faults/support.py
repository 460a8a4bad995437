"""What the attacks of this folder have in common: what a client saw is what is stored, and nothing raised."""

import psutil

from testkit.checks import Stored, check_rows
from testkit.client import ApiClient
from testkit.grammar import check_stream
from testkit.process import Process
from testkit.product import Product
from testkit.streamlog import StreamLog

MIB = 1024 * 1024


def rss(process: Process) -> int:
    """Bytes of memory that a process has now."""
    return int(psutil.Process(process.pid).memory_info().rss)


def api_raised_nothing(product: Product) -> None:
    """No API logged an exception: whatever was away, it was an answer and not an accident."""
    for api in product.apis:
        said = api.log.read_text(errors="replace")
        at = said.find("Traceback")
        assert at < 0, f"{api.name} raised:\n{said[max(0, at - 500) : at + 3000]}"


async def same_as_stored(product: Product, session: str, log: StreamLog, *, kinds: tuple[str, ...] = ()) -> Stored:
    """The stream keeps to the grammar and its text is that of the turn's rows, byte for byte; all rows."""
    check_stream(log)
    found = await check_rows(product.database, sessions=[session])
    rows = [row for row in found.of(session, "assistant") if row.turn_id == log.turn_id and row.kind != "error"]
    written = "".join(row.content for row in rows)
    assert log.text() == written, f"seen {len(log.text())}, stored {len(written)} characters"
    assert not kinds or tuple(row.kind for row in rows) == kinds
    return found


async def next_message_works(product: Product, session: str, api: ApiClient | None = None) -> StreamLog:
    """The session answers one more message in a turn of its own, live from Redis."""
    api = api or product.api
    await api.until_idle(session)
    log = await api.stream(session, "speak 12 [delay=5]")
    await same_as_stored(product, session, log)
    assert "w1 w2 w3" in log.text(), log.text()
    assert log.last_id is not None, log.types
    return log


__all__ = ["MIB", "api_raised_nothing", "next_message_works", "rss", "same_as_stored"]
