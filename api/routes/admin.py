"""What admins see and do: totals of the ledger, and the accounts of users."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response

from api.csv_table import CSV_RESPONSE, csv_response
from api.cursors import CURSOR, cursor_of, position
from api.dependencies import ID, CurrentAdmin, Dependencies, Deps
from api.problems import RESPONSES, TOO_LARGE, ProblemError, described, invalid
from api.request_body import body_schema, json_body
from api.schemas.accounts import (
    AccountChange,
    AccountChanges,
    AccountOfUser,
    Accounts,
    GrantCredits,
    ResetWindow,
    SetTier,
    WindowAmounts,
)
from api.schemas.usage import UsageTotal, UsageTotals
from longhaul.contracts import Usage
from longhaul.db import accounts, totals
from longhaul.db.accounts import Account, Action, Entry, EntryPosition
from longhaul.db.models import utc_now
from longhaul.db.totals import Filters, Group
from longhaul.limits.windows import WindowUsage

router = APIRouter(
    prefix="/v1/admin/usage",
    tags=["admin"],
    responses={**RESPONSES, **described(403, "The caller is no admin.")},
)
GROUPS_MAX = 10_000
ACCOUNTS_MAX = 100
Text = Annotated[str | None, Query(max_length=320, pattern=ID)]


@router.get("", response_model=UsageTotals, summary="Totals of the ledger", responses={200: CSV_RESPONSE})
async def usage(
    _admin: CurrentAdmin,
    deps: Deps,
    by: Annotated[
        list[Literal["user", "agent", "model", "kind", "day"]],
        Query(min_length=1, max_length=5, description="What to group by; several make a row for each combination."),
    ] = ["user"],  # noqa: B006  # FastAPI copies it
    user: Text = None,
    agent: Text = None,
    model: Text = None,
    kind: Annotated[
        str | None, Query(max_length=16, pattern=ID, description="`turn`, `title`, `compaction`, `tool`.")
    ] = None,
    since: Annotated[date | None, Query(description="The first day, in UTC.")] = None,
    until: Annotated[date | None, Query(description="The last day, in UTC.")] = None,
    format: Annotated[Literal["json", "csv"] | None, Query(description="Else by `Accept`.")] = None,  # noqa: A002
    accept: Annotated[str, Header()] = "",
) -> UsageTotals | Response:
    """What has been used, in groups. Calls that run are not in it. CSV: `?format=csv` or `Accept: text/csv`."""
    groups = [Group(name) for name in dict.fromkeys(by)]
    filters = Filters(user, agent, model, kind, _midnight(since), _midnight(until, days=1))
    async with deps.database.read() as connection:
        found = await totals.totals(connection, groups, filters, GROUPS_MAX + 1)
    if len(found) > GROUPS_MAX:
        detail = f"There are more than {GROUPS_MAX} groups; narrow them by `since`, `until` or another filter."
        raise invalid([{"loc": ["query", "by"], "msg": detail, "type": "too_many_groups"}])
    rows = [
        UsageTotal(
            **dict(zip(map(str, groups), one.keys, strict=True)),
            **one.usage.model_dump(),
            estimated=one.estimated,
            unpriced=one.unpriced,
        )
        for one in found
    ]
    if format == "csv" or (format is None and "text/csv" in accept):
        measures = [*Usage.model_fields, "estimated", "unpriced"]
        return csv_response("usage.csv", [*map(str, groups), *measures], [row.model_dump() for row in rows])
    return UsageTotals(data=rows, rows=rows, has_more=False, next_cursor=None)


@router.get("/users", summary="Look up a user by id or e-mail address")
async def users(_admin: CurrentAdmin, deps: Deps, user_id: Text = None, email: Text = None) -> Accounts:
    """Exactly one of both. Several users may have one address, if their issuer allows that."""
    if (user_id is None) == (email is None):
        raise invalid([{"loc": ["query"], "msg": "name one of user_id and email", "type": "one_of"}])
    async with deps.database.read() as connection:
        if user_id is not None:
            is_known = await accounts.is_known(connection, user_id)
            known = [await accounts.get(connection, user_id)] if is_known else []
        else:
            known = await accounts.of_email(connection, email or "", ACCOUNTS_MAX)
    shown = [await _account(deps, account) for account in known]
    return Accounts(data=shown, accounts=shown, has_more=False, next_cursor=None)


@router.get("/changes", summary="What changed a user's account, newest first")
async def changes(
    _admin: CurrentAdmin,
    deps: Deps,
    user_id: Annotated[str, Query(max_length=255, pattern=ID)],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")] = None,
) -> AccountChanges:
    """Each action of an admin, and each reset that the user has bought."""
    after = EntryPosition(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        entries = await accounts.entries(connection, user_id, limit + 1, after)
    shown, more = [AccountChange.model_validate(entry) for entry in entries[:limit]], len(entries) > limit
    next_cursor = cursor_of(shown[-1].created_at, shown[-1].id) if more else None
    return AccountChanges(data=shown, changes=shown, has_more=more, next_cursor=next_cursor)


@router.post(
    "/tier", summary="Set a user's tier", responses=TOO_LARGE, openapi_extra=body_schema(SetTier, required=True)
)
async def set_tier(
    admin: CurrentAdmin, deps: Deps, body: Annotated[SetTier, Depends(json_body(SetTier))]
) -> AccountOfUser:
    """It counts more than the token's; null: the token's counts again."""
    tier = body.tier.upper() if body.tier is not None else None
    if tier is not None and tier not in deps.settings.tiers:
        known = ", ".join(deps.settings.tiers)
        raise invalid([{"loc": ["body", "tier"], "msg": f"the tiers are {known} (LONGHAUL_TIERS)", "type": "tier"}])
    async with deps.database.write() as connection:
        await accounts.set_tier(connection, body.user_id, tier)
        await accounts.add_entry(connection, Entry(body.user_id, admin, Action.SET_TIER, utc_now(), tier=tier))
    return await _account_of(deps, body.user_id)


@router.post(
    "/reset",
    summary="Reset a user's day or week",
    responses=TOO_LARGE,
    openapi_extra=body_schema(ResetWindow, required=True),
)
async def reset(
    admin: CurrentAdmin, deps: Deps, body: Annotated[ResetWindow, Depends(json_body(ResetWindow))]
) -> AccountOfUser:
    """What was used in the day counts no longer, also not in its week; with the week the day is reset too."""
    await deps.resets.grant(body.user_id, deps.cost_limits, body.window, admin)
    return await _account_of(deps, body.user_id)


@router.post(
    "/credits",
    summary="Grant credits to a user, or take some back",
    responses={**TOO_LARGE, **described(400, "The user has fewer credits than are to be taken back.")},
    openapi_extra=body_schema(GrantCredits, required=True),
)
async def grant(
    admin: CurrentAdmin, deps: Deps, body: Annotated[GrantCredits, Depends(json_body(GrantCredits))]
) -> AccountOfUser:
    """Credits buy resets of the day."""
    async with deps.database.write() as connection:
        await accounts.lock(connection, body.user_id)
        left = await accounts.credits_of(connection, body.user_id)
        if left + body.credits < 0:
            raise ProblemError(400, "too-few-credits", f"This user has {left} credits.")
        entry = Entry(body.user_id, admin, Action.GRANTED_CREDITS, utc_now(), credits=body.credits)
        await accounts.add_entry(connection, entry)
    return await _account_of(deps, body.user_id)


async def _account_of(deps: Dependencies, user_id: str) -> AccountOfUser:
    async with deps.database.read() as connection:
        account = await accounts.get(connection, user_id)
    return await _account(deps, account)


async def _account(deps: Dependencies, account: Account) -> AccountOfUser:
    async with deps.database.read() as connection:
        standing = await deps.usage.standing_by_ledger(connection, account.user_id, deps.cost_limits)
        credits_left = await accounts.credits_of(connection, account.user_id)
    return AccountOfUser(
        user_id=account.user_id,
        email=account.email,
        tier=standing.tier,
        claimed_tier=account.claimed_tier,
        set_tier=account.tier,
        credits=credits_left,
        daily=_amounts(standing.day),
        weekly=_amounts(standing.week),
    )


def _amounts(window: WindowUsage) -> WindowAmounts:
    return WindowAmounts(
        used_microdollars=window.used,
        limit_microdollars=window.limit or None,
        percent_used=window.percent if window.limit else None,
        resets_at=window.resets_at,
    )


def _midnight(day: date | None, days: int = 0) -> datetime | None:
    """The beginning of a day, or of the day so many days later."""
    try:
        return datetime.combine(day, time(), UTC) + timedelta(days=days) if day is not None else None
    except OverflowError:
        return None  # behind the last day that there is
