"""The tables."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column

from longhaul.contracts import TurnStatus

#: The `replaced_by` of a row that a person deleted.
DELETED = "deleted"
UNFINISHED = (TurnStatus.RUNNING, TurnStatus.WAITING_FOR_APPROVAL)

log = logging.getLogger(__name__)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite has no time zones, so it gets them back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class ReadableJSON(TypeDecorator[Any]):
    """JSON whose loss is better than a session that cannot be read: what is no JSON (any more) reads as None.

    Not for what grants anything, such as a scope: there the error is the safe answer.
    """

    impl = JSON
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        decode = super().result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            try:
                return decode(value) if decode is not None else value
            except ValueError as error:
                log.warning("a stored value is no JSON and is left out: %s", error)
                return None

        return process


class ToolCalls(ReadableJSON):
    """Tool calls in the OpenAI shape; entries of any other shape are left out."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> list[dict[str, Any]] | None:  # noqa: ARG002
        if value is None:
            return None
        good = [call for call in value if _is_call(call)] if isinstance(value, list) else []
        if not isinstance(value, list) or len(good) < len(value):
            log.warning("stored tool calls do not have the shape of such and are left out")
        return good or None


def _is_call(value: Any) -> bool:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict):
        return False
    return all(isinstance(text, str) for text in (value.get("id"), function.get("name"), function.get("arguments")))


def utc_now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[dict[str, Any]]: JSON}  # noqa: RUF012


class SessionRow(Base):
    """A conversation. `next_sequence` is the lock and the counter that make its rows gapless.

    `stopped_turn_id` is the newest turn that a person stopped: messages accepted later belong to the next turn.
    `rolled_back_turn_id`: a stopped turn whose rows the next turn takes out of the conversation when it opens.
    `token_scale`: how many tokens the endpoint counted for each one that we estimated, in the newest model call.
    `compaction_due`: that call's conversation is to be summarised before the next one. `summary_id`: the row of the
    newest summary, which stands for the rows up to the sequence `summarised_until`.
    `model`: the one that answers its messages, where they name none themselves. `forked_from`: the session whose
    conversation this one began with. `labels`: what its owner noted about it, which the API calls metadata.
    """

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    title: Mapped[str | None] = mapped_column(String(300))
    next_sequence: Mapped[int] = mapped_column(Integer, default=0)
    stopped_turn_id: Mapped[str | None] = mapped_column(String(64))
    rolled_back_turn_id: Mapped[str | None] = mapped_column(String(64))
    parent_session_id: Mapped[str | None] = mapped_column(String(64))
    root_session_id: Mapped[str | None] = mapped_column(String(64))
    parent_turn_id: Mapped[str | None] = mapped_column(String(64))
    agent: Mapped[str | None] = mapped_column(String(100))
    system_context: Mapped[str | None] = mapped_column(Text)
    scope: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    max_cost_microdollars: Mapped[int | None] = mapped_column(BigInteger)
    max_seconds: Mapped[int | None] = mapped_column(Integer)
    token_scale: Mapped[float | None] = mapped_column(Float)
    compaction_due: Mapped[bool | None] = mapped_column(Boolean)
    summary_id: Mapped[str | None] = mapped_column(String(64))
    summarised_until: Mapped[int | None] = mapped_column(Integer)
    model: Mapped[str | None] = mapped_column(String(200))
    forked_from: Mapped[str | None] = mapped_column(String(64))
    labels: Mapped[dict[str, str] | None] = mapped_column(ReadableJSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        Index("ix_sessions_user_created", "user_id", "created_at", "id"),
        Index("ix_sessions_parent", "parent_session_id"),
        Index("ix_sessions_root", "root_session_id"),
    )


