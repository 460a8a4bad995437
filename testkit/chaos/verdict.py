"""Check what must hold after a run of chaos."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from longhaul.contracts import TurnStatus
from testkit import checks
from testkit.checks import Stored
from testkit.product import Product
from testkit.streamlog import StreamLog


@dataclass
class Verdict:
    """Problems by kind; all of them must be empty."""

    turns: int = 0
    messages: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.stuck or self.wrong)


async def running(product: Product) -> list[str]:
    """Workflows that Temporal still runs."""
    client = await product.temporal()
    query = f"ExecutionStatus='Running' AND TaskQueue='{product.task_queue}'"
    return [one.id async for one in client.list_workflows(query)]


def unrest(found: Stored) -> list[str]:
    """Messages that wait and turns that have not ended."""
    waiting = [
        f"{session}: message {row.client_message_id} waits"
        for session, rows in found.messages.items()
        for row in rows
        if row.sequence is None
    ]
    return waiting + [
        f"{session}: turn {turn.turn_id} is left {turn.status}"
        for session, turns in found.turns.items()
        for turn in turns
        if not TurnStatus(turn.status).final
    ]


def judge(
    found: Stored, accepted: dict[str, set[str]], stopping: set[str], streams: Iterable[tuple[str, StreamLog]]
) -> Verdict:
    """Check every row of every session, sub-sessions included, and the streams that clients read."""
    verdict = Verdict(sum(map(len, found.turns.values())), sum(map(len, accepted.values())))
    for session, ids in accepted.items():
        here = {row.client_message_id for row in found.messages.get(session, ())}
        verdict.lost += [f"{session}: message {lost} was accepted and is lost" for lost in ids - here]
    for session, rows in found.messages.items():
        turns = found.turns.get(session, ())
        if session in accepted and session not in stopping:
            verdict.lost += checks.answer_problems(session, rows)
        verdict.doubled += checks.tool_problems(session, rows)
        problems = checks.sequence_problems(session, rows, found.next_sequences.get(session))
        verdict.wrong += [problem for problem in problems if "still waits" not in problem]
        problems = checks.turn_problems(session, rows, turns)
        verdict.wrong += [problem for problem in problems if "is left" not in problem]
    verdict.doubled += checks.ledger_problems(found.ledger)
    verdict.stuck += unrest(found)
    verdict.wrong += stream_problems(found, streams)
    return verdict


def stream_problems(found: Stored, streams: Iterable[tuple[str, StreamLog]]) -> Iterable[str]:
    """Check that a stream, however often it was cut, shows what is stored."""
    for session, log in streams:
        rows = [row for row in found.of(session, "assistant") if row.turn_id == log.turn_id and row.kind != "error"]
        stored = "".join(row.content for row in rows)
        if log.text() != stored:
            said = f"{log.text()[:200]!r} on the stream, {stored[:200]!r} in its rows"
            yield f"{session}: turn {log.turn_id} is {said}; {log.connections} connections, {shown(log)}"


def shown(log: StreamLog) -> str:
    """The types of all parts but deltas, with their ids."""
    parts = [
        (event.type, (event.part or {}).get("id", "")) for event in log.events if not event.type.endswith("-delta")
    ]
    return " ".join(f"{kind}:{id_}" if id_ else kind for kind, id_ in parts)[-1500:]
