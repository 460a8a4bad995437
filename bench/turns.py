"""The measurements: the same answer of the same offline model, by Longhaul and by a plain loop, in one run."""

import asyncio
import json
import os
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
from openai import AsyncOpenAI

from longhaul.temporal import workflow_id
from longhaul.tools.quick import calculate, calculator
from testkit.product import Product

WARM_UP = 3
STOPS = 10
Spread = tuple[float, float, float]


@dataclass(frozen=True)
class Workload:
    """How much to measure."""

    turns: int
    at_once: int
    waves: int
    tokens: int
    ttft_ms: int
    delay_ms: int

    @property
    def text(self) -> str:
        return f"calc then speak {self.tokens}: 6*7 [ttft={self.ttft_ms} delay={self.delay_ms}]"


@dataclass
class Figures:
    """The results: (minimum, median, maximum) in milliseconds by name, and single figures."""

    milliseconds: dict[str, Spread] = field(default_factory=dict)
    per_second: float = 0.0
    #: CPU milliseconds for one turn at full load, by process.
    cpu: dict[str, float] = field(default_factory=dict)
    events: int = 0
    history_bytes: int = 0


async def measure(product: Product, workload: Workload) -> Figures:
    """Measure all figures. Longhaul and the plain loop alternate, so a machine that slows down slows both."""
    figures = Figures()
    plain, ours, first = [], [], []
    session = await product.api.create_session()
    for number in range(workload.turns + WARM_UP):
        loop_ms = await plain_loop(product, workload)
        turn_ms, delta_ms = await one_turn(product, workload, session)
        if number >= WARM_UP:
            plain.append(loop_ms)
            ours.append(turn_ms)
            first.append(delta_ms)
    above = [turn - loop for turn, loop in zip(ours, plain, strict=True)]
    figures.milliseconds = {
        "first delta after the model sent it": spread(first),
        "plain loop": spread(plain),
        "whole turn": spread(ours),
        "whole turn above the plain loop": spread(above),
    }
    figures.milliseconds["Stop in the middle of an answer"] = spread([await one_stop(product) for _ in range(STOPS)])
    figures.events, figures.history_bytes = await history(product, session)
    before = cpu_seconds(product)
    figures.per_second = await throughput(product, workload)
    turns = workload.at_once * workload.waves
    figures.cpu = {name: (used - before[name]) * 1000 / turns for name, used in cpu_seconds(product).items()}
    return figures


def cpu_seconds(product: Product) -> dict[str, float]:
    """CPU seconds that each process has used so far, with this one as the client."""
    pids = {process.name: process.pid for process in product.processes} | {"client": os.getpid()}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: float(used.user + used.system) for name, used in times.items()}


def spread(values: list[float]) -> Spread:
    return min(values), statistics.median(values), max(values)


async def plain_loop(product: Product, workload: Workload) -> float:
    """A copilot without any durability: milliseconds from the question to the last token."""
    messages: list[dict[str, object]] = [{"role": "user", "content": workload.text}]
    tools = [calculator.schema]
    async with AsyncOpenAI(base_url=product.servers.model.base_url, api_key="offline", max_retries=0) as client:
        started = time.perf_counter()
        while True:
            text = ""
            calls: dict[int, dict[str, str | None]] = {}
            stream: Any = await client.chat.completions.create(
                model="offline-standard",
                messages=messages,  # type: ignore[arg-type]
                tools=tools,  # type: ignore[arg-type]
                stream=True,
            )
            async for chunk in stream:
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    for call in choice.delta.tool_calls or ():
                        kept = calls.setdefault(call.index, {"id": call.id, "name": "", "arguments": ""})
                        if call.function:
                            kept["name"] = str(kept["name"]) + (call.function.name or "")
                            kept["arguments"] = str(kept["arguments"]) + (call.function.arguments or "")
            if not calls:
                return (time.perf_counter() - started) * 1000
            made = [
                {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
                for c in calls.values()
            ]
            messages.append({"role": "assistant", "content": text or None, "tool_calls": made})
            for call_made in calls.values():
                value = calculate(json.loads(str(call_made["arguments"]))["expression"])
                messages.append({"role": "tool", "tool_call_id": call_made["id"], "content": str(value)})


async def one_turn(product: Product, workload: Workload, session: str) -> tuple[float, float]:
    """Milliseconds of a turn as its client sees it, and from the model's first text to the client's first delta."""
    clock = time.time() - time.monotonic()
    started = time.monotonic()
    log = await product.api.stream(session, workload.text)
    took = (time.monotonic() - started) * 1000
    seen = next(event.at for event in log.events if event.part and event.part["type"] == "text-delta")
    turn_id = log.headers["x-longhaul-turn-id"]
    sent = await _first_chunk_at(product, f"{turn_id}:2")
    return took, (seen + clock - sent) * 1000


async def one_stop(product: Product) -> float:
    """Milliseconds from the request to stop a turn that streams to the API's answer that it has ended."""
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 2000 [delay=20]")
    await live.until_seen("text-delta", 5)
    started = time.monotonic()
    answer = await product.api.cancel(session)
    took = (time.monotonic() - started) * 1000
    assert answer.body["status"] == "cancelled"
    await live.done()
    return took


async def _first_chunk_at(product: Product, key: str) -> float:
    calls = (await product.servers.model.stats())["recent"]
    return float(next(call["first_chunk_at"] for call in calls if call["key"] == key))


async def history(product: Product, session: str) -> tuple[int, int]:
    """Events and bytes of the history of the session's last turn."""
    await product.api.until_idle(session)
    client = await product.temporal()
    found = await client.get_workflow_handle(workflow_id(session)).fetch_history()
    return len(found.events), sum(event.ByteSize() for event in found.events)


async def throughput(product: Product, workload: Workload) -> float:
    """Turns per second with many at once, each in a session of its own, each with a client that reads its stream."""
    api = product.api
    sessions = [await api.create_session() for _ in range(workload.at_once)]

    async def worker(session: str) -> None:
        for _ in range(workload.waves):
            async with api.http.stream(
                "POST", f"/v1/sessions/{session}/stream", json={"message": workload.text}
            ) as response:
                assert response.status_code == 200, "this turn was not begun by its own message"
                async for _chunk in response.aiter_raw():
                    pass

    started = time.perf_counter()
    await asyncio.gather(*(worker(session) for session in sessions))
    return workload.at_once * workload.waves / (time.perf_counter() - started)
