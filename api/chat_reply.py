"""Answers that a client of the AI SDK sends back: in an assistant's message, whose stream then goes on, or beside a
message of its person."""

from contextlib import suppress
from dataclasses import replace

from fastapi.responses import StreamingResponse

from api.chat_body import Chat, ChatReply
from api.chat_stream import ChatEvents, ChatView
from api.dependencies import Dependencies
from api.problems import ProblemError
from longhaul.contracts import ParkKind
from longhaul.db import parked, sessions, turns
from longhaul.db.busy import OnBusy
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer, ParkedRow
from longhaul.errors import AnsweredError, NotFoundError


async def continue_chat(deps: Dependencies, user: str, reply: ChatReply, view: ChatView) -> StreamingResponse:
    """Store the answers, and show the rest of the message as `view` says.

    An answer that comes too late, or again, changes nothing: the client is shown what has happened.

    Raises:
        NotFoundError: there is no such turn in the chat of this user.
        ProblemError: 413, a result is too large. 409, the turn has ended, and the client has all of it. Without this,
            clients that send answers automatically would send the same message for ever.
    """
    async with deps.database.read() as connection:
        session = await sessions.of_turn(connection, reply.turn_id, user)
        if reply.session_id not in (None, session.id):
            raise NotFoundError(f"There is no turn {reply.turn_id} in session {reply.session_id}.")
        rows = await parked.of_turn(connection, reply.turn_id)
        turn_ended = await turns.has_ended(connection, reply.turn_id)
    if turn_ended and not reply.approvals:
        raise ProblemError(409, "nothing-waits", "No call of this message waits for an answer; load the chat again.")
    await _take_answers(deps, user, reply, rows)
    view = replace(view, follow_up=reply.follow_up, steps=reply.steps)
    return await ChatEvents(deps, session.id, reply.turn_id, view).response()


async def answer_before(deps: Dependencies, user: str, session_id: str, chat: Chat) -> None:
    """Take the answers that a client has put into the assistant's message before its person wrote the next one.

    The AI SDK sends no result for a call any more when another message follows it. So calls of the client's tools that
    its message shows without a result are skipped, and the model is told so. Calls that it does not show are not its
    own, and wait on.

    Raises:
        ProblemError: 413, a result is too large.
    """
    reply = chat.before
    if reply is None or not reply.calls:
        return
    async with deps.database.read() as connection:
        rows = [row for row in await parked.of_turn(connection, reply.turn_id) if row.session_id == session_id]
    answered = await _take_answers(deps, user, reply, rows)
    if chat.message.on_busy is OnBusy.REJECT:
        return  # the message will be refused
    left = [row for row in rows if row.kind is ParkKind.CLIENT_TOOL and row.status is ParkedStatus.WAITING]
    shown = [row for row in left if row.tool_call_id in reply.calls and row.id not in answered]
    await deps.answers.skip_client_calls(user, shown)


async def _take_answers(deps: Dependencies, user: str, reply: ChatReply, rows: list[ParkedRow]) -> set[str]:
    """Store a message's answers to those of the calls that wait; the ids of these."""
    waiting = [row for row in rows if row.status is ParkedStatus.WAITING]
    answers: list[tuple[str, Answer]] = [
        (row.id, answer) for row in waiting if (answer := reply.answer(row)) is not None
    ]
    for approval_id, answer in answers:
        with suppress(AnsweredError):
            await deps.answers.answer(approval_id, user, answer)
    return {approval_id for approval_id, _ in answers}
