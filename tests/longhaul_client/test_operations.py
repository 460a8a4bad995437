"""The Python client against scripted answers: what is sent again, what is given up, and that both clients are alike."""

import inspect
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx2
import orjson
import pytest

from longhaul_client import (
    Aborted,
    AsyncLonghaul,
    AsyncSession,
    Cancelled,
    ConnectionLostError,
    Finished,
    Joined,
    Longhaul,
    ProblemError,
    Reconnecting,
    Session,
    Started,
    StillRunningError,
    TextDelta,
    Transcript,
    Voided,
)
from longhaul_client import operations as operations_module
from longhaul_client.events import Event, Other, event_of

SENT = {"session_id": "s", "turn_id": "t", "message_id": "m", "disposition": "started"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(operations_module, "LONGEST_PAUSE_S", 0.002)


class Script:
    """Answers requests one after another: by a response, or by a connection that breaks."""

    def __init__(self, *answers: httpx2.Response | type[httpx2.TransportError]) -> None:
        self._answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx2.Response):
            return answer
        raise answer("broken", request=request)

    def session(self, patience: float = 30) -> Session:
        return Longhaul("http://api", patience=patience, transport=httpx2.MockTransport(self)).sessions.get("s")

    def bodies(self) -> list[dict[str, object]]:
        return [orjson.loads(request.content) for request in self.requests]


def json(status: int, body: object, headers: dict[str, str] | None = None) -> httpx2.Response:
    return httpx2.Response(status, json=body, headers=headers)


def stream(*events: tuple[str, object], turn: str = "t") -> httpx2.Response:
    lines = [
        f"id: {id_}\ndata: {part if isinstance(part, str) else orjson.dumps(part).decode()}\n\n" for id_, part in events
    ]
    headers = {"content-type": "text/event-stream", "x-longhaul-turn-id": turn}
    return httpx2.Response(200, content="".join(lines).encode(), headers=headers)


START = ("1-0", {"type": "start", "messageId": "t"})
HELLO = ("2-0", {"type": "text-delta", "id": "b", "delta": "Hel"})
REST = ("3-0", {"type": "text-delta", "id": "b", "delta": "lo"})
END = ("4-0", {"type": "finish"})
DONE = ("4-0", "[DONE]")


def test_a_message_whose_answer_is_lost_is_sent_again_under_its_id() -> None:
    script = Script(httpx2.ReadError, json(503, {}, {"retry-after": "0"}), json(202, SENT))
    assert script.session().send("hello").turn_id == "t"
    first, *others = script.bodies()
    assert first["message_id"]
    assert others == [first, first]


