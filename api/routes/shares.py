"""Read-only links: make, list and revoke them; and what anyone who has a link sees of its session."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from starlette.responses import StreamingResponse

from api.cursors import CURSOR, cursor_of, position
from api.dependencies import ID, CurrentUser, Dependencies, Deps, OwnSession
from api.ownership import SessionRecord
from api.page import PRIVATE
from api.problems import RESPONSES, TOO_LARGE, TOO_MANY, described
from api.request_body import body_schema, json_body
from api.routes.chat import HISTORY_ROWS, HistoryPage, Version, history_page
from api.routes.sessions import active_turn
from api.routes.stream import EVENT_ID, STREAM, turn_to_resume
from api.routes.tree import tree_of
from api.schemas.messages import StoredMessage
from api.schemas.shares import NewShare, Share, SharedSession, Shares
from api.schemas.turns import TreeNode
from api.slots import Slot
from api.sse import TurnEvents
from longhaul.db import conversation, shares
from longhaul.db.models import utc_now
from longhaul.db.shares import SharePosition
from longhaul.errors import NotFoundError, UnavailableError

router = APIRouter(prefix="/v1", tags=["shares"], responses=RESPONSES)
#: So often an open stream looks whether its link still works. A silent one looks with each keep-alive.
CHECK_S = 2.0
#: What a message's context holds beside the page that its writer was looking at.
SHOWN_CONTEXT = ("files", "at", "until")
READING = {**described(404, "The link was revoked, has expired, or never existed."), **TOO_MANY}


@dataclass(frozen=True)
class Shared:
    """A session that a link shows."""

    share: shares.Share
    session: SessionRecord


async def shared(
    token: Annotated[str, Path(max_length=100, pattern=ID, description="Of a link.")], deps: Deps, response: Response
) -> Shared:
    """What the link of a path shows. Who reads it needs no other token.

    Raises:
        NotFoundError: the link was revoked, has expired, or never existed.
    """
    response.headers.update(PRIVATE)
    async with deps.database.read() as connection:
        share = await shares.of_token(connection, token)
    return Shared(share, await deps.sessions.get(share.session_id, share.user_id))


OfLink = Annotated[Shared, Depends(shared)]


async def link_slot(link: OfLink, deps: Deps) -> AsyncIterator[Slot]:
    """A slot of the link's own: those who read by it take no stream away from its owner."""
    with deps.stream_slots.slot(f"share {link.share.id}") as slot:
        yield slot


def _shown(share: shares.Share) -> Share:
    return Share(**share._asdict(), url=f"/shared/{share.token}")


@router.post(
    "/sessions/{session_id}/shares",
    status_code=201,
    summary="Make a read-only link",
    responses=TOO_LARGE,
    openapi_extra=body_schema(NewShare),
)
async def create(
    session: OwnSession,
    user: CurrentUser,
    deps: Deps,
    wanted: Annotated[NewShare, Depends(json_body(NewShare))],
) -> Share:
    """Anyone who has the link sees this session as it goes on, the names and progress of its sub-sessions, and nothing
    else.
    """
    expires_at = utc_now() + timedelta(seconds=wanted.expires_in) if wanted.expires_in is not None else None
    async with deps.database.write() as connection:
        return _shown(await shares.create(connection, session.id, user, expires_at))


