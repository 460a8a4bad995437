"""The JSON that the API takes and answers."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.chat_body import ClientSessionId
from api.dependencies import ID
from api.ownership import SessionRecord
from api.request_body import MODEL_CHOICE, ModelName, Text
from longhaul.contracts import ParkKind, Scope, TurnStatus, Usage
from longhaul.db import sessions
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import ParkedRow
from longhaul.limits.windows import Window
from longhaul.llm.models import Effort, LongPrompt, Prices
from longhaul.settings import Settings, Tier
from longhaul.streams.events import decoded
from longhaul.temporal import workflow_url
from longhaul.turns.deliver import Mode

ToolNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200, fail_fast=True)]
Labels = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")],
        Annotated[str, Field(max_length=512, pattern=ID)],
    ],
    Field(max_length=16, examples=[{"customer": "17"}]),
]
A_SESSION = "7f0d6a52-5a3c-4c39-a1e7-6d4f6f0f3a11"
A_TURN = "0c1c8d6e-2f0b-4b55-8a55-0f4f7d8f9a10"
A_MESSAGE = "e7a5f0a2-0b57-4a53-9f2f-64f0a2c0f9b1"


class Answer(BaseModel):
    """Base of all answers; read from rows as well as from values."""

    model_config = ConfigDict(from_attributes=True)


class NewSession(BaseModel):
    """Every field is optional. Limits apply to the session and all sub-sessions below it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "Order 17"}]})

    id: ClientSessionId | None = Field(None, description="Yours. A session of this id is answered as it is, with 200.")
    title: str | None = Field(None, min_length=1, max_length=300)
    metadata: Labels = Field({}, description="What you want to note about it. The list can be filtered by it.")
    max_cost_microdollars: int | None = Field(None, ge=1, le=2**62, description="Budget; 1,000,000 is one US dollar.")
    max_seconds: int | None = Field(None, ge=1, le=2**31 - 1, description="Time budget.")
    allow_tools: ToolNames | None = Field(None, description="Only these tools. Unset: all.")
    deny_tools: ToolNames = Field([], description="Tools that it must not use.")
    dry_run: bool = Field(default=False, description="Tools that change something only say what they would do.")
    model: ModelName | None = Field(None, description=MODEL_CHOICE)


class Profile(BaseModel):
    """What the copilot is told about a user, in every session."""

    model_config = ConfigDict(extra="forbid")

    content: str = Field(min_length=1, max_length=8_000, examples=["I am Ada, a data engineer. Answer briefly."])


class File(Answer):
    """A file of a user. `media_type` is what its content says."""

    id: str = Field(examples=[A_MESSAGE])
    name: str = Field(examples=["orders.csv"])
    media_type: str = Field(examples=["text/csv"])
    size: int = Field(description="In bytes.", examples=[1024])
    session_id: str | None = Field(description="The session whose tool has made it; null: it was uploaded.")
    created_at: datetime
    url: str = Field(description="Of its content.")


class Files(Answer):
    """One page of files, newest first."""

    files: list[File]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class SessionChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    title: str = Field("", min_length=1, max_length=300, description="For good.", examples=["Order 17"])
    model: ModelName | None = Field(None, description=f"{MODEL_CHOICE} Null: the model of each message's tier.")
    metadata: Labels | None = Field(None, description="In place of all that there is; `{}` removes it.")

    @model_validator(mode="after")
    def _changes_something(self) -> "SessionChange":
        if not self.model_fields_set:
            raise ValueError("should have `title`, `model` or `metadata`")
        return self


class NewFork(BaseModel):
    """Where to fork. Every field is optional."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"message_id": A_MESSAGE}]})

    message_id: str | None = Field(None, max_length=140, pattern=ID, description="The last message of the fork.")
    before: bool = Field(default=False, description="Leave that message out: the fork ends before it.")
    id: ClientSessionId | None = Field(None, description="Of the new session. One that exists already is not changed.")
    title: str | None = Field(None, min_length=1, max_length=300)


class AddedMessage(BaseModel):
    """A message that is stored and starts no turn."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"role": "user", "content": "Hello"}]})

    role: Literal["user", "assistant", "system"]
    content: Text
    message_id: UUID | None = Field(None, description="Yours, so that a repeated POST is one message.")


