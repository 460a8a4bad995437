"""Loads the images that a model is shown."""

import asyncio
import base64
import logging
from collections.abc import Sequence
from typing import Any

from longhaul.errors import NotFoundError, UnavailableError
from longhaul.files.store import FileStore
from longhaul.llm.images import images_of, sees
from longhaul.settings import Settings

log = logging.getLogger(__name__)


async def images_for(settings: Settings, files: FileStore, model: str, rows: Sequence[Any]) -> dict[str, str]:
    """The images of a conversation as data URLs, by the id of their file; none for a model that takes no images.

    An image that cannot be read now is left out: the model is told its name in any case.
    """
    images: dict[str, str] = {}
    for file in images_of(rows) if sees(settings, model) else ():
        try:
            data = await files.read(file["id"])
        except (NotFoundError, UnavailableError) as error:
            log.warning("the model is not shown file %s: %s", file["id"], error)
            continue
        encoded = await asyncio.to_thread(base64.b64encode, data)
        images[file["id"]] = f"data:{file['media_type']};base64,{encoded.decode()}"
    return images
