"""Activities under the real names that do what a test says and record what they were asked; no database, no model."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError, RPCStatusCode

from longhaul import temporal
from longhaul.contracts import (
    Budget,
    CallAnswered,
    CallModel,
    ClosedTurn,
    CloseTurn,
    CompactContext,
    CompactedContext,
    ConnectRequest,
    Contract,
    CostLimits,
    Delegation,
    Empty,
    FollowUp,
    GiveUp,
    LookAtSubSession,
    ModelAnswer,
    OpenedToolCall,
    OpenedTurn,
    OpenTurn,
    ParkCall,
    ParkedCall,
    ParkKind,
    PreparedSubSession,
    PrepareSubSession,
    Progress,
    ReportSubSession,
    RunRemoteTool,
    RunTool,
    Scope,
    SettleCall,
    SettleToolCall,
    StopSubSessions,
    StoreToolResult,
    SubSessionSeen,
    TakeInbox,
    TakenInbox,
    ToolCall,
    ToolOutcome,
    ToolStatus,
    TurnInput,
    TurnLimits,
    TurnRef,
    TurnResult,
    TurnStatus,
    Usage,
)
from testkit.wait import until
from worker import Activities

LIMIT_S = 60.0
EMPTY = ModelAnswer(message_id="empty", finish_reason="stop")
TEXT = ModelAnswer(message_id="text", finish_reason="stop", has_text=True, usage=Usage(calls=1))


def tool_calls(
    *names: str,
    arguments: str | None = None,
    delegation: Delegation | None = None,
    quick: bool = False,
    parks: ParkKind | None = None,
    task_queue: str = "",
) -> ModelAnswer:
    """A model answer that calls these tools; the id of each call is the name of its tool."""
    calls = [
        ToolCall(
            tool_call_id=name,
            name=name,
            arguments=arguments,
            delegation=delegation,
            quick=quick,
            parks=parks,
            task_queue=task_queue,
        )
        for name in names
    ]
    return ModelAnswer(message_id="calls", finish_reason="tool_calls", tool_calls=calls, usage=Usage(calls=1))


def final(text: str) -> ApplicationError:
    """A failure that no retry helps."""
    return ApplicationError(text, non_retryable=True)


@dataclass
class Gate:
    """A held activity: `reached` when it has begun, and it goes on when `opened`; `ignores_stop`: only then."""

    ignores_stop: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeRows:
    """The message rows of one session: which turn each message waits for, by the rules of `longhaul.db.messages`."""

    waiting: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    queued: list[str] = field(default_factory=list)
    begun: str = ""
    stopped: str = ""

    def queue(self, message_id: str, turn_id: str) -> None:
        """Accept a message for a turn of its own."""
        self.waiting[message_id] = turn_id
        self.queued.append(turn_id)

    @property
    def next_turn(self) -> str:
        """The turn that begins next; those of queued messages begin behind all others."""
        return next(iter(sorted(self.waiting.values(), key=lambda turn_id: turn_id in self.queued)), "")

    def first_of(self, turn_id: str) -> list[str]:
        """The messages that a turn takes as it opens; none while another turn has to begin before it."""
        own = self.waiting_for(turn_id)
        if turn_id in self.queued:
            return own if self.next_turn == turn_id else []
        return [message_id for message_id in self.waiting if self.waiting[message_id] not in self.queued]

    def accept(self, message_id: str, new_turn_id: str) -> str:
        """The turn that a message belongs to."""
        known = {**self.taken, **self.waiting}.get(message_id)
        open_turns = [self.begun, *reversed(self.waiting.values())]
        turn_id = known or next((one for one in open_turns if one and one != self.stopped), new_turn_id)
        if known is None:
            self.waiting[message_id] = turn_id
        return turn_id

    def waiting_for(self, turn_id: str) -> list[str]:
        return [message_id for message_id, waits_for in self.waiting.items() if waits_for == turn_id]

    def take(self, turn_id: str, message_ids: list[str]) -> list[str]:
        for message_id in message_ids:
            self.taken[message_id] = turn_id
            del self.waiting[message_id]
        return message_ids


@dataclass
class FakeParked:
    """The rows of parked calls of one session, by the rules of `longhaul.db.parked`; an id is that of the tool call.

    `answers`: what somebody has said; None: the tool may run. `timeout_s`: the time that a call waits. `allowed`: calls
    that do not wait, because they are allowed in the whole session. `ends`: how each call ended.
    """

    answers: dict[str, ToolStatus | None] = field(default_factory=dict)
    timeout_s: float = 0
    allowed: set[str] = field(default_factory=set)
    ends: dict[str, str] = field(default_factory=dict)

    def settle(self, call_id: str, give_up: GiveUp | None) -> ParkedCall:
        if call_id in self.answers:
            self.ends[call_id] = "answered"
            status = self.answers[call_id]
        elif give_up is not None:
            self.ends[call_id] = give_up
            status = ToolStatus.ERROR
        else:
            return ParkedCall(approval_id=call_id, waits=True)
        outcome = ToolOutcome(tool_call_id=call_id, status=status) if status is not None else None
        return ParkedCall(approval_id=call_id, outcome=outcome)


@dataclass
class Script:
    """The activities of one session: what they are to do, and the calls that they got.

    A call is named like `call_model 2`: the activity, and the argument that tells it from others. `turn ended` stands
    behind a model call whose answer ended the turn.

    Attributes:
        answers: of the model, in order; after them it answers with text.
        filed: messages that waited when the turn was stopped.
        ends: the final progress of turns that ended with an answer.
        time_budget: of the turn; its deadline is set when the turn opens.
        prepared: the answer of `prepare_sub_session`.
        compaction_due: when the turn opens; `compacts`: whether a compaction succeeds.
        refusal: why a turn that checks the limits of costs as it opens may not start.
        looks: answers of `look_at_sub_session`, in order; the last one stays.
        failures: what a call raises, by its name, each time.
        refused_tools: those of tool workers whose calls have a result as soon as they are looked at.
        failed_turn: the newest turn, if it failed: it can be retried.
        client_tools: what messages declare, by message id.
        lacks: credentials that starts of tools lack, in order.
    """

    answers: list[ModelAnswer] = field(default_factory=list)
    rows: FakeRows = field(default_factory=FakeRows)
    filed: list[str] = field(default_factory=list)
    ends: list[Progress] = field(default_factory=list)
    time_budget: Budget | None = None
    deadline: datetime = field(default_factory=lambda: datetime.max.replace(tzinfo=UTC))
    prepared: PreparedSubSession = field(default_factory=PreparedSubSession)
    looks: list[SubSessionSeen] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)
    parked: FakeParked = field(default_factory=FakeParked)
    failed_turn: str = ""
    client_tools: dict[str, str] = field(default_factory=dict)
    lacks: list[str] = field(default_factory=list)
    tool_status: ToolStatus = ToolStatus.OK
    tool_cost: int | None = None
    refused_tools: tuple[str, ...] = ()
    compaction_due: bool = False
    compacts: bool = True
    refusal: str = ""
    calls: list[str] = field(default_factory=list)
    arguments: list[Contract] = field(default_factory=list)
    gates: dict[str, Gate] = field(default_factory=dict)

    def declared(self, message_ids: Sequence[str]) -> str | None:
        """The tools that these messages declare."""
        return next((self.client_tools[one] for one in reversed(message_ids) if one in self.client_tools), None)

    def hold(self, call: str) -> Gate:
        """Let this call wait until its gate is opened."""
        return self.gates.setdefault(call, Gate())

    async def reached(self, call: str) -> None:
        """Wait until a held call has begun."""
        async with asyncio.timeout(LIMIT_S):
            await self.gates[call].reached.wait()

    def release(self, call: str) -> None:
        self.gates[call].opened.set()

    async def perform(self, call: str, argument: Contract) -> None:
        """Record a call, hold it where the test says so, fail it where the test says so."""
        self.calls.append(call)
        self.arguments.append(argument)
        if gate := self.gates.get(call):
            gate.reached.set()
            try:
                await gate.opened.wait()
            except asyncio.CancelledError:
                if not gate.ignores_stop:
                    self.calls.append(f"{call} cancelled")
                    raise
                await gate.opened.wait()
        if failure := self.failures.get(call):
            raise failure


class FakeActivities:
    """All activities of a worker; each session has a script."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}

    def all(self) -> Activities:
        """As a worker takes them."""
        stores: list[Callable[..., Any]] = [self.open_turn, self.take_inbox, self.close_turn, self.store_tool_result]
        stores += [self.park_call, self.settle_call, self.open_tool_call, self.settle_tool_call]
        sub_sessions: list[Callable[..., Any]] = [
            self.prepare_sub_session,
            self.look_at_sub_session,
            self.report_sub_session,
            self.stop_sub_sessions,
        ]
        return Activities(
            [self.call_model, self.compact_context, self.run_tool, self.quick_tool], [*stores, *sub_sessions]
        )

    def script(self, session_id: str) -> Script:
        return self.scripts.setdefault(session_id, Script())

    async def _perform(self, turn: TurnRef, call: str, argument: Contract) -> Script:
        script = self.script(turn.session_id)
        await script.perform(call, argument)
        return script

    @activity.defn
    async def open_turn(self, opening: OpenTurn) -> OpenedTurn:
        rows = self.script(opening.turn.session_id).rows
        script = await self._perform(opening.turn, " ".join(["open_turn", *rows.waiting]), opening)
        own = rows.stopped == opening.turn.turn_id
        turn_id = opening.turn.turn_id
        taken = rows.take(turn_id, rows.waiting_for(turn_id) if own else rows.first_of(turn_id))
        retries = opening.retry_of != "" and opening.retry_of == script.failed_turn
        rows.begun = turn_id if taken or retries else ""
        if not rows.begun:
            return OpenedTurn(taken=[], next_turn_id=rows.next_turn)
        if (budget := script.time_budget) is None:
            refusal = script.refusal if opening.cost_limits != CostLimits() else ""
            return OpenedTurn(
                taken=taken,
                compaction_due=script.compaction_due,
                refusal=refusal,
                retries=retries,
                client_tools=script.declared(taken),
            )
        script.deadline = datetime.now(UTC) + timedelta(seconds=budget.max_seconds or 0)
        return OpenedTurn(taken=taken, budgets=(budget.model_copy(update={"deadline": script.deadline}),))

    @activity.defn
    async def take_inbox(self, taking: TakeInbox) -> TakenInbox:
        rows = self.script(taking.turn.session_id).rows
        script = await self._perform(
            taking.turn, " ".join(["take_inbox", *rows.waiting_for(taking.turn.turn_id)]), taking
        )
        taken = rows.take(taking.turn.turn_id, rows.waiting_for(taking.turn.turn_id))
        return TakenInbox(taken=taken, client_tools=script.declared(taken))

    @activity.defn
    async def call_model(self, call: CallModel) -> ModelAnswer:
        script = await self._perform(call.turn, f"call_model {call.round}", call)
        answer = script.answers[call.round - 1] if call.round <= len(script.answers) else TEXT
        waiting = script.rows.waiting_for(call.turn.turn_id)
        if call.progress is None or answer.tool_calls or not answer.has_text or waiting:
            return answer
        script.calls.append("turn ended")
        ended_at = datetime.now(UTC)
        end = {"status": TurnStatus.COMPLETED, "ended_at": ended_at, "usage": call.progress.usage + answer.usage}
        script.ends.append(call.progress.model_copy(update=end))
        script.rows.begun = ""
        return answer.model_copy(update={"turn_ended_at": ended_at})

    @activity.defn
    async def compact_context(self, compacting: CompactContext) -> CompactedContext:
        script = await self._perform(compacting.turn, f"compact_context {compacting.round}", compacting)
        return CompactedContext(compacted=script.compacts, usage=Usage(calls=1))

    @activity.defn
    async def run_tool(self, call: RunTool) -> ToolOutcome:
        script = await self._perform(call.turn, f"run_tool {call.name}", call)
        if script.lacks:
            return ToolOutcome(tool_call_id=call.tool_call_id, status=ToolStatus.RUNNING, lacks=script.lacks.pop(0))
        return ToolOutcome(
            tool_call_id=call.tool_call_id, status=script.tool_status, cost_microdollars=script.tool_cost
        )

    @activity.defn(dynamic=True)
    async def quick_tool(self, arguments: Sequence[RawValue]) -> ToolOutcome:
        call: RunTool = activity.payload_converter().from_payload(arguments[0].payload, RunTool)
        script = await self._perform(call.turn, f"quick_tool {call.name}", call)
        return ToolOutcome(tool_call_id=call.tool_call_id, status=script.tool_status)

    @activity.defn
    async def store_tool_result(self, result: StoreToolResult) -> ToolOutcome:
        await self._perform(result.turn, f"store_tool_result {result.tool_call_id}", result)
        status = ToolStatus.ERROR if result.is_error else ToolStatus.OK
        return ToolOutcome(tool_call_id=result.tool_call_id, status=status)

    @activity.defn
    async def park_call(self, call: ParkCall) -> ParkedCall:
        parked = (await self._perform(call.turn, f"park_call {call.tool_call_id}", call)).parked
        now = datetime.now(UTC)
        expires_at = now + timedelta(seconds=parked.timeout_s) if parked.timeout_s else None
        waits = call.tool_call_id not in parked.allowed
        connect = ConnectRequest(credential=call.credential) if call.credential else None
        return ParkedCall(
            approval_id=call.tool_call_id, waits=waits, asked_at=now, expires_at=expires_at, connect=connect
        )

    @activity.defn
    async def settle_call(self, settling: SettleCall) -> ParkedCall:
        call = " ".join(["settle_call", settling.tool_call_id, *([settling.give_up] if settling.give_up else [])])
        script = await self._perform(settling.turn, call, settling)
        return script.parked.settle(settling.tool_call_id, settling.give_up)

    @activity.defn
    async def open_tool_call(self, call: RunTool) -> OpenedToolCall:
        script = await self._perform(call.turn, f"open_tool_call {call.name}", call)
        refused = ToolOutcome(tool_call_id=call.tool_call_id, status=ToolStatus.ERROR)
        row = f"{call.turn.turn_id} {call.round} {call.tool_call_id}"
        return OpenedToolCall(remote_call_id=row, outcome=refused if call.name in script.refused_tools else None)

    @activity.defn(name=temporal.RUN_REMOTE_TOOL_ACTIVITY)
    async def run_remote_tool(self, remote: RunRemoteTool) -> Empty:
        assert activity.info().activity_id == remote.remote_call_id
        await self._perform(remote.call.turn, f"run_remote_tool {remote.call.name}", remote)
        return Empty()

    @activity.defn
    async def settle_tool_call(self, settling: SettleToolCall) -> ToolOutcome:
        call = settling.call
        script = await self._perform(call.turn, f"settle_tool_call {call.name}", settling)
        status = ToolStatus.ERROR if settling.failure else script.tool_status
        return ToolOutcome(tool_call_id=call.tool_call_id, status=status, cost_microdollars=script.tool_cost)

    @activity.defn
    async def close_turn(self, closing: CloseTurn) -> ClosedTurn:
        status, turn_id = closing.progress.status, closing.turn.turn_id
        script = await self._perform(closing.turn, f"close_turn {status}", closing)
        rows = script.rows
        if status is TurnStatus.COMPLETED and rows.waiting_for(turn_id) and not closing.round_limit_reached:
            return ClosedTurn(ended=False)
        if status is TurnStatus.CANCELLED or not closing.next_turn_id:
            script.filed += rows.take(turn_id, rows.waiting_for(turn_id))
        for message_id in rows.waiting_for(turn_id):
            rows.waiting[message_id] = closing.next_turn_id
        rows.begun = ""
        return ClosedTurn(next_turn_id=rows.next_turn)

    @activity.defn
    async def prepare_sub_session(self, call: PrepareSubSession) -> PreparedSubSession:
        prepared = (await self._perform(call.turn, f"prepare_sub_session {call.tool_call_id}", call)).prepared
        if prepared.error:
            return prepared
        rows = self.script(prepared.sub_session_id).rows
        accepted_for = rows.accept(prepared.message_id, prepared.run_turn_id)
        run_turn_id = accepted_for if accepted_for != rows.begun else str(uuid4())
        return prepared.model_copy(update={"turn_id": accepted_for, "run_turn_id": run_turn_id})

    @activity.defn
    async def look_at_sub_session(self, look: LookAtSubSession) -> SubSessionSeen:
        script = await self._perform(look.turn, f"look_at_sub_session {look.sub_session_id}", look)
        return script.looks.pop(0) if len(script.looks) > 1 else script.looks[0]

    @activity.defn
    async def stop_sub_sessions(self, stop: StopSubSessions) -> Empty:
        await self._perform(stop.turn, "stop_sub_sessions", stop)
        for sub_id in stop.sub_session_ids:
            rows = self.script(sub_id).rows
            rows.stopped = rows.begun
            await activity.client().get_workflow_handle(temporal.workflow_id(sub_id)).cancel()
        return Empty()

    @activity.defn
    async def report_sub_session(self, report: ReportSubSession) -> ToolOutcome:
        await self._perform(report.turn, f"report_sub_session {report.status}", report)
        return ToolOutcome(tool_call_id=report.tool_call_id, status=ToolStatus.OK)


