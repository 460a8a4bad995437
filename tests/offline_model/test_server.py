"""The protocol, the counters and the faults, on the wire."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from email.utils import parsedate_to_datetime

import httpx2
import openai
import pytest

from testkit.wait import until
from tests.offline_model.conftest import Model, after, user


def test_health(model: Model) -> None:
    assert model.http.get("/healthz").status_code == 200
    assert model.http.get("/nowhere").status_code == 404


def test_usage_is_the_last_chunk(model: Model) -> None:
    reply = model.ask("hello")
    assert reply.chunks[-1].choices == []
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.cost > 0
    body = {"model": "m", "stream": True, "messages": [user("hi")]}
    assert '"usage"' not in model.http.post("/v1/chat/completions", json=body).text
    assert '"cost"' in model.http.post("/v1/chat/completions", json=body | {"usage": {"include": True}}).text


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"stream": true, "messages": []}',
        b'{"stream": true, "model": "m", "messages": []}',
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}',
        b'{"stream": true, "model": "m", "messages": [{"role": "robot", "content": "x"}]}',
        b'{"stream": true, "model": "m", "messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}',
        b'{"stream": true, "model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{}]}',
        b'{"stream": true, "model": "m", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", '
        b'"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": ""}}]}, {"role": "user", "content": "y"}]}',
    ],
)
def test_wrong_bodies(model: Model, body: bytes) -> None:
    response = model.http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_stats_by_key(model: Model) -> None:
    before = model.stats()["calls"]
    model.ask("hello", key="t1:1")
    with pytest.raises(openai.RateLimitError):
        model.ask("hello [fault=status:429]", key="t1:2")
    # A call is over a moment after its client has the answer.
    await until(lambda: model.stats()["in_flight"] == 0, what="both calls are over")
    stats = model.stats()
    assert stats["calls"] == before + 2
    assert (stats["by_key"]["t1:1"], stats["by_key"]["t1:2"]) == (1, 1)
    assert stats["completed_by_key"]["t1:1"] == 1
    assert "t1:2" not in stats["completed_by_key"]
    assert [r["outcome"] for r in stats["recent"][-2:]] == ["completed", "status 429"]


@pytest.mark.parametrize(
    ("spec", "status", "header"),
    [
        ("status:429:retry-after=2", 429, ("retry-after", "2")),
        ("status:429:retry-after-ms=300", 429, ("retry-after-ms", "300")),
        ("status:503", 503, None),
        ("status:400", 400, None),
        ("status:401:x-should-retry=false", 401, ("x-should-retry", "false")),
    ],
)
def test_status_faults(model: Model, spec: str, status: int, header: tuple[str, str] | None) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        model.ask(f"hello [fault={spec}]")
    assert caught.value.status_code == status
    if header:
        assert caught.value.response.headers[header[0]] == header[1]


def test_retry_after_as_a_date(model: Model) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        model.ask("hello [fault=status:429:retry-after=date+2]")
    when = parsedate_to_datetime(caught.value.response.headers["retry-after"]).timestamp()
    assert -8 < when - time.time() <= 2


def test_times_counts_by_key(model: Model) -> None:
    text = "hello [fault=status:503 times=2] [fault=empty times=1]"
    for key in ("a:1", "b:1", ""):
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                model.ask(text, key=key)
        assert model.ask(text, key=key).text == ""
        assert model.ask(text, key=key).text


def test_a_fault_of_one_round(model: Model) -> None:
    start = [user("2+2 [fault=status:503 round=2]")]
    reply = model.ask(start)
    assert reply.calls
    with pytest.raises(openai.InternalServerError):
        model.ask(after(start, reply, "4"))


def test_cut_sends_so_many_chunks_and_no_end(model: Model) -> None:
    got = bytearray()
    body = {"model": "m", "stream": True, "messages": [user("speak 50 [fault=cut:5]")]}
    with model.http.stream("POST", "/v1/chat/completions", json=body) as response:
        raw = response.iter_raw()
        with pytest.raises(httpx2.RemoteProtocolError):
            deque(map(got.extend, raw), maxlen=0)
    assert b'"w1"' in got
    assert b" w5" in got
    assert b" w6" not in got
    assert b"[DONE]" not in got
    assert model.stats()["recent"][-1]["outcome"] == "cut"


def test_refuse(model: Model) -> None:
    with pytest.raises(openai.APIConnectionError):
        model.ask("hello [fault=refuse]")


def test_bad_chunk(model: Model) -> None:
    body = {"model": "m", "stream": True, "messages": [user("speak 5 [fault=badchunk:3]")]}
    events = model.http.post("/v1/chat/completions", json=body).text.split("\n\n")
    assert events[3] == "data: {oops"  # after the role and two words
    assert " w5" in events[6]
    assert "[DONE]" in events[8]


def test_faults_in_what_is_said(model: Model) -> None:
    assert model.ask("2+2 [fault=badargs]").calls == [("calculator", '{"expression":"2+2"')]
    assert model.ask("2+2 [fault=unknowntool]").calls[0][0] == "no_such_tool"
    assert model.ask("hello [fault=length]").finish == "length"
    assert model.ask("hello [fault=content_filter]").finish == "content_filter"
    start = [user("2+2 [fault=badargs]")]
    reply = model.ask(start)
    assert "Invalid JSON" in model.ask(after(start, reply, "Invalid JSON")).text


def test_installed_faults(model: Model) -> None:
    body = {"match": "apple", "times": 1, "fault": "status:503"}
    assert model.http.post("/faults", json=body).status_code == 200
    assert model.ask("pear").text
    with pytest.raises(openai.InternalServerError):
        model.ask("an apple")
    assert model.ask("an apple").text
    model.http.post("/faults", json={"times": 9, "fault": "refuse"})
    model.http.delete("/faults")
    assert model.ask("pear").text
    assert model.http.post("/faults", json={"fault": "nonsense"}).status_code == 400


def test_pace_and_silence(model: Model) -> None:
    begun = time.perf_counter()
    model.ask("speak 11 [ttft=100 delay=10]")
    assert 0.18 <= time.perf_counter() - begun < 60
    begun = time.perf_counter()
    assert len(model.ask("speak 5 [fault=silence:0.2:3]").pieces) == 5
    assert 0.18 <= time.perf_counter() - begun < 60


def test_a_client_that_leaves_ends_its_call(model: Model) -> None:
    body = {"model": "m", "stream": True, "messages": [user("speak 1000 [delay=20]")]}
    with model.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.iter_raw()  # kept: the response is closed with its iterator
        next(chunks)
        assert model.stats()["in_flight"] == 1
    deadline = time.monotonic() + 60
    while model.stats()["in_flight"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert model.stats()["recent"][-1]["outcome"] == "disconnected"


@pytest.mark.asyncio
async def test_fifty_streams_at_once_keep_their_pace(model: Model) -> None:
    body = {"model": "m", "stream": True, "messages": [user("speak 50 [ttft=50 delay=10]")]}
    limits = httpx2.Limits(max_connections=60)
    async with httpx2.AsyncClient(base_url=model.url, timeout=60, limits=limits) as client:
        begun = time.perf_counter()
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(50)))
    assert all(" w50" in a.text and "[DONE]" in a.text for a in answers)
    assert time.perf_counter() - begun < 25, "one after another takes 27 s"


def test_the_entry_starts_and_ends_promptly() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "offline_model", "--port", str(port), "--ttft-ms", "0"]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx2.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
                break
            except httpx2.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        body = {"model": "m", "stream": True, "messages": [user("speak 1000 [delay=50]")]}
        with httpx2.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as response:
            next(response.iter_raw())
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
