"""Approvals and questions: what waits for the user, and the answers."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from api.cursors import CURSOR, cursor_of, position
from api.dependencies import ID, CurrentUser, Deps
from api.parked_body import DECISION_BODY_MAX, Decision, answer_of
from api.problems import CONFLICT, RESPONSES, TOO_LARGE
from api.request_body import json_body
from api.schemas.approvals import Approval, Approvals
from longhaul.db import parked
from longhaul.db.parked import ParkedPosition

router = APIRouter(prefix="/v1", tags=["approvals"], responses=RESPONSES)
ApprovalId = Annotated[str, Path(max_length=64, pattern=ID, description="Id of a call that waits.")]


@router.get("/approvals", summary="What waits for you")
async def list_approvals(
    user: CurrentUser,
    deps: Deps,
    session_id: Annotated[str | None, Query(max_length=64, pattern=ID, description="Only of this session.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")] = None,
) -> Approvals:
    """Calls in all your sessions that wait for your consent, your answer or your client, the oldest first."""
    after = ParkedPosition(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await parked.waiting_of_user(connection, user, limit + 1, session_id=session_id, after=after)
    page, more = rows[:limit], len(rows) > limit
    next_cursor = cursor_of(page[-1].asked_at, page[-1].id) if more else None
    return Approvals(data=[Approval.of(row) for row in page], has_more=more, next_cursor=next_cursor)


@router.get("/approvals/{approval_id}", summary="A call that waits or has waited")
async def approval(approval_id: ApprovalId, user: CurrentUser, deps: Deps) -> Approval:
    async with deps.database.read() as connection:
        return Approval.of(await parked.of_user(connection, approval_id, user))


@router.post("/approvals/{approval_id}", summary="Allow, deny or answer", responses={**CONFLICT, **TOO_LARGE})
async def answer_approval(
    approval_id: ApprovalId,
    user: CurrentUser,
    deps: Deps,
    decision: Annotated[Decision, Depends(json_body(Decision, DECISION_BODY_MAX))],
) -> Approval:
    """An approval takes `decision`, with `reason`, `scope` or `arguments`; a question takes `answer`; a client's tool
    takes `output` or `error`.

    Only the first answer counts: a second one is refused with 409, except for the same result of a client's tool again.
    So is one that comes when the time is over or the turn was stopped.
    """
    async with deps.database.read() as connection:
        row = await parked.of_user(connection, approval_id, user)
    return Approval.of(await deps.answers.answer(approval_id, user, answer_of(row, decision)))
