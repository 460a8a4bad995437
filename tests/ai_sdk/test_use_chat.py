"""The AI SDK's own chats, unmodified, at `/v1/chat`: what every tab shows is what is stored."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from longhaul.db import sessions
from testkit.checks import check_rows
from testkit.product import Product
from tests.ai_sdk.conftest import command

pytestmark = pytest.mark.backends("postgresql")  # a stream has the same bytes on any database
SDKS = ("ai5", "ai", "ai7")
every_sdk = pytest.mark.parametrize("sdk", SDKS)
VERSIONS = {"ai5": "5", "ai": "6", "ai7": "7"}
Tab = dict[str, Any]


class Browser:
    """Runs steps of `use_chat.mjs` against a new session."""

    def __init__(
        self,
        product: Product,
        sdk: str,
        query: str = "",
        transport: str = "",
        *,
        automatic: bool = False,
        tools: Sequence[dict[str, Any]] = (),
        runs: dict[str, Any] | None = None,
    ) -> None:
        """`tools`: those of the client; `runs`: what they put out by themselves, by name."""
        self._tools, self._runs = list(tools), runs or {}

        self.product = product
        self._automatic = automatic
        self._history = f"/ui-messages{query}" if automatic else "/ui-messages"
        self.session = uuid4().hex[:16]
        self._sdk, self._transport = sdk, transport
        self._api = f"{product.url()}/v1/chat{query}"

    async def run(self, *steps: dict[str, Any], cut: dict[int, int] | None = None) -> list[Tab]:
        session = f"{self.product.url()}/v1/sessions/{self.session}"
        addresses = {"history": f"{session}{self._history}", "post": f"{session}/cancel", "idle": session}
        filled = [{name: addresses.get(name, value) for name, value in step.items()} for step in steps]
        given = {
            "sdk": self._sdk,
            "transport": self._transport,
            "api": self._api,
            "id": self.session,
            "steps": filled,
            "cut": cut,
            "automatic": self._automatic,
            "tools": self._tools,
            "runs": self._runs,
        }
        tabs: list[Tab] = json.loads(await command("node", "use_chat.mjs", given=given))
        return tabs

    async def stored(self) -> list[dict[str, Any]]:
        """The conversation as `UIMessage[]`."""
        response = await self.product.api.http.get(f"/v1/sessions/{self.session}/ui-messages")
        messages: list[dict[str, Any]] = response.json()
        return messages

    async def check(self, *tabs: Tab, answered: bool = True) -> list[dict[str, Any]]:
        """Each tab shows what is stored, and nothing went wrong."""
        await self.product.api.until_idle(self.session)
        await check_rows(self.product.database, sessions=[self.session], answered=answered)
        stored = await self.stored()
        for tab in tabs:
            assert tab["errors"] == []
            assert tab["status"] == "ready"
            assert tab["messages"] == stored
        return stored


def text(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


@every_sdk
async def test_send_reload_and_send_again(product: Product, node_modules: None, sdk: str) -> None:
    browser = Browser(product, sdk)
    settle: dict[str, Any] = {"settle": True}
    tabs = await browser.run(
        {"send": "think: what is 17 * 23, and what is 2 * 2?"},
        settle,
        *({"history": True}, {"open": True}, {"tab": 1, "send": "2+3"}, {"tab": 1, "settle": True}),
    )
    stored = await browser.check(tabs[1])
    assert tabs[0]["messages"] == stored[:2]
    kinds = [part["type"] for part in stored[1]["parts"]]
    assert kinds.count("tool-calculator") == 2
    assert {"reasoning", "text", "step-start"} <= set(kinds)
    assert [message["role"] for message in stored] == ["user", "assistant", "user", "assistant"]


@every_sdk
async def test_resume_in_mid_answer_and_two_tabs(product: Product, node_modules: None, sdk: str) -> None:
    """Only Stop ends the turn, so that it runs when the second tab resumes it."""
    browser = Browser(product, sdk, f"?ai={VERSIONS[sdk]}")
    tabs = await browser.run(
        *({"send": "think: 6*7? speak 3000 [delay=25]"}, {"until": "w5"}, {"history": True}, {"open": True}),
        *({"tab": 1, "resume": True}, {"tab": 1, "until": "w15"}, {"post": True}),
        *({"tab": 1, "settle": True}, {"settle": True}),
    )
    stored = await browser.check(*tabs, answered=False)
    assert "w15" in text(stored[1])


@every_sdk
async def test_follow_up_while_a_tool_runs(product: Product, node_modules: None, sdk: str) -> None:
    browser = Browser(product, sdk)
    tabs = await browser.run(
        *({"send": "wait 1.5 s"}, {"until": "tool-wait"}, {"send": "and what is 6*7?"}),
        *({"note": True}, {"pause": 300}, {"note": True}, {"settle": True}),
    )
    stored = await browser.check(*tabs)
    assert [message["role"] for message in stored] == ["user", "assistant", "user", "assistant"]
    assert "42" in text(stored[3])
    assert len(tabs[0]["statuses"]) == 2
    assert "ready" not in tabs[0]["statuses"], "it looks idle while its turn runs"


@every_sdk
async def test_stop_means_stop_when_it_says_so(product: Product, node_modules: None, sdk: str) -> None:
    browser = Browser(product, sdk, "?on_disconnect=stop")
    [tab] = await browser.run({"send": "speak 2000 [delay=20]"}, {"until": "w5"}, {"stop": True}, {"settle": True})
    await browser.check(answered=False)
    [turn] = await product.api.turns(browser.session)
    assert turn["status"] == "cancelled"
    assert text((await browser.stored())[1]).startswith(text(tab["messages"][1]))


@every_sdk
async def test_the_turn_ends_between_history_and_resume(product: Product, node_modules: None, sdk: str) -> None:
    """One tab's history lacks the end, the other's is whole; both resume when nothing runs any more."""
    browser = Browser(product, sdk, f"?ai={VERSIONS[sdk]}")
    tabs = await browser.run(
        *(
            {"send": "think: 6*7? speak 100 [delay=10]"},
            {"until": "tool-calculator"},
            {"history": True},
            {"open": True},
        ),
        *({"settle": True}, {"idle": True}, {"history": True}, {"open": True}),
        *(
            {"tab": 1, "resume": True},
            {"tab": 1, "settle": True},
            {"tab": 2, "resume": True},
            {"tab": 2, "settle": True},
        ),
    )
    stored = await browser.check(*tabs)
    assert "w100" in text(stored[1])


async def test_leaving_does_not_stop(product: Product, node_modules: None) -> None:
    browser = Browser(product, "ai")
    tabs = await browser.run(
        *({"send": "speak 160 [delay=25]"}, {"until": "w5"}, {"stop": True}, {"settle": True}),
        *({"resume": True}, {"settle": True}),
    )
    stored = await browser.check(*tabs)
    assert "w160" in text(stored[1])


@every_sdk
async def test_regenerate(product: Product, node_modules: None, sdk: str) -> None:
    browser = Browser(product, sdk)
    tabs = await browser.run(
        *({"send": "2+3"}, {"settle": True}, {"send": "4+5"}, {"settle": True}),
        *({"regenerate": True}, {"settle": True}),
    )
    stored = await browser.check(*tabs)
    turns = await product.api.turns(browser.session)
    assert len(turns) == 3
    assert stored[3]["id"] == turns[0]["turn_id"]
    asked = stored[2]["id"]
    found = await product.api.call("GET", f"/sessions/{browser.session}/messages/{asked}/versions")
    assert [(one["current"], text) for one in found.body["versions"] for text in [one["content"]]] == [
        (False, "4+5"),
        (True, "4+5"),
    ]


@every_sdk
async def test_regenerate_an_earlier_answer_while_a_turn_runs(product: Product, node_modules: None, sdk: str) -> None:
    browser = Browser(product, sdk)
    tabs = await browser.run(
        *({"send": "2+3"}, {"settle": True}, {"send": "wait 30 s"}, {"until": "tool-wait"}),
        *({"regenerate": 1}, {"settle": True}),
    )
    await product.api.until_idle(browser.session)
    stored = await browser.stored()
    assert [message["role"] for message in stored] == ["user", "assistant"]
    # The tab stays as its user left it, until it is loaded again: the stopped turn's stream may still add to it.
    assert stored[1] in tabs[0]["messages"]


@every_sdk
async def test_edit(product: Product, node_modules: None, sdk: str) -> None:
    browser = Browser(product, sdk)
    tabs = await browser.run(
        *({"send": "2+3"}, {"settle": True}, {"send": "4+5"}, {"settle": True}),
        *({"edit": {"at": 0, "text": "6*7"}}, {"settle": True}, {"send": "1+1"}, {"settle": True}),
    )
    stored = await browser.check(*tabs)
    assert [text(message) for message in stored if message["role"] == "user"] == ["6*7", "1+1"]


@every_sdk
async def test_a_retried_model_call(product: Product, node_modules: None, sdk: str) -> None:
    """The model's connection breaks in mid-text; no text is shown twice."""
    browser = Browser(product, sdk)
    tabs = await browser.run({"send": "think: speak 40 [delay=5 fault=cut:30 times=2]"}, {"settle": True})
    stored = await browser.check(*tabs)
    assert "w40" in text(stored[1])


@every_sdk
async def test_a_failed_turn(product: Product, node_modules: None, sdk: str) -> None:
    browser = Browser(product, sdk)
    [tab] = await browser.run({"send": "hello [fault=status:400]"}, {"settle": True})
    stored = await browser.stored()
    assert tab["messages"] == stored
    assert tab["status"] == "error"
    assert tab["errors"] == [f"Error: {stored[1]['metadata']['error']}"]


async def test_workflow_chat_transport(product: Product, node_modules: None) -> None:
    """It sends no session; its connection breaks twice, and it goes on by itself."""
    browser = Browser(product, "ai7", transport="workflow")
    [tab] = await browser.run(
        *({"send": "think: 6*7? speak 60 [delay=10]"}, {"settle": True}, {"send": "2+3"}, {"settle": True}),
        cut={0: 2000, 1: 900},
    )
    turn = tab["messages"][1]["id"]
    async with product.database.read() as connection:
        browser.session = (await sessions.of_turn(connection, turn, "local")).id
    await browser.check(tab)
    assert len(tab["messages"]) == 4