class AnswerAgain(BaseModel):
    """How to answer again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tier": "advanced"}]})

    message_id: UUID | None = Field(None, description="Of the new version, so that a repeated POST is one version.")
    mode: Mode | None = None
    tier: Tier | None = None
    model: ModelName | None = Field(None, description=MODEL_CHOICE)
    effort: Effort | None = None


class Session(Answer):
    """A conversation."""

    id: str = Field(examples=[A_SESSION])
    title: str | None = Field(examples=["Order 17"])
    parent_session_id: str | None
    root_session_id: str | None
    agent: str | None
    max_cost_microdollars: int | None
    max_seconds: int | None
    allow_tools: list[str] | None = None
    deny_tools: list[str] = []
    dry_run: bool = False
    forked_from: str | None = Field(None, description="The session that this one is a fork of.")
    model: str | None = None
    metadata: dict[str, str] = {}
    workflow_url: str | None = Field(
        None, description="Its turns in Temporal's Web UI, if `LONGHAUL_TEMPORAL_UI_URL` is set."
    )
    created_at: datetime
    updated_at: datetime


def session_fields(row: sessions.Session | SessionRecord, settings: Settings) -> dict[str, Any]:
    """A session as the fields of `Session`."""
    record = SessionRecord.model_validate(row)
    scope = Scope.model_validate(record.scope or {})
    return {
        **record.model_dump(),
        **scope.model_dump(include={"allow_tools", "deny_tools", "dry_run"}),
        "metadata": record.labels or {},
        "workflow_url": workflow_url(settings, record.id),
    }


class ListedSession(Session):
    """A session in a list."""

    running: bool = Field(description="A turn runs, or is about to.")
    last_message_at: datetime | None = Field(description="When something was last said; null: not yet.")


class Sessions(Answer):
    """One page of sessions, newest first."""

    data: list[ListedSession]
    has_more: bool
    sessions: list[ListedSession] = Field(description="The same as `data`, for older clients.", deprecated=True)
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class StoredMessage(Answer):
    """One row of a conversation. `sequence` counts from 0 without gaps."""

    id: str
    sequence: int
    role: str = Field(examples=["user", "assistant", "tool", "reasoning", "system"])
    kind: str
    content: str
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    tool_name: str | None
    turn_id: str | None
    round: int | None
    client_message_id: str | None
    is_error: bool
    context: Any = Field(
        description="`{url, content}`: the page that the user was looking at. `files`: those of the message. "
        "`at`: how many characters of the round's text come before this reasoning."
    )
    finish_reason: str | None
    usage: Any = Field(description="Of the model call that this row answers.")
    created_at: datetime
    duration_ms: int | None
    model: str | None = Field(None, description="The model that wrote it.", examples=["gpt-4.1-2025-04-14"])
    version_of: str | None = Field(
        None, description="The message that this one is a later version of: edited, or answered again."
    )


class MessageVersion(Answer):
    """One version of a message, with the answer that it got."""

    message_id: str = Field(examples=[A_MESSAGE])
    content: str
    turn_id: str | None = Field(examples=[A_TURN])
    current: bool = Field(description="It is part of the conversation; the others were replaced.")
    created_at: datetime
    messages: list[StoredMessage] = Field(description="The rows of its turn.")
    ui_messages: list[dict[str, Any]] = Field(
        description="If it was replaced: it and what followed it then, as the AI SDK's `UIMessage[]`."
    )


class MessageVersions(Answer):
    """The versions of a message, oldest first."""

    versions: list[MessageVersion]


class PendingMessage(Answer):
    """A message that waits for the running turn to take it."""

    id: str = Field(examples=[A_MESSAGE])
    content: str = Field(examples=["and in euros, please"])
    received_at: datetime


class Pending(Answer):
    """Messages that wait; reading consumes nothing."""

    messages: list[PendingMessage]
    count: int


class ActiveTurn(Answer):
    """The turn that runs now. `last_event_id` is the newest of its stream; null while there is none."""

    turn_id: str = Field(examples=[A_TURN])
    status: TurnStatus
    started_at: datetime
    last_event_id: str | None = Field(examples=["1795228072399-0"])


class SessionPage(Session):
    """A session with one page of its messages, in order; the first page is the newest."""

    messages: list[StoredMessage]
    oldest_sequence: int | None = Field(description="Send it as `before_sequence` for the page before this one.")
    has_more_messages: bool
    active_turn: ActiveTurn | None
    pending: Pending


class Queued(Answer):
    """The message has joined the running turn."""

    turn_id: str = Field(examples=[A_TURN])
    message_id: str = Field(examples=[A_MESSAGE])
    turn_in_flight: Literal[True] = True
    buffer_length: int = Field(examples=[1])
    max_buffer_length: int = Field(examples=[10])


class Taken(Answer):
    """The message has been accepted; the turn's progress can be polled."""

    session_id: str = Field(examples=[A_SESSION])
    turn_id: str = Field(examples=[A_TURN])
    message_id: str = Field(examples=[A_MESSAGE])
    disposition: Literal["started", "queued"]
    progress_url: str
    buffer_length: int
    max_buffer_length: int


