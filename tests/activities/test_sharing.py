"""The tool `share_file`: a file of the workspace is kept for the person, once for each call."""

from pathlib import Path

import orjson
import pytest

from activities.sharing import FileSharing
from longhaul.contracts import RunTool, Scope
from longhaul.db import files
from longhaul.db.database import Database
from longhaul.errors import NotFoundError
from longhaul.files.store import FileStore
from longhaul.settings import Settings
from longhaul.streams.events import shared_file_part
from longhaul.tools.context import ToolError
from tests.activities.conftest import SETTINGS, TURN

CALL = RunTool(
    turn=TURN, round=1, message_id="row", tool_call_id="c", name="share_file", scope=Scope(root_session_id="root")
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    limits = {"file_max_bytes": 100, "user_files_max_bytes": 150}
    settings = SETTINGS.model_copy(update={"workspaces": str(tmp_path / "workspaces"), **limits})
    settings.workspace_of("root").mkdir(parents=True)
    return settings


async def test_a_file_is_kept_as_it_was(database: Database, settings: Settings) -> None:
    store = FileStore(settings)
    sharing = FileSharing(database, store, settings)
    place = settings.workspace_of("root") / "report.csv"
    place.write_text("a,b")
    shared = await sharing.share(CALL, "report.csv")
    assert (shared.name, shared.media_type, shared.size) == ("report.csv", "text/csv", 3)
    place.write_text("changed later")
    assert await store.read(shared.file_id) == b"a,b"
    async with database.read() as connection:
        known = await files.get(connection, TURN.user_id, shared.file_id)
    assert known.session_id == TURN.session_id
    part = shared_file_part(shared.model_dump_json())
    assert part == {"type": "file", "mediaType": "text/csv", "url": f"/v1/files/{shared.file_id}/content"}


async def test_a_call_that_runs_again_keeps_it_once(database: Database, settings: Settings) -> None:
    sharing = FileSharing(database, FileStore(settings), settings)
    (settings.workspace_of("root") / "f").write_text("x")
    assert await sharing.share(CALL, "f") == await sharing.share(CALL, "f")
    async with database.write() as connection:
        assert len(await files.list_of_user(connection, TURN.user_id, 10)) == 1
        assert len(await files.remove_of_sessions(connection, [TURN.session_id])) == 1
        assert await files.list_of_user(connection, TURN.user_id, 10) == []


async def test_what_cannot_be_shown(database: Database, settings: Settings) -> None:
    store = FileStore(settings)
    sharing = FileSharing(database, store, settings)
    workspace = settings.workspace_of("root")
    (workspace / "large").write_bytes(b"x" * 101)
    (workspace / "half").write_bytes(b"x" * 80)
    (workspace / "link").symlink_to("/etc/passwd")
    for path, why in (
        ("../../secret", "leads out of the workspace"),
        ("link", "leads out of the workspace"),
        ("missing", "No such file"),
        ("large", "larger than 100 bytes"),
    ):
        with pytest.raises(ToolError, match=why):
            await sharing.share(CALL, path)
    await sharing.share(CALL, "half")
    again = CALL.model_copy(update={"tool_call_id": "c2"})
    with pytest.raises(ToolError, match="Your files take 80 bytes and this one 80"):
        await sharing.share(again, "half")
    async with database.read() as connection:
        [kept] = await files.list_of_user(connection, TURN.user_id, 10)
    assert await store.read(kept.id) == b"x" * 80
    with pytest.raises(NotFoundError):
        await files_of_other(database, kept.id)


async def files_of_other(database: Database, file_id: str) -> None:
    async with database.read() as connection:
        await files.get(connection, "somebody else", file_id)


@pytest.mark.parametrize("output", ["{", "[]", "plain", orjson.dumps({"file_id": 7}).decode()])
def test_outputs_that_show_nothing(output: str) -> None:
    assert shared_file_part(output) is None
