"""The readable text of a fetched document, extracted by a process that is ended with the call."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from longhaul.web.fetch import Document, WebError

EXTRACTOR = Path(__file__).with_name("extract.py")
EXTRACT_S = 40.0


class Page(NamedTuple):
    """What a person would read."""

    title: str
    text: str


async def read(document: Document) -> Page:
    """Title and text of a document.

    Raises:
        WebError: it has none that can be read.
    """
    about = {"media_type": document.media_type, "charset": document.charset, "url": document.url}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",  # neither the current folder nor variables decide what it imports
        str(EXTRACTOR),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(EXTRACT_S):
            output, _ = await process.communicate(orjson.dumps(about) + b"\n" + document.body)
    except TimeoutError as error:
        raise WebError(f"Reading {document.url} takes too long.") from error
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        raise WebError(f"The document at {document.url} takes more time or memory to read than it may.")
    found = orjson.loads(output)
    if error_text := found.get("error"):
        raise WebError(f"{document.url} cannot be read: {error_text}")
    return Page(found.get("title", ""), found["text"])
