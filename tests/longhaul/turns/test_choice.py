"""Which model answers a message: what it names itself, else its tier, else what its session has chosen."""

from typing import Any, NamedTuple, cast

import pytest
from temporalio.client import Client

from longhaul.contracts import FollowUp, TurnInput
from longhaul.db import accounts, sessions
from longhaul.db.database import Database
from longhaul.settings import Settings, SettingsError, load_settings
from longhaul.settings.models import ModelChoice
from longhaul.turns.deliver import IncomingMessage, MessageDelivery
from longhaul.turns.status import TurnLookup
from tests.longhaul.turns.conftest import SESSION, USER
from tests.longhaul.turns.test_deliver import TemporalAwayAfterSignal

SETTINGS = load_settings(model_standard="small", model_advanced="large", allowed_models=["other"])


class Sent(NamedTuple):
    """What Temporal was sent."""

    turn: TurnInput
    signal: FollowUp


class Temporal(TemporalAwayAfterSignal):
    """Keeps what it is sent."""

    sent: Sent

    async def start_workflow(self, *arguments: Any, start_signal_args: list[Any], **options: Any) -> Any:
        self.sent = Sent(arguments[1], start_signal_args[0])
        return await super().start_workflow(*arguments, start_signal_args=start_signal_args, **options)


async def sent(database: Database, of_session: str | None = None, settings: Settings = SETTINGS, **chosen: Any) -> Sent:
    temporal = Temporal(started=True)
    client = cast("Client", temporal)
    async with database.write() as connection:
        await sessions.choose_model(connection, SESSION, USER, of_session)
        session = await sessions.get(connection, SESSION)
    delivery = MessageDelivery(settings, database, client, TurnLookup(database, client, 1.0))
    await delivery.deliver(USER, session, IncomingMessage("m1", "hello", **chosen))
    return temporal.sent


@pytest.mark.parametrize(
    ("of_session", "chosen", "model", "tier", "takes_effect"),
    [
        (None, {}, "small", "standard", ()),
        (None, {"tier": "advanced"}, "large", "advanced", ("tier",)),
        (None, {"model": "large"}, "large", "advanced", ("tier",)),
        (None, {"model": "advanced"}, "large", "advanced", ("tier",)),
        (None, {"model": "other"}, "other", "standard", ("tier",)),
        ("other", {}, "other", "standard", ()),
        ("large", {}, "large", "advanced", ()),
        ("large", {"tier": "standard"}, "small", "standard", ("tier",)),
        ("large", {"model": "other", "tier": "standard"}, "other", "standard", ("tier",)),
        ("not allowed any more", {}, "small", "standard", ()),
    ],
)
async def test_the_model(
    database: Database,
    of_session: str | None,
    chosen: dict[str, Any],
    model: str,
    tier: str,
    takes_effect: tuple[str, ...],
) -> None:
    turn, signal = await sent(database, of_session, **chosen)
    assert (turn.model, turn.tier) == (signal.model, signal.tier) == (model, tier)
    assert signal.chosen == takes_effect


@pytest.mark.parametrize(
    ("chosen", "mode", "effort", "takes_effect"),
    [
        ({}, "fast", "", ()),
        ({"mode": "extended_thinking"}, "extended_thinking", "", ("mode",)),
        ({"effort": "low"}, "extended_thinking", "low", ("mode",)),
        ({"effort": "none", "mode": "extended_thinking"}, "fast", "none", ("mode",)),
        ({"effort": "max", "mode": "fast"}, "extended_thinking", "max", ("mode",)),
    ],
)
async def test_the_effort(
    database: Database, chosen: dict[str, Any], mode: str, effort: str, takes_effect: tuple[str, ...]
) -> None:
    turn, signal = await sent(database, **chosen)
    assert (turn.mode, turn.effort) == (signal.mode, signal.effort) == (mode, effort)
    assert signal.chosen == takes_effect


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("standard", ModelChoice("standard", "small")),
        ("large", ModelChoice("advanced", "large")),
        ("other", ModelChoice("standard", "other")),
        ("gpt-4.1", None),
        ("", None),
    ],
)
def test_what_may_be_chosen(name: str, choice: ModelChoice | None) -> None:
    assert SETTINGS.choose(name) == choice


KEPT = SETTINGS.model_copy(
    update={
        "auth": "jwt",
        "model_access": {"large": ["tier:PRO", "role:lab"], "other": ["role:lab"]},
        "tiers": {"FREE": 1.0, "PRO": 2.0},
    }
)


@pytest.mark.parametrize(
    ("tier", "roles", "of_session", "chosen", "model"),
    [
        (None, None, None, {}, "small"),
        (None, None, "large", {}, "small"),
        (None, None, None, {"tier": "advanced"}, "small"),
        (None, "cook", None, {"model": "other"}, "small"),
        ("pro", None, "large", {}, "large"),
        ("PRO", None, "large", {"model": "other"}, "large"),
        ("UNKNOWN", None, "large", {}, "small"),
        (None, "cook lab", "large", {"model": "other"}, "other"),
    ],
)
async def test_models_that_are_kept_for_others_answer_nobody_else(
    database: Database, tier: str | None, roles: str | None, of_session: str | None, chosen: dict[str, Any], model: str
) -> None:
    """Whatever brings the message: a schedule and a redelivery see no token."""
    async with database.write() as connection:
        await accounts.note_claims(connection, USER, None, tier, roles)
    found = await sent(database, of_session, KEPT, **chosen)
    assert (found.turn.model, found.signal.model) == (model, model)


def test_the_model_for_everybody_is_kept_for_nobody() -> None:
    with pytest.raises(SettingsError, match="it answers everybody"):
        load_settings(model_standard="small", model_access="small=tier:PRO")


@pytest.mark.parametrize("wrong", ["large", "large=PRO", "large=tier:", "=tier:PRO", "large=role:a b"])
def test_wrong_access(wrong: str) -> None:
    with pytest.raises(SettingsError, match="LONGHAUL_MODEL_ACCESS"):
        load_settings(model_access=wrong)


def test_access_as_text() -> None:
    read = load_settings(model_access="large=tier:pro|role:lab, other=role:Lab")
    assert read.model_access == {"large": ["tier:PRO", "role:lab"], "other": ["role:Lab"]}
    assert read.roles_of_models == {"lab", "Lab"}
