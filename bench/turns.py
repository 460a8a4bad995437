"""What is measured: the same answer of the same offline model, by Longhaul and by a plain loop, in the same run."""

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
Spread = tuple[float, float, float]


@dataclass(frozen=True)
class Plan:
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
    """What came out: (minimum, median, maximum) in milliseconds by name, and the rest."""

    milliseconds: dict[str, Spread] = field(default_factory=dict)
    per_second: float = 0.0
    #: CPU milliseconds for one turn at full load, by process.
    cpu: dict[str, float] = field(default_factory=dict)
    events: int = 0
    history_bytes: int = 0


async def measure(product: Product, plan: Plan) -> Figures:
    """All figures; the two sides take turns, so that a machine that slows down slows both."""
    figures = Figures()
    plain, ours, first = [], [], []
    session = await product.api.create_session()
    for number in range(plan.turns + WARM_UP):
        loop_ms = await plain_loop(product, plan)
        turn_ms, delta_ms = await one_turn(product, plan, session)
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
    figures.events, figures.history_bytes = await history(product, session)
    before = cpu_seconds(product)
    figures.per_second = await throughput(product, plan)
    turns = plan.at_once * plan.waves
    figures.cpu = {name: (used - before[name]) * 1000 / turns for name, used in cpu_seconds(product).items()}
    return figures


def cpu_seconds(product: Product) -> dict[str, float]:
    """What each process has used so far, this one (as the client) too."""
    pids = {process.name: process.pid for process in product.processes} | {"client": os.getpid()}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: float(used.user + used.system) for name, used in times.items()}


def spread(values: list[float]) -> Spread:
    return min(values), statistics.median(values), max(values)


async def plain_loop(product: Product, plan: Plan) -> float:
    """What a longhaul without any durability does: milliseconds from the question to the last token."""
    messages: list[dict[str, object]] = [{"role": "user", "content": plan.text}]
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


async def one_turn(product: Product, plan: Plan, session: str) -> tuple[float, float]:
    """Milliseconds of a turn as its client sees it, and from the model's first text to the client's first delta."""
    clock = time.time() - time.monotonic()
    started = time.monotonic()
    log = await product.api.stream(session, plan.text)
    took = (time.monotonic() - started) * 1000
    seen = next(event.at for event in log.events if event.part and event.part["type"] == "text-delta")
    turn_id = log.headers["x-longhaul-turn-id"]
    sent = await _first_chunk_at(product, f"{turn_id}:2")
    return took, (seen + clock - sent) * 1000


async def _first_chunk_at(product: Product, key: str) -> float:
    calls = (await product.servers.model.stats())["recent"]
    return float(next(call["first_chunk_at"] for call in calls if call["key"] == key))


async def history(product: Product, session: str) -> tuple[int, int]:
    """Events and bytes of the history of the session's last turn."""
    client = await product.temporal()
    found = await client.get_workflow_handle(workflow_id(session)).fetch_history()
    return len(found.events), sum(event.ByteSize() for event in found.events)


async def throughput(product: Product, plan: Plan) -> float:
    """Turns per second with many at once, each in a session of its own, each with a client that reads its stream."""
    api = product.api
    sessions = [await api.create_session() for _ in range(plan.at_once)]

    async def worker(session: str) -> None:
        for _ in range(plan.waves):
            async with api.http.stream(
                "POST", f"/v1/sessions/{session}/stream", json={"message": plan.text}
            ) as response:
                assert response.status_code == 200, "this turn was not begun by its own message"
                async for _chunk in response.aiter_raw():
                    pass

    started = time.perf_counter()
    await asyncio.gather(*(worker(session) for session in sessions))
    return plan.at_once * plan.waves / (time.perf_counter() - started)