class MessageRow(Base):
    """One row of a conversation; append-only. `sequence` is null while the message waits to be taken by a turn.

    `choice` is what a user's message chose of mode, tier, model and effort; null: nothing.
    `model` is the one that wrote the row, as its endpoint names it.
    `version_of` is the id of the message that this one is a later version of: edited, or to be answered again.
    `replaced_by` is the turn that took this row out of the conversation, or `DELETED`; the row keeps its sequence.
    `queued`: it was accepted to begin a turn of its own behind a turn that ran.
    `client_tools` is the id of the tools that the message's sender runs itself; empty: none; null: it says nothing of
    tools.
    """

    __tablename__ = "messages"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    sequence: Mapped[int | None] = mapped_column(Integer)
    role: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(16), default="message")
    content: Mapped[str] = mapped_column(Text, default="")
    tool_calls: Mapped[list[dict[str, Any]] | None] = mapped_column(ToolCalls(none_as_null=True))
    tool_call_id: Mapped[str | None] = mapped_column(String(200))
    tool_name: Mapped[str | None] = mapped_column(String(200))
    turn_id: Mapped[str | None] = mapped_column(String(64))
    round: Mapped[int | None] = mapped_column(Integer)
    client_message_id: Mapped[str | None] = mapped_column(String(64))
    is_error: Mapped[bool] = mapped_column(Boolean, default=False)
    context: Mapped[dict[str, Any] | None] = mapped_column(ReadableJSON(none_as_null=True))
    choice: Mapped[dict[str, Any] | None] = mapped_column(ReadableJSON(none_as_null=True))
    finish_reason: Mapped[str | None] = mapped_column(String(32))
    usage: Mapped[dict[str, Any] | None] = mapped_column(ReadableJSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    duration_ms: Mapped[int | None] = mapped_column(Integer)
    model: Mapped[str | None] = mapped_column(String(200))
    version_of: Mapped[str | None] = mapped_column(String(64))
    replaced_by: Mapped[str | None] = mapped_column(String(64))
    queued: Mapped[bool | None] = mapped_column(Boolean)
    client_tools: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (
        UniqueConstraint("session_id", "sequence", name="uq_messages_sequence"),
        UniqueConstraint("session_id", "client_message_id", name="uq_messages_client_id"),
        Index("ix_messages_turn", "turn_id", "round"),
        Index(
            "ix_messages_waiting",
            "session_id",
            postgresql_where=text("sequence IS NULL"),
            sqlite_where=text("sequence IS NULL"),
        ),
        Index(
            "ix_messages_versions",
            "session_id",
            "version_of",
            postgresql_where=text("version_of IS NOT NULL"),
            sqlite_where=text("version_of IS NOT NULL"),
        ),
    )


class ClientToolsRow(Base):
    """A set of tools that a client has declared: it runs them itself. The same set of a session is stored once."""

    __tablename__ = "client_tools"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    tools: Mapped[list[dict[str, Any]]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (Index("ix_client_tools_session", "session_id"),)


class UserProfileRow(Base):
    """What the model is told about a user."""

    __tablename__ = "user_profiles"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    content: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class FileRow(Base):
    """A file of a user. Its content is in the store of files, under the same id.

    `session_id` is the session whose tool has made it; null: the user has uploaded it.
    """

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    session_id: Mapped[str | None] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255))
    media_type: Mapped[str] = mapped_column(String(255))
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (
        Index("ix_files_user", "user_id", "created_at", "id"),
        Index("ix_files_session", "session_id"),
    )


STATUS = Enum(TurnStatus, native_enum=False, length=24, values_callable=lambda statuses: [s.value for s in statuses])


class TurnRow(Base):
    """One turn. `progress` is the final progress of its workflow, in the shape that pollers know.

    `retry_of` is the failed turn that this one took up again. `forked_from` is the turn of another session whose rows
    this one's rows are copies of: it never ran here.
    """

    __tablename__ = "turns"

    turn_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(String(255))
    status: Mapped[TurnStatus] = mapped_column(STATUS)
    model: Mapped[str] = mapped_column(String(200))
    mode: Mapped[str] = mapped_column(String(32), default="fast")
    tier: Mapped[str] = mapped_column(String(32), default="standard")
    trigger_message_id: Mapped[str | None] = mapped_column(String(64))
    retry_of: Mapped[str | None] = mapped_column(String(64))
    forked_from: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[dict[str, Any] | None] = mapped_column(ReadableJSON(none_as_null=True))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index("ix_turns_session", "session_id", "started_at"),
        Index(
            "ix_turns_unfinished",
            "user_id",
            postgresql_where=text("ended_at IS NULL"),
            sqlite_where=text("ended_at IS NULL"),
        ),
    )


