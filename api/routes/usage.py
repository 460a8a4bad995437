"""How much of the limits of costs the caller has used, and resets of the day."""

from fastapi import APIRouter

from api.dependencies import CurrentUser, Deps
from api.problems import RESPONSES, TOO_MANY, ProblemError, described
from api.schemas.usage import LimitUsed, ResetBought, UsageNow
from longhaul.limits.resets import ResetRefusal, ResetRefusedError
from longhaul.limits.windows import WindowUsage

router = APIRouter(prefix="/v1/usage", tags=["usage"], responses=RESPONSES)
REFUSALS = {
    ResetRefusal.OFF: (400, "reset-off"),
    ResetRefusal.NOT_REACHED: (400, "limit-not-reached"),
    ResetRefusal.WEEK_REACHED: (400, "week-reached"),
    ResetRefusal.TOO_MANY: (429, "too-many-resets"),
    ResetRefusal.NO_CREDITS: (402, "no-credits"),
}


@router.get("", summary="How much of your limits is used")
async def usage(user: CurrentUser, deps: Deps) -> UsageNow:
    """In percent, to one decimal: 100 from the limit on. Null: there is no limit."""
    standing = await deps.usage.standing(user, deps.cost_limits)
    return UsageNow(
        daily=_used(standing.day), weekly=_used(standing.week), tier=standing.tier, reset_cost=deps.resets.cost
    )


@router.post(
    "/reset",
    summary="Pay for a reset of the day",
    responses={
        **described(400, "Resets are off, the day's limit is not reached, or the week's is too."),
        **described(402, "You have not enough credits."),
        **TOO_MANY,
    },
)
async def reset(user: CurrentUser, deps: Deps) -> ResetBought:
    """What you have used today counts no longer, neither today nor this week."""
    try:
        credits_left = await deps.resets.buy(user, deps.cost_limits)
    except ResetRefusedError as error:
        status, name = REFUSALS[error.reason]
        raise ProblemError(status, name, str(error)) from error
    return ResetBought(credits_charged=deps.resets.cost, credits_left=credits_left, usage=await usage(user, deps))


def _used(window: WindowUsage) -> LimitUsed | None:
    if not window.limit:
        return None
    return LimitUsed(percent_used=window.percent, resets_at=window.resets_at)