class AskedCall(Answer):
    """One tool call of a turn, with its result."""

    id: str
    name: str = Field(examples=["calculator"])
    arguments: str = Field(description="JSON, as the model wrote it.", examples=['{"expression":"17*23"}'])
    output: str | None = Field(examples=["391"])
    is_error: bool


class Asked(Answer):
    """The answer to a question: that of the whole turn."""

    session_id: str = Field(examples=[A_SESSION])
    turn_id: str = Field(examples=[A_TURN])
    message_id: str = Field(examples=[A_MESSAGE])
    status: TurnStatus = Field(description="`completed`, `failed` or `cancelled`.")
    text: str = Field(description="The last text of the assistant.", examples=["17 * 23 is 391."])
    tool_calls: list[AskedCall]
    usage: Usage
    duration_ms: int | None
    error: str | None


class Turn(Answer):
    """One turn of a session."""

    turn_id: str = Field(examples=[A_TURN])
    status: TurnStatus
    started_at: datetime
    ended_at: datetime | None
    duration_ms: int | None
    model: str
    mode: str
    tier: str
    rounds: int
    usage: Usage
    error: str | None
    message_id: str | None = Field(description="The message that it started with.")
    retry_of: str | None = Field(None, description="The failed turn that it took up again.")


class Turns(Answer):
    """Turns, newest first."""

    turns: list[Turn]


class Span(Answer):
    """A model call or a tool call that has ended, or a follow-up, which takes no time."""

    kind: Literal["model", "tool", "follow_up"]
    name: str = Field(description="Of the tool.", examples=["calculator"])
    round: int | None
    tool_call_id: str | None
    started_at: datetime
    duration_ms: int
    is_error: bool


class Timeline(Answer):
    """What a turn has spent its time on."""

    turn_id: str = Field(examples=[A_TURN])
    started_at: datetime
    ended_at: datetime | None
    spans: list[Span]


class Cancelled(Answer):
    """The result of Stop. `cancelled` is false when nothing ran, or the turn ended by itself first."""

    cancelled: bool
    turn_id: str | None = Field(examples=[A_TURN])
    status: TurnStatus | None = Field(description="`running`: asked to stop, and still running after 10 s.")


class NodeProgress(Answer):
    """The progress of the newest turn of a session in the tree."""

    round: int
    tools_running: list[str] = Field(description="Their names.", examples=[["calculator"]])
    tools_done: int
    started_at: datetime
    duration_ms: int | None
    error: str | None


class TreeNode(Answer):
    """A session and those below it. `usage` is its own, `total_usage` with all below; `status`, `turn_id` and
    `progress` are its newest turn's, if any."""

    session_id: str
    title: str | None
    depth: int = Field(description="0 for a session that is no sub-session.")
    status: TurnStatus | None
    turn_id: str | None
    progress: NodeProgress | None
    usage: Usage
    total_usage: Usage
    children: list["TreeNode"]


class LimitUsed(Answer):
    """How much of a limit is used."""

    percent_used: float = Field(description="To one decimal; 100 from the limit on.", examples=[41.7])
    resets_at: datetime = Field(description="When the window ends: midnight or Monday 00:00, in UTC.")


class UsageNow(Answer):
    """How much of the limits of costs a user has used; null: there is no limit."""

    daily: LimitUsed | None
    weekly: LimitUsed | None
    tier: str = Field(examples=["FREE"])
    reset_cost: int = Field(description="Credits that a reset of the day costs; 0: none is sold.", examples=[500])


class ResetBought(Answer):
    """A reset of the day was paid for."""

    credits_charged: int = Field(examples=[500])
    credits_left: int = Field(examples=[1500])
    usage: UsageNow


class Approval(Answer):
    """A tool call that waits for a person or a client, or has waited.

    `skipped`: a message was sent instead of an answer. `expired`: no answer came in time. `cancelled`: its turn ended.
    """

    id: str = Field(examples=[A_MESSAGE])
    session_id: str = Field(examples=[A_SESSION])
    turn_id: str = Field(examples=[A_TURN])
    tool_call_id: str
    tool_name: str = Field(examples=["write_file"])
    kind: ParkKind
    status: ParkedStatus
    arguments: Any = Field(examples=[{"path": "report.md", "content": "..."}])
    new_arguments: Any = Field(description="Those that the person has put in their place.")
    answer: str | None = Field(description="The reason of a denial, the answer to a question, a client's result.")
    for_session: bool = Field(description="The tool is allowed in the whole session from now on.")
    asked_at: datetime
    expires_at: datetime | None
    answered_at: datetime | None

    @classmethod
    def of(cls, row: ParkedRow) -> "Approval":
        new_arguments = decoded(row.new_arguments) if row.new_arguments is not None else None
        return cls.model_validate(
            {**row._asdict(), "arguments": decoded(row.arguments or "{}"), "new_arguments": new_arguments}
        )


