"""The real server on a real socket, in a thread of this process."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from testkit.offline import offline_model

TOOLS = [
    "calculator",
    "current_time",
    "list_files",
    "read_file",
    "write_file",
    "wait",
    "run_sub_session",
    "get_sub_session_result",
]


@dataclass
class Reply:
    """One streamed answer, put together."""

    chunks: list[Any]
    pieces: list[str]
    reasoning: list[str]
    calls: list[tuple[str, str]]
    ids: list[str]
    fragments: int
    finish: str | None
    usage: Any

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Model:
    """A client of the server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=60)
        self.openai = OpenAI(base_url=f"{url}/v1", api_key="anything", max_retries=0, timeout=60)

    def ask(self, messages: list[dict[str, Any]] | str, key: str = "", tools: list[str] = TOOLS, **more: Any) -> Reply:
        if isinstance(messages, str):
            messages = [user(messages)]
        specs: list[Any] = [{"type": "function", "function": {"name": t, "parameters": {}}} for t in tools]
        create: Any = self.openai.chat.completions.create
        stream = create(
            model="offline-standard",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"x-longhaul-call": key} if key else {},
            **({"tools": specs} if specs else {}),
            **more,
        )
        reply = Reply([], [], [], [], [], 0, None, None)
        for chunk in stream:
            reply.chunks.append(chunk)
            reply.usage = chunk.usage or reply.usage
            for choice in chunk.choices:
                reply.finish = choice.finish_reason or reply.finish
                if choice.delta.content:
                    reply.pieces.append(choice.delta.content)
                if said := getattr(choice.delta, "reasoning", None):
                    reply.reasoning.append(said)
                for part in choice.delta.tool_calls or ():
                    reply.fragments += 1
                    if part.id and part.function:
                        reply.ids.append(part.id)
                        reply.calls.append((part.function.name or "", ""))
                    elif part.function:
                        name, arguments = reply.calls[part.index]
                        reply.calls[part.index] = (name, arguments + (part.function.arguments or ""))
        return reply

    def stats(self) -> Any:
        return self.http.get("/stats").json()


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def after(messages: list[dict[str, Any]], reply: Reply, *results: str) -> list[dict[str, Any]]:
    """The conversation with a reply and the results of its calls added."""
    calls = [
        {"id": i, "type": "function", "function": {"name": n, "arguments": a}}
        for i, (n, a) in zip(reply.ids, reply.calls, strict=True)
    ]
    said: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if calls:
        said["tool_calls"] = calls
    rows = [{"role": "tool", "tool_call_id": c["id"], "content": r} for c, r in zip(calls, results, strict=True)]
    return [*messages, said, *rows]


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with offline_model() as url:
        yield url


@pytest.fixture(scope="session")
def client(server_url: str) -> Iterator[Model]:
    one = Model(server_url)  # one for all tests: making the clients costs more than most tests
    yield one
    one.openai.close()
    one.http.close()


@pytest.fixture
def model(client: Model) -> Model:
    client.http.delete("/faults")
    return client
