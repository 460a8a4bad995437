"""One run of the Schedule that delivers forgotten messages again."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.redelivery import RedeliveryActivities
    from longhaul.contracts import Empty, Redelivered
    from workflows import policies


@workflow.defn
class RedeliverWorkflow:
    """Delivers messages that have waited for a while in sessions without a turn."""

    @workflow.run
    async def run(self, argument: Empty) -> Redelivered:
        """How many messages were delivered."""
        return await workflow.execute_activity_method(
            RedeliveryActivities.redeliver_forgotten, argument, **policies.redelivering()
        )
