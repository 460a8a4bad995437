"""Turns: their progress, their list, Stop."""

import asyncio
import hashlib
import time
from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from api.dependencies import Dependencies, Deps, OwnSession
from api.problems import RESPONSES
from api.schemas import Cancelled, Turn, Turns
from longhaul.contracts import Progress, SubSessionState, TurnStatus
from longhaul.db import turns
from longhaul.db.turns import TurnRecord
from longhaul.errors import NotFoundError

router = APIRouter(prefix="/v1", tags=["turns"], responses=RESPONSES)
WAIT_MAX_S = 60
STOP_MAX_S = 10.0
POLL_FIRST_S = 0.1
POLL_MAX_S = 0.5


@router.get("/sessions/{session_id}/turns", summary="Turns of a session")
async def list_turns(session: OwnSession, deps: Deps, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Turns:
    """Newest first."""
    async with deps.database.read() as connection:
        rows = await turns.list_of_session(connection, session.id, limit)
    return Turns(turns=[_turn(row, await deps.turns.progress_of_row(row)) for row in rows])


def _turn(row: TurnRecord, progress: Progress) -> Turn:
    return Turn(
        turn_id=row.turn_id,
        status=progress.status,
        started_at=row.started_at,
        ended_at=progress.ended_at,
        duration_ms=progress.duration_ms,
        model=row.model,
        mode=row.mode,
        tier=row.tier,
        rounds=progress.round,
        usage=progress.usage,
        error=progress.error,
        message_id=row.trigger_message_id,
    )


@router.get(
    "/sessions/{session_id}/turns/{turn_id}",
    response_model=Progress,
    summary="Progress of a turn",
    responses={304: {"description": "Nothing has changed since `If-None-Match`."}},
)
async def progress(
    session: OwnSession,
    turn_id: str,
    deps: Deps,
    request: Request,
    wait: Annotated[float, Query(ge=0, le=WAIT_MAX_S, description="Seconds to wait for a change.")] = 0,
    if_none_match: Annotated[str | None, Header(description="The `ETag` of what you have.")] = None,
) -> Response:
    """The same shape for a turn that runs and one that has ended.

    With `wait`, the answer comes as soon as it differs from `If-None-Match`, or without that from how things stood
    at the beginning of the call; at the latest after `wait` seconds.
    """
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")} - {""}
    deadline = time.monotonic() + wait
    body, tag, final = await _look(deps, session.id, turn_id, known)
    awaited = known or {tag}
    pause = POLL_FIRST_S
    while tag in awaited and not final and (left := deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, POLL_MAX_S)
        if deps.closing or await request.is_disconnected():
            break
        body, tag, final = await _look(deps, session.id, turn_id, known)
    headers = {"etag": tag, "cache-control": "no-cache"}
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


async def _look(
    deps: Dependencies, session_id: str, turn_id: str, known_tags: Collection[str] = ()
) -> tuple[str, str, bool]:
    """A turn's progress as JSON, its tag, and whether no further change is expected.

    Sub-sessions may outlive their turn. A caller that knows the turn's end (by its tag) can wait for theirs.
    """
    now = await deps.turns.progress(session_id, turn_id)
    if now is None:
        raise NotFoundError(f"There is no turn {turn_id} of session {session_id}.")
    if now.status.final:
        now = await deps.turns.with_current_sub_sessions(now)
    now = await deps.turns.with_tasks(now)
    final = now.status.final
    tagged = now if final else now.model_copy(update={"duration_ms": None})  # The clock alone is no change.
    digest = hashlib.blake2b(tagged.model_dump_json().encode(), digest_size=12).hexdigest()
    settled = final and all(child.status is not SubSessionState.RUNNING for child in now.sub_sessions)
    return now.model_dump_json(), f'"{digest}"', settled if known_tags else final


@router.post("/sessions/{session_id}/cancel", summary="Stop")
async def cancel(session: OwnSession, deps: Deps) -> Cancelled:
    """Stop what runs, and answer when it has ended. Nothing running is no error, nor is stopping twice.

    When this answers, the session takes its next message.
    """
    stopped = await deps.stopper.stop(session.id, STOP_MAX_S)
    if stopped is None:
        return Cancelled(cancelled=False, turn_id=None, status=None)
    return Cancelled(cancelled=stopped.status == TurnStatus.CANCELLED, turn_id=stopped.turn_id, status=stopped.status)
