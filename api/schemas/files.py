"""The JSON of files."""

from datetime import datetime

from pydantic import Field

from api.schemas.base import A_MESSAGE, SAME_AS_DATA, Answer, Page


class File(Answer):
    """A file of a user. `media_type` is what its content says."""

    id: str = Field(examples=[A_MESSAGE])
    name: str = Field(examples=["orders.csv"])
    media_type: str = Field(examples=["text/csv"])
    size: int = Field(description="In bytes.", examples=[1024])
    session_id: str | None = Field(description="The session whose tool has made it; null: it was uploaded.")
    created_at: datetime
    url: str = Field(description="Of its content.")


class Files(Page):
    """One page of files, newest first."""

    data: list[File]
    files: list[File] = Field(description=SAME_AS_DATA, deprecated=True)
