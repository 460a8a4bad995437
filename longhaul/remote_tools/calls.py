"""What tool workers ask of the API: a call's arguments, to show progress, and to take the result."""

import logging
from typing import NamedTuple

import jwt
from redis.asyncio import Redis
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from longhaul import temporal
from longhaul.auth import UnauthorizedError
from longhaul.contracts import ToolProgress
from longhaul.db import remote_calls
from longhaul.db.database import Database
from longhaul.db.remote_calls import CallToken, GivenResult, RemoteCall
from longhaul.errors import ResultGivenError
from longhaul.remote_tools import keys
from longhaul.remote_tools.tokens import CallTokens
from longhaul.settings import Settings
from longhaul.streams.parent_updates import ParentUpdates
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.scripts import ActivityAttempt
from longhaul.streams.tool_progress import keep, tool_progress_part

log = logging.getLogger(__name__)
NOT_YOURS = "No tool worker that can sign this has the call."


class BegunCall(NamedTuple):
    """What a tool worker gets when it begins an attempt. `arguments`: as JSON."""

    token: str
    arguments: str


class RemoteCalls:
    """Serves tool workers."""

    def __init__(self, settings: Settings, database: Database, client: Client, redis: "Redis") -> None:
        self._settings = settings
        self._database = database
        self._client = client
        self._redis = redis
        self._tokens = CallTokens(settings.tool_token_secret.get_secret_value())

    async def call_of(self, proof: str) -> RemoteCall:
        """The call that a proof names, before anything of the proof is known to be true.

        Raises:
            UnauthorizedError: it is no proof, or names no call.
            UnavailableError: the database is away.
        """
        try:
            claim = keys.claimed(proof)
        except jwt.InvalidTokenError as error:
            raise UnauthorizedError(f"The proof is not valid: {error}.") from error
        async with self._database.read() as connection:
            row = await remote_calls.find(connection, claim.remote_call_id)
        if row is None:
            raise UnauthorizedError(NOT_YOURS)
        return row

    def token(self, shown: str) -> CallToken:
        """What a call token says.

        Raises:
            UnauthorizedError: it is none of ours, or too old.
        """
        return self._tokens.read(shown)

    async def begin(self, row: RemoteCall, proof: str) -> BegunCall:
        """Give the worker that has the task of a call its arguments and a token; tokens from before count no more.

        Raises:
            UnauthorizedError: the proof is not of the worker that has the task now.
            CallEndedError, TokenReplacedError: as `remote_calls.begin`.
            ResultGivenError: an earlier attempt has given the result.
            UnavailableError: the database or Temporal is away.
        """
        held = await self._held(row)
        try:
            claim = keys.verified(proof, held.last_worker_identity)
        except jwt.InvalidTokenError as error:
            raise UnauthorizedError(f"The proof is not valid: {error}.") from error
        if claim != keys.Claim(row.id, held.attempt):
            raise UnauthorizedError(NOT_YOURS)
        token = self._tokens.new(row.id, held.attempt)
        async with self._database.write() as connection:
            row = await remote_calls.begin(connection, token, held.last_worker_identity)
        if row.status is not None:
            raise ResultGivenError
        arguments = row.arguments if row.new_arguments is None else row.new_arguments
        return BegunCall(self._tokens.signed(token), arguments or "{}")

    async def report(self, token: CallToken, progress: ToolProgress) -> None:
        """Show how far a call is.

        Raises:
            NotFoundError, CallEndedError, TokenReplacedError, ResultGivenError: as `remote_calls.of_token`.
        """
        async with self._database.read() as connection:
            row = await remote_calls.of_token(connection, token)
        turn, most = row.turn, self._settings.stream_max_bytes
        publisher = StreamPublisher(
            self._redis,
            turn.turn_id,
            flush_s=0,
            published=turn.published,
            attempt=ActivityAttempt(f"remote:{row.id}", row.attempt),
            max_bytes=most,
            parent=ParentUpdates(self._redis, turn, most) if turn.parent_turn_id else None,
        )
        async with publisher:
            publisher.put(tool_progress_part(row.tool_call_id, row.tool_name, progress))
        if turn.published:
            await keep(self._redis, turn.turn_id, row.tool_call_id, progress)

    async def give(self, token: CallToken, result: GivenResult) -> None:
        """Take the result of a call; raises what `remote_calls.give` raises."""
        async with self._database.write() as connection:
            await remote_calls.give(connection, token, result)

    async def _held(self, row: RemoteCall) -> PendingActivityInfo:
        """The activity of a call, which some worker has the task of, as Temporal knows it.

        Raises:
            UnauthorizedError: none has it.
            UnavailableError: Temporal does not answer.
        """
        handle = self._client.get_workflow_handle(temporal.workflow_id(row.session_id))
        try:
            async with temporal.reachable(self._settings.temporal_rpc_timeout):
                described = await handle.describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise UnauthorizedError(NOT_YOURS) from error
        for pending in described.raw_description.pending_activities:
            is_tool = pending.activity_type.name == temporal.RUN_REMOTE_TOOL_ACTIVITY
            started = pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
            if pending.activity_id == row.id and is_tool and started:
                return pending
        raise UnauthorizedError(NOT_YOURS)
