"""What a server answers, as a text for the model. Images and other files go into the session's workspace."""

import asyncio
import base64
import binascii
import mimetypes
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import orjson
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ReadResourceResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from longhaul.files.media_types import HEAD_BYTES, file_name, media_type
from longhaul.files.workspace import Workspace, WorkspaceError
from longhaul.tools.context import ToolContext

NOTHING = "The tool gave no output."
URI_MAX_CHARS = 2_000


async def text_of_result(server: str, result: CallToolResult, context: ToolContext) -> str:
    """The content of a result; without one, its structured value."""
    parts = [await _part(server, block, number, context) for number, block in enumerate(result.content, 1)]
    if not parts and result.structured_content is not None:
        parts = [orjson.dumps(result.structured_content).decode()]
    return "\n\n".join(parts) or NOTHING


async def text_of_resource(server: str, result: ReadResourceResult, context: ToolContext) -> str:
    """The contents of a resource."""
    parts = [await _resource(server, one, number, context) for number, one in enumerate(result.contents, 1)]
    return "\n\n".join(parts) or NOTHING


async def _part(server: str, block: ContentBlock, number: int, context: ToolContext) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return await _kept(server, block.data, block.mime_type, "", number, context)
        case EmbeddedResource():
            return await _resource(server, block.resource, number, context)
        case ResourceLink():
            about = " ".join(filter(None, (block.title or block.name, block.mime_type, block.description)))
            return f"[resource {block.uri[:URI_MAX_CHARS]}: {about}]"


async def _resource(
    server: str, contents: TextResourceContents | BlobResourceContents, number: int, context: ToolContext
) -> str:
    uri = contents.uri[:URI_MAX_CHARS]
    if isinstance(contents, TextResourceContents):
        return f"[resource {uri}]\n{contents.text}"
    kept = await _kept(server, contents.blob, contents.mime_type or "", urlsplit(uri).path, number, context)
    return f"[resource {uri}] {kept}"


async def _kept(server: str, encoded: str, said_type: str, path: str, number: int, context: ToolContext) -> str:
    """Put a file into the workspace, under a name that is the same if the call runs again; says where it is."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return f"[{said_type or 'a file'} that cannot be read: it is not base64]"
    name = file_name(PurePosixPath(path).name) if path else ""
    if not name:
        kind = media_type(data[:HEAD_BYTES], "")
        name = f"{number}{mimetypes.guess_extension(kind) or ''}"
    found = media_type(data[:HEAD_BYTES], name)
    place = f"mcp/{server}/{file_name(context.tool_call_id)}/{name}"
    workspace = Workspace(context.workspace, context.workspace_max_bytes)
    try:
        await asyncio.to_thread(workspace.write, place, data)
    except WorkspaceError as error:
        return f"[{found}, {len(data)} bytes, was not kept: {error}]"
    return f"[{found}, {len(data)} bytes: the file {place} of the workspace. share_file shows it to the person.]"
