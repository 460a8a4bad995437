"""One turn of a session: the workflow behind every message."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from longhaul.contracts import TurnInput, TurnResult
    from workflows.handlers import TurnHandlers
    from workflows.loop import TurnLoop


@workflow.defn
class TurnWorkflow(TurnHandlers):
    """A turn; workflow id `turn:{session_id}`, so a session has at most one at a time."""

    @workflow.init
    def __init__(self, request: TurnInput) -> None:
        self._loop = TurnLoop(request)

    @workflow.run
    async def run(self, request: TurnInput) -> TurnResult:  # noqa: ARG002  # taken in __init__, before any signal
        return await self._loop.run()