class Approvals(Answer):
    """What waits for an answer, the oldest first."""

    data: list[Approval]
    has_more: bool


class UsageTotal(Answer):
    """The total of one group. `user`, `agent`, `model`, `kind`, `day`: those that were grouped by."""

    user: str | None = None
    agent: str | None = Field(None, description="The agent that the session runs as; null: none.")
    model: str | None = None
    kind: str | None = Field(None, examples=["turn", "title", "compaction", "tool"])
    day: str | None = Field(None, description="In UTC.", examples=["2026-11-22"])
    calls: int = Field(description="Attempts at model calls.")
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    cache_creation_tokens: int
    cost_microdollars: int | None = Field(description="Null: the price of no row is known.")
    estimated: int = Field(description="Rows that are estimates, because no bill arrived.")
    unpriced: int = Field(description="Rows of an unknown price, which the cost does not contain.")


class UsageTotals(Answer):
    """Totals of the ledger, in the order of their groups."""

    rows: list[UsageTotal]


class WindowAmounts(Answer):
    """What a user has spent in a window; without a limit, `limit_microdollars` and `percent_used` are null."""

    used_microdollars: int
    limit_microdollars: int | None
    percent_used: float | None
    resets_at: datetime


class AccountOfUser(Answer):
    """A user as admins see one. `tier` is the one that counts: that which an admin has set, else the token's."""

    user_id: str
    email: str | None
    tier: str
    claimed_tier: str | None
    set_tier: str | None
    credits: int
    daily: WindowAmounts
    weekly: WindowAmounts


class Accounts(Answer):
    """The users that were found."""

    accounts: list[AccountOfUser]


class AccountChange(Answer):
    """One change of an account. `day_microdollars`, `week_microdollars`: what a reset has taken off the windows."""

    id: str
    user_id: str
    actor_id: str = Field(description="Who made it.")
    action: Literal["bought_reset", "granted_credits", "set_tier", "reset_day", "reset_week"]
    created_at: datetime
    credits: int
    day_microdollars: int
    week_microdollars: int
    tier: str | None


class AccountChanges(Answer):
    """Changes of an account, newest first."""

    changes: list[AccountChange]


UserId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


class SetTier(BaseModel):
    """Which tier a user is to have."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId
    tier: str | None = Field(max_length=64, examples=["PRO"])


class ResetWindow(BaseModel):
    """Which window of a user is to be reset."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId
    window: Window


class GrantCredits(BaseModel):
    """How many credits a user is to get; negative: to lose."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId
    credits: int = Field(ge=-1_000_000_000, le=1_000_000_000, examples=[500])


class Health(Answer):
    """This process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """`degraded`: Redis is away, so streams come from rows; everything else works."""

    status: Literal["ready", "degraded", "unready"]
    database: bool
    temporal: bool
    redis: bool


class CompletionText(Answer):
    role: Literal["assistant"] = "assistant"
    content: str


class CompletionChoice(Answer):
    index: int
    message: CompletionText
    finish_reason: Literal["stop"]


class CompletionUsage(Answer):
    """Of the whole turn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class Completion(Answer):
    """OpenAI's `chat.completion`. The content holds all texts of the turn, with an empty line between them."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class Abilities(Answer):
    """What a model can do, as far as it is known."""

    tools: bool
    vision: bool
    reasoning: bool
    always_thinks: bool = Field(description="Its reasoning cannot be turned off.")
    efforts: list[str] = Field(description="The efforts that it tells apart; another one becomes the nearest.")


class Model(Answer):
    """A tier or a model that a session or message may choose."""

    id: str = Field(examples=["standard"])
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "longhaul"
    model: str = Field(description="The model behind a tier; else the id.", examples=["gpt-4.1"])
    tier: str = Field(description="The tier of the model, or the one that it counts as.", examples=["standard"])
    fallbacks: list[str] = Field(description="Models that answer in its place, in order.")
    window: int = Field(description="Tokens of a prompt.", examples=[1_047_576])
    max_output_tokens: int | None = Field(description="Of one answer.", examples=[32_768])
    abilities: Abilities | None = Field(description="Null: nothing is known of this model.")
    prices: Prices | None = Field(description="US dollars for a million tokens. Null: not known.")
    long_prompt: LongPrompt | None = Field(description="Prices of a call whose prompt has more than `above` tokens.")


class Models(Answer):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[Model]
