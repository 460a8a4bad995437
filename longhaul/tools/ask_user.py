"""A question to the person. The turn waits for the answer, and holds no worker slot meanwhile."""

from typing import Annotated

from pydantic import BaseModel, Field

from longhaul.tools.registry import Tool


class Question(BaseModel):
    question: str = Field(min_length=1, max_length=4_000, description="What you want to know")
    choices: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        [], max_length=10, description="Answers to choose from; the person may give another"
    )


ask_user = Tool(
    "ask_user",
    "Ask the person something that you cannot go on without, and wait for the answer. Do not ask for permission: "
    "tools that need it ask by themselves.",
    Question,
    None,
)
