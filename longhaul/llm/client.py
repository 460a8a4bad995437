"""Streaming answers of Chat Completions, or of the Responses API in the same form, through the `openai` client.

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
from openai import APIStatusError, AsyncAPIResponse, AsyncOpenAI, NotFoundError
from openai._types import RequestOptions

from longhaul.contracts import Usage
from longhaul.errors import StreamBrokenError
from longhaul.llm.bills import usage_of_record
from longhaul.llm.failures import context_refusal
from longhaul.llm.responses import (
    ITEMS,
    NO_ROUTE,
    ResponseEvents,
    refused_option,
    responses_body,
    wants_responses,
    without_encrypted,
)
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
    """The model endpoint of the settings. Temporal retries, so the client does not.

    It remembers which models answer the Responses API only, and what their requests had to leave out.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._speaks_responses: set[str] = set()
        self._left_out: dict[str, list[str]] = {}
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
                response, events = await self._ask(body, call_key)
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
                    if not isinstance(chunk, dict):
                        continue
                    if events is not None:
                        chunk = events.chunk(chunk)
                    if chunk is not None:
                        _raise_error_in(chunk)
                        yield chunk
                    if events is not None and events.ended:
                        await _drain(lines)
                        return
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

    async def _ask(self, body: dict[str, Any], call_key: str) -> "tuple[AsyncAPIResponse[Any], ResponseEvents | None]":
        """The response of the API that the model speaks, and what translates its events.

        With `LONGHAUL_MODEL_API=auto`, Chat Completions are asked first. A model whose endpoint sends that request to
        the Responses API is asked there from then on.
        """
        model, api = body["model"], self._settings.model_api
        if api == "responses" or model in self._speaks_responses:
            return await self._ask_responses(body, call_key), ResponseEvents()
        try:
            sent = {**body, "messages": without_encrypted(body["messages"]), "stream": True}
            return await self._post("/chat/completions", sent, call_key), None
        except APIStatusError as refusal:
            if api == "chat" or not wants_responses(refusal):
                raise
            try:
                response = await self._ask_responses(body, call_key)
            except APIStatusError as error:
                if error.status_code in NO_ROUTE:
                    raise refusal from None
                raise
        log.info("%s is asked by the Responses API from now on", model)
        self._speaks_responses.add(model)
        return response, ResponseEvents()

    async def _ask_responses(self, body: dict[str, Any], call_key: str) -> "AsyncAPIResponse[Any]":
        left_out = self._left_out.setdefault(body["model"], [])
        now = [*left_out]
        while True:
            try:
                return await self._post("/responses", responses_body(body, now), call_key)
            except APIStatusError as error:
                option = refused_option(error)
                if option is None or option in now:
                    raise
                log.warning("the endpoint refuses %s of a request to %s; it is sent without", option, body["model"])
                now.append(option)
                if option != ITEMS:  # those of another turn may be taken
                    left_out.append(option)

    async def _post(self, path: str, body: dict[str, Any], call_key: str) -> "AsyncAPIResponse[Any]":
        return await self._client.post(
            path,
            cast_to=AsyncAPIResponse[Any],
            content=orjson.dumps(body),
            options={"headers": {**HEADERS, CALL_HEADER: call_key}},
        )

    async def bill(self, response_id: str) -> Usage | None:
        """What a call has used, by the endpoint's record of it; None: there is none (yet).

        Raises:
            openai.OpenAIError: the endpoint refused or cannot be reached.
        """
        try:
            options: RequestOptions = {"params": {"id": response_id}}
            record = await self._client.get("/generation", cast_to=object, options=options)
        except NotFoundError:
            return None
        return usage_of_record(record)

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
