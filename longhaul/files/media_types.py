"""What a file is, by its content. What its sender says about it is not believed."""

import mimetypes
from pathlib import PurePosixPath

import puremagic

#: Enough of a file for its type.
HEAD_BYTES = 8_192
UNKNOWN = "application/octet-stream"
#: The images that browsers show and models take.
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
#: Longer than this, a file's name is cut.
NAME_MAX_BYTES = 200
#: The library's confidence in a signature that a text hardly begins with by chance.
CERTAIN = 0.4
_TEXTS = ("text/", "application/json", "application/xml", "application/javascript", "application/x-", "image/svg")


def media_type(head: bytes, name: str) -> str:
    """The type of a file that begins with `head`. Its name decides only between types that its content allows."""
    found = _by_signature(head, name)
    if found and found[1] >= CERTAIN and not found[0].startswith(_TEXTS):
        return found[0]
    if _is_text(head):
        guessed, encoding = mimetypes.guess_type(name, strict=False)
        return guessed if guessed and not encoding and guessed.startswith(_TEXTS) else "text/plain"
    return found[0] if found and not found[0].startswith(_TEXTS) else UNKNOWN


def _by_signature(head: bytes, name: str) -> tuple[str, float] | None:
    """The type that a file's first bytes stand for, and how certain that is."""
    try:
        matches = [match for match in puremagic.magic_string(head) if match.mime_type]
    except (puremagic.PureError, ValueError):  # none is known; the file is empty
        return None
    if not matches:
        return None
    suffix = PurePosixPath(name).suffix.lower()
    best = [match for match in matches if match.confidence == matches[0].confidence]
    match = next((one for one in best if one.extension == suffix), best[0])
    return match.mime_type, float(match.confidence)


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and len(head) >= HEAD_BYTES  # the last character is cut
    return True


def file_name(sent: str | None) -> str:
    """A name that is safe to show, to store and to use in a folder: without folders, control characters and length."""
    name = (sent or "").replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(letter for letter in name if letter.isprintable()).strip().lstrip(".")
    while len(name.encode("utf-8", "replace")) > NAME_MAX_BYTES:
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem[:-1]}{dot}{suffix}" if stem and len(suffix) < 20 else name[:-1]
    return name.encode("utf-8", "replace").decode() or "file"
