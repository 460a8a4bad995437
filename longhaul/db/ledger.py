"""The ledger: one row for each attempt at a model call, from which all usage is counted and money budgets are checked.

An attempt under a budget first reserves what it may cost at most. The check and the reservation are one transaction
under the lock of the tree's root session, so calls that run at once cannot spend the same money. Afterwards the bill
replaces the reservation, or an estimate does where no bill arrived.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, exists, func, insert, select, update
from sqlalchemy.engine import Row

from longhaul.contracts import Budget, Scope, Usage
from longhaul.db.connection import Booking, Connection
from longhaul.db.models import UNFINISHED, LedgerRow, LedgerStatus, SessionRow, TurnRow, columns_of, utc_now


class PaidCall(NamedTuple):
    """An attempt at a model call. `path` is `Scope.path` of its session; `kind`: what the call is made for;
    `generation_id`: the endpoint's name of it.
    """

    id: str
    user_id: str
    session_id: str
    path: str
    turn_id: str
    round: int
    attempt: int
    model: str
    kind: str = "turn"
    generation_id: str | None = None


class Unbilled(NamedTuple):
    """An estimate that the endpoint can be asked about. `asked`: how often it was already."""

    call: PaidCall
    asked: int


class Reservation(NamedTuple):
    """What an attempt may cost at most, in microdollars; None: its price is unknown, so it takes all that is left.

    `prompt`: tokens and cost of what is sent, which stand if nothing more gets known. The reservation is void after
    `until`, and once its turn has ended.
    """

    most: int | None
    prompt: Usage
    until: datetime


class Refusal(NamedTuple):
    """Why a budget allows no call now. `for_good`: it is used up; otherwise calls that run hold what is left."""

    text: str
    for_good: bool


class Spent(NamedTuple):
    """What has been spent of a budget, in microdollars, and what calls that run have reserved.

    `cost`, `reserved`: None if the price is unknown.
    """

    cost: int | None
    running: int
    reserved: int | None


#: The kind of a row that is the price of a tool call.
TOOL = "tool"
IS_TOOL = LedgerRow.kind == TOOL
IS_RESERVED = LedgerRow.status == LedgerStatus.RESERVED
IS_SPENT = LedgerRow.status != LedgerStatus.RESERVED
# The turn of a title may end before the title's call does.
HOLDS = (
    IS_RESERVED
    & (LedgerRow.reserved_until > bindparam("now"))
    & (
        (LedgerRow.kind == "title")
        | exists().where(TurnRow.turn_id == LedgerRow.turn_id, TurnRow.status.in_(UNFINISHED))
    )
)
ENTERED = select(LedgerRow.status, LedgerRow.cost_microdollars, LedgerRow.created_at).where(
    LedgerRow.id == bindparam("entry")
)
# The agent is kept here too, because a session may be deleted.
INSERT = insert(LedgerRow).values(
    agent=select(SessionRow.agent).where(SessionRow.id == bindparam("of_session")).scalar_subquery()
)
REPLACE = (
    update(LedgerRow)
    .where(LedgerRow.id == bindparam("entry"))
    .values(
        status=bindparam("new_status"),
        model=bindparam("new_model"),
        generation_id=bindparam("new_generation_id"),
        ask_at=bindparam("new_ask_at"),
        **{name: bindparam(f"new_{name}") for name in Usage.model_fields if name != "calls"},
        reserved_microdollars=None,
        reserved_until=None,
    )
)
#: How often an endpoint is asked for a bill, the wait before the first time in seconds, and how the waits grow: 3 hours
#: in all.
ASKS_MAX, ASK_AFTER_S, ASK_FACTOR = 8, 10.0, 3.0
UNBILLED = (
    select(*columns_of(LedgerRow, PaidCall), LedgerRow.asked)
    .where(LedgerRow.ask_at <= bindparam("now"), LedgerRow.status == LedgerStatus.ESTIMATED)
    .order_by(LedgerRow.ask_at)
    .limit(bindparam("most"))
)
ASK_LATER = (
    update(LedgerRow)
    .where(LedgerRow.id == bindparam("entry"), LedgerRow.status == LedgerStatus.ESTIMATED)
    .values(asked=bindparam("times"), ask_at=bindparam("later"))
)
TO_ESTIMATE = (
    update(LedgerRow)
    .where(IS_RESERVED, LedgerRow.session_id == bindparam("session"), LedgerRow.turn_id == bindparam("turn"))
    .values(status=LedgerStatus.ESTIMATED, reserved_microdollars=None, reserved_until=None)
    .returning(LedgerRow.user_id, LedgerRow.cost_microdollars, LedgerRow.created_at)
)
TO_ESTIMATE_EARLIER = TO_ESTIMATE.where(
    LedgerRow.round == bindparam("in_round"), LedgerRow.kind == bindparam("of_kind")
)
RELEASE_TOOLS = delete(LedgerRow).where(
    IS_RESERVED, IS_TOOL, LedgerRow.session_id == bindparam("session"), LedgerRow.turn_id == bindparam("turn")
)
RELEASE = delete(LedgerRow).where(LedgerRow.id == bindparam("entry"), IS_RESERVED)
# SQLite has one writer at a time, and ignores FOR UPDATE.
LOCK = select(SessionRow.id).where(SessionRow.id == bindparam("session")).with_for_update()
# A range, not LIKE, for the index. The column sorts by bytes, and all else in a path sorts behind its `/`s.
SPENT = select(
    func.count(LedgerRow.id).filter(IS_SPENT, ~IS_TOOL),
    func.sum(LedgerRow.cost_microdollars).filter(IS_SPENT, ~IS_TOOL),
    func.coalesce(func.sum(LedgerRow.cost_microdollars).filter(IS_SPENT, IS_TOOL), 0),
    func.count(LedgerRow.id).filter(HOLDS),
    func.sum(LedgerRow.reserved_microdollars).filter(HOLDS),
    func.count(LedgerRow.id).filter(HOLDS, LedgerRow.reserved_microdollars.is_(None)),
).where(LedgerRow.path >= bindparam("first"), LedgerRow.path < bindparam("behind"))
TOTALS = (
    func.count(LedgerRow.id).filter(~IS_TOOL).label("calls"),
    *(
        func.coalesce(func.sum(getattr(LedgerRow, name)), 0).label(name)
        for name in Usage.model_fields
        if name not in ("calls", "cost_microdollars")
    ),
    func.sum(LedgerRow.cost_microdollars).label("cost_microdollars"),
)
# Titles are made beside the turn, and are no part of its work.
OF_TURN = select(*TOTALS).where(
    IS_SPENT,
    LedgerRow.session_id == bindparam("session"),
    LedgerRow.turn_id == bindparam("turn"),
    LedgerRow.kind != "title",
)
OF_ROUND = OF_TURN.where(LedgerRow.round == bindparam("in_round"), LedgerRow.kind == bindparam("of_kind"))


async def lock(connection: Connection, session_id: str) -> None:
    """Lock a session's row, if it still exists, until the transaction ends."""
    await connection.scalar(LOCK, {"session": session_id})


