"""Estimates how many tokens a request takes, before the endpoint has counted them.

No tokenizer is used: tiktoken downloads its tables at run time, and the one wheel that bundles them (bpe-openai,
41 MB) has had no release for a year and knows OpenAI's models only. Characters are counted by class instead, at 10 ms
for a megabyte. The weights were measured in 2026-11 against OpenAI's cl100k and o200k: the estimate of languages,
source code, JSON, base64 and hexadecimal text is 0.65 to 1.6 times the larger count of the two. A session's estimate is
then scaled by what the endpoint counted in its last call (`scale_from`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from longhaul.llm.responses import ENCRYPTED

_UPPER = bytes(range(65, 91))
_LOWER = bytes(range(97, 123))
_DIGITS = b"0123456789"
_SPACE = b" \t\r\n"
_PUNCTUATION = bytes(byte for byte in range(128) if byte not in _UPPER + _LOWER + _DIGITS + _SPACE)
# First bytes of characters that take two bytes in UTF-8 (Cyrillic, Arabic, accents), three (Chinese, Hindi), or four.
_OF_TWO, _OF_THREE, _OF_FOUR = bytes(range(0xC2, 0xE0)), bytes(range(0xE0, 0xF0)), bytes(range(0xF0, 0xF5))
#: Tokens that the framing of a message takes beside its texts.
PER_MESSAGE = 4
#: What providers count for a photograph: OpenAI 765 to 1,105, Anthropic up to 1,600.
PER_IMAGE = 1_600
#: Tokens of a character of encrypted reasoning: base64 of more bytes than its text has.
PER_ENCRYPTED = 0.2
#: A calibration outside of these is an endpoint's odd count, not a tokenizer.
SCALE_MIN, SCALE_MAX = 0.25, 8.0
CALIBRATED_FROM = 200


def tokens_of_text(text: str) -> float:
    """The estimated tokens of a text."""
    encoded = text.encode("utf-8", "replace")

    def count(of_class: bytes) -> int:
        return len(encoded) - len(encoded.translate(None, of_class))

    lower, upper, digits, spaces = count(_LOWER), count(_UPPER), count(_DIGITS), count(_SPACE)
    punctuation = count(_PUNCTUATION)
    tokens = 0.2 * lower + 0.5 * upper + 0.6 * digits + 0.09 * spaces + 0.65 * punctuation
    # Spaces and signs break words. Where they are rare there is no language but base64, keys or minified code.
    tokens += 0.42 * max(0, lower + upper - 9 * (spaces + punctuation))
    if not text.isascii():
        tokens += 0.45 * count(_OF_TWO) + 1.1 * count(_OF_THREE) + 2.7 * count(_OF_FOUR)
    return tokens


def tokens_of_message(message: dict[str, Any]) -> float:
    """The estimated tokens of one message in the OpenAI shape."""
    encrypted = sum(len(one.item["encrypted_content"]) for one in message.get(ENCRYPTED, ()))
    return (
        PER_ENCRYPTED * encrypted
        + PER_MESSAGE
        + PER_IMAGE * _images_in(message)
        + sum(map(tokens_of_text, _texts_of(message)))
    )


def _images_in(message: dict[str, Any]) -> int:
    content = message.get("content")
    parts = [part for part in content if part.get("type") == "image_url"] if isinstance(content, list) else []
    return len(message.get("images") or parts)


def _texts_of(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        yield str(part.get("text") or "")
    for call in message.get("tool_calls") or ():
        yield call["id"]
        yield call["function"]["name"]
        yield call["function"]["arguments"]
    if message.get("tool_call_id"):
        yield message["tool_call_id"]


def tokens_of_tools(tools: Sequence[dict[str, Any]]) -> float:
    """The estimated tokens of tool schemas in the OpenAI shape."""
    return tokens_of_text(orjson.dumps(tools).decode()) if tools else 0.0


def tokens_of_request(body: dict[str, Any]) -> int:
    """The estimated tokens of a request's prompt: its messages and tools."""
    messages = sum(map(tokens_of_message, body["messages"]))
    return round(messages + tokens_of_tools(body.get("tools") or ()))


def scale_from(estimated: int, counted: int) -> float | None:
    """By what a session's next estimate is multiplied, given what the endpoint counted; None: no safe conclusion."""
    if estimated < CALIBRATED_FROM or counted <= 0:
        return None
    return min(max(counted / estimated, SCALE_MIN), SCALE_MAX)
