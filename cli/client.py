"""A client of our own API that sends one message and follows its turn, also when connections drop."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any
from uuid import uuid4

import httpx2
import orjson
import typer

from cli import CommandError
from cli.stack.state import read_state
from longhaul.settings import load_settings

ApiUrl = Annotated[str, typer.Option("--api-url", envvar="LONGHAUL_API_URL", help="API to talk to.")]
Token = Annotated[str, typer.Option(envvar="LONGHAUL_TOKEN", help="Bearer token, with LONGHAUL_AUTH=jwt.")]

_TIMEOUT = httpx2.Timeout(10.0, read=60.0)  # the server sends a keep-alive every 15 s
PATIENCE = 60.0
_PAUSE, _LONGEST_PAUSE = 0.3, 5.0
_ASK_S = 30

Event = Mapping[str, Any]


def api_url(option: str) -> str:
    """The API to talk to: the option or LONGHAUL_API_URL, else the stack of this home.

    Raises:
        CommandError: no stack has run in this home.
    """
    if option:
        return option
    home = load_settings().home.absolute()
    state = read_state(home)
    if state is None or not state.endpoints.api_url:
        raise CommandError(f"no stack has run in {home}: run `longhaul up`, or set --api-url or LONGHAUL_API_URL")
    return state.endpoints.api_url


class ReconnectingClient:
    """Speaks to one API as one user, over as many connections as that takes."""

    def __init__(self, url: str, token: str = "", transport: httpx2.BaseTransport | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=_TIMEOUT, transport=transport)
        self._url = url

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create_session(self) -> str:
        """A new session's id."""
        return str(self.post("/sessions")["id"])

    def send(
        self, session: str, message: str, on_note: Callable[[str], None], choice: Mapping[str, str] | None = None
    ) -> Iterator[Event]:
        """Post a message and follow the turn that takes it to its end.

        After a dropped connection the stream resumes after the last event that was seen. A POST without an answer is
        sent again with the same message id, which the server counts as one message. `choice`: tier, mode and what
        becomes of the message while a turn runs.
        """
        return self._follow(session, {"message": message, "message_id": str(uuid4()), **(choice or {})}, on_note)

    def ask(
        self, session: str, message: str, on_note: Callable[[str], None], choice: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send a message and wait for the end of the turn that takes it: `Asked` of the API. `choice`: as for `send`.

        The message keeps its id over all requests, so the server counts it once.
        """
        body = {"message": message, "message_id": str(uuid4()), **(choice or {})}
        follow = _Following(on_note, posted=False)
        while True:
            try:
                answer = self._http.post(f"/v1/sessions/{session}/ask", params={"wait": _ASK_S}, json=body)
            except httpx2.TransportError as error:
                follow.wait(f"{type(error).__name__} {error}".strip())
                continue
            if answer.status_code >= 500:
                follow.wait(f"the server answers {answer.status_code}")
                continue
            follow.alive()
            result = self._json(answer)
            if answer.status_code != 202:
                return result

    def resume(self, session: str, on_note: Callable[[str], None]) -> Iterator[Event]:
        """Follow the turn that runs in a session from its start to its end; nothing where none runs."""
        return self._follow(session, None, on_note)

    def _follow(self, session: str, body: Mapping[str, str] | None, on_note: Callable[[str], None]) -> Iterator[Event]:
        path = f"/v1/sessions/{session}/stream"
        follow = _Following(on_note, posted=body is None)
        while True:
            try:
                if follow.posted:
                    request = self._http.stream("GET", path, params=follow.turn, headers=follow.headers())
                else:
                    request = self._http.stream("POST", path, json=body)
                with request as answer:
                    if answer.status_code == 204:
                        return
                    if answer.status_code >= 500 and follow.posted:
                        follow.wait(f"the server answers {answer.status_code}")
                        continue
                    if answer.status_code not in (200, 202):
                        answer.read()
                        raise _refusal(answer)
                    if not follow.posted and answer.status_code == 200:
                        follow.takes(answer.headers.get("x-longhaul-turn-id", ""))
                    follow.posted = True
                    if answer.status_code == 202:
                        answer.read()
                        on_note("the message joins the turn that is running")
                        continue
                    yield from follow.events(answer)
                    if follow.ended:
                        return
                    follow.wait("the stream ended early")
            except httpx2.TransportError as error:
                follow.wait(f"{type(error).__name__} {error}".strip())

    def get(self, path: str, **parameters: str | int) -> dict[str, Any]:
        """Read one thing of the API; `path` is below /v1."""
        return self._json(self._reach(lambda: self._http.get(f"/v1{path}", params=parameters)))

    def post(self, path: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Post to the API; `path` is below /v1."""
        return self._json(self._reach(lambda: self._http.post(f"/v1{path}", json=body or {})))

    def delete(self, path: str) -> None:
        """Delete one thing of the API; `path` is below /v1."""
        answer = self._reach(lambda: self._http.delete(f"/v1{path}"))
        if answer.is_error:
            raise _refusal(answer)

    def last_answer(self, session: str) -> str:
        """The newest stored text of the assistant."""
        page = self.get(f"/sessions/{session}", limit=20)
        texts = [row["content"] for row in page["messages"] if row["role"] == "assistant" and row.get("content")]
        return str(texts[-1]) if texts else ""

    def _reach(self, call: Callable[[], httpx2.Response]) -> httpx2.Response:
        try:
            return call()
        except httpx2.TransportError as error:
            raise CommandError(f"{self._url} cannot be reached: {error}; is it running? (`longhaul up`)") from error

    @staticmethod
    def _json(answer: httpx2.Response) -> dict[str, Any]:
        if answer.is_error:
            raise _refusal(answer)
        body: dict[str, Any] = orjson.loads(answer.content)
        return body


class _Following:
    """The position in one turn's stream, over several connections."""

    def __init__(self, on_note: Callable[[str], None], *, posted: bool) -> None:
        self.posted = posted
        self.turn: dict[str, str] = {}
        self.ended = False
        self._on_note = on_note
        self._last_id = ""
        self._pause = _PAUSE
        self._alive = time.monotonic()

    def takes(self, turn_id: str) -> None:
        """This turn takes the message. It may begin behind the one that runs now."""
        self.turn = {"turn_id": turn_id} if turn_id else {}

    def headers(self) -> dict[str, str]:
        return {"last-event-id": self._last_id} if self._last_id else {}

    def events(self, answer: httpx2.Response) -> Iterator[Event]:
        for event in httpx2.EventSource(answer, max_event_size=None):
            self.alive()
            if event.data == "[DONE]":
                self.ended = True
                return
            if event.data:
                yield orjson.loads(event.data)
            self._last_id = event.id or self._last_id

    def alive(self) -> None:
        """The server has answered: the patience begins anew."""
        self._alive, self._pause = time.monotonic(), _PAUSE

    def wait(self, why: str) -> None:
        """Pause before the next connection, longer each time.

        Raises:
            CommandError: no event has arrived for `PATIENCE` seconds.
        """
        if time.monotonic() - self._alive > PATIENCE:
            raise CommandError(f"the connection is lost ({why}) and did not come back within {PATIENCE:.0f} s")
        self._on_note(f"({why}; connecting again)")
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


class RefusedError(CommandError):
    """The API answered with a problem."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def _refusal(answer: httpx2.Response) -> RefusedError:
    """A problem+json answer in one line."""
    try:
        problem = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    texts = [str(problem[key]) for key in ("title", "detail") if problem.get(key)]
    text = " – ".join(texts) or answer.text[:300] or answer.reason_phrase
    return RefusedError(f"{answer.status_code}: {text}", answer.status_code)
