"""The end of a turn, with fake activities: a message that arrives then, the turn that follows, a close that fails."""

import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from longhaul import temporal
from longhaul.contracts import Budget, OpenTurn, Scope, TurnStatus
from longhaul.db.models import utc_now
from testkit.wait import until
from tests.workflows.conftest import heartbeats, settings
from tests.workflows.fakes import EMPTY, FakeActivities, Session, final
from worker import build, polling
from workflows.turn import TurnLoop

COMPLETED, FAILED = TurnStatus.COMPLETED, TurnStatus.FAILED


async def test_a_message_that_arrives_while_the_turn_closes(session: Session) -> None:
    """It was accepted for this turn, so the turn does not end but answers it."""
    session.script.answers = [EMPTY]
    session.script.hold("close_turn completed")
    await session.send("m1")
    await session.script.reached("close_turn completed")
    assert (await session.progress()).status == "running"
    await session.send("m2")
    session.script.release("close_turn completed")
    assert await session.status() is COMPLETED
    refused = ["call_model 1", "take_inbox", "close_turn completed"]
    assert session.calls == ["open_turn m1", *refused, "take_inbox m2", "call_model 2", "turn ended"]


async def test_a_message_whose_signal_never_comes(session: Session) -> None:
    """Its sender died between the row and the signal; the turn finds the row before it ends."""
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    session.script.rows.accept("m2", "unused")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert session.calls == ["open_turn m1", "call_model 1", "take_inbox m2", "call_model 2", "turn ended"]


async def test_the_next_turn_has_its_own_model_and_deadline(session: Session) -> None:
    deadline = utc_now() + timedelta(hours=1)
    inherited = Scope(budgets=(Budget(session_id="above", max_seconds=3600, deadline=deadline),))
    session.script.hold("call_model 1")
    await session.send("m1", scope=inherited)
    await session.script.reached("call_model 1")
    await session.stop()
    await session.send("m2", model="large", mode="extended_thinking", tier="advanced")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    first, second = (one for one in session.arguments(OpenTurn) if isinstance(one, OpenTurn))
    assert [budget.deadline for budget in (*first.scope.budgets, *second.scope.budgets)] == [deadline, None]
    assert (second.model, second.mode, second.tier) == ("large", "extended_thinking", "advanced")
    attributes = (await session.handle.describe()).typed_search_attributes
    assert attributes[temporal.MODEL_ATTRIBUTE] == "large"


async def test_the_next_turn_begins_on_the_current_build(workflow_client: Client) -> None:
    fakes, task_queue, deployment = FakeActivities(), f"builds-{uuid4()}", f"deployment-{uuid4()}"

    def workers(build_id: str) -> list[Worker]:
        values = {"task_queue": task_queue, "deployment_name": deployment, "build_id": build_id, "shutdown_grace": 0}
        return build(workflow_client, settings(**values), fakes.all(), heartbeats())

    async def promoted(build_id: str) -> bool:
        request = SetWorkerDeploymentCurrentVersionRequest(
            namespace=workflow_client.namespace,
            deployment_name=deployment,
            build_id=build_id,
            ignore_missing_task_queues=True,
        )
        try:
            await workflow_client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError:
            return False  # Temporal takes a moment to know a new worker's version
        return True

    async def current(build_id: str) -> bool:
        """Whether the task queue knows of the promotion: it is told a moment later."""
        request = DescribeTaskQueueRequest(
            namespace=workflow_client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        described = await workflow_client.workflow_service.describe_task_queue(request)
        return described.versioning_info.current_deployment_version.build_id == build_id

    async def build_of(run_id: str | None) -> str:
        described = await workflow_client.get_workflow_handle(session.handle.id, run_id=run_id).describe()
        return described.raw_info.versioning_info.deployment_version.build_id

    session = Session(workflow_client, task_queue, fakes)
    session.script.hold("close_turn cancelled")
    session.script.hold("call_model 1")
    async with polling(workers("v1")):
        await until(lambda: promoted("v1"), what="build v1 is current")
        await session.send("m1")
        await session.script.reached("call_model 1")
        await session.stop()
        await session.script.reached("close_turn cancelled")
        first_run = session.handle.result_run_id
        async with polling(workers("v2")):
            await until(lambda: promoted("v2"), what="build v2 is promoted")
            await until(lambda: current("v2"), what="build v2 is current")
            await session.send("m2")
            session.script.release("call_model 1")
            session.script.release("close_turn cancelled")
            assert await session.status() is COMPLETED
            assert [await build_of(first_run), await build_of(None)] == ["v1", "v2"]


async def test_a_message_that_arrives_in_the_last_workflow_task(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses to end a run that has not seen a signal: the task is done again, and the message is taken."""
    at_the_end, sent = threading.Event(), threading.Event()
    show_details = TurnLoop._show_details

    def hold_at_the_end(loop: TurnLoop) -> None:
        show_details(loop)
        if loop._turn.closed and loop._turn.request.session_id == session.id and not sent.is_set():
            at_the_end.set()
            sent.wait(1.5)  # the workflow task is under way; Temporal takes longer ones for a deadlock

    monkeypatch.setattr(TurnLoop, "_show_details", hold_at_the_end)
    await session.send("m1")
    await session.until_called("turn ended")
    await until(at_the_end.is_set, what="the last workflow task is under way", every=0.005)
    await session.send("m2")
    sent.set()
    assert await session.status() is COMPLETED
    assert session.calls[-3:] == ["open_turn m2", "call_model 1", "turn ended"]
    assert session.calls.count("turn ended") == 2
    assert session.script.rows.taken["m2"] != session.turn_id


async def test_a_close_that_fails_for_good(session: Session) -> None:
    """The turn is closed as failed, so that it does not look as if it ran; the message that waits begins the next."""
    session.script.answers = [EMPTY]
    session.script.failures["close_turn completed"] = final("disk full")
    session.script.hold("close_turn completed")
    await session.send("m1")
    await session.script.reached("close_turn completed")
    await session.send("m2")
    session.script.hold("close_turn failed")
    session.script.release("close_turn completed")
    await session.script.reached("close_turn failed")
    assert session.closing().progress.error == "The end of the turn could not be stored: disk full"
    del session.script.failures["close_turn completed"]
    session.script.release("close_turn failed")
    assert await session.status() is COMPLETED
    ends = ["close_turn completed", "close_turn failed"]
    following = ["open_turn m2", "call_model 1", "take_inbox", "close_turn completed"]
    assert session.calls[2:] == ["take_inbox", *ends, *following]


async def test_a_turn_that_cannot_be_closed_at_all(session: Session) -> None:
    """The messages that Stop was to file are the next turn's; without any the run ends as failed."""
    session.script.failures = {f"close_turn {status}": final("disk full") for status in ("cancelled", "failed")}
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    await session.send("m2")
    await session.stop()
    await session.until_called("close_turn failed")
    await session.until_called("open_turn m2")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    session.script.failures["close_turn completed"] = final("disk full")
    session.script.answers = [EMPTY]
    await session.send("m3")
    assert await session.status() is FAILED


async def test_a_defect_of_ours_in_the_close(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: TurnLoop) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(TurnLoop, "_close", broken)
    session.script.answers = [EMPTY]
    await session.send("m1")
    assert await session.status() is FAILED
    assert session.calls == ["open_turn m1", "call_model 1", "take_inbox", "close_turn failed"]
    assert (
        session.closing().progress.error == "The end of the turn could not be stored: a defect in Longhaul (KeyError)."
    )
