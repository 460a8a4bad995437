"""What people, models and tools say is in no history and in no visibility record; with a codec, ids are not either."""

import json
import re
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from temporalio.worker import Replayer

from longhaul.payloads import data_converter
from testkit.checks import check_rows
from testkit.client import RecordingClient
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.servers import script
from testkit.wait import until
from tests.scenarios import codec
from tests.scenarios.sub_sessions import GET, RUN, nothing_runs, sub_of, tree, use, walk
from tests.scenarios.support import start_working
from worker import workflow_options

TOOLS = {"LONGHAUL_TOOLS": "tests.scenarios.codec:registry"}
#: What the offline model says when it refuses a call.
PROVIDER = "The offline model was asked for"


async def kept_by_temporal(product: Product) -> dict[str, bytes]:
    """Every event, visibility record and description of all runs, raw, by what it is."""
    client, found = await product.temporal(), {}
    async for one in client.list_workflows(f"TaskQueue = '{product.task_queue}'"):
        found[f"record of {one.id}"] = one.raw_info.SerializeToString()
        handle = client.get_workflow_handle(one.id, run_id=one.run_id)
        found[f"description of {one.id}"] = (await handle.describe()).raw_description.SerializeToString()
        async for event in handle.fetch_history_events():
            found[f"event {event.event_id} of {one.id}: {event.WhichOneof('attributes')}"] = event.SerializeToString()
    return found


async def until_listed(product: Product, sessions: list[str]) -> None:
    """Wait until visibility, which is updated behind the histories, knows the end of all these turns."""
    client = await product.temporal()

    async def listed() -> bool:
        ended = f"TaskQueue = '{product.task_queue}' AND ExecutionStatus != 'Running'"
        return {f"turn:{session}" for session in sessions} <= {one.id async for one in client.list_workflows(ended)}

    await until(listed, what="visibility knows all turns")


def everything_said() -> str:
    """A message whose turn says a canary in every place where text can be."""
    task = {"prompt": "CANARY-prompt and 6*7", "system_context": "CANARY-background", "allow_tools": ["CANARY-name"]}
    return script(
        {"think": "CANARY-thought"},
        {"call": "write_file", "arguments": {"path": "CANARY-path.txt", "content": "CANARY-content"}},
        {"call": "read_file", "arguments": {"path": "CANARY-missing.txt"}},
        {"call": "crash", "arguments": {"words": "CANARY-exception"}},
        {"call": "wait", "arguments": {"seconds": 0.01, "why": "CANARY-reason"}},
        {"call": "wait", "arguments": {"seconds": "CANARY-seconds"}},
        {"call": "CANARY-tool", "arguments": {}},
        {"call": RUN, "arguments": task},
        {"call": RUN, "arguments": {"prompt": "CANARY-refused", "agent": "CANARY-agent"}},
        {"call": RUN, "arguments": '{"prompt": "CANARY-broken'},
        {"call": RUN, "arguments": {"prompt": "CANARY-elsewhere", "sub_session_id": "CANARY-sub"}},
        {"call": GET, "arguments": {"sub_session_id": "CANARY-looked-at"}},
        {"say": "CANARY-answer"},
    )


async def say_everything(product: Product, api: RecordingClient) -> list[str]:
    """Turns of every kind that say canaries; the sessions."""
    session = await api.create_session(title="CANARY-title")
    page = {"url": "https://example.com/CANARY-url", "content": "CANARY-page"}
    await api.wait_for_turn(session, await api.start(session, everything_said(), context=page))
    (sub_id,) = await sub_of(product, session)
    await use(product, session, RUN, prompt="CANARY-again", sub_session_id=sub_id, system_context="CANARY-more")
    await api.wait_for_turn(session, await api.start(session, "CANARY-retried [fault=status:503 times=1]"))
    stopped = await start_working(product, session, "delegate: wait 60 s and CANARY-child")
    await api.start(session, "CANARY-follow-up")
    await api.cancel(session)
    assert (await api.wait_for_turn(session, stopped))["status"] == "cancelled"
    untitled = await api.create_session()
    failing = await api.start(untitled, "CANARY-first [fault=status:400]")
    assert (await api.wait_for_turn(untitled, failing))["status"] == "failed"
    sessions = [session, untitled, *(node["session_id"] for node in walk(await tree(product, session)))]
    await nothing_runs(product, sessions)
    return sorted(set(sessions))


async def test_no_text_is_in_temporal(make_product: MakeProduct) -> None:
    product = await make_product(settings=TOOLS)
    sessions = await say_everything(product, product.api)
    await until_listed(product, sessions)
    rows = await check_rows(product.database, sessions=sessions, answered=False)
    said = json.dumps([list(map(str, row)) for one in sessions for row in rows.of(one)])
    canaries = set(re.findall(r"CANARY-[\w-]+", everything_said()))
    assert canaries <= set(re.findall(r"CANARY-[\w-]+", said)), "not all of it was said, so this test shows nothing"
    kept = await kept_by_temporal(product)
    leaks = {place: data for place, data in kept.items() if b"CANARY" in data or PROVIDER.encode() in data}
    assert not leaks, leaks
    assert len(kept) > 100


async def test_a_payload_codec(make_product: MakeProduct, monkeypatch: pytest.MonkeyPatch) -> None:
    """API, worker and command line encode and decode all; Temporal sees ids only in names and search attributes."""
    setting, key = f"{codec.__name__}:Encrypting", Fernet.generate_key().decode()
    monkeypatch.setenv(codec.KEY, key)
    product = await make_product(settings={"LONGHAUL_PAYLOAD_CODEC": setting, codec.KEY: key})
    api, message_id = product.api, str(uuid4())
    session = await api.create_session()
    turn = await start_working(product, session, "delegate: wait 2 s")
    await api.start(session, "6*7", message_id)
    assert [one["message_id"] for one in (await api.progress(session, turn))["inbox"]] in ([], [message_id])
    assert (await api.wait_for_turn(session, turn))["status"] == "completed"
    running = await start_working(product, session, "wait 60 s")
    code, told = await product.command("sessions", "repair", session)
    assert (code, running in told) == (0, True), told
    assert (await api.cancel(session)).body["status"] == "cancelled"
    failing = await api.start(session, "hello [fault=status:400]")
    assert (await api.wait_for_turn(session, failing))["status"] == "failed"
    sub_ids = await sub_of(product, session)
    await nothing_runs(product, [session, *sub_ids])
    await until_listed(product, [session, *sub_ids])
    await check_rows(product.database, sessions=[session, *sub_ids], answered=False)

    kept = await kept_by_temporal(product)
    hidden = [turn, failing, running, message_id, "status 400", '"session_id"', "6*7"]
    leaks = {place: one for place, data in kept.items() for one in hidden if one.encode() in data}
    assert not leaks, leaks
    client = await product.temporal()
    replayer = Replayer(data_converter=data_converter(setting), **workflow_options())
    async for one in client.list_workflows(f"TaskQueue = '{product.task_queue}'"):
        await replayer.replay_workflow(await client.get_workflow_handle(one.id, run_id=one.run_id).fetch_history())
