"""Check what must hold after a run of chaos."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from longhaul.contracts import TurnStatus
from testkit import checks
from testkit.chaos.load import Posted
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


def judge(found: Stored, accepted: Iterable[Posted], streams: Iterable[tuple[str, StreamLog]]) -> Verdict:
    """Check every row of every session, sub-sessions included, and the streams that clients read."""
    verdict = Verdict(sum(map(len, found.turns.values())))
    for message in accepted:
        verdict.messages += 1
        taken = [row for row in found.of(message.session, "user") if row.client_message_id == message.message_id]
        if not taken:
            verdict.lost.append(f"{message} was accepted and is lost")
        verdict.wrong += [problem for row in taken for problem in turn_of_message_problems(found, message, row.turn_id)]
    for session, rows in found.messages.items():
        turns = found.turns.get(session, ())
        stopped = {turn.turn_id for turn in turns if turn.status == TurnStatus.CANCELLED}
        verdict.lost += checks.answer_problems(session, [row for row in rows if row.turn_id not in stopped])
        verdict.doubled += checks.tool_problems(session, rows)
        problems = checks.sequence_problems(session, rows, found.next_sequences.get(session))
        verdict.wrong += [problem for problem in problems if "still waits" not in problem]
        problems = checks.turn_problems(session, rows, turns)
        verdict.wrong += [problem for problem in problems if "is left" not in problem]
    verdict.doubled += checks.ledger_problems(found.ledger)
    verdict.stuck += unrest(found)
    verdict.wrong += stream_problems(found, streams)
    return verdict


def turn_of_message_problems(found: Stored, message: Posted, turn_id: str) -> Iterable[str]:
    """The turn that took a message is the one that its sender was told, and not one that had been stopped before."""
    if turn_id == message.after:
        yield f"{message} is in the turn that had been stopped before it was posted"
    failed = {turn.turn_id for turn in found.turns[message.session] if turn.status == TurnStatus.FAILED}
    if turn_id != message.turn_id and message.turn_id not in failed:
        yield f"{message} is in turn {turn_id}"


def stream_problems(found: Stored, streams: Iterable[tuple[str, StreamLog]]) -> Iterable[str]:
    """Check that a stream, however often it was cut, shows what is stored."""
    for session, log in streams:
        rows = [row for row in found.of(session) if row.turn_id == log.turn_id]
        status = next((turn.status for turn in found.turns[session] if turn.turn_id == log.turn_id), "missing")
        for problem in checks.shown_problems(log, rows, status):
            yield f"{session}: turn {log.turn_id}: {problem}; {log.connections} connections, {shown(log)}"


def shown(log: StreamLog) -> str:
    """The types of all parts but deltas, with their ids."""
    parts = [
        (event.type, (event.part or {}).get("id", "")) for event in log.events if not event.type.endswith("-delta")
    ]
    return " ".join(f"{kind}:{id_}" if id_ else kind for kind, id_ in parts)[-1500:]