class Session:
    """One session of a test: its script, and the turn that runs in it."""

    def __init__(self, client: Client, task_queue: str, activities: FakeActivities) -> None:
        self.id = str(uuid4())
        self.script = activities.script(self.id)
        self.turn_id = str(uuid4())
        self._activities, self._client, self._task_queue = activities, client, task_queue
        self._handle: WorkflowHandle[object, TurnResult] | None = None

    @property
    def handle(self) -> WorkflowHandle[object, TurnResult]:
        assert self._handle is not None, "the session has no turn yet"
        return self._handle

    @property
    def calls(self) -> list[str]:
        return self.script.calls

    def arguments(self, kind: type[Contract]) -> list[Contract]:
        """The arguments of one type that activities got, in order."""
        return [argument for argument in self.script.arguments if isinstance(argument, kind)]

    def closing(self) -> CloseTurn:
        """The argument of the newest `close_turn`."""
        last = self.arguments(CloseTurn)[-1]
        assert isinstance(last, CloseTurn)
        return last

    def last_progress(self) -> Progress:
        """The progress that was stored with the turn's end."""
        return self.script.ends[-1] if self.script.ends else self.closing().progress

    def new_sub_session(self) -> "Session":
        """A session that `prepare_sub_session` answers with."""
        sub = Session(self._client, self._task_queue, self._activities)
        self.script.prepared = PreparedSubSession(
            sub_session_id=sub.id,
            message_id="prompt",
            run_turn_id=sub.turn_id,
            scope=Scope(depth=1, ancestors=(self.id,)),
        )
        sub._handle = self._client.get_workflow_handle(temporal.workflow_id(sub.id), result_type=TurnResult)
        return sub

    async def queue(self, message_id: str, **options: Any) -> str:
        """Accept a message for a turn of its own, then signal-with-start; the id of that turn."""
        turn_id = str(uuid4())
        self.script.rows.queue(message_id, turn_id)
        await self.send(message_id, **options)
        return turn_id

    async def send(
        self, message_id: str, limits: TurnLimits | None = None, scope: Scope | None = None, **options: Any
    ) -> None:
        """Accept a message, then signal-with-start, as the API does it; `options`: more fields of the message."""
        accepted_for = self.script.rows.accept(message_id, str(uuid4()) if self._handle else self.turn_id)
        turn = TurnInput(
            session_id=self.id,
            user_id="user",
            turn_id=accepted_for,
            model="model",
            limits=limits or TurnLimits(),
            scope=scope or Scope(),
            rows_decide=True,
        )
        signal = FollowUp(message_id=message_id, received_at=datetime.now(UTC), turn_id=accepted_for, **options)
        self._handle = await self._client.start_workflow(
            temporal.TURN_WORKFLOW,
            turn,
            id=temporal.workflow_id(self.id),
            task_queue=self._task_queue,
            start_signal=temporal.FOLLOW_UP_SIGNAL,
            start_signal_args=[signal],
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            memo={temporal.TURN_ID_MEMO: turn.turn_id},
            search_attributes=temporal.search_attributes_of(turn),
            result_type=TurnResult,
        )

    async def retry(self, failed_turn: str) -> None:
        """Start a turn that takes up a failed one, as the API does it."""
        self.turn_id = str(uuid4())
        turn = TurnInput(
            session_id=self.id,
            user_id="user",
            turn_id=self.turn_id,
            model="model",
            rows_decide=True,
            retry_of=failed_turn,
        )
        self._handle = await self._client.start_workflow(
            temporal.TURN_WORKFLOW,
            turn,
            id=temporal.workflow_id(self.id),
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo={temporal.TURN_ID_MEMO: turn.turn_id},
            search_attributes=temporal.search_attributes_of(turn),
            result_type=TurnResult,
        )

    async def stop(self) -> None:
        """Mark the turn as stopped, then cancel its run, as the API does it."""
        self.script.rows.stopped = self.script.rows.begun or self.turn_id
        await self.handle.cancel()

    async def answer(self, call_id: str, status: ToolStatus | None = None) -> None:
        """Answer a parked call, as the API does it; without a status, the tool may run."""
        self.script.parked.answers[call_id] = status
        try:
            await self.handle.signal(temporal.CALL_ANSWERED_SIGNAL, CallAnswered(approval_id=call_id))
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:  # the turn has ended in the meantime
                raise

    async def until_waits(self, *calls: str) -> None:
        """Wait until exactly these calls wait for an answer."""

        async def waits() -> bool:
            return {one.tool_call_id for one in (await self.progress()).waiting_calls} == set(calls)

        await until(waits, what=f"the turn waits for {calls}", every=0.01)

    async def progress(self) -> Progress:
        progress: Progress = await self.handle.query(temporal.PROGRESS_QUERY, Empty(), result_type=Progress)
        return progress

    async def status(self) -> TurnStatus:
        """Wait for the end of the newest run, and of those that it continued as."""
        async with asyncio.timeout(LIMIT_S):
            try:
                return (await self.handle.result()).status
            except WorkflowFailureError as error:
                return TurnStatus.CANCELLED if isinstance(error.cause, CancelledError) else TurnStatus.FAILED

    async def until_stop_is_known(self) -> None:
        """Wait until a workflow task has seen the Stop, whatever the activity under way does."""

        async def known() -> bool:
            events = await self.events()
            stop = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
            return stop in events and EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in events[events.index(stop) :]

        await until(known, what="a workflow task has seen the Stop", every=0.01)

    async def events(self) -> list["EventType.ValueType"]:
        """The history of the session's newest run."""
        newest = self._client.get_workflow_handle(self.handle.id)
        return [event.event_type for event in (await newest.fetch_history()).events]

    async def until_event(self, kind: "EventType.ValueType") -> None:
        async def happened() -> bool:
            return kind in await self.events()

        await until(happened, what=f"event {EventType.Name(kind)}", every=0.01)

    async def until_tool_runs(self, name: str) -> None:
        async def runs() -> bool:
            return name in [tool.name for tool in (await self.progress()).tools_running]

        await until(runs, what=f"the tool {name} runs", every=0.01)

    async def until_called(self, call: str) -> None:
        await until(lambda: call in self.calls, what=f"{call}, after {self.calls}", every=0.005)
