"""Reading a Chat Completions request, as strictly as OpenAI does: a broken history must show in tests."""

import re
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from offline_model.script import Fault

#: A model of a name like `offline-status-503` answers each request with that status.
_STATUS = re.compile(r"\bstatus-([45]\d\d)\b")
#: A model of such a name answers the Responses API only.
RESPONSES_ONLY = "responses-only"
#: A model of a name like `offline-window-16000` refuses requests of more tokens than that.
_WINDOW = re.compile(r"\bwindow-(\d{1,9})\b")
# Roughly what OpenAI's tokenizers do before they look into their tables. What uses this server must not know it: a real
# tokenizer is not known either.
_TOKENS = re.compile(r"[A-Z]?[a-z]{1,5}|[A-Z]{1,2}|\d{1,3}|\s+(?=\s)|[^\w\s]|[^\x00-\x7f]")


class _Function(BaseModel):
    name: str = Field(min_length=1)
    arguments: str = ""


class _Tool(BaseModel):
    """A tool that is offered, or a call of one."""

    id: str = ""
    function: _Function


class Message(BaseModel):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[_Tool] | None = Field(None, min_length=1)
    tool_call_id: str = ""

    @property
    def text(self) -> str:
        """The text of the content, which may be a string, a list of parts, or nothing."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text") or "") for part in self.content)
        return self.content or ""


class ChatRequest(BaseModel):
    """The fields of a request that the offline model uses. `seals`: reasoning is also wanted in an encrypted form."""

    model: str = Field(min_length=1)
    messages: list[Message] = Field(min_length=1)
    tools: list[_Tool] | None = None
    stream: Literal[True]
    stream_options: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    reasoning_effort: str = ""
    reasoning: dict[str, Any] | None = None
    seals: bool = False
    digest: str = ""
    response_id: str = ""
    prompt_tokens: int = 0

    @classmethod
    def read(cls, raw: bytes, call_key: str, size: int = 0) -> "ChatRequest":
        """Check and read a body. The call key is part of the digest, so tool call ids differ from turn to turn.

        `size`: bytes of the request, if they are others than the body's.

        Raises:
            ValidationError: OpenAI would not accept this body.
        """
        request = cls.model_validate_json(raw)
        request.digest = blake2b(raw + call_key.encode(), digest_size=8).hexdigest()
        request.prompt_tokens = max(1, (size or len(raw)) // 4) if request.window is None else request.counted()
        return request

    @property
    def window(self) -> int | None:
        """The tokens that the model takes; None: it takes all."""
        named = _WINDOW.search(self.model)
        return int(named[1]) if named else None

    @property
    def refusal(self) -> Fault | None:
        """The fault that the model has by its name."""
        named = _STATUS.search(self.model)
        return Fault(fault=f"status:{named[1]}") if named else None

    def counted(self) -> int:
        """The tokens of the prompt. Counting takes longer than an answer, so it is done for models with a window."""
        texts = [message.text for message in self.messages]
        texts += [call.function.arguments for message in self.messages for call in message.tool_calls or ()]
        texts += [tool.model_dump_json() for tool in self.tools or ()]
        return sum(4 + len(_TOKENS.findall(text)) for text in texts)

    @field_validator("messages")
    @classmethod
    def _calls_have_results(cls, messages: list[Message]) -> list[Message]:
        """Each tool call has its result behind it, and each result its call before it."""
        called: set[str] = set()
        missing: set[str] = set()
        for place, message in enumerate(messages):
            if message.role == "tool":
                if message.tool_call_id not in called:
                    raise ValueError(f"messages[{place}] must be a response to a preceding message with 'tool_calls'.")
                missing.discard(message.tool_call_id)
                continue
            if missing:
                break
            called = {call.id for call in message.tool_calls or ()}
            if len(called) < len(message.tool_calls or ()):
                raise ValueError(f"messages[{place}].tool_calls has a duplicate id.")
            missing = set(called)
        if missing:
            raise ValueError(f"These tool_call_ids did not have response messages: {', '.join(sorted(missing))}")
        return messages

    @cached_property
    def tool_names(self) -> frozenset[str]:
        """The tools that may be called."""
        return frozenset(tool.function.name for tool in self.tools or ())

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the usage, asked for in OpenAI's or in OpenRouter's way."""
        return (self.stream_options or {}).get("include_usage") is True or (self.usage or {}).get("include") is True

    @property
    def wants_reasoning(self) -> bool:
        """Whether reasoning is asked for, in OpenAI's or in OpenRouter's way."""
        return self.reasoning_effort not in ("", "none") or bool(self.reasoning)
