"""Text and reasoning of one answer, in the order in which the model wrote them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

#: The key of a reasoning row's context: how many characters of the answer's text come before it.
AT = "at"


class Block(NamedTuple):
    """A stretch of text, or of reasoning, which took `duration_ms` (None: not known)."""

    kind: str
    text: str
    duration_ms: int | None = None


def blocks_of_rows(thoughts: Sequence[Any], answer: Any) -> list[Block]:
    """The blocks of a round, from its reasoning rows and its assistant row."""
    blocks: list[Block] = []
    text, shown = str(answer.content), 0
    for row in thoughts:
        at = row.context.get(AT, 0) if isinstance(row.context, dict) else 0
        at = at if isinstance(at, int) else 0
        blocks.append(Block("text", text[shown:at]))
        blocks.append(Block("reasoning", row.content, row.duration_ms))
        shown = max(shown, at)
    return [block for block in (*blocks, Block("text", text[shown:])) if block.text]


def pieces_of(blocks: Iterable[Block]) -> list[tuple[str, str, str]]:
    """Blocks as `StepWriter.show` takes them."""
    pieces: list[tuple[str, str, str]] = []
    for block in blocks:
        pieces.append((block.kind, block.text, ""))
        if block.kind == "reasoning" and block.duration_ms is not None:
            pieces.append(("reasoned", "", str(block.duration_ms)))
    return pieces


def end_part(kind: str, part_id: str, duration_ms: int | None) -> dict[str, Any]:
    """The end of a block. Clients keep the metadata with their reasoning part."""
    part: dict[str, Any] = {"type": f"{kind}-end", "id": part_id}
    if duration_ms is None:
        return part
    return {**part, "providerMetadata": {"longhaul": {"duration_ms": duration_ms}}}
