"""Which images of a conversation a model is shown: those of people's messages, the newest first."""

from collections.abc import Sequence
from typing import Any

from longhaul.files.media_types import IMAGES
from longhaul.llm.models import model_info
from longhaul.settings import Settings

#: Providers refuse larger images, and more of them.
IMAGES_MAX = 10
IMAGE_MAX_BYTES = 5_000_000
REQUEST_MAX_BYTES = 15_000_000


def sees(settings: Settings, model: str) -> bool:
    """Whether a model takes images."""
    return model_info(settings, model).vision


def images_of(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """The images to show, as the context of their rows has them, newest first."""
    shown: list[dict[str, Any]] = []
    room = REQUEST_MAX_BYTES
    for row in reversed(rows):
        for file in reversed(files_of(row)):
            fits = file["media_type"] in IMAGES and file["size"] <= min(IMAGE_MAX_BYTES, room)
            if fits and len(shown) < IMAGES_MAX:
                shown.append(file)
                room -= file["size"]
    return shown


def files_of(row: Any) -> list[dict[str, Any]]:
    """The files that a person's message came with."""
    return (row.context or {}).get("files") or [] if row.role == "user" else []