def test_a_new_session_is_asked_for_again_under_its_key() -> None:
    made = {"id": "new", "created_at": "2026-11-21T00:00:00Z", "updated_at": "2026-11-21T00:00:00Z"}
    in_progress = json(409, {"code": "request-in-progress"}, {"retry-after": "0"})
    script = Script(httpx2.ReadError, in_progress, json(201, made))
    longhaul = Longhaul("http://api", transport=httpx2.MockTransport(script))
    assert longhaul.sessions.create(title="one").id == "new"
    keys = [request.headers["idempotency-key"] for request in script.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_patience_ends() -> None:
    with pytest.raises(ConnectionLostError, match="did not come back within"):
        Script(httpx2.ConnectError).session(patience=0.01).send("hello")


def test_a_refusal_is_a_problem_and_is_not_repeated() -> None:
    problem = {
        "type": "urn:longhaul:problem:inbox-full",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "10 wait",
    }
    script = Script(json(429, problem, {"retry-after": "7"}))
    with pytest.raises(ProblemError, match="429 Too Many Requests: 10 wait") as raised:
        script.session().send("hello")
    assert (raised.value.retry_after, raised.value.type) == (7, "urn:longhaul:problem:inbox-full")
    assert len(script.requests) == 1


def test_an_answer_of_a_proxy_is_a_problem_too() -> None:
    script = Script(httpx2.Response(413, text="<html>too large</html>"))
    with pytest.raises(ProblemError, match="too large"):
        script.session().send("hello")


def test_asking_ends_at_its_time_out_and_names_the_turn() -> None:
    with pytest.raises(StillRunningError) as raised:
        Script(json(202, SENT)).session().ask("hello", timeout=0)
    assert raised.value.turn_id == "t"


def test_a_cut_stream_goes_on_behind_the_last_event() -> None:
    script = Script(stream(START, HELLO), httpx2.ConnectError, stream(REST, END, DONE))
    transcript = Transcript()
    events = list(script.session().stream("hello"))
    for event in events:
        transcript.add(event)
    assert [event for event in events if not isinstance(event, Reconnecting)] == [
        *(Started("t"), TextDelta("b", "Hel"), TextDelta("b", "lo"), Finished())
    ]
    assert len([event for event in events if isinstance(event, Reconnecting)]) == len(script.requests) - 1
    assert transcript.text == transcript.last_text == "Hello"
    assert [request.method for request in script.requests] == ["POST", "GET", "GET"]
    assert {request.headers["last-event-id"] for request in script.requests[1:]} == {"2-0"}
    assert {request.url.params["turn_id"] for request in script.requests[1:]} == {"t"}


def test_a_message_that_joins_a_turn_shows_that_turn() -> None:
    queued = {"turn_id": "t", "message_id": "m", "turn_in_flight": True}
    script = Script(json(202, queued, {"x-longhaul-turn-id": "t"}), stream(START, HELLO, END))
    assert list(script.session().stream("more")) == [
        Joined("t", "m"),
        Started("t"),
        TextDelta("b", "Hel"),
        Finished(),
    ]


def test_nothing_to_resume_is_no_event() -> None:
    assert list(Script(httpx2.Response(204)).session().resume()) == []


def test_a_stream_that_is_refused_is_a_problem() -> None:
    with pytest.raises(ProblemError, match="404"):
        list(Script(json(404, {"title": "Not Found", "detail": "There is no session s."})).session().stream("hello"))


def test_a_stream_that_breaks_again_and_again_is_given_up() -> None:
    with pytest.raises(ConnectionLostError):
        list(Script(stream(START), httpx2.ReadError).session(patience=0.02).stream("hello"))


def test_a_stream_that_never_says_anything_is_given_up() -> None:
    script = Script(*(stream() for _ in range(1000)))
    with pytest.raises(ConnectionLostError):
        list(script.session(patience=0.02).stream("hello"))
    assert len(script.requests) < 500, "it was given up before the script's end"


def test_a_cut_after_a_long_silence_is_no_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep-alives kept the connection open for longer than the client's patience."""
    monkeypatch.setattr(operations_module, "ALIVE_S", 0.05)

    def silent() -> Iterator[bytes]:
        yield stream(START).content
        time.sleep(0.2)
        yield b": keep-alive\n\n"

    first = httpx2.Response(200, content=silent(), headers={"content-type": "text/event-stream"})
    script = Script(first, stream(HELLO, END))
    events = list(script.session(patience=0.1).stream("hello"))
    assert events == [Started("t"), Reconnecting("the stream ended early"), TextDelta("b", "Hel"), Finished()]


def test_what_is_void_is_not_in_the_transcript() -> None:
    transcript = Transcript()
    for event in (
        TextDelta("a", "one"),
        TextDelta("b", "two"),
        Voided(frozenset({"b"}), all=False),
        TextDelta("c", "3"),
    ):
        transcript.add(event)
    assert transcript.text == "one\n\n3"
    transcript.add(Voided(frozenset(), all=True))
    assert transcript.text == transcript.last_text == ""


@pytest.mark.parametrize(
    ("part", "event"),
    [
        ({"type": "abort"}, Aborted()),
        ({"type": "data-voided", "data": {"ids": [], "all": True}}, Voided(frozenset(), all=True)),
        ({"type": "text-start", "id": "b"}, Other({"type": "text-start", "id": "b"})),
        ({"no": "type"}, Other({"no": "type"})),
    ],
)
def test_parts_are_events(part: dict[str, object], event: Event) -> None:
    assert event_of(part) == event


@pytest.mark.parametrize(
    ("asynchronous", "synchronous"),
    [
        (AsyncLonghaul, Longhaul),
        (AsyncSession, Session),
        (type(AsyncLonghaul().sessions), type(Longhaul().sessions)),
        (type(AsyncLonghaul().schedules), type(Longhaul().schedules)),
        (type(AsyncLonghaul().webhooks), type(Longhaul().webhooks)),
    ],
)
def test_both_clients_have_the_same_methods(asynchronous: type, synchronous: type) -> None:
    def methods(kind: type) -> dict[str, tuple[list[str], str | None]]:
        found: dict[str, tuple[list[str], str | None]] = {}
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_") and name not in ("aclose", "close"):
                found[name] = list(inspect.signature(method).parameters), inspect.getdoc(method)
        return found

    assert methods(asynchronous) == methods(synchronous)


def test_a_schedule_is_made_once_however_often_it_is_asked_for() -> None:
    made = {"id": "x", "message": "m", "cron": "@daily", "time_zone": "UTC", "overlap": "skip", "paused": False}
    script = Script(httpx2.ReadError, json(503, {}, {"retry-after": "0"}), json(201, made))
    schedules = Longhaul("http://api", transport=httpx2.MockTransport(script)).schedules
    assert schedules.create(message="m", cron="@daily").id == "x"
    assert len({request.headers["idempotency-key"] for request in script.requests}) == 1
    assert script.bodies() == [{"message": "m", "cron": "@daily"}] * 3


def test_a_run_is_asked_for_once() -> None:
    """If the answer is lost, a second request would be a second run."""
    script = Script(httpx2.ReadError, json(202, {}))
    with pytest.raises(ConnectionLostError, match="trigger"):
        Longhaul("http://api", transport=httpx2.MockTransport(script)).schedules.trigger("x")
    assert len(script.requests) == 1


def test_a_webhook_is_made_and_sent_to_once() -> None:
    """A lost answer holds a secret, or means that something was sent: neither is asked for again."""
    for ask in ("create", "new_secret", "test"):
        script = Script(httpx2.ReadError, json(200, {}))
        webhooks = Longhaul("http://api", transport=httpx2.MockTransport(script)).webhooks
        with pytest.raises(ConnectionLostError):
            webhooks.create(url="https://x") if ask == "create" else getattr(webhooks, ask)("w")
        assert len(script.requests) == 1


def test_what_happened_is_asked_for_since_a_moment_and_then_by_cursor() -> None:
    script = Script(json(200, {"data": [], "has_more": False, "next_cursor": "7"}))
    longhaul = Longhaul("http://api", transport=httpx2.MockTransport(script))
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    assert longhaul.events(after=moment).next_cursor == "7"
    longhaul.events(after=moment, cursor="7")
    assert [dict(request.url.params) for request in script.requests] == [
        {"after": "2026-11-22T00:00:00+00:00"},
        {"cursor": "7"},
    ]


def test_the_answer_of_an_operation_is_its_result() -> None:
    """`run` returns what the generator returns, also when the last step was a pause."""
    script = Script(httpx2.ReadTimeout, json(200, {"cancelled": False}))
    cancel: Callable[[], object] = script.session().cancel
    assert cancel() == Cancelled(cancelled=False)
