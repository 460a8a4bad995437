"""The estimate of tokens, against what OpenAI's cl100k tokenizer counted for the same texts (recorded in 2026-11)."""

import base64
import json
import random

import pytest

from longhaul.llm.prompts import SYSTEM
from longhaul.llm.tokens import SCALE_MAX, scale_from, tokens_of_request, tokens_of_text

RANDOM = random.Random(1)
BYTES = bytes(RANDOM.randrange(256) for _ in range(3000))
ITEMS = [{"id": RANDOM.randrange(10**6), "price": RANDOM.random(), "ok": True} for _ in range(60)]
SAMPLES = {
    "english": SYSTEM,
    "dense json": json.dumps(ITEMS, separators=(",", ":")),
    "indented json": json.dumps(ITEMS, indent=2),
    "base64": base64.b64encode(BYTES).decode(),
    "hexadecimal": BYTES.hex(),
    "chinese": "持久的会话引擎把每一轮对话都保存为可恢复的工作流，这样即使服务器崩溃，用户的消息也不会丢失。" * 20,
    "japanese": "永続的なセッションエンジンは、会話の各ターンを復元可能なワークフローとして保存します。" * 20,
    "russian": "Долговечный механизм сеансов сохраняет каждый ход разговора, поэтому сообщения не теряются. " * 20,
    "emoji": "🎉🚀🧪" * 100,
    "uppercase": SYSTEM.upper(),
}
COUNTED = {
    "english": 225,
    "dense json": 1196,
    "indented json": 1916,
    "base64": 2829,
    "hexadecimal": 3383,
    "chinese": 1020,
    "japanese": 860,
    "russian": 841,
    "emoji": 900,
    "uppercase": 264,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_estimate_is_near_what_a_tokenizer_counts(name: str) -> None:
    assert 0.65 < tokens_of_text(SAMPLES[name]) / COUNTED[name] < 1.6


def test_everything_that_is_sent_counts() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "write_file", "arguments": '{"content": "long"}'}}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "rules of the house"}]},
        {"role": "user", "content": "words of a person"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "what became of it"},
    ]
    whole = tokens_of_request({"messages": messages, "tools": [{"type": "function", "function": {"name": "write"}}]})
    assert tokens_of_request({"messages": messages}) < whole
    for left_out in range(4):
        assert tokens_of_request({"messages": messages[:left_out] + messages[left_out + 1 :]}) < whole - 4


@pytest.mark.parametrize(
    ("estimated", "counted", "scale"),
    [(1000, 1500, 1.5), (1000, 500, 0.5), (1000, 10**9, SCALE_MAX), (1000, 0, None), (50, 100, None), (0, 0, None)],
)
def test_the_scale_of_a_session(estimated: int, counted: int, scale: float | None) -> None:
    assert scale_from(estimated, counted) == scale
