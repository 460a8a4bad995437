"""A sub-session is never allowed more than its parent, whatever the arguments of the tool ask for."""

import pytest

from testkit.product import Product
from testkit.servers import calling
from tests.scenarios.sub_sessions import RUN, results, say, sub_of, use

pytestmark = pytest.mark.backends("sqlite")  # a scope is one value in a row


async def test_tools(product: Product) -> None:
    """A tool denied to the root is denied to its sub-sessions, also where the tool call allows it."""
    session = await product.api.create_session(deny_tools=["write_file"])
    prompt = calling("write_file", path="a.txt", content="x")
    await use(product, session, RUN, prompt=prompt, allow_tools=["write_file", "calculator", "read_file"])
    (sub_id,) = await sub_of(product, session)
    refused = (await results(product, sub_id, "write_file"))[0]
    assert refused.is_error
    assert "is not allowed in this session. Available: calculator, read_file." in refused.output
    turn = await say(product, sub_id, calling(RUN, prompt="1+1"))
    assert "is not allowed" in (await results(product, sub_id, RUN, turn))[0].output
    shown = await product.api.session(sub_id)
    assert shown["allow_tools"] == ["calculator", "read_file"]
    assert shown["deny_tools"] == ["write_file"]


async def test_dry_run(product: Product) -> None:
    session = await product.api.create_session(dry_run=True)
    await use(product, session, RUN, prompt="delegate: write a.txt: x", dry_run=False)
    (child,) = await sub_of(product, session)
    (leaf,) = await sub_of(product, child)
    wrote = (await results(product, leaf, "write_file"))[0]
    assert wrote.output == "Dry run: write_file was not run. It would write a.txt."
    assert (await product.api.session(leaf))["dry_run"]
    listed = await say(product, leaf, "list files")
    assert "a.txt" not in (await results(product, leaf, "list_files", listed))[0].output
