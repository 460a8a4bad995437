"""Places in lists that are sorted by creation, newest first, as clients send them back."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from api.problems import invalid

EPOCH = datetime.fromtimestamp(0, UTC)
CURSOR = r"^\d{1,20}\.[\w-]{1,64}$"


class Position(NamedTuple):
    """A place in a list. The id orders what was created at the same moment."""

    created_at: datetime
    id: str


def cursor_of(created_at: datetime, id_: str) -> str:
    """A cursor is the microseconds since 1970 and the id of the last entry of a page."""
    return f"{(created_at - EPOCH) // timedelta(microseconds=1)}.{id_}"


def position(cursor: str) -> Position:
    """The place that a cursor stands for.

    Raises:
        ProblemError: 422, the cursor was not made by this API.
    """
    microseconds, _, id_ = cursor.partition(".")
    try:
        return Position(EPOCH + timedelta(microseconds=int(microseconds)), id_)
    except OverflowError as error:
        raise invalid([{"loc": ["query", "cursor"], "msg": "is not a cursor of this API", "type": "cursor"}]) from error
