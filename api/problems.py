"""Every error as RFC 9457 problem+json: what went wrong, in words, and nothing of our insides."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from longhaul.auth import UnauthorizedError
from longhaul.errors import InboxFullError, LonghaulError, NotFoundError, UnavailableError

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


class Defect(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int] = Field(examples=[["body", "message"]])
    msg: str = Field(examples=["String should have at most 32000 characters"])
    type: str = Field(examples=["string_too_long"])


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:longhaul:problem:not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no session 7f0d6a52-5a3c-4c39-a1e7-6d4f6f0f3a11."])
    instance: str = Field(examples=["/v1/sessions/7f0d6a52-5a3c-4c39-a1e7-6d4f6f0f3a11"])
    errors: list[Defect] | None = None


class ProblemError(LonghaulError):
    """An answer other than success, decided on by a handler."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail
        self.errors = errors
        self.headers = headers


def response(instance: str, problem: ProblemError) -> Response:
    """A problem as its HTTP response."""
    body: dict[str, Any] = {
        "type": f"urn:longhaul:problem:{problem.name}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": instance,
    }
    if problem.errors is not None:
        body["errors"] = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in problem.errors]
    return Response(orjson.dumps(body), problem.status, problem.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> ProblemError:
    """What a caller is told about an exception."""
    match error:
        case ProblemError():
            return error
        case NotFoundError():
            return ProblemError(404, "not-found", str(error))
        case InboxFullError():
            return ProblemError(429, "inbox-full", str(error), headers={"Retry-After": "5"})
        case UnavailableError():
            return ProblemError(503, "unavailable", str(error), headers={"Retry-After": str(error.retry_after)})
        case UnauthorizedError():
            return ProblemError(401, "unauthorized", str(error), headers={"WWW-Authenticate": "Bearer"})
        case RequestValidationError():
            return invalid(error.errors())
        case HTTPException():
            name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
            return ProblemError(error.status_code, name, str(error.detail), headers=error.headers)
    return ProblemError(500, "internal", "Something went wrong here; it has been logged.")


def invalid(errors: Sequence[Mapping[str, Any]]) -> ProblemError:
    """A request whose parts do not hold."""
    told = [{**error, "msg": error["msg"].removeprefix("Value error, ")} for error in errors]
    where = ".".join(str(part) for part in told[0]["loc"])
    return ProblemError(422, "invalid", f"{where}: {told[0]['msg']}", errors=told)


def install(app: FastAPI) -> None:
    """Make every error of an application a problem."""

    async def known(request: Request, error: Exception) -> Response:
        return response(request.url.path, problem_of(error))

    for kind in (LonghaulError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, known)


# For the documentation of each route.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, text in {
        401: "No valid token.",
        404: "There is no such thing, or it is somebody else's.",
        422: "The request does not hold; `errors` says where.",
        503: "A part that is needed cannot be reached; `Retry-After` says when to come back.",
    }.items()
}
TOO_MANY: dict[int | str, dict[str, Any]] = {
    429: {
        "description": "Too many messages wait, or too many were sent in a minute.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
