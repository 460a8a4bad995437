"""The JSON of tool workers: what they get for a call, and what they give."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.schemas.base import Answer
from longhaul.contracts import ToolStatus

PROGRESS_MAX = 500


class BegunToolCall(Answer):
    """What a tool worker gets when it begins an attempt at a call."""

    token: str = Field(description="For the other requests of this attempt; it holds for ten minutes.")
    arguments: str = Field(description="JSON, as the model or a person has written it.", examples=['{"metres": 3}'])


class ToolCallProgress(BaseModel):
    """How far a call is."""

    text: str = Field("", max_length=PROGRESS_MAX)
    done: float | None = Field(None, allow_inf_nan=False)
    total: float | None = Field(None, allow_inf_nan=False)


class ToolCallResult(BaseModel):
    """How a call has ended. `lost`: a worker died in it, and it must not run twice."""

    status: Literal[ToolStatus.OK, ToolStatus.ERROR, ToolStatus.LOST]
    output: str
    duration_ms: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
