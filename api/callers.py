"""Keeps what tokens say of their users: workers, which see no token, and admins read it from the accounts."""

import logging
import time
from collections import OrderedDict
from typing import NamedTuple

from longhaul.auth import LOCAL_CALLER, Caller
from longhaul.db import accounts
from longhaul.db.database import Database
from longhaul.errors import UnavailableError

log = logging.getLogger(__name__)
KNOWN_MAX = 10_000
#: Another process may have seen an older token since.
KNOWN_FOR_S = 60.0
PAUSE_S = 10.0


class Noted(NamedTuple):
    caller: Caller
    until: float


class KnownCallers:
    """The callers whose accounts this process has found to be as their tokens say."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: OrderedDict[str, Noted] = OrderedDict()
        self._paused_until = 0.0

    async def note(self, caller: Caller) -> None:
        """Keep what the token says, if the account says something else; without the database, with a later call."""
        noted, now = self._noted.get(caller.user_id), time.monotonic()
        known = noted is not None and noted.caller == caller and now < noted.until
        if known or now < self._paused_until or caller is LOCAL_CALLER:
            return
        try:
            await self._store(caller)
        except UnavailableError as error:
            log.warning("what tokens say of their users is not kept for %g s: %s", PAUSE_S, error)
            self._paused_until = time.monotonic() + PAUSE_S
            return
        self._noted[caller.user_id] = Noted(caller, now + KNOWN_FOR_S)
        self._noted.move_to_end(caller.user_id)
        if len(self._noted) > KNOWN_MAX:
            self._noted.popitem(last=False)

    async def _store(self, caller: Caller) -> None:
        async with self._database.read() as connection:
            account = await accounts.find(connection, caller.user_id)
        roles = " ".join(sorted(caller.roles)) or None
        claims = (caller.email, caller.tier, roles)
        if account is not None and (account.email, account.claimed_tier, account.claimed_roles) == claims:
            return
        async with self._database.write() as connection:
            await accounts.note_claims(connection, caller.user_id, caller.email, caller.tier, roles)
