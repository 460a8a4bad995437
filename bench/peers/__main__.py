"""`make bench-peers`: the same turn by Longhaul, by a plain loop and by other libraries that run agents on Temporal.

Each peer's program runs in an environment of its own, made from pinned requirements. All use one Temporal server with
the settings of Longhaul's stack, and one model that answers as fast as it can. The table goes to `bench/RESULTS.md`.
"""

import asyncio
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import venv
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer
from rich.console import Console

from bench.plain import PlainLoop
from cli.stack.programs import http_ok
from testkit.pool import Pool
from testkit.process import ModuleProcess, kill_all
from testkit.product import Product
from testkit.servers import ROOT, free_port
from testkit.wait import until

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "RESULTS.md"
ENVIRONMENTS = Path.home() / ".cache" / "longhaul" / "peers"
QUESTION = "What is 6*7?"
LIMIT_S = 300.0


class Peer(NamedTuple):
    """A library: the file of its program and requirements, and its packages as people know them."""

    file: str
    packages: tuple[str, ...]


PEERS = (
    Peer("openai_agents_plugin", ("temporalio-openai-agents", "openai-agents")),
    Peer("pydantic_ai_temporal", ("pydantic-ai-slim",)),
    Peer("agent_harness", ("temporal-agent-harness", "openai-agents")),
)


class PeerError(Exception):
    """A peer's program ended before it was asked to."""


class Sample(NamedTuple):
    """Turns that one side made: the seconds of each, and of all together."""

    seconds: list[float]
    all: float


Run = Callable[[int, int], Awaitable[Sample]]


class Figures(NamedTuple):
    """One side's figures, one of each round: milliseconds of a turn alone (its median), turns per second of many."""

    alone_ms: list[float]
    per_second: list[float]


def main(
    rounds: Annotated[int, typer.Option(help="How often everything is measured, side after side.")] = 5,
    singles: Annotated[int, typer.Option(help="Turns one after another, in each round.")] = 6,
    turns: Annotated[int, typer.Option(help="Turns in the crowd of each round.")] = 40,
    at_once: Annotated[int, typer.Option(help="Of those, at the same time.")] = 20,
) -> None:
    """Compare, and write `bench/RESULTS.md`."""
    console = Console()
    pythons = {peer.file: environment(peer, console) for peer in PEERS}
    figures = asyncio.run(_run(pythons, console, rounds, singles, turns, at_once))
    text = report(figures, rounds, singles, turns, at_once)
    RESULTS.write_text(text, encoding="utf-8")
    console.print(text, markup=False)


def environment(peer: Peer, console: Console) -> Path:
    """The Python of an environment with the peer's pinned packages; made where it is missing."""
    requirements = FOLDER / "requirements" / f"{peer.file}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ENVIRONMENTS / f"{peer.file}-{digest}"
    python = folder / "bin" / "python"
    done = folder / ".done"
    if not done.exists():
        console.print(f"installing {', '.join(peer.packages)} (once) …")
        venv.create(folder, with_pip=True, clear=True)
        command = (str(python), "-m", "pip", "install", "-q", "--require-hashes", "-r", str(requirements))
        asyncio.run(_command(*command))
        done.touch()
    return python


async def _command(*argv: str) -> str:
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise typer.BadParameter(f"`{' '.join(argv)}` ended with {process.returncode}")
    return output.decode()


async def _run(
    pythons: dict[str, Path], console: Console, rounds: int, singles: int, turns: int, at_once: int
) -> dict[str, Figures]:
    with tempfile.TemporaryDirectory(prefix="longhaul-peers-") as folder:
        pool = Pool(Path(folder))
        port = free_port()
        model = ModuleProcess(
            "peers-model", "bench.peers.model", Path(folder) / "model.log", _ours(), ROOT, (str(port),)
        )
        try:
            model.start()
            url = f"http://127.0.0.1:{port}"
            healthy = http_ok(f"{url}/healthz")
            await until(lambda: _none(healthy), what="the model answers")
            async with AsyncExitStack() as stack:
                product = await pool.make(stack, backend="sqlite", settings={"OPENAI_BASE_URL": f"{url}/v1"})
                plain = await stack.enter_async_context(PlainLoop(f"{url}/v1"))
                sides: dict[str, Run] = {"plain loop": _plain(plain), "Longhaul": await _longhaul(product, at_once)}
                for name, python in pythons.items():
                    sides[name] = await _peer(
                        stack, python, name, product.servers.temporal.address, f"{url}/v1", folder
                    )
                return await _measure(sides, console, rounds, singles, turns, at_once)
        finally:
            model.kill()
            await pool.close()
            kill_all()


async def _none(check: Callable[[], Awaitable[str | None]]) -> bool:
    return await check() is None


def _ours() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _plain(loop: PlainLoop) -> Run:
    async def turn(_: int) -> None:
        await loop.turn(QUESTION)

    return _crowd(turn)


async def _longhaul(product: Product, at_once: int) -> Run:
    sessions = [await product.api.create_session() for _ in range(at_once)]

    async def turn(client: int) -> None:
        url, body = f"/v1/sessions/{sessions[client]}/stream", {"message": QUESTION}
        async with product.api.http.stream("POST", url, json=body) as response:
            answer = b"".join([chunk async for chunk in response.aiter_raw()])
        if response.status_code != 200 or b"word199" not in answer:
            raise RuntimeError(f"not the model's answer: {response.status_code} {answer[:300]!r}")

    return _crowd(turn)


