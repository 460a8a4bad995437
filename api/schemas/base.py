"""What all of the API's JSON has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import ID

ToolNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200, fail_fast=True)]
Labels = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")],
        Annotated[str, Field(max_length=512, pattern=ID)],
    ],
    Field(max_length=16, examples=[{"customer": "17"}]),
]
A_SESSION = "7f0d6a52-5a3c-4c39-a1e7-6d4f6f0f3a11"
A_TURN = "0c1c8d6e-2f0b-4b55-8a55-0f4f7d8f9a10"
A_MESSAGE = "e7a5f0a2-0b57-4a53-9f2f-64f0a2c0f9b1"


SAME_AS_DATA = "The same as `data`, for older clients."


class Answer(BaseModel):
    """Base of all answers; read from rows as well as from values."""

    model_config = ConfigDict(from_attributes=True)


class Page(Answer):
    """Base of all lists: one page, in `data`, and where the next one begins."""

    has_more: bool = Field(description="There is a next page.")
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")
