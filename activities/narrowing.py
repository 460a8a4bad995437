"""What a sub-session may do: never more than the session that delegates."""

from longhaul.contracts import Budget, Scope
from longhaul.tools.workflow_tools import RunSubSession


def narrowed(parent: Scope, given: RunSubSession, parent_id: str) -> Scope:
    """The scope of a new sub-session: its parent's, and what the call takes away from it."""
    allow = parent.allow_tools
    if given.allow_tools is not None:
        allow = tuple(n for n in given.allow_tools if parent.allow_tools is None or n in parent.allow_tools)
    return Scope(
        depth=parent.depth + 1,
        ancestors=(*parent.ancestors, parent_id),
        root_session_id=parent.root_session_id or parent_id,
        allow_tools=allow,
        deny_tools=parent.deny_tools,
        dry_run=parent.dry_run or given.dry_run,
        budgets=parent.budgets,
        detached=given.detached,
    )


def lasting(scope: Scope) -> Scope:
    """What of a scope is stored: a deadline belongs to the turn that delegates, the budget behind it stays."""
    budgets = (b.model_copy(update={"deadline": None}) for b in scope.budgets)
    return scope.model_copy(update={"budgets": tuple(budgets)})


def rejoined(stored: Scope, above: Scope) -> Scope:
    """The scope of a sub-session that is gone on in: its own, with the deadlines of the turn that delegates."""
    live = {budget.session_id: budget for budget in above.budgets}
    budgets: list[Budget] = [live.pop(budget.session_id, budget) for budget in stored.budgets]
    return stored.model_copy(update={"budgets": (*live.values(), *budgets)})


def unheard(given: RunSubSession) -> str | None:
    """Arguments that only a new sub-session can be given, when there is one already: an error, else they would seem
    to hold and would not."""
    fixed = ("allow_tools", "dry_run", "max_cost_microdollars", "max_seconds", "agent")
    defaults = RunSubSession(prompt="")
    changed = [name for name in fixed if getattr(given, name) != getattr(defaults, name)]
    named = changed if given.sub_session_id else []
    if not named:
        return None
    return (
        f"run_sub_session: {', '.join(named)} can be given to a new sub-session only; leave it out to go on in this "
        "one, or leave out sub_session_id."
    )
