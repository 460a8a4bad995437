"""What can go wrong between a program and Longhaul."""

from dataclasses import dataclass
from typing import Any

import httpx2
import orjson


class LonghaulClientError(Exception):
    """Base of all errors of this package."""


class ConnectionLostError(LonghaulClientError):
    """The API could not be reached, or did not come back, for the client's `patience`."""


@dataclass
class StillRunningError(LonghaulClientError):
    """The time-out has passed and the turn still runs. It goes on: `wait`, `resume` or `cancel` it."""

    session_id: str
    turn_id: str

    def __str__(self) -> str:
        return f"turn {self.turn_id} of session {self.session_id} still runs"


@dataclass
class ProblemError(LonghaulClientError):
    """The API refused a request (RFC 9457). `retry_after`: seconds after which it may be sent again, if it says so."""

    status: int
    type: str
    title: str
    detail: str
    retry_after: float | None
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.status} {self.title}: {self.detail}" if self.detail else f"{self.status} {self.title}"

    @classmethod
    def of(cls, response: httpx2.Response) -> "ProblemError":
        """The problem that a response, whose body has been read, is about."""
        try:
            decoded = orjson.loads(response.content)
        except orjson.JSONDecodeError:  # a proxy in between answered
            decoded = None
        body = decoded if isinstance(decoded, dict) else {}
        return cls(
            status=response.status_code,
            type=str(body.get("type", "about:blank")),
            title=str(body.get("title", response.reason_phrase)),
            detail=str(body.get("detail", "" if body else response.text[:300])),
            retry_after=seconds(response.headers.get("retry-after")),
            body=body,
        )


def seconds(retry_after: str | None) -> float | None:
    """A `Retry-After` header in seconds. Longhaul sends no dates."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else None
