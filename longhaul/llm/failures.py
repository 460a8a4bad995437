"""Classifies a failed model call: whether and when to retry it, and the text that people read."""

import math
import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import orjson
from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

from longhaul.errors import ContextTooLongError, StreamBrokenError
from longhaul.settings import Settings

UNAUTHORIZED = 401
RETRIED_STATUSES = frozenset({408, 409, 429})
DETAIL_MAX = 300
#: Too large for an endpoint, in its codes and words: OpenAI, Anthropic, OpenRouter, vLLM, llama.cpp, Bedrock, Gemini.
TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size_error|string_above_max_length|request_too_large"
    r"|maximum context length|exceeds? (?:the|your) (?:model'?s? )?(?:available )?context (?:size|window|length|limit)"
    r"|exceeds? (?:the )?context (?:window|limit|length)|prompt is too long|input is too long"
    r"|longer than the maximum model length|is too long and exceeds|exceeds the maximum number of tokens"
    r"|reduce the length of (?:the |your )?(?:messages|prompt|input)|max_tokens must be at least 1, got -",
    re.IGNORECASE,
)
_NUMBER = r"(\d[\d,]*)"
_WINDOW = re.compile(
    rf"maximum context length (?:is|of) {_NUMBER}|> {_NUMBER}|limit of {_NUMBER}|maximum model length of {_NUMBER}"
    rf"|tokens allowed \({_NUMBER}\)|\"n_ctx\":\s*{_NUMBER}",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    rf"requested (?:about )?{_NUMBER} tokens|resulted in {_NUMBER} tokens|too long: {_NUMBER} tokens"
    rf"|(?:has|least) {_NUMBER} input tokens|prompt \({_NUMBER} tokens\)|prompt \(length {_NUMBER}\)"
    rf"|context limit: {_NUMBER}|token count \({_NUMBER}\)|\"n_prompt_tokens\":\s*{_NUMBER}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ModelFailure:
    """A failed attempt. `text` is for people; `detail`, the provider's own words, is for the log only.

    `retry_after`: seconds that the endpoint asked for. `billed`: the endpoint may have begun to answer.
    `of_endpoint`: every model would fail like this, because key or client are refused and not the request, or because
    no time is left.
    """

    retryable: bool
    text: str
    detail: str = ""
    retry_after: float | None = None
    billed: bool = False
    of_endpoint: bool = False


def context_refusal(error: Any, status: int = 400) -> ContextTooLongError | None:
    """What an endpoint's error says about the model's window; None for every other error.

    Args:
        error: the decoded body of the response, or the `error` of a chunk: some endpoints refuse in the stream.
        status: of the response. 429 speaks of a rate, also when it says that there are too many tokens.
    """
    text = error if isinstance(error, str) else orjson.dumps(error, default=str).decode()
    if status == 429 or not (status == 413 or TOO_LONG.search(text)):
        return None
    return ContextTooLongError(window=_number(_WINDOW, text), counted=_number(_COUNTED, text))


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(next(filter(None, found.groups())).replace(",", "")) if found else None


def classify(error: OpenAIError | StreamBrokenError | ContextTooLongError) -> ModelFailure:
    """Classify an exception of a model call."""
    if isinstance(error, ContextTooLongError):
        return ModelFailure(retryable=False, text=str(error))
    if isinstance(error, APITimeoutError):
        connected = not isinstance(error.__cause__, httpx2.ConnectTimeout)
        return ModelFailure(retryable=True, text="The model did not answer in time.", billed=connected)
    if isinstance(error, StreamBrokenError):
        return ModelFailure(retryable=True, text=str(error), billed=True)
    if isinstance(error, APIConnectionError):
        return ModelFailure(retryable=True, text="The model endpoint cannot be reached.")
    if isinstance(error, APIStatusError):
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        status = error.status_code
        retry = headers.get("x-should-retry", "")
        retryable = status in RETRIED_STATUSES or status >= 500 if retry not in ("true", "false") else retry == "true"
        return ModelFailure(
            retryable,
            f"The model endpoint answered with status {status}.",
            _detail(error),
            _retry_after(headers, datetime.now(UTC)),
            of_endpoint=status == UNAUTHORIZED,
        )
    return ModelFailure(
        retryable=False, text="The model client refused the call.", detail=repr(error), of_endpoint=True
    )


def took_too_long(settings: Settings) -> ModelFailure:
    """A call that has taken all the time that it may. Another attempt would take as long, and be paid again."""
    text = f"The model's answer took longer than {settings.model_max_seconds:g} seconds (LONGHAUL_MODEL_MAX_SECONDS)."
    return ModelFailure(retryable=False, text=text, billed=True, of_endpoint=True)


def _detail(error: APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return (str(message) if message else error.response.reason_phrase or "no reason given")[:DETAIL_MAX]


def _retry_after(headers: dict[str, str], now: datetime) -> float | None:
    """Seconds from `retry-after-ms`, or from `retry-after` as seconds or HTTP date; None if neither is valid."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            seconds = _seconds_until(value, now) if name == "retry-after" else math.nan
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _seconds_until(http_date: str, now: datetime) -> float:
    try:
        at = parsedate_to_datetime(http_date)
    except ValueError:
        return math.nan
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def retry_delay(
    settings: Settings, failure: ModelFailure, failures: int, failing_for: float, patience_s: float
) -> float | None:
    """Seconds until the next attempt with the same model, or None when its retries are used up.

    Args:
        patience_s: for how long it is retried.
        failures: how many attempts have failed, this one included.
        failing_for: seconds since the first of them failed.
    """
    delay = backoff(settings, failures, failure.retry_after)
    return delay if failure.retryable and failing_for + delay <= patience_s else None


def backoff(settings: Settings, failures: int, retry_after: float | None) -> float:
    """Seconds before the next attempt after `failures` failed ones, never more than `model_backoff_max`."""
    if retry_after is not None:
        return min(retry_after, settings.model_backoff_max)
    try:
        grown = settings.model_backoff_base * settings.model_backoff_factor ** (failures - 1)
    except OverflowError:
        grown = math.inf
    jittered = min(grown, settings.model_backoff_max) * random.uniform(0.75, 1.25)  # noqa: S311  # not a secret
    return min(jittered, settings.model_backoff_max)
