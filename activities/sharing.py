"""Keeps a file of a workspace as it is now, for the person."""

import asyncio

from longhaul.contracts import RunTool
from longhaul.db import files
from longhaul.db.database import Database
from longhaul.db.files import NewFile
from longhaul.db.messages import row_id
from longhaul.errors import FilesFullError, UnavailableError
from longhaul.files.media_types import HEAD_BYTES, file_name, media_type
from longhaul.files.store import FileStore
from longhaul.files.workspace import Workspace, WorkspaceError
from longhaul.settings import Settings
from longhaul.tools.context import SharedFile, ToolError


class FileSharing:
    """Copies files of workspaces into the store of files."""

    def __init__(self, database: Database, files: FileStore, settings: Settings) -> None:
        self._database = database
        self._files = files
        self._settings = settings

    async def share(self, call: RunTool, path: str) -> SharedFile:
        """Keep a file. Its id follows from the call and the path, so a call that runs again keeps it once.

        Raises:
            ToolError: there is no such file, it is too large, or the files of its user are.
        """
        turn, settings = call.turn, self._settings
        root = settings.workspace_of(call.scope.root_session_id or turn.session_id)
        file_id = row_id("shared", turn.turn_id, call.round, call.tool_call_id, path)
        try:
            data = await asyncio.to_thread(Workspace(root).read, path, settings.file_max_bytes)
            name = file_name(path)
            new = NewFile(file_id, turn.user_id, name, media_type(data[:HEAD_BYTES], name), len(data), turn.session_id)
            await self._files.put(file_id, data)
            async with self._database.write() as connection:
                kept = await files.add(connection, new, settings.user_files_max_bytes)
        except FilesFullError as error:
            await self._files.remove(file_id)
            raise ToolError(f"{path!r} cannot be shown: {error}") from error
        except (WorkspaceError, UnavailableError) as error:
            raise ToolError(f"{path!r} cannot be shown: {error}") from error
        return SharedFile(file_id=kept.id, name=kept.name, media_type=kept.media_type, size=kept.size)
