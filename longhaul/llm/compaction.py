"""When a conversation is summarised, which part of it, and the request that asks for the summary."""

from collections.abc import Iterator, Sequence
from typing import Any

from longhaul.llm import prompts
from longhaul.llm.fit import NEWEST_KEPT, Message, fit
from longhaul.llm.models import model_info
from longhaul.llm.request import Request, block, openai_messages, request_body
from longhaul.llm.tokens import tokens_of_message, tokens_of_text
from longhaul.settings import Settings

#: Rows that a model call reads at most without a compaction, whatever they hold: reading them takes time, too.
ROWS = 400
#: Share of the window that the rows behind a summary may take.
KEPT_SHARE = 0.25
#: A summary of fewer rows is not worth a call.
SUMMARISED_MIN = 4
#: Share of the window for a summary, as words, of which one is about 1.5 tokens.
WORDS_PER_TOKEN, WORDS_MAX = 0.04, 1_000


def compaction_due(window: int, share: float, rows: int, tokens: int) -> bool:
    """Whether a conversation of so many rows and tokens, as the endpoint counts them, is to be summarised.

    `share`: of the model's window that it may fill.
    """
    return rows > ROWS or tokens > window * share


def kept_from(window: int, token_scale: float | None, rows: Sequence[Any]) -> int:
    """The place in `rows` from which on they are kept word for word; those before it are summarised.

    The newest rows are kept, as far as they take a quarter of the window, and the newest answer with all that follows:
    the model has not seen those results yet. No call is separated from its results. 0: too few rows are left to
    summarise.
    """
    room = window * KEPT_SHARE / (token_scale or 1.0)
    place = len(rows)
    while place > 0 and len(rows) - place < NEWEST_KEPT:
        room -= tokens_of_text(rows[place - 1].content) + tokens_of_text(str(rows[place - 1].tool_calls or ""))
        if room < 0:
            break
        place -= 1
    answers = [number for number, row in enumerate(rows) if row.role == "assistant"]
    place = min(place, answers[-1] if answers else 0)
    while place > 0 and rows[place].role == "tool":
        place -= 1
    return place if place >= SUMMARISED_MIN else 0


def summary_request(
    settings: Settings, *, model: str, earlier: str | None, rows: Sequence[Any], max_tokens: float
) -> Request:
    """The request for a summary of `rows` and of the summary before them, in at most `max_tokens` estimated tokens."""
    info = model_info(settings, model)
    words = min(WORDS_MAX, round(info.window * WORDS_PER_TOKEN))
    system = {"role": "system", "content": prompts.SUMMARY.format(words=words)}
    before = block("conversation_summary", earlier or "").lstrip()
    said = [{"role": "user", "content": before}] if before else []
    said += openai_messages(rows, tool_result_max=settings.tool_result_max_chars)
    whole = [system, *said]
    # The transcript has a label for each message, which takes about as much as the framing of a message.
    fitted = fit(whole, max_tokens)
    transcript = {"role": "user", "content": "\n\n".join(_lines(fitted.messages[1:]))}
    messages = [system, transcript]
    body = request_body(settings, model=model, effort="none", messages=messages, tools=[])
    tokens = round(sum(map(tokens_of_message, messages)))
    return Request(body, tokens, shortened=fitted.messages is not whole, model=info)


def _lines(messages: Sequence[Message]) -> Iterator[str]:
    """Messages as a transcript. It is text, because endpoints refuse calls of tools that are not offered."""
    for message in messages:
        if message.get("content"):
            yield f"[{message['role']}] {message['content']}"
        for call in message.get("tool_calls") or ():
            yield f"[call of {call['function']['name']}] {call['function']['arguments']}"
