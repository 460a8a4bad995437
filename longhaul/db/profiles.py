"""What users say about themselves, for the model."""

from sqlalchemy import bindparam, delete, select, text

from longhaul.db.connection import Connection
from longhaul.db.messages import replace_unstorable
from longhaul.db.models import UserProfileRow, UtcDateTime, utc_now

CONTENT = select(UserProfileRow.content).where(UserProfileRow.user_id == bindparam("user"))
# Both databases understand this; SQLAlchemy's `on_conflict_do_update` is another one for each.
PUT = text(
    "INSERT INTO user_profiles (user_id, content, updated_at) VALUES (:user, :content, :now) "
    "ON CONFLICT (user_id) DO UPDATE SET content = excluded.content, updated_at = excluded.updated_at"
).bindparams(bindparam("now", type_=UtcDateTime))


async def get(connection: Connection, user_id: str) -> str | None:
    """A user's profile; None if there is none."""
    content: str | None = await connection.scalar(CONTENT, {"user": user_id})
    return content


async def put(connection: Connection, user_id: str, content: str) -> None:
    """Store a user's profile in the place of the one before."""
    await connection.execute(PUT, {"user": user_id, "content": replace_unstorable(content), "now": utc_now()})


async def remove(connection: Connection, user_id: str) -> None:
    """Delete a user's profile, if there is one."""
    await connection.execute(delete(UserProfileRow).where(UserProfileRow.user_id == user_id))
