"""How a turn's stream ends: sealed if it agrees with the turn's rows, withdrawn if it does not.

Every activity of a completed turn has reported whether it published everything, so its stream is sealed at once. A
stopped or failed turn has activities that could not report, and a second attempt of `close_turn` does not know what
the first one did. Their stream is read and compared with the rows first.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from longhaul.contracts import TurnStatus
from longhaul.db.messages import StoredMessage
from longhaul.redis import FAULTS
from longhaul.streams.events import Part, data_part, stream_key, tool_output_part, writers_key
from longhaul.streams.from_rows import outcome_part
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.step_writer import StepWriter, closing_parts
from longhaul.streams.tool_progress import progress_key
from longhaul.streams.viewer import ViewerState

log = logging.getLogger(__name__)
SEAL_TRIES = 5
#: So long a client that reads the stream of a deleted turn can read its end.
DELETED_TTL_S = 10


@dataclass(frozen=True)
class Ending:
    """How a turn ended. `unanswered`: the output of tool calls that have none."""

    status: TurnStatus
    round: int
    error: str | None
    closing_text: str = ""
    step_open: bool = False
    unanswered: str = ""

    def parts(self, closing: list[Part]) -> list[Part]:
        """The last parts before the outcome; `closing` closes the newest step."""
        parts = list(closing)
        if self.closing_text:
            writer = StepWriter(parts.append, self.round + 1, 1)
            writer.begin()
            writer.text(self.closing_text)
            writer.end(keep_open=False)
        parts.append(data_part("progress", {"round": self.round, "status": self.status}, transient=True))
        return parts

    @property
    def outcome(self) -> Part | None:
        return outcome_part(self.status, self.error)


async def end_stream(
    publisher: StreamPublisher, ending: Ending, rows: Sequence[StoredMessage] | None, ttl_s: float
) -> None:
    """Seal a turn's stream; with the turn's `rows`, only if it agrees with them, else withdraw it."""
    if rows is None:
        await seal_trusted(publisher, ending, ttl_s)
    else:
        await seal_compared(publisher, ending, rows, ttl_s)


async def seal_trusted(publisher: StreamPublisher, ending: Ending, ttl_s: float) -> None:
    """Seal the stream of a turn whose activities have all reported that they published everything."""
    closing: list[Part] = [{"type": "finish-step"}] if ending.step_open else []
    await publisher.seal(ending.parts(closing), ending.outcome, ttl_s)


async def seal_compared(
    publisher: StreamPublisher, ending: Ending, rows: Sequence[StoredMessage], ttl_s: float
) -> None:
    """Seal the stream if it shows what the turn's rows say, else withdraw it.

    An attempt of an activity that was taken for dead may still write: then the stream is read again.
    """
    for _ in range(SEAL_TRIES):
        content = await publisher.content()
        if publisher.broken or not content.parts:
            break
        if content.parts[-1]["type"] in ("finish", "withdrawn"):
            return
        begun = [index for index, part in enumerate(content.parts) if part["type"] == "start-step"]
        open_step = content.parts[begun[-1] :] if begun else []
        parts = ending.parts(closing_parts(open_step, ending.round + 1, unanswered=ending.unanswered))
        if not agrees([*content.parts, *parts], rows):
            break
        if await publisher.seal(parts, ending.outcome, ttl_s, behind=content.newest_id):
            return
    await publisher.withdraw()


def agrees(parts: Sequence[Part], rows: Sequence[StoredMessage]) -> bool:
    """Whether a stream without its outcome shows exactly what a turn's rows say."""
    state = ViewerState()
    blocks: dict[str, list[str]] = {}
    outputs: dict[tuple[int | None, str], Part] = {}
    for part in parts:
        state.note(part)
        kind: str = part["type"]
        if kind.startswith(("text-", "reasoning-", "tool-")) and not state.step_open:
            return False
        if kind in ("text-start", "reasoning-start"):
            blocks[part["id"]] = [kind.removesuffix("-start")]
        elif kind in ("text-delta", "reasoning-delta"):
            blocks.setdefault(part["id"], [""]).append(part["delta"])
        elif kind == "data-voided":
            for part_id in part["data"]["ids"]:
                blocks.pop(part_id, None)
        elif kind.startswith("tool-output-"):
            outputs[state.round, part["toolCallId"]] = part
    if not state.started or state.step_open or state.open_blocks:
        return False
    answers = [row for row in rows if row.role in ("assistant", "reasoning") and row.kind != "error"]
    for block_kind, role in (("text", "assistant"), ("reasoning", "reasoning")):
        shown = "".join("".join(block[1:]) for block in blocks.values() if block[0] == block_kind)
        if shown != "".join(row.content for row in answers if row.role == role):
            return False
    calls = {(row.round, call["id"]) for row in answers for call in row.tool_calls or ()}
    results = {
        (row.round, row.tool_call_id): tool_output_part(row.tool_call_id, row.content, is_error=row.is_error)
        for row in rows
        if row.role == "tool" and row.tool_call_id
    }
    return (
        calls <= state.inputs
        and all(call in state.outputs for call in state.announced)
        and all(outputs.get(key) == result for key, result in results.items())
        and {row.client_message_id for row in rows if row.kind == "follow_up"} <= state.follow_ups
        and {row.id for row in rows if row.kind == "summary"} <= state.compactions
    )


async def expire_streams(redis: "Redis", turn_ids: Sequence[str]) -> None:
    """Let the streams of deleted turns go. Without Redis they go when their own time is over."""
    try:
        for turn_id in turn_ids:
            for key in (stream_key(turn_id), writers_key(turn_id), progress_key(turn_id)):
                await redis.expire(key, DELETED_TTL_S)
    except FAULTS as error:
        log.warning("streams of deleted turns stay until they expire: %s", error)
