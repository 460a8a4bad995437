"""A root session and all sub-sessions below it share one folder of files, and deleting the root removes it."""

from pathlib import Path
from typing import Any

import pytest

from longhaul.redis import connect
from longhaul.settings import load_settings
from longhaul.streams.ending import DELETED_TTL_S
from longhaul.streams.events import stream_key
from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.servers import calling
from tests.scenarios.sub_sessions import RUN, use

PRODUCT: ProductOptions = {"settings": {"LONGHAUL_WORKSPACE_MAX_BYTES": "20"}}
pytestmark = pytest.mark.backends("sqlite")


def workspaces(product: Product) -> Path:
    return Path(product.environment()["LONGHAUL_HOME"]) / "workspaces"


async def test_a_parent_reads_what_its_sub_session_wrote(product: Product) -> None:
    """The quota counts the files of both, and the files go with the root only."""
    session = await product.api.create_session()
    prompt = calling("write_file", path="note.txt", content="from below")
    sub_id = (await use(product, session, RUN, prompt=prompt)).json["sub_session_id"]
    read = await use(product, session, "read_file", path="note.txt")
    assert (read.output, read.is_error) == ("from below", False)
    refused = await use(product, session, "write_file", path="other.txt", content="x" * 11)
    assert refused.is_error
    assert "its other files take 10" in refused.output
    assert [folder.name for folder in workspaces(product).iterdir()] == [session]
    assert (await product.api.call("DELETE", f"/sessions/{sub_id}")).status == 204
    assert (workspaces(product) / session / "note.txt").read_text() == "from below"
    await deleted_with_streams(product, session, read.turn_id)
    assert list(workspaces(product).iterdir()) == []


async def deleted_with_streams(product: Product, session: str, turn_id: str) -> None:
    """Delete a session; the stream of its turn is about to go."""
    redis: Any = connect(load_settings(redis_url=product.environment()["REDIS_URL"]))
    try:
        assert await redis.ttl(stream_key(turn_id)) > DELETED_TTL_S
        assert (await product.api.call("DELETE", f"/sessions/{session}")).status == 204
        assert await redis.ttl(stream_key(turn_id)) <= DELETED_TTL_S
    finally:
        await redis.aclose()


async def test_a_worker_without_a_folder_for_files_says_so(product: Product) -> None:
    """Temporal is not the embedded one here, so there may be other hosts."""
    (worker,) = product.workers
    warning = next(line for line in worker.log.read_text().splitlines() if "LONGHAUL_WORKSPACES is not set" in line)
    assert str(workspaces(product)) in warning
    assert "same folder of a shared file system" in warning
