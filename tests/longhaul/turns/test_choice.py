"""Which model answers a message: what it names itself, else its tier, else what its session has chosen."""

from typing import Any, NamedTuple, cast

import pytest
from temporalio.client import Client

from longhaul.contracts import FollowUp, TurnInput
from longhaul.db import sessions
from longhaul.db.database import Database
from longhaul.settings import load_settings
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


async def sent(database: Database, of_session: str | None = None, **chosen: Any) -> Sent:
    temporal = Temporal(started=True)
    client = cast("Client", temporal)
    async with database.write() as connection:
        await sessions.choose_model(connection, SESSION, USER, of_session)
        session = await sessions.get(connection, SESSION)
    delivery = MessageDelivery(SETTINGS, database, client, TurnLookup(database, client, 1.0))
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
