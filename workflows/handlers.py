"""Signals and queries of both turn workflows. Signal handlers only append, queries only read."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from longhaul.contracts import Empty, FollowUp, Progress, SubSessionEnded
    from workflows.loop import TurnLoop


class TurnHandlers:
    """What the outside may tell a turn and ask it."""

    _loop: TurnLoop

    @workflow.signal
    def follow_up(self, message: FollowUp) -> None:
        """A message has been accepted; the loop takes it at its next boundary."""
        self._loop.board.inbox.append(message)

    @workflow.signal
    def sub_session_ended(self, ended: SubSessionEnded) -> None:
        """A sub-session of this session has come to its end."""
        self._loop.board.child_ended(ended)

    @workflow.query
    def progress(self, _: Empty) -> Progress:
        """Where the turn stands."""
        return self._loop.board.told()
