"""The cost of a model call or a tool: reserved before it where a budget limits the session, and booked after it."""

from datetime import timedelta

from longhaul.contracts import CallModel, CompactContext, RunTool, Scope, Usage
from longhaul.db import ledger
from longhaul.db.database import Database
from longhaul.db.ledger import TOOL, PaidCall, Refusal, Reservation
from longhaul.db.messages import row_id
from longhaul.db.models import utc_now
from longhaul.llm.completion import Completion
from longhaul.llm.estimate import Estimate


def paid_call(call: CallModel | CompactContext, attempt: int, model: str = "") -> PaidCall:
    """The ledger's name for an attempt at a round's model call, or at the compaction behind a round.

    `model`: the one that was asked, if it was not the call's own.
    """
    turn, compacts = call.turn, isinstance(call, CompactContext)
    return PaidCall(
        id=row_id(turn.turn_id, call.round, attempt, "compaction" if compacts else "usage"),
        user_id=turn.user_id,
        session_id=turn.session_id,
        path=call.scope.path(turn.session_id),
        turn_id=turn.turn_id,
        round=call.round,
        attempt=attempt,
        model=model or call.model,
        kind="compaction" if compacts else "turn",
    )


def priced_call(call: RunTool) -> PaidCall:
    """The ledger's name for a tool call, however often it is attempted."""
    turn = call.turn
    return PaidCall(
        id=row_id(turn.turn_id, call.round, "price", call.tool_call_id),
        user_id=turn.user_id,
        session_id=turn.session_id,
        path=call.scope.path(turn.session_id),
        turn_id=turn.turn_id,
        round=call.round,
        attempt=1,
        model=f"tool:{call.name}",
        kind=TOOL,
    )


class Costs:
    """Reserves and books, each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(
        self, call: PaidCall, scope: Scope, estimate: Estimate, lifetime_s: float, *, only_if_it_fits: bool = False
    ) -> Refusal | None:
        """Reserve what a call may cost at most; a refusal if a budget does not allow it.

        `lifetime_s`: seconds after which no attempt at this call can be running any more.
        """
        until = utc_now() + timedelta(seconds=lifetime_s)
        reservation = Reservation(estimate.most(), estimate.usage(Completion()), until)
        async with self._database.write() as connection:
            return await ledger.reserve(connection, call, reservation, scope, only_if_it_fits=only_if_it_fits)

    async def reserve_price(self, call: RunTool, price: int, lifetime_s: float) -> Refusal | None:
        """Reserve the price of a tool call; a refusal if a budget has no room for it. Without a budget: nothing."""
        paid = priced_call(call)
        if not ledger.money_budgets(paid.session_id, call.scope):
            return None
        reservation = Reservation(price, Usage(), utc_now() + timedelta(seconds=lifetime_s))
        async with self._database.write() as connection:
            return await ledger.reserve(connection, paid, reservation, call.scope, only_if_it_fits=True)

    async def book(self, call: PaidCall, received: Completion) -> None:
        """Book what an attempt has used."""
        call = call._replace(generation_id=received.response_id or None)
        async with self._database.write() as connection:
            await ledger.lock(connection, call.session_id)
            await ledger.book(connection, call, received.usage, estimated=received.is_estimated)

    async def release(self, call: PaidCall) -> None:
        """Give back what was reserved for a call that the endpoint refused."""
        async with self._database.write() as connection:
            await ledger.release(connection, call)
