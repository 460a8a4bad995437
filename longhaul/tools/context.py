"""What a tool is given about its call, and the error by which it tells the model that something failed."""

import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from longhaul.contracts import Scope, ToolProgress
from longhaul.settings.credentials import CREDENTIAL_NAME

PROGRESS_MAX_CHARS = 500
#: What a tool is told that runs on a tool worker and asks for more than its arguments.
NOT_ON_TOOL_WORKERS = "This tool runs on a tool worker, which has no access to {what}. Pass what it needs as arguments."


class ToolError(Exception):
    """A tool's refusal or failure; its text is written for the model and is stored as the call's result."""


class NotConnectedError(ToolError):
    """The person has not given a credential, or it does not work. The call waits until they have, and runs again."""

    def __init__(self, credential: str) -> None:
        if not re.fullmatch(CREDENTIAL_NAME, credential):
            raise ValueError(f"no name of a credential: {credential!r}; use a-z, 0-9, _, . and -, at most 64")
        super().__init__(f"The credential {credential!r} is missing, or does not work.")
        self.credential = credential


async def _no_credential(name: str) -> str:
    raise ToolError(f"The credential {name!r} cannot be had: none are handed out here.")


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
        credential: gives what the call may sign in with for its user, by name. Where there is none the call waits until
            the person has given it, and then begins anew: ask for it before you change anything. If the service refuses
            it, raise `NotConnectedError(name)`, and the person is asked again. It is taken out of what the tool says.
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
    credential: Callable[[str], Awaitable[str]] = _no_credential
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
