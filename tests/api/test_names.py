"""The API names the turn workflow instead of importing it; these are the names, and what goes with them."""

import subprocess
import sys
from pathlib import Path

from temporalio import workflow

from longhaul import temporal
from longhaul.contracts import Empty, FollowUp, Progress, TurnInput
from workflows.turn import TurnWorkflow

ROOT = Path(__file__).resolve().parents[2]


def test_names_and_types() -> None:
    definition = workflow._Definition.must_from_class(TurnWorkflow)
    assert definition.name == temporal.TURN_WORKFLOW
    assert definition.arg_types == [TurnInput]
    assert definition.signals[temporal.FOLLOW_UP_SIGNAL].arg_types == [FollowUp]
    progress = definition.queries[temporal.PROGRESS_QUERY]
    assert (progress.arg_types, progress.ret_type) == ([Empty], Progress)


def test_the_api_does_not_load_what_only_workers_need() -> None:
    check = "import sys, api.app; print([m for m in ('openai', 'activities', 'workflows') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