class ParkedStatus(StrEnum):
    """How a parked call stands. All but the first are final.

    `skipped`: the person sent a message instead. `expired`: nobody answered in time. `cancelled`: the turn ended.
    """

    WAITING = "waiting"
    ALLOWED = "allowed"
    DENIED = "denied"
    ANSWERED = "answered"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class ParkedCallRow(Base):
    """A tool call that waits for a person or a client, or has waited: the truth of what was asked and answered.

    `arguments`: as the model wrote them. `new_arguments`: those that the person wants instead. `answer`: the text of
    the person or the client, such as the reason of a denial. `for_session`: the consent holds for this tool in the
    whole session. `credential`: the one that the call lacks. `provider`: the title of the provider that people connect
    to for it; null: they give a token. `settled_at`: the turn has taken the answer. `definition`: that of the tool when
    the call was asked about; the consent is one to this tool only.
    """

    __tablename__ = "parked_calls"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(String(255))
    turn_id: Mapped[str] = mapped_column(String(64))
    round: Mapped[int] = mapped_column(Integer)
    tool_call_id: Mapped[str] = mapped_column(String(200))
    tool_name: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    arguments: Mapped[str] = mapped_column(Text)
    new_arguments: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)
    is_error: Mapped[bool] = mapped_column(Boolean, default=False)
    for_session: Mapped[bool] = mapped_column(Boolean, default=False)
    credential: Mapped[str | None] = mapped_column(String(64))
    provider: Mapped[str | None] = mapped_column(String(100))
    asked_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    definition: Mapped[str] = mapped_column(String(64), server_default="", default="")

    __table_args__ = (
        Index("ix_parked_calls_session", "session_id", "turn_id"),
        Index(
            "ix_parked_calls_waiting",
            "user_id",
            "asked_at",
            postgresql_where=text("settled_at IS NULL"),
            sqlite_where=text("settled_at IS NULL"),
        ),
    )


class RemoteCallRow(Base):
    """A tool call that a tool worker runs, which has no database: what it is given, and what it has answered.

    `published`, `parent_turn_id`: as in the call's `TurnRef`. `arguments`, `new_arguments`: as in `ParkedCallRow`.
    `attempt`: the newest attempt that has begun; `token_id`: its token, and no other counts; `worker`: its name at
    Temporal. `status`: how the tool has ended; null: no result was given. `ended_at`: the call has ended, so no token
    counts any more. The texts are removed when the result is a message.
    """

    __tablename__ = "remote_calls"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(String(255))
    turn_id: Mapped[str] = mapped_column(String(64))
    parent_turn_id: Mapped[str] = mapped_column(String(64))
    published: Mapped[bool] = mapped_column(Boolean)
    tool_call_id: Mapped[str] = mapped_column(String(200))
    tool_name: Mapped[str] = mapped_column(String(200))
    arguments: Mapped[str | None] = mapped_column(Text)
    new_arguments: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    token_id: Mapped[str | None] = mapped_column(String(64))
    worker: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[str | None] = mapped_column(String(16))
    output: Mapped[str | None] = mapped_column(Text)
    duration_ms: Mapped[int] = mapped_column(Integer, default=0)
    opened_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_remote_calls_session", "session_id", "turn_id"),)


class CredentialKind(StrEnum):
    """Where a credential comes from: a person has typed a token, or a provider has given one."""

    TOKEN = "token"  # noqa: S105  # no secret
    OAUTH = "oauth"


class CredentialStatus(StrEnum):
    """Whether a credential works, as far as is known. `rejected`: its provider, or a tool, says that it does not."""

    CONNECTED = "connected"
    REJECTED = "rejected"


class CredentialRow(Base):
    """What tools sign in with for a user, under a name.

    `sealed`: the secret, encrypted for this user and name. `version`: a new one with each new secret. `expires_at`: of
    an access token. `refreshing_until`: a worker asks the provider for the next one until then, and others wait for it.
    """

    __tablename__ = "credentials"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    sealed: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime | None]
    refreshing_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class OAuthStateRow(Base):
    """A connection to a provider that has begun, until its user comes back from there, once.

    `state_hash`, `browser_hash`: of what the provider sends back, and of what the browser that began it keeps as a
    cookie. `sealed`: the PKCE verifier, encrypted.
    """

    __tablename__ = "oauth_states"

    state_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    browser_hash: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime]

    __table_args__ = (Index("ix_oauth_states_user", "user_id", "expires_at"),)


#: Sorted by bytes in every locale, so that the paths below a session are one range of the index.
PATH = String(1000).with_variant(String(1000, collation="C"), "postgresql")


class ShareRow(Base):
    """A link by which anyone who has it reads one session. Revoking a link removes its row.

    The token is kept as it is: whoever can read this table can read what the link shows.
    """

    __tablename__ = "shares"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(String(255))
    token: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_shares_session", "session_id", "created_at", "id"),)


