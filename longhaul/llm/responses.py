"""The Responses API in the form of Chat Completions: bodies are translated on their way out, events on their way in.

So everything behind the client knows one form of requests and answers. What the API has beyond it are the encrypted
reasoning items: they travel as `ENCRYPTED` of an assistant's message, and as a chunk of their own.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from openai import APIStatusError
from pydantic import BaseModel

#: Of an assistant's message: the list of its `EncryptedReasoning`. Of a chunk: one.
ENCRYPTED = "encrypted_reasoning"
NO_ROUTE = frozenset({404, 405})
REFUSED = frozenset({400, 404, 405})
INCLUDE, SUMMARY, ITEMS = "include", "summary", "items"
_RESPONSES_ONLY = re.compile(r"v1/responses|responses api", re.IGNORECASE)
#: What an endpoint may refuse of a request that it answers without it. OpenAI gives summaries to verified
#: organisations only, and encrypted reasoning only with models that reason.
_OPTIONS = (
    (SUMMARY, re.compile(r"reasoning\.summary|reasoning summar", re.IGNORECASE)),
    (ITEMS, re.compile(r"invalid_encrypted_content|encrypted content for item|item with id 'rs_", re.IGNORECASE)),
    (INCLUDE, re.compile(r"\"param\":\s*\"include|encrypted content is not supported", re.IGNORECASE)),
)
_FINISHED_SHORT = {"max_output_tokens": "length"}


class EncryptedReasoning(BaseModel):
    """A reasoning item as the endpoint sent it, which only the endpoint can read.

    `place`: 0 before the answer's text, else the number of the tool call that it stands before.
    """

    place: int
    item: dict[str, Any]


def wants_responses(error: APIStatusError) -> bool:
    """Whether an endpoint that refused Chat Completions may answer the Responses API: it says so, or it has no such
    route at all."""
    said = _words_of(error)
    if error.status_code in NO_ROUTE and "model" not in said.lower():
        return True
    return error.status_code in REFUSED and _RESPONSES_ONLY.search(said) is not None


def refused_option(error: APIStatusError) -> str | None:
    """Which option of a request an endpoint has refused; None: something else."""
    if error.status_code not in REFUSED:
        return None
    said = _words_of(error)
    return next((option for option, pattern in _OPTIONS if pattern.search(said)), None)


def _words_of(error: APIStatusError) -> str:
    return error.body if isinstance(error.body, str) else orjson.dumps(error.body, default=str).decode()


def without_encrypted(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages for Chat Completions, which knows no encrypted reasoning."""
    return [
        {name: value for name, value in message.items() if name != ENCRYPTED} if ENCRYPTED in message else message
        for message in messages
    ]


