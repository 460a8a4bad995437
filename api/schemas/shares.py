"""The JSON of read-only links."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import A_MESSAGE, A_SESSION, Answer
from api.schemas.messages import StoredMessage
from api.schemas.sessions import ActiveTurn

AN_EXAMPLE = "jW0cHsmZ6tWnWwXhXU7fLr0cY9oS3kzv1N2bQm4dE5g"


class NewShare(BaseModel):
    """How long a link is to work. The body may be left out."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"expires_in": 86_400}]})

    expires_in: int | None = Field(
        None, ge=60, le=10 * 366 * 86_400, description="Seconds. Unset: until it is revoked."
    )


class Share(Answer):
    """A link by which anyone who has it reads a session. The token is the link's secret."""

    id: str = Field(examples=[A_MESSAGE])
    url: str = Field(description="Of the page that shows the session.", examples=[f"/shared/{AN_EXAMPLE}"])
    token: str = Field(description="For `/v1/shared/{token}`.", examples=[AN_EXAMPLE])
    created_at: datetime
    expires_at: datetime | None = Field(description="Null: it works until it is revoked.")


class Shares(Answer):
    """One page of a session's links, newest first, expired ones too."""

    data: list[Share]
    has_more: bool
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class SharedSession(Answer):
    """A session as a link shows it, with one page of its messages, in order; the first page is the newest."""

    id: str = Field(examples=[A_SESSION])
    title: str | None = Field(examples=["Order 17"])
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = Field(description="When the link ends.")
    messages: list[StoredMessage] = Field(description="Without the pages that their writers were looking at.")
    oldest_sequence: int | None = Field(description="Send it as `before_sequence` for the page before this one.")
    has_more_messages: bool
    active_turn: ActiveTurn | None
