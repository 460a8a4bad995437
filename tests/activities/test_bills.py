"""An estimate is corrected by the endpoint's own record of the call, over HTTP, once."""

from collections.abc import AsyncIterator, Iterator, Sequence

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import select, update
from temporalio.testing import ActivityEnvironment

from activities.bills import BillActivities
from longhaul.contracts import Empty
from longhaul.db import ledger, messages
from longhaul.db.connection import Booking
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.db.models import LedgerRow, utc_now
from longhaul.errors import MODEL_RETRY
from longhaul.llm.bills import knows_bills, usage_of_record
from longhaul.llm.client import ModelClient
from longhaul.settings import Settings
from testkit.offline import offline_model
from testkit.wait import until
from tests.activities.conftest import SETTINGS, TURN
from tests.activities.model_calls import CALL, Recorder, attempt

ASKS = CALL.model_copy(update={"model": "gpt-4.1-mini"})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with offline_model() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """The server, which has forgotten the faults of other tests."""
    httpx2.delete(f"{server}/faults")
    return server


@pytest.fixture
def settings(url: str) -> Settings:
    return SETTINGS.model_copy(update={"openai_base_url": f"{url}/v1", "openai_api_key": SecretStr("anything")})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[ModelClient]:
    client = ModelClient(settings)
    yield client
    await client.close()


async def entry(database: Database) -> tuple[str, int | None, int, str | None, bool]:
    async with database.read() as connection:
        [row] = [*await connection.execute(select(*LedgerRow.__table__.columns))]
    return row.status, row.cost_microdollars, row.asked, row.generation_id, row.ask_at is not None


async def make_due(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(update(LedgerRow).where(LedgerRow.ask_at.is_not(None)).values(ask_at=utc_now()))


async def broken_call(database: Database, settings: Settings, client: ModelClient) -> None:
    async with database.write() as connection:
        said = NewMessage("said", "user", "speak 60 [fault=cut:20 times=1]", turn_id=TURN.turn_id)
        await messages.append(connection, TURN.session_id, [said])
    _, failure = await attempt(database, client, Recorder(), None, 1, 600, ASKS, settings)
    assert failure is not None
    assert failure.type == MODEL_RETRY


async def correct(database: Database, client: ModelClient) -> int:
    return (await ActivityEnvironment().run(BillActivities(database, client).correct_estimates, Empty())).rows


async def test_the_bill_replaces_the_estimate_of_a_call_that_broke_off(
    database: Database, settings: Settings, client: ModelClient, url: str
) -> None:
    await broken_call(database, settings, client)
    status, guessed, _, generation, _ = await entry(database)
    assert status == "estimated"
    assert guessed is not None
    assert generation is not None
    assert await correct(database, client) == 0, "a record takes some seconds"

    def billed() -> dict[str, int]:
        return {one["id"]: one["microdollars"] for one in httpx2.get(f"{url}/bill").json()}

    await until(lambda: generation in billed(), what="the endpoint has seen the end of the call")
    counted: list[Booking] = []

    async def count(bookings: Sequence[Booking]) -> None:
        counted.extend(bookings)

    database.count_bookings = count
    await make_due(database)
    assert await correct(database, client) == 1
    cost = billed()[generation]
    assert await entry(database) == ("booked", cost, 0, generation, False)
    assert [one.microdollars for one in counted] == [cost - guessed], "the limits of its user count the difference"
    await make_due(database)
    assert await correct(database, client) == 0


async def test_a_bill_that_never_comes_is_asked_for_a_few_times(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    await broken_call(database, settings, client)
    async with database.write() as connection:
        await connection.execute(update(LedgerRow).values(generation_id="gen-unknown"))
    _, guessed, *_ = await entry(database)
    for number in range(1, ledger.ASKS_MAX + 1):
        await make_due(database)
        assert await correct(database, client) == 0
        found = await entry(database)
        assert found == ("estimated", guessed, number, "gen-unknown", number < ledger.ASKS_MAX)


async def test_an_endpoint_that_is_away_costs_a_try(
    database: Database, settings: Settings, client: ModelClient
) -> None:
    await broken_call(database, settings, client)
    away = ModelClient(settings.model_copy(update={"openai_base_url": "http://127.0.0.1:1/v1"}))
    await make_due(database)
    assert await correct(database, away) == 0
    assert (await entry(database))[2] == 1
    await away.close()


@pytest.mark.parametrize(
    ("record", "cost"),
    [
        ({"data": {"total_cost": 0.0015, "native_tokens_prompt": 10, "native_tokens_completion": 25}}, 1500),
        ({"data": {"total_cost": 0}}, 0),
        ({"data": {"total_cost": -1}}, None),
        ({"data": {"total_cost": "much"}}, None),
        ({"data": None}, None),
        ([], None),
    ],
)
def test_records(record: object, cost: int | None) -> None:
    usage = usage_of_record(record)
    assert (usage.cost_microdollars if usage is not None else None) == cost


@pytest.mark.parametrize(
    ("url", "asked", "known"),
    [
        ("https://openrouter.ai/api/v1", None, True),
        ("https://openrouter.ai.evil.example/api/v1", None, False),
        ("https://api.openai.com/v1", None, False),
        ("https://api.openai.com/v1", True, True),
        ("https://openrouter.ai/api/v1", False, False),
    ],
)
def test_which_endpoints_are_asked(url: str, asked: bool | None, known: bool) -> None:
    assert knows_bills(SETTINGS.model_copy(update={"openai_base_url": url, "model_late_bills": asked})) is known
