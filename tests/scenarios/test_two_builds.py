"""Two versions of the workers at once: a turn that runs ends on the old one, new turns start on the new one."""

import secrets
from collections.abc import Mapping
from pathlib import Path

from cli import CommandError
from cli.app import set_current_build
from longhaul.settings import load_settings
from longhaul.temporal import workflow_id
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until
from tests.scenarios.held_tools import Gate
from tests.scenarios.support import history, identities


async def promote(product: Product, settings: Mapping[str, str], build_id: str) -> None:
    """What `longhaul promote` does; Temporal takes a moment to know a new worker's version."""
    loaded = load_settings(
        temporal_address=product.servers.temporal.address, deployment_name=settings["LONGHAUL_DEPLOYMENT_NAME"]
    )

    async def done() -> bool:
        try:
            await set_current_build(loaded, build_id)
        except CommandError:
            return False
        return True

    await until(done, what=f"build {build_id} is current")


async def build_of(product: Product, session: str) -> str:
    """The build that a session's newest run is pinned to."""
    described = await (await product.temporal()).get_workflow_handle(workflow_id(session)).describe()
    return described.raw_info.versioning_info.deployment_version.build_id


async def test_an_old_turn_ends_on_the_old_code(make_product: MakeProduct, tmp_path: Path) -> None:
    deployment = {"LONGHAUL_DEPLOYMENT_NAME": f"test-{secrets.token_hex(4)}"}
    gate = Gate(tmp_path)
    product = await make_product(workers=0, settings=gate.settings)
    old = await product.start_worker({**deployment, "LONGHAUL_BUILD_ID": "v1"})
    await promote(product, deployment, "v1")
    first, second = await product.api.create_session(), await product.api.create_session()
    live = await product.api.open(first, "2*3")
    await until(gate.runs, what="the tool runs")
    new = await product.start_worker({**deployment, "LONGHAUL_BUILD_ID": "v2"})
    await promote(product, deployment, "v2")
    turn = await product.api.start(second, "hello")
    assert (await product.api.wait_for_turn(second, turn))["status"] == "completed"
    await product.api.start(first, "still there?")  # a follow-up goes where the turn is
    gate.open()
    check_stream(await live.done())
    assert (await build_of(product, first), await build_of(product, second)) == ("v1", "v2")
    assert {i.partition("@")[0] for i in identities(await history(product, first))} == {str(old.pid)}
    assert {i.partition("@")[0] for i in identities(await history(product, second))} == {str(new.pid)}
    again = await product.api.start(first, "1+1")
    await product.api.wait_for_turn(first, again)
    assert await build_of(product, first) == "v2"
    found = await check_rows(product.database)
    assert [turn.status for turn in found.turns[first]] == ["completed", "completed"]
