"""Images reach models that see."""

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from activities.images import images_for
from longhaul.files.store import FileStore
from longhaul.settings import load_settings

CONTENT = {"one": b"1", "two": b"2"}


def message(*ids: str) -> Any:
    files = [{"id": id_, "name": id_, "media_type": "image/png", "size": 3, "path": id_} for id_ in ids]
    return SimpleNamespace(role="user", context={"files": files})


async def test_a_model_that_sees_is_given_what_can_be_read(tmp_path: Path) -> None:
    settings = load_settings(workspaces=str(tmp_path), models='{"provider/sees-well": {"vision": true}}')
    store = FileStore(settings)
    for id_, data in CONTENT.items():
        await store.put(id_, data)
    rows = [message("one", "deleted"), message("two"), SimpleNamespace(role="user", context=None)]
    images = await images_for(settings, store, "provider/sees-well", rows)
    assert images == {id_: f"data:image/png;base64,{base64.b64encode(data).decode()}" for id_, data in CONTENT.items()}
    assert await images_for(settings, store, "blind", rows) == {}