async def book(connection: Connection, call: PaidCall, usage: Usage, *, estimated: bool = False) -> None:
    """Enter what an attempt has used, once: in place of its reservation, or of an estimate that was entered for it.

    The caller holds the lock of the call's session.
    """
    spent = usage.model_dump(exclude={"calls"})
    entered = (await connection.execute(ENTERED, {"entry": call.id})).first()
    new_status = LedgerStatus.ESTIMATED if estimated else LedgerStatus.BOOKED
    cost, now = usage.cost_microdollars or 0, utc_now()
    # A bill that the endpoint knows takes some seconds until it can be asked for.
    ask_at = now + timedelta(seconds=ASK_AFTER_S) if estimated and call.generation_id else None
    if entered is None:
        await _insert(connection, call, {**spent, "status": new_status, "created_at": now, "ask_at": ask_at})
        connection.bookings.append(Booking(call.user_id, cost, now))
    elif entered.status == LedgerStatus.RESERVED or (entered.status == LedgerStatus.ESTIMATED and not estimated):
        new = {**spent, "model": call.model, "status": new_status}
        new |= {"generation_id": call.generation_id, "ask_at": ask_at}
        values = {f"new_{name}": value for name, value in new.items()}
        await connection.execute(REPLACE, {"entry": call.id, **values})
        counted = 0 if entered.status == LedgerStatus.RESERVED else entered.cost_microdollars or 0
        connection.bookings.append(Booking(call.user_id, cost - counted, entered.created_at))


async def reserve(
    connection: Connection, call: PaidCall, reservation: Reservation, scope: Scope, *, only_if_it_fits: bool = False
) -> Refusal | None:
    """Reserve what an attempt may cost of each budget that limits it; a refusal if one of them does not allow it.

    A call that fits beside what is spent and reserved is allowed. So is a call that runs alone, as long as something is
    left, unless `only_if_it_fits`: hence a budget is exceeded by one call at most, and no call waits for ever.
    """
    await lock(connection, scope.root_session_id or call.session_id)
    # Earlier attempts at this call are dead, or were taken for it; and a repeated transaction must not count twice.
    await connection.execute(RELEASE, {"entry": call.id})
    earlier = {"session": call.session_id, "turn": call.turn_id, "in_round": call.round, "of_kind": call.kind}
    if call.kind != TOOL:  # the tool calls of a round run at once
        _note_estimates(connection, await connection.execute(TO_ESTIMATE_EARLIER, earlier))
    for budget, path in money_budgets(call.session_id, scope):
        spent = await _spent_below(connection, path)
        if (refusal := _refusal(budget, call, spent, reservation, only_if_it_fits=only_if_it_fits)) is not None:
            return refusal
    values = {
        **reservation.prompt.model_dump(exclude={"calls"}),
        "status": LedgerStatus.RESERVED,
        "reserved_microdollars": reservation.most,
        "reserved_until": reservation.until,
        "created_at": utc_now(),
    }
    await _insert(connection, call, values)
    return None


