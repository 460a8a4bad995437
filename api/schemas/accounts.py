"""The JSON of the users' accounts, for admins."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import SAME_AS_DATA, Answer, Page
from longhaul.limits.windows import Window

UserId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


class WindowAmounts(Answer):
    """What a user has spent in a window; without a limit, `limit_microdollars` and `percent_used` are null."""

    used_microdollars: int
    limit_microdollars: int | None
    percent_used: float | None
    resets_at: datetime


class AccountOfUser(Answer):
    """A user as admins see one. `tier` is the one that counts: that which an admin has set, else the token's."""

    user_id: str
    email: str | None
    tier: str
    claimed_tier: str | None
    set_tier: str | None
    credits: int
    daily: WindowAmounts
    weekly: WindowAmounts


class Accounts(Page):
    """The users that were found, on one page."""

    data: list[AccountOfUser]
    accounts: list[AccountOfUser] = Field(description=SAME_AS_DATA, deprecated=True)


class AccountChange(Answer):
    """One change of an account. `day_microdollars`, `week_microdollars`: what a reset has taken off the windows."""

    id: str
    user_id: str
    actor_id: str = Field(description="Who made it.")
    action: Literal["bought_reset", "granted_credits", "set_tier", "reset_day", "reset_week"]
    created_at: datetime
    credits: int
    day_microdollars: int
    week_microdollars: int
    tier: str | None


class AccountChanges(Page):
    """One page of changes of an account, newest first."""

    data: list[AccountChange]
    changes: list[AccountChange] = Field(description=SAME_AS_DATA, deprecated=True)


class SetTier(BaseModel):
    """Which tier a user is to have."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId
    tier: str | None = Field(max_length=64, examples=["PRO"])


class ResetWindow(BaseModel):
    """Which window of a user is to be reset."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId
    window: Window


class GrantCredits(BaseModel):
    """How many credits a user is to get; negative: to lose."""

    model_config = ConfigDict(extra="forbid")

    user_id: UserId
    credits: int = Field(ge=-1_000_000_000, le=1_000_000_000, examples=[500])
