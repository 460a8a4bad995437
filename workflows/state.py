"""The state of a running turn: inbox, tools, sub-sessions, usage; and how people see it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from temporalio import workflow

from activities.scopes import without_deadlines
from longhaul.contracts import (
    Budget,
    FollowUp,
    Progress,
    Scope,
    SubSessionEnded,
    SubSessionRecord,
    ToolRecord,
    ToolStatus,
    TurnInput,
    TurnRef,
    TurnState,
    TurnStatus,
    WaitingCall,
)

RECENT_TOOLS = 20


class RunningTurn:
    """The mutable state of one turn. Signal handlers append to `inbox`; the loop changes everything else.

    Attributes:
        state: the part that is carried over when the turn continues as new.
        waiting_calls: calls that wait for a person or a client, by tool call id.
        answered: ids of approvals whose answer has not been taken yet; signals add them.
        sub_session_ends: the newest end of each sub-session that has ended, by sub-session id.
        closed: the turn's last rows are stored.
        begins_later: another turn begins first, so this run ends without a word.
    """

    def __init__(self, request: TurnInput) -> None:
        self.request = request
        self.status = TurnStatus.RUNNING
        self.inbox: list[FollowUp] = list(request.inbox)
        self.tools_running: dict[str, ToolRecord] = {}
        self.waiting_calls: dict[str, WaitingCall] = {}
        self.answered: list[str] = []
        self.sub_session_ends: dict[str, SubSessionEnded] = {}
        self.ended_at: datetime | None = None
        self.closed = False
        self.begins_later = False
        self.error: str | None = None
        self.finish_reason = ""
        self.state = request.state or TurnState(started_at=workflow.now())
        self.sub_sessions = {record.sub_session_id: record for record in self.state.sub_sessions}

    @property
    def ref(self) -> TurnRef:
        return TurnRef(
            session_id=self.request.session_id,
            turn_id=self.request.turn_id,
            user_id=self.request.user_id,
            published=self.state.published,
            parent_turn_id=self.request.parent_turn_id,
        )

    @property
    def scope(self) -> Scope:
        """What the session may do, with the budgets that hold now."""
        return self.request.scope.model_copy(update={"budgets": self.state.budgets})

    @property
    def model(self) -> str:
        return self.state.model or self.request.model

    @property
    def calling(self) -> str:
        """The model that the next call asks first: the chosen one, or the fallback that answered the newest call."""
        return self.state.fallback or self.model

    @property
    def mode(self) -> str:
        return self.state.mode or self.request.mode

    @property
    def effort(self) -> str:
        return self.request.effort if self.state.effort is None else self.state.effort

    @property
    def tier(self) -> str:
        return self.state.tier or self.request.tier

    @property
    def time_budget(self) -> Budget | None:
        """The time budget that ends the work first."""
        timed = [(budget.deadline, budget) for budget in self.state.budgets if budget.deadline is not None]
        return min(timed, key=lambda entry: entry[0])[1] if timed else None

    @property
    def out_of_time(self) -> bool:
        """Whether a time budget has ended."""
        budget = self.time_budget
        return budget is not None and budget.deadline is not None and workflow.now() >= budget.deadline

    @property
    def stop_requested(self) -> bool:
        return workflow.cancellation_reason() is not None

    def raise_if_stopped(self) -> None:
        """Obey a Stop, or the end of the time budget, that no `await` of a call raised: it arrived as a store ended.

        Raises:
            CancelledError: as the `await` would have.
        """
        if self.stop_requested or self.out_of_time:
            raise asyncio.CancelledError("stopped")

    @property
    def waiting_messages(self) -> list[FollowUp]:
        """Messages of this turn that it has not taken yet, each once."""
        return list(
            {f.message_id: f for f in self.inbox if self._is_own(f) and f.message_id not in self.state.seen}.values()
        )

    @property
    def messages_of_next_turn(self) -> list[FollowUp]:
        """Messages in the inbox that were accepted for the next turn."""
        own = self.request.turn_id
        return [f for f in self.inbox if f.turn_id != own and f.message_id not in self.state.seen]

    @property
    def untaken_messages(self) -> list[FollowUp]:
        """All messages in the inbox that the next turn has to take: its own, and those that this turn could not take.

        The rows of the latter wait for the next turn by now, so they name this turn no longer, unless it begins later.
        """
        untaken = [f for f in self.inbox if f.message_id not in self.state.seen]
        if self.begins_later:
            return untaken
        return [f.model_copy(update={"turn_id": ""}) if f.turn_id == self.request.turn_id else f for f in untaken]

    def _is_own(self, message: FollowUp) -> bool:
        return message.turn_id in ("", self.request.turn_id)

    def update(self, **values: object) -> None:
        """Change fields of the state that is carried over when the turn continues as new."""
        self.state = self.state.model_copy(update=values)

    def update_published(self, published: bool) -> None:
        """A stream that broke once counts as broken for the rest of the turn."""
        if not published and self.state.published:
            self.update(published=False)

    def take_inbox(self) -> list[str]:
        """Take this turn's messages out of the inbox; ids in order of arrival, each once in the life of the turn.

        From here on the turn has the model, mode and tier that the newest of them chose.
        """
        messages = self.waiting_messages
        taken = [message.message_id for message in messages]
        for message in messages:
            if message.mode and (not self.state.opened or "mode" in message.chosen):
                self.update(mode=message.mode, effort=message.effort)
            if message.tier and (not self.state.opened or "tier" in message.chosen):
                self.update(tier=message.tier, model=message.model, fallback="")
        self.inbox = [message for message in self.inbox if not self._is_own(message)]
        self.mark_taken(taken)
        return taken

    def put_back(self, signalled: Sequence[FollowUp]) -> None:
        """Give back what `take_inbox` took: another turn begins first, and hands the messages on."""
        arrived = [message for message in self.inbox if message not in signalled]
        self.inbox = [*signalled, *arrived]
        self.begins_later = True
        self.update(seen=[])

    def mark_taken(self, message_ids: Sequence[str]) -> None:
        """Remember messages that this turn has taken: a signal may bring one of them late, or again."""
        if fresh := [message_id for message_id in message_ids if message_id not in self.state.seen]:
            self.update(seen=[*self.state.seen, *fresh])

    def note_client_tools(self, declared: str | None) -> None:
        """Offer the tools that a message declares from the next model call on; None: it says nothing of tools."""
        if declared is not None:
            self.update(client_tools=declared)

    def next_request(self, turn_id: str, *, named_by_rows: bool) -> TurnInput:
        """The argument of the turn that follows this one, with its own messages, model and deadlines.

        `turn_id` is the next turn's id, unless a message was accepted for a turn of its own. `named_by_rows`: it is in
        any case, because the rows of the messages say so.
        """
        request, inbox = self.request, self.untaken_messages
        if not named_by_rows:
            turn_id = next((f.turn_id for f in self.messages_of_next_turn if f.turn_id), turn_id)
        its_own = [f for f in inbox if f.turn_id in ("", turn_id)]
        first, newest = (its_own[0], its_own[-1]) if its_own else (None, None)
        return request.model_copy(
            update={
                "turn_id": turn_id,
                "inbox": inbox,
                "state": None,
                "model": (newest.model if newest is not None else "") or request.model,
                "mode": (newest.mode if newest is not None else "") or request.mode,
                "tier": (newest.tier if newest is not None else "") or request.tier,
                "effort": newest.effort if newest is not None and newest.mode else request.effort,
                "scope": (first.scope if first is not None else None) or without_deadlines(request.scope),
                "parent_turn_id": first.parent_turn_id if first is not None else "",
                "rows_decide": True,
                "follows_turn": True,
                "retry_of": "",
            }
        )

    def tool_started(self, tool_call_id: str, name: str) -> None:
        self.tools_running[tool_call_id] = ToolRecord(
            tool_call_id=tool_call_id, name=name, round=self.state.round, started_at=workflow.now()
        )

    def tool_ended(self, tool_call_id: str, status: ToolStatus) -> None:
        record = self.tools_running.pop(tool_call_id)
        ended = record.model_copy(update={"status": status, "ended_at": workflow.now()})
        self.update(
            tools_done=self.state.tools_done + 1, recent_tools=[*self.state.recent_tools, ended][-RECENT_TOOLS:]
        )

    @property
    def shown_status(self) -> TurnStatus:
        """The status as people see it: a turn that runs may wait for one of them."""
        waits = self.status is TurnStatus.RUNNING and self.waiting_calls
        return TurnStatus.WAITING_FOR_APPROVAL if waits else self.status

    def call_waits(self, call: WaitingCall) -> None:
        self.waiting_calls[call.tool_call_id] = call

    def sub_session_started(self, record: SubSessionRecord) -> None:
        self.sub_sessions[record.sub_session_id] = record
        ended = self.sub_session_ends.pop(record.sub_session_id, None)
        if ended is not None and ended.turn_id == record.turn_id:
            self.sub_session_ended(ended)  # the signal of its end arrived before its start was recorded

    def sub_session_ended(self, ended: SubSessionEnded) -> None:
        """Record the end of a sub-session's turn; a signal, its child workflow and a look at it may each report it."""
        self.sub_session_ends[ended.sub_session_id] = ended
        record = self.sub_sessions.get(ended.sub_session_id)
        if record is not None and record.ended_at is None:
            self.sub_sessions[ended.sub_session_id] = record.model_copy(
                update={"status": ended.status, "turn_id": ended.turn_id, "ended_at": workflow.now()}
            )

    def progress(self) -> Progress:
        """The turn as it stands, and as its row keeps it."""
        duration = None
        if self.ended_at is not None:
            duration = round((self.ended_at - self.state.started_at).total_seconds() * 1000)
        return Progress(
            turn_id=self.request.turn_id,
            session_id=self.request.session_id,
            status=self.shown_status,
            round=self.state.round,
            model=self.calling,
            tools_running=[one for id_, one in self.tools_running.items() if id_ not in self.waiting_calls],
            waiting_calls=list(self.waiting_calls.values()),
            tools_done=self.state.tools_done,
            recent_tools=self.state.recent_tools,
            sub_sessions=list(self.sub_sessions.values()),
            inbox=self.waiting_messages,
            usage=self.state.usage,
            started_at=self.state.started_at,
            ended_at=self.ended_at,
            duration_ms=duration,
            error=self.error,
            plan_call_id=self.state.plan_call_id,
        )

    def visible_progress(self) -> Progress:
        """The turn as a poller sees it: it runs until its last rows are stored, so a reader of its end finds them."""
        progress = self.progress()
        if self.closed or not progress.status.final:
            return progress
        running = {"status": TurnStatus.RUNNING, "ended_at": None, "duration_ms": None, "error": None}
        return progress.model_copy(update=running)

    def details(self) -> str:
        """The turn as Markdown for the Web UI."""
        usage = self.state.usage
        cost = "–" if usage.cost_microdollars is None else f"${usage.cost_microdollars / 1e6:.6f}"
        lines = [
            "| round | status | tools | waiting | tokens in / out | cost |",
            "|---|---|---|---|---|---|",
            f"| {self.state.round} | {self.shown_status} "
            f"| {self.state.tools_done} done, {len(self.tools_running)} running | {len(self.inbox)} "
            f"| {usage.prompt_tokens} / {usage.completion_tokens} | {cost} |",
        ]
        records = [*self.state.recent_tools, *self.tools_running.values()]
        if self.waiting_calls:
            lines += ["", "| waits for an answer | kind | id |", "|---|---|---|"]
            lines += [f"| {one.name} | {one.kind} | {one.approval_id} |" for one in self.waiting_calls.values()]
        if records:
            lines += ["", "| round | tool | status | seconds |", "|---|---|---|---|"]
            lines += [f"| {r.round} | {r.name} | {r.status} | {_seconds(r)} |" for r in records]
        if self.sub_sessions:
            lines += ["", "| sub-session | status |", "|---|---|"]
            lines += [f"| {s.sub_session_id} | {s.status} |" for s in self.sub_sessions.values()]
        if self.error:
            lines += ["", f"**Error:** {self.error}"]
        return "\n".join(lines)


def _seconds(record: ToolRecord) -> str:
    if record.ended_at is None:
        return ""
    return f"{(record.ended_at - record.started_at).total_seconds():.1f}"
