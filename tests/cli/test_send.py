"""`longhaul send` against a fake API: streams, dropped connections, 202, errors."""

import io
import time
from collections.abc import Callable, Iterator, Mapping

import httpx2
import orjson
import pytest
from rich.console import Console

from cli import CommandError
from cli import client as client_module
from cli.client import CommandClient
from cli.send import Renderer

Handler = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


class Api:
    """Answers requests from a list of handlers, one each, and keeps the requests."""

    def __init__(self, *handlers: Handler) -> None:
        self._handlers: Iterator[Handler] = iter(handlers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return next(self._handlers)(request)


class Cut(httpx2.SyncByteStream):
    """A body whose connection drops behind its last byte."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body
        raise httpx2.ReadError("connection reset")


def events(*found: Mapping[str, object] | str, start: int = 1) -> bytes:
    lines = [item if isinstance(item, str) else orjson.dumps(item).decode() for item in found]
    return "".join(f": hi\n\nid: {number}-0\ndata: {line}\n\n" for number, line in enumerate(lines, start)).encode()


def stream(body: bytes | httpx2.SyncByteStream) -> Handler:
    headers = {"content-type": "text/event-stream"}
    if isinstance(body, bytes):
        return lambda _request: httpx2.Response(200, headers=headers, content=body)
    return lambda _request: httpx2.Response(200, headers=headers, stream=body)


def answer(status: int, body: object = None) -> Handler:
    return lambda _request: httpx2.Response(status, json=body) if body is not None else httpx2.Response(status)


def refused(_request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused")


def run(api: Api) -> tuple[str, Renderer, list[str]]:
    output = io.StringIO()
    renderer = Renderer(Console(file=output, width=200))
    client = CommandClient("http://api", "token", httpx2.MockTransport(api))
    notes = list[str]()
    renderer.note = notes.append  # type: ignore[assignment,method-assign]
    for event in client.send("s1", "hello"):
        renderer.show(event)
    renderer.end_line()
    return output.getvalue(), renderer, notes


TEXT_A: dict[str, object] = {"type": "text-delta", "id": "t", "delta": "Hello "}
TEXT_B: dict[str, object] = {"type": "text-delta", "id": "t", "delta": "you [x]"}
FINISH: dict[str, object] = {"type": "finish"}


def test_a_whole_turn_is_shown() -> None:
    tool_in = {
        "type": "tool-input-available",
        "toolCallId": "c",
        "toolName": "calculator",
        "input": {"expression": "1+1"},
    }
    tool_out = {"type": "tool-output-available", "toolCallId": "c", "output": "2"}
    reasoning = {"type": "reasoning-delta", "id": "r", "delta": "hm"}
    api = Api(stream(events({"type": "start"}, reasoning, tool_in, tool_out, TEXT_A, TEXT_B, FINISH, "[DONE]")))
    text, renderer, _ = run(api)
    assert text == 'hm\n→ calculator {"expression":"1+1"}\n← calculator 2\nHello you [x]\n'
    assert renderer.finished
    assert renderer.last_text == "Hello you [x]"
    body = orjson.loads(api.requests[0].content)
    assert body["message"] == "hello"
    assert len(body["message_id"]) == 36
    assert api.requests[0].headers["authorization"] == "Bearer token"


def test_a_cut_stream_goes_on_behind_the_last_event() -> None:
    api = Api(stream(Cut(events(TEXT_A))), refused, stream(events(TEXT_B, FINISH, "[DONE]", start=2)))
    text, _, notes = run(api)
    assert text == "Hello you [x]\n"
    assert [request.method for request in api.requests] == ["POST", "GET", "GET"]
    assert api.requests[2].headers["last-event-id"] == "1-0"
    assert len(notes) == 2


def test_a_post_without_an_answer_is_sent_again_as_the_same_message() -> None:
    api = Api(refused, stream(events(TEXT_A, FINISH, "[DONE]")))
    run(api)
    first, second = (orjson.loads(request.content) for request in api.requests)
    assert first == second


def test_a_follow_up_joins_and_follows_the_running_turn() -> None:
    api = Api(
        answer(202, {"turn_id": "t1", "message_id": "m1", "turn_in_flight": True}),
        stream(events(TEXT_A, FINISH, "[DONE]")),
    )
    text, _, notes = run(api)
    assert text == "Hello \n"
    assert notes == ["the message joins the turn that is running"]
    assert api.requests[1].method == "GET"


def test_a_turn_that_has_ended_meanwhile() -> None:
    _, renderer, _ = run(Api(stream(Cut(events(TEXT_A))), answer(503), answer(204)))
    assert not renderer.finished


def test_problems_are_shown_in_one_line() -> None:
    with pytest.raises(CommandError, match="429: Too many – try again in 5 s"):
        run(Api(answer(429, {"title": "Too many", "detail": "try again in 5 s"})))


def test_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", -1.0)
    with pytest.raises(CommandError, match="the connection is lost"):
        run(Api(refused))


def test_errors_and_stops_are_shown() -> None:
    failed = {"type": "tool-output-error", "toolCallId": "x", "errorText": "no"}
    error = {"type": "error", "errorText": "the model is gone"}
    text, renderer, _ = run(Api(stream(events(TEXT_A, failed, {"type": "abort"}, error, FINISH, "[DONE]"))))
    assert text == "Hello \n← tool failed: no\nstopped\nerror: the model is gone\n"
    assert renderer.failed


@pytest.mark.parametrize(("kind", "shown"), [("approval", "may a be run?"), ("client_tool", "(a runs in the client")])
def test_what_a_call_waits_for(kind: str, shown: str) -> None:
    asked = {"approval_id": "1", "tool_call_id": "c", "tool_name": "a", "kind": kind, "status": "waiting"}
    text, _, _ = run(Api(stream(events({"type": "data-approval", "data": asked}, FINISH, "[DONE]"))))
    assert shown in text


def test_last_answer_is_the_newest_text_of_the_assistant() -> None:
    rows = [
        {"role": "assistant", "content": "old"},
        {"role": "assistant", "content": "new"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "?"},
    ]
    client = CommandClient("http://api", "", httpx2.MockTransport(Api(answer(200, {"messages": rows}))))
    assert client.last_answer("s1") == "new"
