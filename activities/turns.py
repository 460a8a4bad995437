"""Opens a turn, takes the messages that arrive while it runs, and closes it."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from temporalio import activity

from activities.answers import new_turn
from activities.attempt import TurnStreams, storage_faults
from activities.title import Titles
from longhaul.contracts import (
    Budget,
    ClosedTurn,
    CloseTurn,
    OpenedTurn,
    OpenTurn,
    Progress,
    Scope,
    TakeInbox,
    TakenInbox,
    TurnStatus,
)
from longhaul.db import acceptance, conversation, edits, events, ledger, messages, parked, sessions, turns
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.event_tables import EventType
from longhaul.db.messages import NewMessage, row_id, tool_row
from longhaul.db.sessions import Session
from longhaul.db.turns import TurnPeriod
from longhaul.limits.usage import UsageLimits
from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.streams.ending import Ending, end_stream
from longhaul.streams.events import data_part


class TurnActivities:
    """Opens turns, takes their messages, closes them."""

    def __init__(
        self, database: Database, streams: TurnStreams, titles: Titles, usage: UsageLimits, settings: Settings
    ) -> None:
        self._database = database
        self._usage = usage
        self._streams = streams
        self._titles = titles
        self._stream_ttl = settings.stream_ttl

    @activity.defn
    async def open_turn(self, opening: OpenTurn) -> OpenedTurn:
        """Place the first messages, store the turn's row, answer tool calls that the turn before left open."""
        turn = opening.turn
        with storage_faults():
            refusal = await self._usage.refusal(turn.user_id, opening.cost_limits)
            async with self._database.write() as connection:
                if await turns.has_ended(connection, turn.turn_id):
                    # A signal that arrived after the turn had taken its message and ended started this run.
                    return OpenedTurn(taken=[])
                lost = await self._lost_rows(connection, turn.session_id, turn.turn_id)
                if lost:
                    await messages.append(connection, turn.session_id, lost)
                begun = new_turn(opening, opening.started_at)
                retries = bool(opening.retry_of) and await edits.begin_retry(
                    connection, begun._replace(retry_of=opening.retry_of)
                )
                placed = await acceptance.place_waiting(
                    connection, turn.session_id, turn_id=turn.turn_id, round_=0, kind="message", of_all_turns=True
                )
                taken, client_tools = placed
                if retries and client_tools is None:
                    client_tools = await client_tools_of(connection, opening.retry_of)
                if not taken and not retries:
                    next_turn_id = await acceptance.next_waiting_turn(connection, turn.session_id)
                    if next_turn_id:
                        return OpenedTurn(taken=[], next_turn_id=next_turn_id)
                session = await sessions.get(connection, turn.session_id)
                if session.rolled_back_turn_id not in (None, turn.turn_id):
                    await edits.roll_back(connection, turn.session_id, session.rolled_back_turn_id, turn.turn_id)
                if taken:
                    await turns.start(connection, begun._replace(trigger_message_id=taken[0]))
                budgets = await budgets_of(connection, session, opening.scope, opening.started_at)
                names = taken and refusal is None
                to_name = await self._titles.claim(connection, session, taken[0]) if names else ""
        async with self._streams.publisher(turn) as publisher:
            await publisher.begin()
            if to_name:
                self._titles.start(turn, opening.scope.model_copy(update={"budgets": budgets}), to_name)
            if not taken and not retries:
                # A late duplicate: an earlier turn has answered every message. Release the readers of this stream.
                await publisher.seal([], None, self._stream_ttl)
        return OpenedTurn(
            taken=taken,
            budgets=budgets,
            published=not publisher.broken,
            compaction_due=bool(session.compaction_due),
            refusal=str(refusal or "") if taken else "",
            retries=retries,
            client_tools=client_tools,
        )

    async def _lost_rows(self, connection: Connection, session_id: str, turn_id: str) -> list[NewMessage]:
        return [
            tool_row(call.turn_id, call.round, call.id, call.name, prompts.LOST_CALL, is_error=True)
            for call in await conversation.open_tool_calls_before(connection, session_id, turn_id)
        ]

    @activity.defn
    async def take_inbox(self, taking: TakeInbox) -> TakenInbox:
        """Place follow-ups after a round's rows; the next model call sees them."""
        turn = taking.turn
        with storage_faults():
            async with self._database.write() as connection:
                placed = await acceptance.place_waiting(
                    connection, turn.session_id, turn_id=turn.turn_id, round_=taking.round, kind="follow_up"
                )
        taken = placed.message_ids
        async with self._streams.publisher(turn) as publisher:
            for message_id in taken:
                part = data_part("follow-up", {"message_id": message_id, "round": taking.round})
                publisher.put(part, once=f"follow-up:{message_id}")
        return TakenInbox(taken=taken, published=not publisher.broken, client_tools=placed.client_tools)

    @activity.defn
    async def close_turn(self, closing: CloseTurn) -> ClosedTurn:
        """Store results for open tool calls and the turn's end, then end its stream, each once.

        A completed turn that messages wait for is not ended. Messages that wait for a stopped turn are filed in it.
        Those that wait for a failed turn, or for one at its round limit, wait for the next turn instead.
        """
        turn, progress = closing.turn, closing.progress
        closing_text = _closing_text(closing)
        # A turn completes only when each of its activities has reported whether it published everything.
        trusted = progress.status is TurnStatus.COMPLETED and activity.info().attempt == 1
        with storage_faults():
            async with self._database.write() as connection:
                await messages.lock_session(connection, turn.session_id)
                stored = await turns.get(connection, turn.session_id, turn.turn_id)
                if stored is not None and stored.status.final and stored.status is not progress.status:
                    closing_text, progress = "", progress.model_copy(update={"status": stored.status})
                else:
                    waiting = await acceptance.any_waits_for(connection, turn.session_id, turn.turn_id)
                    if waiting and progress.status is TurnStatus.COMPLETED and not closing.round_limit_reached:
                        return ClosedTurn(ended=False)
                    # Attempts that failed have no report, so the workflow does not know what they have used.
                    await ledger.settle_turn(connection, turn.session_id, turn.turn_id)
                    usage = await ledger.usage_of_turn(connection, turn.session_id, turn.turn_id)
                    progress = progress.model_copy(update={"usage": usage})
                    await self._store_end(connection, closing, progress, closing_text)
                next_turn_id = await acceptance.next_waiting_turn(connection, turn.session_id)
                compare = turn.published and not trusted
                compared = await conversation.rows_of_turn(connection, turn.turn_id) if compare else None
        ending = Ending(
            progress.status,
            progress.round,
            progress.error,
            closing_text=closing_text,
            step_open=closing.step_open,
            unanswered=prompts.CANCELLED_CALL,
        )
        async with self._streams.publisher(turn) as publisher:
            await end_stream(publisher, ending, compared, self._stream_ttl)
        return ClosedTurn(
            status=progress.status if progress.status is not closing.progress.status else None,
            next_turn_id=next_turn_id,
        )

    async def _store_end(
        self, connection: Connection, closing: CloseTurn, progress: Progress, closing_text: str
    ) -> None:
        turn = closing.turn
        rows = [
            tool_row(turn.turn_id, call.round, call.id, call.name, prompts.CANCELLED_CALL, is_error=True)
            for call in await conversation.open_tool_calls_of_turn(connection, turn.turn_id)
        ]
        rows += _final_rows(closing, closing_text)
        if rows:
            await messages.append(connection, turn.session_id, rows)
        await parked.cancel_of_turn(connection, turn.turn_id)
        if progress.status is TurnStatus.CANCELLED or not closing.next_turn_id:
            await acceptance.place_waiting(
                connection, turn.session_id, turn_id=turn.turn_id, round_=progress.round, kind="message"
            )
        else:
            await acceptance.move_waiting(connection, turn.session_id, turn.turn_id, closing.next_turn_id)
        if closing.budget_reached:
            await events.record(
                connection,
                EventType.BUDGET_REACHED,
                user_id=turn.user_id,
                session_id=turn.session_id,
                turn_id=turn.turn_id,
                details={},
            )
        await turns.end(connection, new_turn(closing, progress.started_at), progress)