@router.get("/sessions/{session_id}/shares", summary="List the links of a session")
async def listing(
    session: OwnSession,
    deps: Deps,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")] = None,
) -> Shares:
    """Newest first."""
    after = SharePosition(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await shares.list_of_session(connection, session.id, limit + 1, after)
    page, more = rows[:limit], len(rows) > limit
    next_cursor = cursor_of(page[-1].created_at, page[-1].id) if more else None
    return Shares(data=[_shown(row) for row in page], has_more=more, next_cursor=next_cursor)


@router.delete("/sessions/{session_id}/shares/{share_id}", status_code=204, summary="Revoke a link")
async def revoke(
    session: OwnSession, share_id: Annotated[str, Path(max_length=64, pattern=ID)], deps: Deps
) -> Response:
    """It shows nothing any more. Streams that are open by it end with their next event or keep-alive."""
    async with deps.database.write() as connection:
        await shares.revoke(connection, session.id, share_id)
    return Response(status_code=204)


@router.get("/shared/{token}", summary="A shared session and a page of its messages", responses=READING)
async def page(
    link: OfLink,
    deps: Deps,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before_sequence: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> SharedSession:
    """The newest page first. No token but the link's own is needed here and below."""
    session = link.session
    async with deps.database.read() as connection:
        rows, more = await conversation.page(connection, session.id, session.user_id, limit, before_sequence)
    messages = [StoredMessage.model_validate(row._replace(context=_shown_context(row.context))) for row in rows]
    return SharedSession(
        id=session.id,
        title=session.title,
        created_at=session.created_at,
        updated_at=session.updated_at,
        expires_at=link.share.expires_at,
        messages=messages,
        oldest_sequence=rows[0].sequence if rows else None,
        has_more_messages=more,
        active_turn=await active_turn(deps, session.id),
    )


def _shown_context(context: Any) -> dict[str, Any] | None:
    return {name: context[name] for name in SHOWN_CONTEXT if name in context} if context else None


@router.get("/shared/{token}/ui-messages", summary="A shared conversation as UIMessage[]", responses=READING)
async def history(
    link: OfLink,
    deps: Deps,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=HISTORY_ROWS, description="Of stored rows, the newest.")] = HISTORY_ROWS,
    before_sequence: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    details: Annotated[bool, Query(description="As in `GET /v1/sessions/{id}/ui-messages`.")] = False,
    ai: Version = None,
) -> list[dict[str, Any]]:
    """As `GET /v1/sessions/{id}/ui-messages`."""
    wanted = HistoryPage(limit, before_sequence, details=details, ai=ai)
    return await history_page(deps, link.session, wanted, f"/v1/shared/{link.share.token}/ui-messages", response)


@router.get(
    "/shared/{token}/stream",
    response_model=None,
    summary="The stream of a shared session's running turn",
    responses={200: STREAM, 204: {"description": "Nothing runs."}, **READING},
)
async def stream(
    link: OfLink,
    deps: Deps,
    slot: Annotated[Slot, Depends(link_slot)],
    turn_id: Annotated[
        str | None, Query(max_length=64, pattern=ID, description="A certain turn, also one that has ended.")
    ] = None,
    after: Annotated[str | None, Query(pattern=EVENT_ID, description="As `Last-Event-ID`.")] = None,
    last_event_id: Annotated[str | None, Header(pattern=EVENT_ID, description="Go on behind this event.")] = None,
) -> Response:
    """As `GET /v1/sessions/{id}/stream`."""
    after = last_event_id or after
    resumed = await turn_to_resume(deps, link.session, turn_id, after)
    if resumed is None:
        return Response(status_code=204, headers=PRIVATE)
    slot.take()
    events = TurnEvents(deps, link.session.id, resumed, after)
    whole = events.response()
    chunks = _while_it_works(deps, link.share, events)
    return StreamingResponse(chunks, headers={**dict(whole.headers), **PRIVATE})


async def _while_it_works(deps: Dependencies, share: shares.Share, events: TurnEvents) -> AsyncIterator[bytes]:
    """The chunks of a stream until its link is revoked or expires. Its client finds out when it resumes."""
    checked_at = time.monotonic()
    async with aclosing(events.events()) as chunks:
        async for chunk in chunks:
            if time.monotonic() - checked_at >= CHECK_S:
                checked_at = time.monotonic()
                if not await _works(deps, share):
                    return
            yield chunk


async def _works(deps: Dependencies, share: shares.Share) -> bool:
    """Whether a link still shows its session. While the database is away, nobody can revoke it."""
    if share.expires_at is not None and share.expires_at <= utc_now():
        return False
    try:
        async with deps.database.read() as connection:
            await shares.of_token(connection, share.token)
    except NotFoundError:
        return False
    except UnavailableError:
        return True
    return True


@router.get("/shared/{token}/tree", summary="A shared session and its sub-sessions", responses=READING)
async def tree(link: OfLink, deps: Deps) -> TreeNode:
    """As `GET /v1/sessions/{id}/tree`."""
    return await tree_of(deps, link.session)
