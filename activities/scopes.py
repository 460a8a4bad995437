"""The scope of a sub-session: what it may do, never more than the session that delegates."""

from collections.abc import Collection

from longhaul.contracts import Budget, Scope
from longhaul.tools.workflow_tools import RunSubSession


def narrowed(parent: Scope, arguments: RunSubSession, parent_id: str, available: Collection[str]) -> Scope:
    """The scope of a new sub-session: its parent's, minus what the call takes away.

    `available`: the names of the tools that the parent may use. Scopes are in histories, so a name that the model made
    up must not get into one.
    """
    allow = parent.allow_tools
    if arguments.allow_tools is not None:
        allow = tuple(name for name in arguments.allow_tools if name in available)
    return Scope(
        depth=parent.depth + 1,
        ancestors=(*parent.ancestors, parent_id),
        root_session_id=parent.root_session_id or parent_id,
        allow_tools=allow,
        deny_tools=parent.deny_tools,
        dry_run=parent.dry_run or arguments.dry_run,
        budgets=parent.budgets,
        detached=arguments.detached,
    )


def without_deadlines(scope: Scope) -> Scope:
    """A scope as it is stored. A deadline belongs to the delegating turn; the budget behind it stays."""
    budgets = (budget.model_copy(update={"deadline": None}) for budget in scope.budgets)
    return scope.model_copy(update={"budgets": tuple(budgets)})


def continued(stored: Scope, delegating: Scope) -> Scope:
    """The scope of a sub-session that gets another prompt: its own, with the deadlines of the delegating turn."""
    running = {budget.session_id: budget for budget in delegating.budgets}
    budgets: list[Budget] = [running.pop(budget.session_id, budget) for budget in stored.budgets]
    return stored.model_copy(update={"budgets": (*running.values(), *budgets)})
