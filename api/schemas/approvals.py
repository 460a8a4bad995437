"""The JSON of calls that wait for a person."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.base import A_MESSAGE, A_SESSION, A_TURN, Answer, Page
from longhaul.contracts import ConnectRequest, ParkKind
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import ParkedRow
from longhaul.streams.events import connect_request, decoded


class Approval(Answer):
    """A tool call that waits for a person or a client, or has waited.

    `skipped`: a message was sent instead of an answer. `expired`: no answer came in time. `cancelled`: its turn ended.
    """

    id: str = Field(examples=[A_MESSAGE])
    session_id: str = Field(examples=[A_SESSION])
    turn_id: str = Field(examples=[A_TURN])
    tool_call_id: str
    tool_name: str = Field(examples=["write_file"])
    kind: ParkKind
    status: ParkedStatus
    arguments: Any = Field(examples=[{"path": "report.md", "content": "..."}])
    new_arguments: Any = Field(description="Those that the person has put in their place.")
    answer: str | None = Field(description="The reason of a denial, the answer to a question, a client's result.")
    for_session: bool = Field(description="The tool is allowed in the whole session from now on.")
    asked_at: datetime
    expires_at: datetime | None
    answered_at: datetime | None
    connect: ConnectRequest | None = Field(description="What to connect, if that is what it waits for.")

    @classmethod
    def of(cls, row: ParkedRow) -> "Approval":
        new_arguments = decoded(row.new_arguments) if row.new_arguments is not None else None
        return cls.model_validate(
            {
                **row._asdict(),
                "arguments": decoded(row.arguments or "{}"),
                "new_arguments": new_arguments,
                "connect": connect_request(row),
            }
        )


class Approvals(Page):
    """One page of what waits for an answer, the oldest first."""

    data: list[Approval]