async def client_tools_of(connection: Connection, turn_id: str) -> str | None:
    """The tools that a turn's messages have declared; None: they said nothing of tools."""
    rows = await conversation.rows_of_turn(connection, turn_id)
    return next((row.client_tools for row in reversed(rows) if row.client_tools is not None), None)


def _closing_text(closing: CloseTurn) -> str:
    """The last text of a completed turn whose model gave none, or could not finish."""
    if closing.progress.status is not TurnStatus.COMPLETED:
        return ""
    if closing.round_limit_reached:
        return prompts.ROUND_LIMIT.format(limit=closing.progress.round)
    if closing.finish_reason in prompts.FINISHED_SHORT:
        return prompts.FINISHED_SHORT[closing.finish_reason]
    return "" if closing.answered_with_text else prompts.CLOSING_TEXT


def _final_rows(closing: CloseTurn, closing_text: str) -> list[NewMessage]:
    turn_id = closing.turn.turn_id
    if closing_text:
        row = NewMessage(row_id(turn_id, "closing"), "assistant", closing_text, kind="notice")
    elif closing.progress.status is TurnStatus.CANCELLED:
        row = NewMessage(row_id(turn_id, "stop"), "system", prompts.STOPPED, kind="stop")
    elif closing.progress.status is TurnStatus.FAILED:
        text = closing.progress.error or "The turn failed."
        row = NewMessage(row_id(turn_id, "error"), "assistant", text, kind="error", is_error=True)
    else:
        return []
    return [row._replace(turn_id=turn_id, round=closing.progress.round + 1)]


async def budgets_of(connection: Connection, session: Session, scope: Scope, now: datetime) -> tuple[Budget, ...]:
    """All budgets that limit a turn that starts now: those inherited, and the session's own.

    A delegated turn has the deadlines of the turn that delegated it. For a turn that a person started, they follow from
    the time that is left: time counts while the budget's session or any session below it works.
    """
    budgets = [budget for budget in scope.budgets if budget.session_id != session.id]
    if session.max_cost_microdollars is not None or session.max_seconds is not None:
        own = {"max_cost_microdollars": session.max_cost_microdollars, "max_seconds": session.max_seconds}
        budgets.append(Budget(session_id=session.id, **own))
    root = session.root_session_id or session.id
    return tuple([await _with_deadline(connection, root, budget, now) for budget in budgets])


async def _with_deadline(connection: Connection, root: str, budget: Budget, now: datetime) -> Budget:
    if budget.max_seconds is None or budget.deadline is not None:
        return budget
    periods = await turns.periods_of_subtree(connection, root, budget.session_id)
    left = timedelta(seconds=budget.max_seconds) - worked(periods, now)
    return budget.model_copy(update={"deadline": now + max(left, timedelta())})


def worked(periods: Iterable[TurnPeriod], now: datetime) -> timedelta:
    """The time before `now` in which at least one turn was at work."""
    total, until = timedelta(), datetime.min.replace(tzinfo=now.tzinfo)
    for start, end in sorted((start, min(end or now, now)) for start, end in periods):
        if end > (begin := max(start, until)):
            total += end - begin
            until = end
    return total
