"""One turn of a session: the workflow behind every message."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from copilot.contracts import Empty, FollowUp, Progress, TurnInput, TurnResult
    from workflows.loop import TurnLoop


@workflow.defn
class TurnWorkflow:
    """A turn; workflow id `turn:{session_id}`, so a session has at most one at a time."""

    @workflow.init
    def __init__(self, request: TurnInput) -> None:
        self._loop = TurnLoop(request)

    @workflow.run
    async def run(self, request: TurnInput) -> TurnResult:  # noqa: ARG002  # taken in __init__, before any signal
        return await self._loop.run()

    @workflow.signal
    def follow_up(self, message: FollowUp) -> None:
        """A message has been accepted; the loop takes it at its next boundary."""
        self._loop.board.inbox.append(message)

    @workflow.query
    def progress(self, _: Empty) -> Progress:
        """Where the turn stands."""
        return self._loop.board.progress()
