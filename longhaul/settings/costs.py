"""Settings of what users may spend."""

from typing import Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode

from longhaul.settings.values import Count

DEFAULT_TIER = "FREE"


class Costs(BaseModel):
    """Costs"""

    daily_cost_limit: Count = Field(
        1_000_000,
        description="Microdollars per user and day, to midnight UTC; then a new turn: 429. Without auth 0, unless set.",
    )
    weekly_cost_limit: Count = Field(
        5_000_000,
        description="Microdollars per user and week, to Monday 00:00 UTC; a new turn: 429. Without auth 0, unless set.",
    )
    reset_credits: Count = Field(0, description="Credits that a user's reset of the day costs. 0: none is sold.")
    max_resets: Count = Field(3, description="Resets that a user may buy a day; more: 429. 0: no limit.")
    tiers: Annotated[dict[str, Annotated[float, Field(gt=0)]], NoDecode] = Field(
        {DEFAULT_TIER: 1.0},
        description="What each tier of users multiplies these limits by, as `FREE=1,PRO=5`. Unknown tiers are `FREE`.",
    )

    @field_validator("tiers", mode="before")
    @classmethod
    def _read_tiers(cls, value: object) -> object:
        if isinstance(value, str):
            pairs = [part.partition("=") for part in value.split(",") if part.strip()]
            value = {name.strip(): factor.strip() for name, _, factor in pairs}
        if isinstance(value, dict):
            value = {DEFAULT_TIER: 1.0} | {str(name).upper(): factor for name, factor in value.items()}
        return value