def _crowd(turn: Callable[[int], Awaitable[None]]) -> Run:
    """So many clients at once, which share the turns."""

    async def run(turns: int, at_once: int) -> Sample:
        seconds: list[float] = []

        async def client(number: int) -> None:
            for _ in range(turns // at_once):
                begun = time.perf_counter()
                await turn(number)
                seconds.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(client(number) for number in range(at_once)))
        return Sample(seconds, time.perf_counter() - begun)

    return run


async def _peer(stack: AsyncExitStack, python: Path, name: str, temporal: str, model: str, folder: str) -> Run:
    """Start a peer's program; it polls Temporal and starts its own workflows."""
    base = {key: value for key, value in os.environ.items() if not key.startswith(("LONGHAUL_", "OPENAI_", "PYTHON"))}
    log = stack.enter_context((Path(folder) / f"{name}.log").open("wb"))
    process = await asyncio.create_subprocess_exec(
        *(str(python), str(FOLDER / "programs" / f"{name}.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        env={**base, "TEMPORAL_ADDRESS": temporal, "OPENAI_BASE_URL": model, "OPENAI_AGENTS_DISABLE_TRACING": "1"},
    )
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("a peer's program was started without pipes")

    async def end() -> None:
        if process.returncode is None:
            process.kill()
            await process.wait()

    stack.push_async_callback(end)

    async def line(beginning: bytes) -> bytes:
        """The next line that begins so: libraries print to the output too."""
        while said := await asyncio.wait_for(stdout.readline(), LIMIT_S):
            if said.startswith(beginning):
                return said
        raise PeerError(f"its program ended:\n{(Path(folder) / f'{name}.log').read_text()[-2000:]}")

    await line(b"ready")

    async def run(turns: int, at_once: int) -> Sample:
        stdin.write(f"{turns} {at_once}\n".encode())
        await stdin.drain()
        return Sample(**json.loads(await line(b"{")))

    return run


async def _measure(
    sides: dict[str, Run], console: Console, rounds: int, singles: int, turns: int, at_once: int
) -> dict[str, Figures]:
    found = {name: Figures([], []) for name in sides}
    failed: set[str] = set()
    for number in range(-1, rounds):  # round -1 warms up: connections, caches, conversations that are kept
        for name, run in sides.items():
            if name in failed:
                continue
            try:
                alone, crowd = await run(singles, 1), await run(turns, at_once)
            except PeerError as error:
                failed.add(name)
                console.print(f"{name} failed: {error}", markup=False)
                continue
            took, rate = statistics.median(alone.seconds) * 1000, turns / crowd.all
            console.print(f"round {number + 1}, {name}: {took:.0f} ms, {rate:.1f} turns/s")
            if number >= 0:
                found[name].alone_ms.append(took)
                found[name].per_second.append(rate)
    return found


def report(figures: dict[str, Figures], rounds: int, singles: int, turns: int, at_once: int) -> str:
    """The table with machine and versions, as Markdown."""
    lines = [
        "# Longhaul beside other libraries that run agents on Temporal",
        "",
        f"Written by `make bench-peers` on {datetime.now(UTC):%Y-%m-%d}: {platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, "
        f"load at the end {os.getloadavg()[0]:.1f}.",
        "",
        "A turn is two model calls and one tool between them; the answer has 200 tokens. The model is a stub that",
        "answers at once. All use one Temporal dev server with the settings of Longhaul's stack. Medians of "
        f"{rounds} rounds, side after side; the spread is in brackets.",
        "",
        f"| | turn alone, ms ({singles} in a row) | turns/s ({turns}, {at_once} at once) |",
        "|---|---|---|",
    ]
    for name, found in figures.items():
        packages = next((peer.packages for peer in PEERS if peer.file == name), None)
        shown = ", ".join(_pinned(name, packages)) if packages else name
        if not found.alone_ms:
            lines.append(f"| {shown} | its program failed | |")
            continue
        lines.append(f"| {shown} | {_spread(found.alone_ms, 0)} | {_spread(found.per_second, 1)} |")
    lines += [
        "",
        "All but the plain loop are durable and stream to the client: Longhaul over HTTP from Redis, the others from",
        "their workflow's stream, each in its library's own way. Longhaul also has an API, and stores messages, usage",
        "and cost in SQLite; worker, API and client are processes of their own. A peer's program is worker and client",
        "in one process. Longhaul's calculator is a quick tool (a local activity); the peers' tool is an activity. The",
        "plain loop is the `openai` client in one process, which keeps nothing.",
        "",
    ]
    return "\n".join(lines)


def _pinned(file: str, packages: tuple[str, ...]) -> list[str]:
    """Packages with their versions, from the lock file."""
    lock = (FOLDER / "requirements" / f"{file}.txt").read_text().splitlines()
    pins = dict(
        line.split(" ", 1)[0].split("==", 1) for line in lock if "==" in line and not line.startswith((" ", "#"))
    )
    return [f"{package} {pins[package]}" for package in packages]


def _spread(values: list[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    typer.run(main)