async def _insert(connection: Connection, call: PaidCall, values: Mapping[str, Any]) -> None:
    await connection.execute(INSERT, {**call._asdict(), **values, "of_session": call.session_id})


def _note_estimates(connection: Connection, rows: Iterable[Row[Any]]) -> None:
    """Reservations that have become estimates are costs from now on."""
    connection.bookings += [Booking(row.user_id, row.cost_microdollars or 0, row.created_at) for row in rows]


def money_budgets(session_id: str, scope: Scope) -> list[tuple[Budget, str]]:
    """The budgets of money that limit a session, each with the path below which its money is spent."""
    line = (*scope.ancestors, session_id)
    return [
        (budget, scope.model_copy(update={"ancestors": line[: line.index(budget.session_id)]}).path(budget.session_id))
        for budget in scope.budgets
        if budget.max_cost_microdollars is not None and budget.session_id in line
    ]


def _refusal(
    budget: Budget, call: PaidCall, spent: Spent, reservation: Reservation, *, only_if_it_fits: bool
) -> Refusal | None:
    most, whose = budget.max_cost_microdollars or 0, budget.whose(call.session_id)
    if spent.cost is None:
        return Refusal(
            f"The budget of {whose} cannot be kept: the price of this model's calls is unknown. Set the "
            "session's budget in seconds, or use a model with a known price.",
            for_good=True,
        )
    if spent.cost >= most:
        return Refusal(
            f"The budget of {whose} is used up: {spent.cost} of {most} microdollars. "
            "Nothing more was asked of the model.",
            for_good=True,
        )
    runs_alone = not spent.running and not only_if_it_fits
    priced = spent.reserved is not None and reservation.most is not None
    if runs_alone or (priced and spent.cost + (spent.reserved or 0) + (reservation.most or 0) <= most):
        return None
    return Refusal(
        f"Model calls that are running have reserved what is left of the budget of {whose}: "
        f"{spent.cost} of {most} microdollars are spent.",
        for_good=False,
    )


async def _spent_below(connection: Connection, path: str) -> Spent:
    values = {"first": path, "behind": path + "\x7f", "now": utc_now()}
    calls, cost, tools, running, reserved, unpriced = tuple((await connection.execute(SPENT, values)).one())
    return Spent(
        cost=None if calls and cost is None else int(cost or 0) + int(tools),
        running=running,
        reserved=None if unpriced else int(reserved or 0),
    )


async def release(connection: Connection, call: PaidCall) -> None:
    """Give back what an attempt has reserved: the endpoint refused it, so it costs nothing."""
    await connection.execute(RELEASE, {"entry": call.id})


async def settle_turn(connection: Connection, session_id: str, turn_id: str) -> None:
    """Turn the reservations that a turn leaves behind into estimates: its worker died, and no attempt followed.

    Those of tools are given back: a tool without an output costs nothing.
    """
    await connection.execute(RELEASE_TOOLS, {"session": session_id, "turn": turn_id})
    _note_estimates(connection, await connection.execute(TO_ESTIMATE, {"session": session_id, "turn": turn_id}))


async def unbilled(connection: Connection, most: int) -> list[Unbilled]:
    """Estimates whose bill is to be asked for now."""
    rows = await connection.execute(UNBILLED, {"now": utc_now(), "most": most})
    return [Unbilled(PaidCall._make(tuple(row)[:-1]), row.asked) for row in rows]


async def ask_later(connection: Connection, row: Unbilled) -> None:
    """Note that there was no bill; after `ASKS_MAX` times the estimate stands for good."""
    asked = row.asked + 1
    later = utc_now() + timedelta(seconds=ASK_AFTER_S * ASK_FACTOR**asked) if asked < ASKS_MAX else None
    await connection.execute(ASK_LATER, {"entry": row.call.id, "times": asked, "later": later})


async def usage_of_round(
    connection: Connection, session_id: str, turn_id: str, round_: int, kind: str = "turn"
) -> Usage:
    """What all attempts at the model call of a round have used; or those at the call of another `kind`."""
    values = {"session": session_id, "turn": turn_id, "in_round": round_, "of_kind": kind}
    return Usage.model_validate((await connection.execute(OF_ROUND, values)).one()._mapping)


async def usage_of_turn(connection: Connection, session_id: str, turn_id: str) -> Usage:
    """What the model calls of a turn have used, those that broke off included."""
    return Usage.model_validate(
        (await connection.execute(OF_TURN, {"session": session_id, "turn": turn_id})).one()._mapping
    )


async def usage_of_each(connection: Connection, session_ids: Sequence[str]) -> dict[str, Usage]:
    """What each of these sessions has used itself; sessions without a model call are left out."""
    rows = await connection.execute(
        select(LedgerRow.session_id, *TOTALS)
        .where(IS_SPENT, LedgerRow.session_id.in_(session_ids))
        .group_by(LedgerRow.session_id)
    )
    return {row.session_id: Usage.model_validate(row._mapping) for row in rows}
