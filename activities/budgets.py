"""Budgets: what a session and all below it may still use."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from copilot.contracts import Budget, Scope
from copilot.db import sessions


async def budgets_of(connection: AsyncConnection, session: Any, scope: Scope, now: datetime) -> tuple[Budget, ...]:
    """All budgets that hold for a turn that starts now: those inherited, and the session's own."""
    inherited = tuple(budget for budget in scope.budgets if budget.session_id != session.id)
    if session.max_cost_microdollars is None and session.max_seconds is None:
        return inherited
    deadline = None
    if session.max_seconds is not None:
        left = session.max_seconds - await sessions.worked_ms(connection, session.id) / 1000
        deadline = now + timedelta(seconds=max(0.0, left))
    own = Budget(session_id=session.id, max_cost_microdollars=session.max_cost_microdollars, deadline=deadline)
    return (*inherited, own)


async def reached(connection: AsyncConnection, session_id: str, scope: Scope) -> str | None:
    """In words, which money budget of a session or of those above it is used up; None while none is."""
    line = (*scope.ancestors, session_id)
    for budget in scope.budgets:
        if budget.max_cost_microdollars is None or budget.session_id not in line:
            continue
        above = scope.model_copy(update={"ancestors": line[: line.index(budget.session_id)]})
        spent = await sessions.spent_below(connection, above.path(budget.session_id))
        if spent >= budget.max_cost_microdollars:
            whose = "this session" if budget.session_id == session_id else f"session {budget.session_id} above it"
            return (
                f"The budget of {whose} is used up: {spent} of {budget.max_cost_microdollars} microdollars. "
                "Nothing more was asked of the model."
            )
    return None
