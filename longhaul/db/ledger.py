"""The ledger: one entry per paid model call, from which all usage is counted and money budgets are checked."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, func, insert, select

from longhaul.contracts import Scope, Usage
from longhaul.db.connection import Connection
from longhaul.db.models import LedgerRow


class LedgerEntry(NamedTuple):
    """A paid model call. `path` is `Scope.path` of its session; `kind`: what the call was made for."""

    id: str
    user_id: str
    session_id: str
    path: str
    turn_id: str
    round: int
    model: str
    usage: Usage
    kind: str = "turn"


BOOKED = select(LedgerRow.id).where(LedgerRow.id == bindparam("entry"))
INSERT = insert(LedgerRow)
# A range, not LIKE, for the index. The column sorts by bytes, and all else in a path sorts behind its `/`s.
COST_OF_SUBTREE = select(func.count().label("calls"), func.sum(LedgerRow.cost_microdollars).label("cost")).where(
    LedgerRow.path >= bindparam("first"), LedgerRow.path < bindparam("behind")
)


async def book(connection: Connection, entry: LedgerEntry) -> None:
    """Enter one model call, once."""
    if await connection.scalar(BOOKED, {"entry": entry.id}):
        return
    values = entry._asdict()
    usage: Usage = values.pop("usage")
    await connection.execute(INSERT, {**values, **usage.model_dump(exclude={"calls"})})


async def usage_of_each(connection: Connection, session_ids: Sequence[str]) -> dict[str, Usage]:
    """What each of these sessions has used itself; sessions without a model call are left out."""
    rows = await connection.execute(
        select(
            LedgerRow.session_id,
            func.count().label("calls"),
            func.sum(LedgerRow.prompt_tokens).label("prompt_tokens"),
            func.sum(LedgerRow.completion_tokens).label("completion_tokens"),
            func.sum(LedgerRow.reasoning_tokens).label("reasoning_tokens"),
            func.sum(LedgerRow.cached_tokens).label("cached_tokens"),
            func.sum(LedgerRow.cost_microdollars).label("cost_microdollars"),
        )
        .where(LedgerRow.session_id.in_(session_ids))
        .group_by(LedgerRow.session_id)
    )
    return {
        row.session_id: Usage.model_validate({name: row._mapping[name] for name in Usage.model_fields}) for row in rows
    }


async def cost_of_subtree(connection: Connection, path: str) -> int | None:
    """Microdollars that a session and all sub-sessions below it have used; `path` is `Scope.path` of the session.

    None: models were called, and the cost of none of these calls is known.
    """
    total = (await connection.execute(COST_OF_SUBTREE, {"first": path, "behind": path + "\x7f"})).one()
    return None if total.calls and total.cost is None else int(total.cost or 0)


async def budget_used_up(connection: Connection, session_id: str, scope: Scope) -> str | None:
    """A text that says which money budget of a session or of those above it is used up; None while none is."""
    line = (*scope.ancestors, session_id)
    for budget in scope.budgets:
        if budget.max_cost_microdollars is None or budget.session_id not in line:
            continue
        above = scope.model_copy(update={"ancestors": line[: line.index(budget.session_id)]})
        spent = await cost_of_subtree(connection, above.path(budget.session_id))
        whose = budget.whose(session_id)
        if spent is None:
            return (
                f"The budget of {whose} cannot be kept: the price of this model's calls is unknown. Set the "
                "session's budget in seconds, or use a model with a known price."
            )
        if spent >= budget.max_cost_microdollars:
            return (
                f"The budget of {whose} is used up: {spent} of {budget.max_cost_microdollars} microdollars. "
                "Nothing more was asked of the model."
            )
    return None
