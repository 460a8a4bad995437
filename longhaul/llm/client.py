"""Streaming Chat Completions through the `openai` client.

The client sends the request and raises its errors. The answer's lines are decoded here, because building the client's
typed models costs 30 ms of CPU per 200 chunks, and the worker's CPU limits turns per second.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2
import orjson
from openai import APIStatusError, AsyncAPIResponse, AsyncOpenAI

from longhaul.errors import StreamBrokenError
from longhaul.llm.failures import context_refusal
from longhaul.settings import Settings

log = logging.getLogger(__name__)
# Not compressed, so that the bytes of the stream need no decoder.
HEADERS = {
    "X-Stainless-Raw-Response": "stream",
    "content-type": "application/json",
    "accept": "text/event-stream",
    "accept-encoding": "identity",
}
CALL_HEADER = "x-longhaul-call"
LINE_MAX = 32 * 1024 * 1024
LAST_BYTES_S = 0.05
# The idle time-out is moved once this share of it has passed: moving it with every chunk costs more than decoding one.
IDLE_PRECISION = 0.02


class ModelClient:
    """The model endpoint of the settings. Temporal retries, so the client does not."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = AsyncOpenAI(
            api_key=settings.openai_api_key.get_secret_value() or "none",
            base_url=settings.openai_base_url or None,
            max_retries=0,
            timeout=httpx2.Timeout(settings.model_idle_timeout, connect=settings.model_connect_timeout),
            http_client=httpx2.AsyncClient(
                limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=200),
                timeout=httpx2.Timeout(settings.model_idle_timeout, connect=settings.model_connect_timeout),
            ),
        )

    async def stream(self, body: dict[str, Any], *, call_key: str = "") -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer.

        Raises:
            openai.OpenAIError: the endpoint refused or cannot be reached.
            ContextTooLongError: the endpoint refused because the request is longer than the model's window.
            StreamBrokenError: the stream ended early, was silent for `model_idle_timeout` seconds, or is not JSON.
        """
        idle = self._settings.model_idle_timeout
        loop = asyncio.get_running_loop()
        response: AsyncAPIResponse[Any] | None = None
        try:
            async with asyncio.timeout(idle) as idle_limit:
                response = await self._client.post(
                    "/chat/completions",
                    cast_to=AsyncAPIResponse[Any],
                    content=orjson.dumps({**body, "stream": True}),
                    options={"headers": {**HEADERS, CALL_HEADER: call_key}},
                )
                extended = loop.time()
                lines = _data_lines(response)
                async for line in lines:
                    if line == b"[DONE]":
                        await _drain(lines)
                        return
                    try:
                        chunk = orjson.loads(line)
                    except orjson.JSONDecodeError as error:
                        raise StreamBrokenError("The model sent a chunk that is not JSON.") from error
                    if isinstance(chunk, dict):
                        _raise_error_in(chunk)
                        yield chunk
                        if loop.time() > extended + idle * IDLE_PRECISION:
                            extended = loop.time()
                            idle_limit.reschedule(extended + idle)
        except APIStatusError as error:
            if refusal := context_refusal(error.body, error.status_code):
                raise refusal from error
            raise
        except TimeoutError as error:
            raise StreamBrokenError(f"The model sent nothing for {idle:g} s.") from error
        except httpx2.HTTPError as error:
            raise StreamBrokenError(f"The model's stream broke off: {type(error).__name__}.") from error
        finally:
            if response is not None:
                await response.close()

    async def close(self) -> None:
        await self._client.close()


async def _data_lines(response: "AsyncAPIResponse[Any]") -> AsyncIterator[bytes]:
    held = b""
    async for received in response.http_response.aiter_bytes():
        *lines, held = (held + received).split(b"\n")
        if len(held) > LINE_MAX:
            raise StreamBrokenError("The model sent a chunk of over 32 MB.")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    if held.startswith(b"data:"):
        yield held[5:].strip()


async def _drain(lines: AsyncIterator[bytes]) -> None:
    """Read the end of the response, which follows the last line: only then is the connection reused."""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(LAST_BYTES_S):
            async for _ in lines:
                pass


def _raise_error_in(chunk: dict[str, Any]) -> None:
    """Some endpoints report a fault, or refuse the request, in the stream: as a chunk with an `error`."""
    if error := chunk.get("error"):
        if refusal := context_refusal(error):
            raise refusal
        raise StreamBrokenError("The model endpoint reported a fault in the middle of its answer.")
