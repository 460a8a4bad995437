"""One run of the Schedule that asks for the bills of calls that broke off."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.bills import BillActivities
    from longhaul.contracts import CorrectedEstimates, Empty
    from workflows import policies


@workflow.defn
class BillsWorkflow:
    """Replaces estimated costs by the endpoint's bills."""

    @workflow.run
    async def run(self, argument: Empty) -> CorrectedEstimates:
        """How many rows were corrected."""
        return await workflow.execute_activity_method(
            BillActivities.correct_estimates, argument, **policies.asking_for_bills()
        )