def responses_body(body: dict[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """The body of a streaming Responses request for one of Chat Completions. Nothing is stored at the endpoint.

    `without`: options to leave out.
    """
    first, *rest = body["messages"]
    has_system = first["role"] == "system"
    request: dict[str, Any] = {
        "model": body["model"],
        "input": [item for message in (rest if has_system else [first, *rest]) for item in _items(message, without)],
        "store": False,
        "stream": True,
    }
    if has_system:
        request["instructions"] = _text_of(first["content"])
    if body.get("tools"):
        # Without `strict` the endpoint takes each schema for a strict one and refuses those with optional arguments.
        request["tools"] = [{"type": "function", "strict": False, **tool["function"]} for tool in body["tools"]]
    if limit := body.get("max_completion_tokens") or body.get("max_tokens"):
        request["max_output_tokens"] = limit
    if reasoning := _reasoning(body, without):
        request["reasoning"] = reasoning
    if "reasoning_effort" in body and INCLUDE not in without:
        request["include"] = ["reasoning.encrypted_content"]
    return request


def _reasoning(body: dict[str, Any], without: Sequence[str]) -> dict[str, Any]:
    if "reasoning_effort" not in body:
        return dict(body.get("reasoning") or {})
    effort = body["reasoning_effort"]
    shown = {} if effort == "none" or SUMMARY in without else {"summary": "auto"}
    return {"effort": effort, **shown}


def _items(message: dict[str, Any], without: Sequence[str]) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    if message["role"] == "tool":
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": _text_of(content)}
        return
    if message["role"] != "assistant":
        yield {"role": message["role"], "content": _parts(content)}
        return
    calls = message.get("tool_calls") or ()
    encrypted: Sequence[EncryptedReasoning] = [] if {ITEMS, INCLUDE} & {*without} else message.get(ENCRYPTED, [])
    # An endpoint refuses reasoning that nothing follows, so items stand only before what they led to.
    if content or calls:
        yield from (one.item for one in encrypted if one.place == 0)
    if content:
        yield {"role": "assistant", "content": _text_of(content)}
    for number, call in enumerate(calls, 1):
        yield from (one.item for one in encrypted if one.place == number)
        yield {"type": "function_call", "call_id": call["id"], **call["function"]}


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""


def _parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [
        {"type": "input_image", "image_url": part["image_url"]["url"]}
        if part["type"] == "image_url"
        else {"type": "input_text", "text": part["text"]}
        for part in content
    ]


class ResponseEvents:
    """Translates the events of one answer to chunks of Chat Completions."""

    def __init__(self) -> None:
        #: Calls by their place in the answer, and whether their arguments have come.
        self._calls: dict[int, bool] = {}
        self._texts: set[int] = set()
        self._begun = False
        self.ended = False

    def chunk(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """The chunk of an event; None for one that says nothing new."""
        at = event.get("output_index")
        at = at if isinstance(at, int) else -1
        match event.get("type"):
            case "response.created":
                response = _object(event.get("response"))
                return {"id": response.get("id"), "model": response.get("model")}
            case "response.output_text.delta" | "response.refusal.delta":
                return self._text(at, event.get("delta"))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self._texts.add(at)
                return _delta(reasoning=event.get("delta"))
            case "response.reasoning_summary_part.added" if event.get("summary_index"):
                return _delta(reasoning="\n\n")
            case "response.output_item.added":
                return self._added(at, _object(event.get("item")))
            case "response.function_call_arguments.delta":
                return self._arguments(at, event.get("delta"))
            case "response.output_item.done":
                return self._done(at, _object(event.get("item")))
            case "response.completed" | "response.incomplete":
                return self._end(_object(event.get("response")))
            case "response.failed":
                self.ended = True
                return {"error": _object(event.get("response")).get("error") or "The response failed."}
            case "error":
                self.ended = True
                return {"error": event.get("error") or event}
        return None

    def _text(self, at: int, text: Any) -> dict[str, Any]:
        self._texts.add(at)
        self._begun = True
        return _delta(content=text)

    def _added(self, at: int, item: dict[str, Any]) -> dict[str, Any] | None:
        if item.get("type") != "function_call" or at in self._calls:
            return None
        self._calls[at] = False
        return _call(at, id=item.get("call_id"), function={"name": item.get("name")})

    def _arguments(self, at: int, arguments: Any) -> dict[str, Any]:
        self._calls[at] = True
        return _call(at, function={"arguments": arguments})

    def _done(self, at: int, item: dict[str, Any]) -> dict[str, Any] | None:
        """What an item has that its deltas did not bring: some endpoints send it whole."""
        match item.get("type"):
            case "reasoning":
                return self._reasoning(at, item)
            case "function_call" if not self._calls.get(at):
                known = at in self._calls
                self._calls[at] = True
                function = {"name": None if known else item.get("name"), "arguments": item.get("arguments")}
                return _call(at, id=None if known else item.get("call_id"), function=function)
            case "message" if at not in self._texts:
                text = "".join(_texts_in(item.get("content")))
                return self._text(at, text) if text else None
        return None

    def _reasoning(self, at: int, item: dict[str, Any]) -> dict[str, Any] | None:
        shown = "" if at in self._texts else "\n\n".join(_texts_in(item.get("summary")))
        chunk = _delta(reasoning=shown) if shown else {}
        if isinstance(item.get("encrypted_content"), str) and item["encrypted_content"]:
            place = len(self._calls) + 1 if self._begun or self._calls else 0
            chunk[ENCRYPTED] = EncryptedReasoning(place=place, item=item)
        return chunk or None

    def _end(self, response: dict[str, Any]) -> dict[str, Any]:
        self.ended = True
        reason = _object(response.get("incomplete_details")).get("reason")
        finish = _FINISHED_SHORT.get(str(reason), str(reason)) if reason else "tool_calls" if self._calls else "stop"
        chunk: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": finish}]}
        return {**chunk, "usage": _usage(response["usage"])} if isinstance(response.get("usage"), dict) else chunk


def _usage(sent: dict[str, Any]) -> dict[str, Any]:
    """Usage in the names of Chat Completions; what else an endpoint sends, such as its cost, stays as it is."""
    names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    names |= {f"{name}_details": f"{other}_details" for name, other in names.items()}
    return {names.get(name, name): value for name, value in sent.items()}


def _texts_in(parts: Any) -> list[str]:
    found = [_object(part) for part in (parts if isinstance(parts, list) else ())]
    return [str(part.get("text") or part.get("refusal") or "") for part in found]


def _delta(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"delta": delta}]}


def _call(at: int, **call: Any) -> dict[str, Any]:
    return _delta(tool_calls=[{"index": at, **call}])


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
