"""The API as a tool worker uses it, over real HTTP: away, slow, refusing, with a token that is too old."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import remote_api
from activities.remote_api import REFUSED, ToolCallApi
from activities.tool_results import ToolResult
from longhaul.contracts import ToolProgress, ToolStatus
from longhaul.errors import STORAGE_UNAVAILABLE
from longhaul.llm import prompts
from longhaul.remote_tools.keys import Claim, WorkerKey
from testkit.servers import HOST, free_port
from testkit.wait import until

CLAIM = Claim("call", 1)
DONE = ToolResult(output="done", status=ToolStatus.OK)
TOKENS = ["first", "second"]


class Api:
    """Answers requests in the order that a test says, and with success after that."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}"
        self.tokens = iter(TOKENS)
        self.answers: dict[str, list[tuple[int, str]]] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    async def answer(self, request: Request) -> JSONResponse:
        path = request.path_params["path"]
        shown = request.headers["authorization"].removeprefix("Bearer ")
        self.asked.append((path, "proof" if path == "begin" else shown, await request.json()))
        if planned := self.answers.get(path):
            status, code = planned.pop(0)
            return JSONResponse({"code": code, "detail": "no"}, status)
        return JSONResponse({"token": next(self.tokens), "arguments": "{}"} if path == "begin" else {})

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    port = free_port()
    found = Api(port)
    app = Starlette(routes=[Route("/v1/tool-calls/{path}", found.answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, HOST, port, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, what="the server answers")
    yield found
    server.should_exit = True
    await serving


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_api, "PAUSE_S", 0.01)


async def used(url: str, use: Callable[[ToolCallApi], Any], window_s: float = 30.0) -> Any:
    """What `use` returns, within an activity."""
    client = ToolCallApi(url, WorkerKey(), window_s)
    try:
        return await ActivityEnvironment().run(lambda: use(client))
    finally:
        await client.aclose()


async def given(client: ToolCallApi, result: ToolResult = DONE) -> None:
    attempt = await client.begin(CLAIM)
    assert attempt is not None
    await attempt.give(result)


async def test_an_api_that_cannot_answer_is_asked_again(api: Api) -> None:
    api.answers = {"begin": [(503, "unavailable"), (429, "")], "result": [(502, ""), (500, "internal")]}
    await used(api.url, given)
    assert api.paths() == ["begin"] * 3 + ["result"] * 3
    assert api.asked[-1][2] == {"status": "ok", "output": "done", "duration_ms": 0}


async def test_an_api_that_is_away_for_too_long(api: Api) -> None:
    with pytest.raises(ApplicationError) as failure:
        await used(f"http://{HOST}:{free_port()}", lambda client: client.begin(CLAIM), window_s=0.05)
    assert (failure.value.type, failure.value.non_retryable) == (STORAGE_UNAVAILABLE, False)


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (409, "token-replaced"), (410, "call-ended")])
async def test_a_refusal_is_not_repeated(api: Api, status: int, code: str) -> None:
    api.answers = {"begin": [(status, code)]}
    with pytest.raises(ApplicationError) as failure:
        await used(api.url, lambda client: client.begin(CLAIM))
    assert (failure.value.type, failure.value.non_retryable) == (REFUSED, True)
    assert api.paths() == ["begin"]


async def test_a_call_that_has_its_result_is_not_run(api: Api) -> None:
    api.answers = {"begin": [(409, "result-given")]}
    assert await used(api.url, lambda client: client.begin(CLAIM)) is None


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (409, "token-replaced")])
async def test_a_token_that_counts_no_more_is_renewed(api: Api, status: int, code: str) -> None:
    api.answers = {"result": [(status, code)]}
    await used(api.url, given)
    assert [(path, shown) for path, shown, _ in api.asked] == [
        *(("begin", "proof"), ("result", "first")),
        *(("begin", "proof"), ("result", "second")),
    ]


async def test_an_attempt_that_was_replaced_ends(api: Api) -> None:
    api.answers = {"result": [(409, "token-replaced")] * 2}
    with pytest.raises(ApplicationError) as failure:
        await used(api.url, given)
    assert failure.value.type == REFUSED


async def test_a_result_that_is_too_large_becomes_an_error(api: Api) -> None:
    api.answers = {"result": [(413, "too-large")]}
    await used(api.url, given)
    assert [body["output"] for path, _, body in api.asked if path == "result"] == ["done", prompts.RESULT_TOO_LARGE]


async def test_another_result_that_came_first_stays(api: Api) -> None:
    api.answers = {"result": [(409, "result-given")]}
    await used(api.url, given)


async def test_nothing_depends_on_a_report(api: Api) -> None:
    api.answers = {"progress": [(503, "unavailable"), (410, "call-ended"), (401, "unauthorized")]}

    async def reported(client: ToolCallApi) -> None:
        attempt = await client.begin(CLAIM)
        assert attempt is not None
        for text in ("one", "two", "three"):
            await attempt.report(ToolProgress(text=text))

    await used(api.url, reported)
    shown = [body["text"] for path, _, body in api.asked if path == "progress"]
    assert shown == ["one", "two", "three", "three"], "an old token is renewed once"
