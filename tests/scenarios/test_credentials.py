"""A call that waits for a credential on real servers: it goes on by itself, and the secret is nowhere to be found."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from longhaul.credentials.vault import new_key
from longhaul.tools import ToolContext, tool
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.servers import script
from testkit.wait import until
from tests.scenarios.test_text_in_temporal import kept_by_temporal, until_listed

TOKEN = "s3cret-token-of-this-test"


@tool
async def sign_in(context: ToolContext) -> str:
    """Sign in, and say too much about it."""
    secret = await context.credential("github")
    context.progress(f"signed in by {secret}")
    return f"{secret} has the hash {hashlib.sha256(secret.encode()).hexdigest()}"


async def kept_by_redis(product: Product) -> str:
    """All that is in the product's database of Redis."""
    kept: list[object] = []
    async with Redis.from_url(product.servers.redis.url(product.redis_database)) as client:
        reads: dict[Any, Any] = {b"stream": client.xrange, b"hash": client.hgetall, b"string": client.get}
        async for key in client.scan_iter():
            read = reads.get(await client.type(key))
            kept += [key, await read(key) if read is not None else None]
    return str(kept)


def kept_in_files(product: Product) -> bytes:
    """Its database with everything beside it, and what its processes have logged."""
    files = {path for path in product.folder.rglob("*") if path.is_file()}
    return b"".join(path.read_bytes() for path in files | {Path(process.log) for process in product.processes})


@pytest.mark.backends("sqlite")
async def test_a_call_waits_for_a_token_and_nobody_sees_it(make_product: MakeProduct) -> None:
    settings = {"LONGHAUL_TOOLS": "tests.scenarios.test_credentials:sign_in", "LONGHAUL_CREDENTIAL_KEYS": new_key()}
    product = await make_product(settings=settings)
    api, session = product.api, await product.api.create_session()
    live = await api.open(session, script({"call": "sign_in", "arguments": {}}))
    await live.until_seen("data-approval")
    [asked] = (await api.call("GET", f"/approvals?session_id={session}")).body["data"]
    connect = {"credential": "github", "provider": None, "url": None}
    assert (asked["kind"], asked["status"], asked["connect"]) == ("connect", "waiting", connect)

    async def shown() -> bool:
        progress = await api.progress(session, live.log.turn_id)
        waiting = [one["connect"] for one in progress["waiting_calls"]]
        return (progress["status"], waiting) == ("waiting_for_approval", [connect])

    await until(shown, what="the progress shows what is asked")
    assert (await api.call("PUT", "/credentials/github", json={"token": TOKEN})).status == 200
    log = check_stream(await live.done())
    assert [part["data"]["status"] for part in log.parts("data-approval")] == ["waiting", "allowed"]
    assert log.parts("data-approval")[0]["data"]["connect"] == connect
    [output] = log.parts("tool-output-available")
    assert output["output"] == f"*** has the hash {hashlib.sha256(TOKEN.encode()).hexdigest()}"

    await until_listed(product, [session])
    await check_rows(product.database, sessions=[session])
    said = str(log.events) + await kept_by_redis(product)
    assert "has the hash" in said, "this test looks in the wrong place"
    files = kept_in_files(product)
    assert b"has the hash" in files
    kept = b"".join((await kept_by_temporal(product)).values())
    assert TOKEN not in said
    assert TOKEN.encode() not in files + kept
