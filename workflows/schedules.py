"""One run of a user's schedule. It ends with its turn, so Temporal's overlap policies are about turns."""

from temporalio import workflow
from temporalio.common import SearchAttributeKey

with workflow.unsafe.imports_passed_through():
    from activities.schedules import ScheduleActivities
    from longhaul import temporal
    from longhaul.contracts import AwaitScheduled, DeliverScheduled, ScheduledRun, ScheduledRunEnded
    from workflows import policies

#: Temporal sets it on what a Schedule starts.
SCHEDULED_AT = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")


@workflow.defn(name=temporal.SCHEDULED_RUN_WORKFLOW)
class ScheduledRunWorkflow:
    """Delivers the message of a schedule once, and waits for the turn that takes it."""

    @workflow.run
    async def run(self, request: ScheduledRun) -> ScheduledRunEnded:
        """How the turn ended; no status if the message was refused."""
        info = workflow.info()
        delivered = await workflow.execute_activity_method(
            ScheduleActivities.deliver_scheduled,
            DeliverScheduled(
                schedule_id=request.schedule_id,
                run=info.workflow_id,
                scheduled_at=info.typed_search_attributes.get(SCHEDULED_AT) or workflow.now(),
            ),
            **policies.delivering_scheduled(),
        )
        if not delivered.turn_id:
            return ScheduledRunEnded()
        return await workflow.execute_activity_method(
            ScheduleActivities.await_scheduled,
            AwaitScheduled(session_id=delivered.session_id, message_id=delivered.message_id),
            **policies.awaiting_scheduled(),
        )
