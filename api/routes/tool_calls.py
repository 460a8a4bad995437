"""For tool workers: a call's arguments, progress and result, by a proof and then by the token of that call.

No user's token opens these routes, and no call token opens any other.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.requests import HTTPConnection

from api.dependencies import Deps
from api.problems import RESPONSES, TOO_LARGE, TOO_MANY, described
from api.request_body import BODY_MAX, body_schema, json_object, read_body, validated
from api.schemas.tool_calls import BegunToolCall, ToolCallProgress, ToolCallResult
from longhaul.auth import UnauthorizedError
from longhaul.contracts import ToolProgress
from longhaul.db.remote_calls import CallToken, GivenResult

GONE = described(410, "The call has ended.")
REPLACED = described(409, "Another attempt has the call, or it has its result.")
router = APIRouter(
    prefix="/v1/tool-calls", tags=["tool workers"], responses={**RESPONSES, **GONE, **REPLACED, **TOO_MANY}
)


def bearer(connection: HTTPConnection) -> str:
    """What a request shows in its `Authorization` header.

    Raises:
        UnauthorizedError: nothing.
    """
    scheme, _, shown = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not shown.strip():
        raise UnauthorizedError("A bearer token is needed.")
    return shown.strip()


Shown = Annotated[str, Depends(bearer)]


async def call_token(shown: Shown, deps: Deps) -> CallToken:
    """The call token of a request."""
    token = deps.remote_calls.token(shown)
    await deps.rate_limit.count_tool_worker(token.remote_call_id)
    return token


OwnToken = Annotated[CallToken, Depends(call_token)]


@router.post("/begin", summary="Begin an attempt at a call")
async def begin(proof: Shown, deps: Deps) -> BegunToolCall:
    """The bearer is the proof that its worker has the task of the call at Temporal. Earlier tokens count no more."""
    call = await deps.remote_calls.call_of(proof)
    # Counted by itself: the proof is not verified yet, and a stranger must not use up what the call's worker may send.
    await deps.rate_limit.count_tool_worker(f"begin {call.id}")
    return BegunToolCall.model_validate(await deps.remote_calls.begin(call, proof))


@router.post(
    "/progress",
    status_code=204,
    summary="Show how far a call is",
    responses={**TOO_LARGE},
    openapi_extra=body_schema(ToolCallProgress, required=True),
)
async def report_progress(request: Request, token: OwnToken, deps: Deps) -> None:
    body = validated(ToolCallProgress, json_object(await read_body(request, BODY_MAX)))
    await deps.remote_calls.report(token, ToolProgress(text=body.text, done=body.done, total=body.total))


@router.post(
    "/result",
    status_code=204,
    summary="Give the result of a call",
    responses={**TOO_LARGE},
    openapi_extra=body_schema(ToolCallResult, required=True),
)
async def give_result(request: Request, token: OwnToken, deps: Deps) -> None:
    """Taken once: another result is refused with 409, and after the end of the call every result with 410."""
    body = validated(ToolCallResult, json_object(await read_body(request, deps.settings.tool_output_max_bytes)))
    await deps.remote_calls.give(token, GivenResult(body.status, body.output, body.duration_ms))
