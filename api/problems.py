"""Every error as RFC 9457 problem+json: what went wrong in plain words, without internals."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from longhaul.auth import UnauthorizedError
from longhaul.db.models import utc_now
from longhaul.errors import (
    AnsweredError,
    CallEndedError,
    FilesFullError,
    InboxFullError,
    LonghaulError,
    MessageIdUsedError,
    NotFoundError,
    NotRetriedError,
    OpenTurn,
    ResultGivenError,
    SessionBusyError,
    SetupError,
    TokenReplacedError,
    TooManyError,
    TooManyTurnsError,
    TurnRunsError,
    UnavailableError,
    UsageLimitError,
)

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
#: OpenAI's clients show people the `error` of a body and nothing else of it.
OPENAI_PATHS = ("/v1/chat/completions", "/v1/models")


class Defect(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int] = Field(examples=[["body", "message"]])
    msg: str = Field(examples=["String should have at most 32000 characters"])
    type: str = Field(examples=["string_too_long"])


class Running(BaseModel):
    """A turn that has not ended."""

    session_id: str = Field(examples=["7f0d6a52-5a3c-4c39-a1e7-6d4f6f0f3a11"])
    turn_id: str = Field(examples=["0c1c8d6e-2f0b-4b55-8a55-0f4f7d8f9a10"])


class OpenAIError(BaseModel):
    """A problem as OpenAI's clients read it."""

    message: str
    type: str
    code: str
    param: str | None = None


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:longhaul:problem:not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no session 7f0d6a52-5a3c-4c39-a1e7-6d4f6f0f3a11."])
    instance: str = Field(examples=["/v1/sessions/7f0d6a52-5a3c-4c39-a1e7-6d4f6f0f3a11"])
    code: str = Field(description="The last part of `type`.", examples=["not-found"])
    retryable: bool = Field(description="The same request may succeed later; `Retry-After` says when.")
    errors: list[Defect] | None = None
    running: list[Running] | None = Field(None, description="The turns that are in the way.")
    resets_at: datetime | None = Field(None, description="When the limit of costs that was reached ends.")
    error: OpenAIError | None = Field(None, description="At the routes for OpenAI's clients: the same for them.")


class ProblemError(LonghaulError):
    """An answer other than success that a handler decided on."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] | None = None,
        running: Sequence[OpenTurn] | None = None,
        resets_at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail
        self.errors = errors
        self.running = running
        self.resets_at = resets_at
        self.headers = headers

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later. Every such problem says when to try again."""
        return any(name.lower() == "retry-after" for name in self.headers or ())


def response(instance: str, problem: ProblemError) -> Response:
    """A problem as its HTTP response."""
    body: dict[str, Any] = {
        "type": f"urn:longhaul:problem:{problem.name}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": instance,
        "code": problem.name,
        "retryable": problem.retryable,
    }
    if instance.startswith(OPENAI_PATHS):
        body["error"] = {"message": problem.detail, "type": problem.name, "code": problem.name, "param": None}
    if problem.errors is not None:
        body["errors"] = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in problem.errors]
    if problem.running is not None:
        body["running"] = [{"session_id": one.session_id, "turn_id": one.turn_id} for one in problem.running]
    if problem.resets_at is not None:
        body["resets_at"] = problem.resets_at
    return Response(orjson.dumps(body), problem.status, problem.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> ProblemError:
    """The problem that a caller sees for an exception."""
    match error:
        case ProblemError():
            return error
        case NotFoundError():
            return ProblemError(404, "not-found", str(error))
        case InboxFullError():
            return ProblemError(429, "inbox-full", str(error), headers={"Retry-After": "5"})
        case TooManyTurnsError():
            return ProblemError(429, "too-many-turns", str(error), running=error.running, headers={"Retry-After": "5"})
        case UsageLimitError():
            wait = {"Retry-After": str(error.seconds_left)}
            return ProblemError(429, "usage-limit", str(error), resets_at=error.resets_at, headers=wait)
        case FilesFullError():
            return ProblemError(413, "files-full", str(error))
        case TooManyError():
            return ProblemError(409, "too-many", str(error))
        case SetupError():
            return ProblemError(409, "not-set-up", str(error))
        case MessageIdUsedError():
            return ProblemError(409, "message-id-used", str(error))
        case SessionBusyError():
            running = [OpenTurn(error.session_id, error.turn_id, utc_now())]
            return ProblemError(409, "busy", str(error), running=running, headers={"Retry-After": "2"})
        case AnsweredError():
            return ProblemError(409, "already-answered", str(error))
        case CallEndedError():
            return ProblemError(410, "call-ended", str(error))
        case TokenReplacedError():
            return ProblemError(409, "token-replaced", str(error))
        case ResultGivenError():
            return ProblemError(409, "result-given", str(error))
        case NotRetriedError():
            return ProblemError(409, "not-retried", str(error))
        case TurnRunsError():
            return ProblemError(409, "turn-runs", str(error), headers={"Retry-After": "2"})
        case UnavailableError():
            return ProblemError(503, "unavailable", str(error), headers={"Retry-After": str(error.retry_after)})
        case UnauthorizedError():
            return ProblemError(401, "unauthorized", str(error), headers={"WWW-Authenticate": "Bearer"})
        case RequestValidationError():
            return invalid(error.errors())
        case HTTPException():
            name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
            return ProblemError(error.status_code, name, str(error.detail), headers=error.headers)
    reference = uuid4().hex[:12]
    log.error("internal error, reference %s", reference, exc_info=error)
    return ProblemError(500, "internal", f"Something went wrong here. The log has it under reference {reference}.")


def invalid(errors: Sequence[Mapping[str, Any]]) -> ProblemError:
    """A request that is not valid; at most `MAX_ERRORS` of its errors are named."""
    shown = [{**error, "msg": error["msg"].removeprefix("Value error, ")} for error in errors[:MAX_ERRORS]]
    where = ".".join(str(part) for part in shown[0]["loc"])
    return ProblemError(422, "invalid", f"{where}: {shown[0]['msg']}", errors=shown)


def install(app: FastAPI) -> None:
    """Make every error of an application a problem. Other errors: `middleware.UnexpectedErrors`."""

    async def known(request: Request, error: Exception) -> Response:
        return response(request.url.path, problem_of(error))

    for kind in (LonghaulError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, known)


def described(status: int, text: str) -> dict[int | str, dict[str, Any]]:
    """A problem, for the documentation of a route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content}}


RESPONSES = {
    **described(401, "No valid token."),
    **described(404, "It does not exist, or it is another user's."),
    **described(422, "The request is not valid; `errors` says where."),
    **described(503, "A part that is needed cannot be reached; `Retry-After` says when to try again."),
}
TOO_LARGE = described(413, "The body is too large.")
CONFLICT = described(409, "The message id names another message already, or a turn that runs is in the way.")
TOO_MANY = described(429, "A limit is reached; `detail` says which, and `Retry-After` when to try again.")
