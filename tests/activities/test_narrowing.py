"""The scope of a sub-session is never wider than its parent's."""

from activities.scopes import continued, narrowed
from activities.sub_sessions import rejected_arguments
from longhaul.contracts import Budget, Scope
from longhaul.db.models import utc_now
from longhaul.tools.workflow_tools import RunSubSession

PARENT = Scope(
    depth=1,
    ancestors=("root",),
    root_session_id="root",
    allow_tools=("calculator", "wait"),
    deny_tools=("wait",),
    dry_run=True,
    budgets=(Budget(session_id="root", max_cost_microdollars=5),),
)


def test_arguments_cannot_widen() -> None:
    given = RunSubSession(prompt="x", allow_tools=["write_file", "calculator"], dry_run=False, detached=True)
    scope = narrowed(PARENT, given, "parent", ["calculator"])
    assert scope.allow_tools == ("calculator",)
    assert scope.deny_tools == ("wait",)
    assert scope.dry_run
    assert scope.budgets == PARENT.budgets
    assert (scope.depth, scope.ancestors, scope.root_session_id) == (2, ("root", "parent"), "root")
    assert not narrowed(scope, RunSubSession(prompt="x"), "child", ["calculator"]).detached


def test_nothing_allowed_stays_nothing() -> None:
    scope = narrowed(PARENT, RunSubSession(prompt="x", allow_tools=[]), "parent", ["calculator"])
    assert scope.allow_tools == ()
    assert narrowed(scope, RunSubSession(prompt="x", allow_tools=["calculator"]), "child", []).allow_tools == ()


def test_a_name_that_the_model_made_up_gets_into_no_scope() -> None:
    given = RunSubSession(prompt="x", allow_tools=["calculator", "what the person said"])
    assert narrowed(Scope(), given, "parent", ["calculator", "clock"]).allow_tools == ("calculator",)


def test_one_that_is_gone_on_in_gets_the_deadlines_of_now() -> None:
    """Its own budgets stay, and those above it keep their deadlines: they end the work wherever it is."""
    stored = PARENT.model_copy(update={"budgets": (*PARENT.budgets, Budget(session_id="own", max_seconds=9))})
    above = Scope(budgets=(Budget(session_id="root", max_cost_microdollars=5, deadline=utc_now()),))
    found = continued(stored, above)
    assert {b.session_id: b.deadline is not None for b in found.budgets} == {"root": True, "own": False}
    assert found.allow_tools == PARENT.allow_tools


def test_what_only_a_new_one_can_be_given() -> None:
    assert rejected_arguments(RunSubSession(prompt="x", allow_tools=[], dry_run=True)) is None
    assert rejected_arguments(RunSubSession(prompt="x", sub_session_id="s")) is None
    told = rejected_arguments(RunSubSession(prompt="x", sub_session_id="s", allow_tools=[], max_seconds=5))
    assert told is not None
    assert "allow_tools, max_seconds can be set for a new sub-session only" in told
