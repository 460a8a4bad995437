"""What a tool is given about its call, and the error by which it tells the model that something failed."""

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from longhaul.contracts import Scope, ToolProgress

PROGRESS_MAX_CHARS = 500
#: What a tool is told that runs on a tool worker and asks for more than its arguments.
NOT_ON_TOOL_WORKERS = "This tool runs on a tool worker, which has no access to {what}. Pass what it needs as arguments."


class ToolError(Exception):
    """A tool's refusal or failure; its text is written for the model and is stored as the call's result."""


async def _no_result(tool_call_id: str) -> str | None:  # noqa: ARG001
    return None


class SharedFile(BaseModel):
    """A file of the workspace that the person is shown, as it was then."""

    file_id: str
    name: str
    media_type: str
    size: int


async def _not_shared(path: str) -> SharedFile:
    raise ToolError(f"{path!r} cannot be shown: nobody watches here.")


def _unseen(progress: ToolProgress) -> None:
    """Without a turn, nobody watches."""


@dataclass(frozen=True)
class ToolContext:
    """What a tool knows about its call: user, session, turn, the session's folder, and what the session may do.

    Attributes:
        folder: the workspace; None: a tool worker runs the tool, which has no files of sessions.
        workspace_max_bytes: what its files may take together; 0: no limit.
        result_of: reads the whole output of an earlier tool call of this session by its id; None if there is none.
        share: keeps a file of the workspace for the person, and returns what it is; the tool `share_file` shows it.
        report: takes the call's progress; tools call `progress` instead.
        ended: set when the call was stopped or timed out.
    """

    user_id: str
    session_id: str
    turn_id: str
    tool_call_id: str
    folder: Path | None
    scope: Scope
    workspace_max_bytes: int = 0
    result_of: Callable[[str], Awaitable[str | None]] = _no_result
    share: Callable[[str], Awaitable[SharedFile]] = _not_shared
    report: Callable[[ToolProgress], None] = _unseen
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def workspace(self) -> Path:
        """A folder, shared with the session's root and all its sub-sessions.

        Raises:
            ToolError: a tool worker runs the tool.
        """
        if self.folder is None:
            raise ToolError(NOT_ON_TOOL_WORKERS.format(what="the files of the session"))
        return self.folder

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be changed. A tool that is declared with `changes` does not run at all then."""
        return self.scope.dry_run

    @property
    def cancelled(self) -> bool:
        """Whether the call was stopped or timed out: for work in other threads.

        The tool's own coroutine is cancelled, which raises `asyncio.CancelledError` in it.
        """
        return self.ended.is_set()

    def progress(self, text: str = "", *, done: float | None = None, total: float | None = None) -> None:
        """Show people how far the call is: in the turn's stream, and in its progress. Returns at once, in any thread.

        Only the newest is shown, a few times a second. `text` is cut after 500 characters; the model never sees it.
        """
        self.report(ToolProgress(text=text[:PROGRESS_MAX_CHARS], done=done, total=total))
