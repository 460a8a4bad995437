"""Turns: their progress, their list, Stop."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from api.cursors import CURSOR, cursor_of, position
from api.dependencies import Deps, OwnSession, PollSlot
from api.problems import RESPONSES, TOO_MANY
from api.schemas.turns import Cancelled, Turn, Turns
from longhaul.contracts import Progress, TurnStatus
from longhaul.db import turns
from longhaul.db.turns import TurnPlace, TurnRecord
from longhaul.turns.stop import STOP_MAX_S

router = APIRouter(prefix="/v1", tags=["turns"], responses=RESPONSES)
WAIT_MAX_S = 60


@router.get("/sessions/{session_id}/turns", summary="Turns of a session")
async def list_turns(
    session: OwnSession,
    deps: Deps,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")] = None,
) -> Turns:
    """Newest first."""
    after = TurnPlace(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await turns.list_of_session(connection, session.id, limit + 1, after)
    page, more = rows[:limit], len(rows) > limit
    shown = [_turn(row, await deps.turns.progress_of_row(row)) for row in page]
    next_cursor = cursor_of(page[-1].started_at, page[-1].turn_id) if more else None
    return Turns(data=shown, turns=shown, has_more=more, next_cursor=next_cursor)


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
        retry_of=row.retry_of,
    )


@router.get(
    "/sessions/{session_id}/turns/{turn_id}",
    response_model=Progress,
    summary="Progress of a turn",
    responses={304: {"description": "Nothing has changed since `If-None-Match`."}, **TOO_MANY},
)
async def progress(
    session: OwnSession,
    turn_id: str,
    deps: Deps,
    request: Request,
    slot: PollSlot,
    wait: Annotated[float, Query(ge=0, le=WAIT_MAX_S, description="Seconds to wait for a change.")] = 0,
    if_none_match: Annotated[str | None, Header(description="The `ETag` of what you have.")] = None,
) -> Response:
    """The same shape for a turn that runs and one that has ended.

    With `wait`, the answer comes as soon as it differs from `If-None-Match`, or without that from how things stood
    at the beginning of the call; at the latest after `wait` seconds.
    """
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")} - {""}
    if wait:
        slot.take()

        async def give_up() -> bool:
            return deps.closing or await request.is_disconnected()

        view = await deps.polls.changed(session.id, turn_id, known, wait, give_up)
    else:
        view = await deps.polls.now(session.id, turn_id)
    headers = {"etag": view.tag, "cache-control": "no-cache"}
    if view.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(view.body, headers=headers, media_type="application/json")


@router.post("/sessions/{session_id}/cancel", summary="Stop")
async def cancel(session: OwnSession, deps: Deps) -> Cancelled:
    """Stop what runs, and answer when it has ended. Nothing running is no error, nor is stopping twice.

    When this answers, the session takes its next message.
    """
    stopped = await deps.stopper.stop(session.id, STOP_MAX_S)
    if stopped is None:
        return Cancelled(cancelled=False, turn_id=None, status=None)
    return Cancelled(cancelled=stopped.status == TurnStatus.CANCELLED, turn_id=stopped.turn_id, status=stopped.status)
