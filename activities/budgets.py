"""Budgets: what a session and all below it may still use."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from longhaul.contracts import Budget, Scope
from longhaul.db import ledger, turns
from longhaul.db.connection import Connection
from longhaul.db.sessions import Session
from longhaul.db.turns import TurnPeriod


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


async def reached(connection: Connection, session_id: str, scope: Scope) -> str | None:
    """A text that says which money budget of a session or of those above it is used up; None while none is."""
    line = (*scope.ancestors, session_id)
    for budget in scope.budgets:
        if budget.max_cost_microdollars is None or budget.session_id not in line:
            continue
        above = scope.model_copy(update={"ancestors": line[: line.index(budget.session_id)]})
        spent = await ledger.cost_of_subtree(connection, above.path(budget.session_id))
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
