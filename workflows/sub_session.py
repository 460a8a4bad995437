"""A turn of a sub-session that its parent's turn started: the same loop, shown as a child in the Web UI."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from longhaul.contracts import TurnInput, TurnResult
    from workflows.handlers import TurnHandlers
    from workflows.loop import TurnLoop


@workflow.defn
class SubSessionWorkflow(TurnHandlers):
    """Workflow id `turn:{sub_session_id}`, so that a person who writes to the sub-session reaches this very turn."""

    @workflow.init
    def __init__(self, request: TurnInput) -> None:
        self._loop = TurnLoop(request)

    @workflow.run
    async def run(self, request: TurnInput) -> TurnResult:  # noqa: ARG002  # taken in __init__, before any signal
        return await self._loop.run()
