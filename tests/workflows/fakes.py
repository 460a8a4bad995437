"""Activities under the real names that do what a test says and record what they were asked; no rows, no model."""

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

from longhaul import temporal
from longhaul.contracts import (
    Budget,
    CallModel,
    CloseTurn,
    Contract,
    Empty,
    FollowUp,
    LookAtSubSession,
    ModelAnswer,
    OpenedTurn,
    OpenTurn,
    PreparedSubSession,
    PrepareSubSession,
    Progress,
    ReportSubSession,
    RunTool,
    Scope,
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

LIMIT_S = 10.0
TEXT = ModelAnswer(message_id="text", finish_reason="stop", has_text=True, usage=Usage(calls=1))


def tool_calls(*names: str, arguments: str | None = None, quick: bool = False) -> ModelAnswer:
    """A model answer that calls these tools; the id of each call is the name of its tool."""
    calls = [ToolCall(tool_call_id=name, name=name, arguments=arguments, quick=quick) for name in names]
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
class Script:
    """The activities of one session: what they are to do, and the calls that they got.

    A call is named like `call_model 2`: the activity, and the argument that tells it from others.

    Attributes:
        answers: of the model, in order; after them it answers with text.
        answered: messages that an earlier turn has taken.
        time_budget: of the turn; its deadline is set when the turn opens.
        prepared: the answer of `prepare_sub_session`.
        looks: answers of `look_at_sub_session`, in order; the last one stays.
        failures: what a call raises, by its name, each time.
    """

    answers: list[ModelAnswer] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    time_budget: Budget | None = None
    deadline: datetime = field(default_factory=lambda: datetime.max.replace(tzinfo=UTC))
    prepared: PreparedSubSession = field(default_factory=PreparedSubSession)
    looks: list[SubSessionSeen] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)
    tool_status: ToolStatus = ToolStatus.OK
    calls: list[str] = field(default_factory=list)
    arguments: list[Contract] = field(default_factory=list)
    gates: dict[str, Gate] = field(default_factory=dict)

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
        sub_sessions: list[Callable[..., Any]] = [
            self.prepare_sub_session,
            self.look_at_sub_session,
            self.report_sub_session,
        ]
        return Activities([self.call_model, self.run_tool, self.quick_tool], [*stores, *sub_sessions])

    def script(self, session_id: str) -> Script:
        return self.scripts.setdefault(session_id, Script())

    async def _perform(self, turn: TurnRef, call: str, argument: Contract) -> Script:
        script = self.script(turn.session_id)
        await script.perform(call, argument)
        return script

    @activity.defn
    async def open_turn(self, opening: OpenTurn) -> OpenedTurn:
        script = await self._perform(opening.turn, f"open_turn {' '.join(opening.message_ids)}", opening)
        taken = [message_id for message_id in opening.message_ids if message_id not in script.answered]
        if (budget := script.time_budget) is None:
            return OpenedTurn(taken=taken)
        script.deadline = datetime.now(UTC) + timedelta(seconds=budget.max_seconds or 0)
        return OpenedTurn(taken=taken, budgets=(budget.model_copy(update={"deadline": script.deadline}),))

    @activity.defn
    async def take_inbox(self, taking: TakeInbox) -> TakenInbox:
        script = await self._perform(taking.turn, f"take_inbox {' '.join(taking.message_ids)}", taking)
        return TakenInbox(taken=[one for one in taking.message_ids if one not in script.answered])

    @activity.defn
    async def call_model(self, call: CallModel) -> ModelAnswer:
        script = await self._perform(call.turn, f"call_model {call.round}", call)
        return script.answers[call.round - 1] if call.round <= len(script.answers) else TEXT

    @activity.defn
    async def run_tool(self, call: RunTool) -> ToolOutcome:
        script = await self._perform(call.turn, f"run_tool {call.name}", call)
        return ToolOutcome(tool_call_id=call.tool_call_id, status=script.tool_status)

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
    async def close_turn(self, closing: CloseTurn) -> Empty:
        await self._perform(closing.turn, f"close_turn {closing.progress.status}", closing)
        return Empty()

    @activity.defn
    async def prepare_sub_session(self, call: PrepareSubSession) -> PreparedSubSession:
        return (await self._perform(call.turn, f"prepare_sub_session {call.tool_call_id}", call)).prepared

    @activity.defn
    async def look_at_sub_session(self, look: LookAtSubSession) -> SubSessionSeen:
        script = await self._perform(look.turn, f"look_at_sub_session {look.sub_session_id}", look)
        return script.looks.pop(0) if len(script.looks) > 1 else script.looks[0]

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

    def new_sub_session(self) -> "Session":
        """A session that `prepare_sub_session` answers with."""
        sub = Session(self._client, self._task_queue, self._activities)
        scope = Scope(depth=1, ancestors=(self.id,))
        self.script.prepared = PreparedSubSession(sub_session_id=sub.id, message_id="prompt", task="task", scope=scope)
        sub._handle = self._client.get_workflow_handle(temporal.workflow_id(sub.id), result_type=TurnResult)
        return sub

    async def send(
        self, message_id: str, limits: TurnLimits | None = None, scope: Scope | None = None, **options: Any
    ) -> None:
        """Signal-with-start, as the API does it; `options`: more fields of the message."""
        turn = TurnInput(
            session_id=self.id,
            user_id="user",
            turn_id=self.turn_id,
            model="model",
            limits=limits or TurnLimits(),
            scope=scope or Scope(),
        )
        self._handle = await self._client.start_workflow(
            temporal.TURN_WORKFLOW,
            turn,
            id=temporal.workflow_id(self.id),
            task_queue=self._task_queue,
            start_signal=temporal.FOLLOW_UP_SIGNAL,
            start_signal_args=[FollowUp(message_id=message_id, received_at=datetime.now(UTC), **options)],
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            memo={temporal.TURN_ID_MEMO: turn.turn_id},
            search_attributes=temporal.search_attributes_of(turn),
            result_type=TurnResult,
        )

    async def stop(self) -> None:
        await self.handle.cancel()

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
