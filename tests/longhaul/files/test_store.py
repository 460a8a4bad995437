"""The store of files: a folder here; a bucket is the same library with another address."""

from pathlib import Path

import pytest

from longhaul.errors import NotFoundError, UnavailableError
from longhaul.files.store import FileStore
from longhaul.settings import SettingsError, load_settings


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(load_settings(workspaces=str(tmp_path)))


async def test_what_is_put_is_read_until_it_is_removed(store: FileStore) -> None:
    data = bytes(range(256)) * 4_000
    await store.put("abc", data)
    assert await store.read("abc") == data
    assert b"".join([chunk async for chunk in store.chunks("abc")]) == data
    await store.remove("abc")
    await store.remove("abc")
    with pytest.raises(NotFoundError):
        await store.read("abc")
    with pytest.raises(NotFoundError):
        await anext(store.chunks("abc"))


@pytest.mark.parametrize("file_id", ["../x", "..", "a/../../../x"])
async def test_no_id_leads_out_of_the_store(store: FileStore, file_id: str) -> None:
    with pytest.raises(ValueError, match="Could not parse path"):
        await store.put(file_id, b"x")


async def test_a_store_that_cannot_be_used_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FileStore(load_settings(workspaces=str(tmp_path / "file")))
    with pytest.raises(UnavailableError):
        await store.put("abc", b"x")


def test_a_wrong_address_is_one_line() -> None:
    with pytest.raises(SettingsError, match="LONGHAUL_FILES_URL='nope://x' is not allowed") as raised:
        FileStore(load_settings(files_url="nope://x"))
    assert "\n" not in str(raised.value)
