"""Answers that a client of the AI SDK sends back in an assistant's message; its stream goes on with that message."""

from fastapi.responses import StreamingResponse

from api.chat_body import ChatReply
from api.chat_stream import ChatEvents, ChatView
from api.dependencies import Dependencies
from api.problems import ProblemError
from longhaul.contracts import ParkKind
from longhaul.db import parked, sessions, turns
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer, ParkedRow
from longhaul.errors import AnsweredError, NotFoundError
from longhaul.streams.chat_parts import TakeBack


async def continue_chat(deps: Dependencies, user: str, reply: ChatReply, take_back: TakeBack) -> StreamingResponse:
    """Store the answers, and show the rest of the message.

    An answer that comes too late, or again, changes nothing: the client is shown what has happened.

    Raises:
        NotFoundError: there is no such turn in the chat of this user.
        ProblemError: 409, the turn has ended, and the client has all of it. Without this, clients that send answers
            automatically would send the same message for ever.
    """
    async with deps.database.read() as connection:
        session = await sessions.of_turn(connection, reply.turn_id, user)
        if reply.session_id not in (None, session.id):
            raise NotFoundError(f"There is no turn {reply.turn_id} in session {reply.session_id}.")
        rows = await parked.of_turn(connection, reply.turn_id)
        turn_ended = await turns.has_ended(connection, reply.turn_id)
    answers = [(row, answer) for row in rows if (answer := _answer(reply, row)) is not None]
    if turn_ended and not reply.approvals:
        raise ProblemError(409, "nothing-waits", "No call of this message waits for an answer; load the chat again.")
    for row, answer in answers:
        if row.status is ParkedStatus.WAITING:
            try:
                await deps.answers.answer(row.id, user, answer)
            except AnsweredError:
                continue
    view = ChatView(take_back, reply.follow_up, asks=True, steps=reply.steps)
    return await ChatEvents(deps, session.id, reply.turn_id, view).response()


def _answer(reply: ChatReply, row: ParkedRow) -> Answer | None:
    if row.kind is ParkKind.APPROVAL:
        return reply.approvals.get(row.id)
    return reply.outputs.get(row.tool_call_id)
