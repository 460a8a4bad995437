"""The JSON of what a user has spent."""

from datetime import datetime

from pydantic import Field

from api.schemas.base import SAME_AS_DATA, Answer, Page


class LimitUsed(Answer):
    """How much of a limit is used."""

    percent_used: float = Field(description="To one decimal; 100 from the limit on.", examples=[41.7])
    resets_at: datetime = Field(description="When the window ends: midnight or Monday 00:00, in UTC.")


class UsageNow(Answer):
    """How much of the limits of costs a user has used; null: there is no limit."""

    daily: LimitUsed | None
    weekly: LimitUsed | None
    tier: str = Field(examples=["FREE"])
    reset_cost: int = Field(description="Credits that a reset of the day costs; 0: none is sold.", examples=[500])


class ResetBought(Answer):
    """A reset of the day was paid for."""

    credits_charged: int = Field(examples=[500])
    credits_left: int = Field(examples=[1500])
    usage: UsageNow


class UsageTotal(Answer):
    """The total of one group. `user`, `agent`, `model`, `kind`, `day`: those that were grouped by."""

    user: str | None = None
    agent: str | None = Field(None, description="The agent that the session runs as; null: none.")
    model: str | None = None
    kind: str | None = Field(None, examples=["turn", "title", "compaction", "tool"])
    day: str | None = Field(None, description="In UTC.", examples=["2026-11-22"])
    calls: int = Field(description="Attempts at model calls.")
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    cache_creation_tokens: int
    cost_microdollars: int | None = Field(description="Null: the price of no row is known.")
    estimated: int = Field(description="Rows that are estimates, because no bill arrived.")
    unpriced: int = Field(description="Rows of an unknown price, which the cost does not contain.")


class UsageTotals(Page):
    """Totals of the ledger on one page, in the order of their groups."""

    data: list[UsageTotal]
    rows: list[UsageTotal] = Field(description=SAME_AS_DATA, deprecated=True)