class KeptAnswerRow(Base):
    """The answer to a request that had an idempotency key, for the same request again. `status` is null while the first
    one is being handled.
    """

    __tablename__ = "kept_answers"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    request: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None] = mapped_column(Integer)
    headers: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (Index("ix_kept_answers_user", "user_id", "created_at"),)


class LedgerStatus(StrEnum):
    """What a ledger row holds: a reservation for a call that runs, the bill, or an estimate where no bill arrived."""

    RESERVED = "reserved"
    BOOKED = "booked"
    ESTIMATED = "estimated"


class EncryptedReasoningRow(Base):
    """The reasoning behind an assistant's message that only its endpoint can read: sent back within the turn, and shown
    to nobody. `model`: the one that was asked.
    """

    __tablename__ = "encrypted_reasoning"

    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True)
    turn_id: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(200))
    items: Mapped[list[dict[str, Any]] | None] = mapped_column(ReadableJSON(none_as_null=True))

    __table_args__ = (Index("ix_encrypted_reasoning_turn", "turn_id"),)


class LedgerRow(Base):
    """One attempt at a model call: the truth of usage.

    While it runs under a budget, its row is a reservation: tokens and cost are those of its prompt, and until
    `reserved_until` it holds `reserved_microdollars` (null: all that is left, because the price is unknown).
    Of an estimate, the endpoint may be `asked` for its bill from `ask_at` on, by the `generation_id` that it gave.
    """

    __tablename__ = "usage_ledger"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    session_id: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(PATH)
    turn_id: Mapped[str] = mapped_column(String(64))
    round: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(16), default="turn")
    agent: Mapped[str | None] = mapped_column(String(100))
    model: Mapped[str] = mapped_column(String(200))
    prompt_tokens: Mapped[int] = mapped_column(Integer, default=0)
    completion_tokens: Mapped[int] = mapped_column(Integer, default=0)
    reasoning_tokens: Mapped[int] = mapped_column(Integer, default=0)
    cached_tokens: Mapped[int] = mapped_column(Integer, default=0)
    cache_creation_tokens: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    cost_microdollars: Mapped[int | None] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(Integer, default=1, server_default="1")
    status: Mapped[str] = mapped_column(String(16), default=LedgerStatus.BOOKED, server_default=LedgerStatus.BOOKED)
    reserved_microdollars: Mapped[int | None] = mapped_column(BigInteger)
    reserved_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    generation_id: Mapped[str | None] = mapped_column(String(200))
    asked: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    ask_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_ledger_ask",
            "ask_at",
            postgresql_where=text("ask_at IS NOT NULL"),
            sqlite_where=text("ask_at IS NOT NULL"),
        ),
        Index("ix_ledger_user", "user_id", "created_at"),
        Index("ix_ledger_created", "created_at"),
        Index("ix_ledger_turn", "session_id", "turn_id"),
        Index("ix_ledger_path", "path"),
    )


class UserAccountRow(Base):
    """What is known of a user beside the sessions. `claimed_tier`, `claimed_roles`, `email`: as the newest token says.

    `tier`: as an admin has set it, which counts more. Of roles, those are kept that a model is kept for.
    """

    __tablename__ = "user_accounts"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    email: Mapped[str | None] = mapped_column(String(320))
    claimed_tier: Mapped[str | None] = mapped_column(String(64))
    claimed_roles: Mapped[str | None] = mapped_column(Text)
    tier: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (Index("ix_accounts_email", "email"),)


class AccountEntryRow(Base):
    """One change of a user's account, and who made it; append-only.

    `day_microdollars`, `week_microdollars`: what a reset has taken off the costs of the day and the week that hold
    `created_at`. `credits`: what was granted (positive) or spent (negative).
    """

    __tablename__ = "account_entries"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    actor_id: Mapped[str] = mapped_column(String(255))
    action: Mapped[str] = mapped_column(String(32))
    credits: Mapped[int] = mapped_column(BigInteger, default=0)
    day_microdollars: Mapped[int] = mapped_column(BigInteger, default=0)
    week_microdollars: Mapped[int] = mapped_column(BigInteger, default=0)
    tier: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    __table_args__ = (Index("ix_account_entries_user", "user_id", "created_at"),)


def columns_of(table: type[Base], row_type: type[NamedTuple]) -> list[InstrumentedAttribute[Any]]:
    """The columns that a typed row holds, in the order of its fields, so that rows become typed ones by position."""
    return [getattr(table, name) for name in row_type._fields]
