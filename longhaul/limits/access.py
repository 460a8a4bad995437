"""Which models a user may choose, by the tier and the roles of the account."""

from longhaul.db.accounts import Account
from longhaul.limits.usage import tier_of
from longhaul.settings import Settings


def may_use(settings: Settings, account: Account, model: str) -> bool:
    """Whether a user may choose a model that `LONGHAUL_MODEL_ACCESS` may keep for some."""
    users = settings.model_access.get(model)
    if users is None or settings.auth == "off":
        return True
    roles = (account.claimed_roles or "").split()
    return not {f"tier:{tier_of(account, settings.tiers)}", *(f"role:{role}" for role in roles)}.isdisjoint(users)
