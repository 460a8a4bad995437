"""Longhaul's Python client as the commands use it: JSON by its path, and errors that a command prints."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import httpx2
import orjson
import typer

from cli import CommandError
from cli.stack.state import read_state
from longhaul.settings import load_settings
from longhaul_client import ConnectionLostError, Event, Longhaul, ProblemError
from longhaul_client.operations import Patience, Request, exchange

ApiUrl = Annotated[str, typer.Option("--api-url", envvar="LONGHAUL_API_URL", help="API to talk to.")]
Token = Annotated[str, typer.Option(envvar="LONGHAUL_TOKEN", help="Bearer token, with LONGHAUL_AUTH=jwt.")]

PATIENCE = 60.0


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


class RefusedError(CommandError):
    """The API answered with a problem."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class CommandClient:
    """Speaks to one API as one user. Following a turn and asking survive broken connections; all else fails at once."""

    def __init__(self, url: str, token: str = "", transport: httpx2.BaseTransport | None = None) -> None:
        self._url = url
        self._api = Longhaul(url, token, patience=PATIENCE, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def create_session(self) -> str:
        """A new session's id."""
        return str(self.post("/sessions")["id"])

    def send(self, session: str, message: str, choice: Mapping[str, str] | None = None) -> Iterator[Event]:
        """Post a message and follow the turn that takes it to its end. `choice`: more fields of the request."""
        with self._errors():
            yield from self._api.sessions.get(session).stream(message, more=choice or {})

    def ask(self, session: str, message: str, choice: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Post a message and wait for the end of the turn that takes it: `Asked` of the API. `choice` as for `send`."""
        with self._errors():
            answer = self._api.sessions.get(session).ask(message, timeout=math.inf, more=choice or {})
        return answer.model_dump(mode="json")

    def resume(self, session: str) -> Iterator[Event]:
        """Follow the turn that runs in a session from its start to its end; nothing where none runs."""
        with self._errors():
            yield from self._api.sessions.get(session).resume()

    def get(self, path: str, **parameters: str | int) -> dict[str, Any]:
        """Read one thing of the API; `path` is below /v1."""
        return self._json(Request("GET", path, query=parameters))

    def post(self, path: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Post to the API; `path` is below /v1."""
        return self._json(Request("POST", path, body or {}))

    def delete(self, path: str) -> None:
        """Delete one thing of the API; `path` is below /v1."""
        self._at_once(Request("DELETE", path))

    def last_answer(self, session: str) -> str:
        """The newest stored text of the assistant."""
        page = self.get(f"/sessions/{session}", limit=20)
        texts = [row["content"] for row in page["messages"] if row["role"] == "assistant" and row.get("content")]
        return str(texts[-1]) if texts else ""

    def _json(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = orjson.loads(self._at_once(request).content)
        return body

    def _at_once(self, request: Request) -> httpx2.Response:
        with self._errors(f"{self._url} cannot be reached; is it running? (`longhaul up`) "):
            return self._api.run(exchange(request, Patience(0), repeatable=False))

    @contextmanager
    def _errors(self, away: str = "") -> Iterator[None]:
        """Errors as a command prints them. `away`: what it says first if the API cannot be reached."""
        try:
            yield
        except ProblemError as problem:
            texts = [text for text in (problem.title, problem.detail) if text]
            raise RefusedError(f"{problem.status}: {' – '.join(texts)}", problem.status) from problem
        except ConnectionLostError as error:
            raise CommandError(f"{away}{error}") from error
