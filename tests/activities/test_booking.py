"""What the ledger says of the attempts at a model call: each once, also those that broke off or were cut off."""

import asyncio

import httpx2
import openai
import pytest
from sqlalchemy import insert

from activities.costs import Costs, paid_call
from activities.model_attempt import CallState
from longhaul.contracts import Budget, CallModel, Scope, TurnStatus, Usage
from longhaul.db import ledger
from longhaul.db.database import Database
from longhaul.db.models import TurnRow, utc_now
from longhaul.errors import BUDGET_REACHED, BUDGET_RESERVED, MODEL_RETRY, TURN_ENDED
from longhaul.llm.completion import Completion
from longhaul.llm.estimate import Estimate
from longhaul.llm.models import model_info
from longhaul.llm.request import Request
from longhaul.llm.tokens import tokens_of_text
from tests.activities.conftest import SETTINGS, TURN
from tests.activities.model_calls import BROKEN, CALL, Model, Recorder, attempt, booked

BILL = {"prompt_tokens": 50, "completion_tokens": 5, "cost": 0.000123}
TEXT = "some words of an answer " * 20
TOKENS = round(tokens_of_text(TEXT))
PRICED = CALL.model_copy(update={"model": "gpt-4.1-mini"})


def limited(most: int) -> CallModel:
    return PRICED.model_copy(
        update={"scope": Scope(budgets=(Budget(session_id=TURN.session_id, max_cost_microdollars=most),))}
    )


async def start(database: Database, *turn_ids: str, status: TurnStatus = TurnStatus.RUNNING) -> None:
    row = {"session_id": TURN.session_id, "user_id": "u", "status": status, "model": "m", "started_at": utc_now()}
    async with database.write() as connection:
        for turn_id in turn_ids:
            await connection.execute(insert(TurnRow).values(turn_id=turn_id, **row))


async def entries(database: Database) -> list[tuple[int, str]]:
    return [(row.attempt, row.status) for row in await booked(database)]


async def round_usage(database: Database) -> Usage:
    async with database.read() as connection:
        return await ledger.usage_of_round(connection, TURN.session_id, TURN.turn_id, 1)


def refusal(status: int) -> openai.APIStatusError:
    request = httpx2.Request("POST", "http://model/chat/completions")
    return openai.APIStatusError("no", response=httpx2.Response(status, request=request), body=None)


async def test_an_attempt_that_broke_off_is_an_estimate_beside_the_bill(database: Database) -> None:
    stream, model = Recorder(), Model((TEXT, BROKEN), ("whole", None), usage=BILL)
    state, _ = await attempt(database, model, stream, None, 1, 600, PRICED)
    _, failure = await attempt(database, model, stream, state, 2, 600, PRICED)
    assert failure is None
    first, second = await booked(database)
    assert (first.attempt, first.status, first.completion_tokens) == (1, "estimated", TOKENS)
    assert tuple(second) == (2, "booked", 5, 123)
    assert (await round_usage(database)).cost_microdollars == first.cost_microdollars + 123
    shown = [part["data"] for part in stream.parts if part["type"] == "data-usage"]
    assert [usage["cost_microdollars"] for usage in shown] == [first.cost_microdollars + 123]


async def test_an_answer_without_usage_is_an_estimate(database: Database) -> None:
    await attempt(database, Model((TEXT, None)), Recorder(), None, 1, 600, PRICED)
    [row] = await booked(database)
    assert (row.status, row.completion_tokens) == ("estimated", TOKENS)
    assert row.cost_microdollars > 1.6 * TOKENS


@pytest.mark.parametrize("call", [PRICED, limited(10**9)])
async def test_a_refusal_costs_nothing(database: Database, call: CallModel) -> None:
    await start(database, TURN.turn_id)
    model = Model(("", refusal(429)), ("whole", None), usage=BILL)
    state, failure = await attempt(database, model, Recorder(), None, 1, 600, call)
    assert failure is not None
    assert failure.type == MODEL_RETRY
    assert await booked(database) == []
    await attempt(database, model, Recorder(), state, 2, 600, call)
    assert await entries(database) == [(2, "booked")]


@pytest.mark.parametrize("call", [PRICED, limited(10**9)])
async def test_an_attempt_whose_worker_died_is_an_estimate_of_what_it_showed(
    database: Database, call: CallModel
) -> None:
    await start(database, TURN.turn_id)
    stream = Recorder()
    stream.parts = [
        {"type": "start-step"},
        {"type": "data-progress", "data": {"round": 1, "status": "running"}},
        {"type": "text-start", "id": "1.1.0"},
        {"type": "text-delta", "id": "1.1.0", "delta": TEXT},
    ]
    if call.scope.budgets:
        refused = await Costs(database).reserve(paid_call(call, 1), call.scope, request_of(), 60)
        assert refused is None
    # The second attempt could not reach the database, the third makes the call.
    await attempt(database, Model(("whole", None), usage=BILL), stream, None, 3, 600, call)
    first, third = await booked(database)
    assert (first.attempt, first.status, first.completion_tokens) == (1, "estimated", TOKENS)
    assert tuple(third) == (3, "booked", 5, 123)


def request_of(prompt_tokens: int = 0, answer_tokens: int = 10) -> Estimate:
    body = {"model": "gpt-4.1-mini", "max_tokens": answer_tokens}
    info = model_info(SETTINGS, "gpt-4.1-mini")
    return Estimate(Request(body, prompt_tokens, shortened=False, model=info), None, "1h")


async def test_a_dead_attempt_that_showed_nothing_is_an_estimate_of_its_prompt(database: Database) -> None:
    """Its reservation is the only trace: Redis was away."""
    call = limited(10**9)
    await start(database, TURN.turn_id)
    await Costs(database).reserve(paid_call(call, 1), call.scope, request_of(1000), 60)
    await attempt(database, Model(("whole", None), usage=BILL), Recorder(), None, 2, 600, call)
    first, second = await booked(database)
    assert (first.status, first.completion_tokens) == ("estimated", 0)
    assert first.cost_microdollars == 400
    assert tuple(second) == (2, "booked", 5, 123)


async def test_the_bill_replaces_an_estimate_and_nothing_replaces_the_bill(database: Database) -> None:
    """An attempt that was taken for dead ends after the next one has booked an estimate for it."""
    paid, costs = paid_call(PRICED, 1), Costs(database)
    for usage, estimated, expected in (
        (Usage(cost_microdollars=7), True, 7),
        (Usage(cost_microdollars=8), True, 7),
        (Usage(cost_microdollars=9), False, 9),
        (Usage(cost_microdollars=10), False, 9),
        (Usage(cost_microdollars=11), True, 9),
    ):
        await costs.book(paid, Completion(usage=usage, is_estimated=estimated))
        assert [row.cost_microdollars for row in await booked(database)] == [expected]


async def test_an_answer_behind_the_end_of_its_turn_is_booked(database: Database) -> None:
    await start(database, TURN.turn_id, status=TurnStatus.CANCELLED)
    _, failure = await attempt(database, Model(("whole", None), usage=BILL), Recorder(), None, 1, 600, PRICED)
    assert failure is not None
    assert failure.type == TURN_ENDED
    assert [tuple(row) for row in await booked(database)] == [(1, "booked", 5, 123)]


async def test_an_answer_from_a_checkpoint_is_booked_for_the_attempt_that_received_it(database: Database) -> None:
    answer = Completion(text="whole", finish_reason="stop", usage=Usage(calls=1, cost_microdollars=123))
    state = CallState(completion=answer, received_by=2)
    for number in (3, 4):
        await attempt(database, Model(), Recorder(), state, number, 600, PRICED)
    assert await entries(database) == [(2, "booked")]


async def test_a_call_waits_for_what_others_have_reserved(database: Database) -> None:
    call, costs = limited(50_000), Costs(database)
    other = call.model_copy(update={"turn": TURN.model_copy(update={"turn_id": "other"})})
    await start(database, TURN.turn_id, "other")
    reserving = request_of(answer_tokens=20_000)  # 32,000 microdollars
    assert await costs.reserve(paid_call(other, 1), other.scope, reserving, 60) is None
    stream, model = Recorder(), Model(("whole", None), usage=BILL)
    state: CallState | None = None
    delays = []
    for number in (1, 2, 3):
        state, failure = await attempt(database, model, stream, state, number, 600, call)
        assert failure is not None
        assert (failure.type, failure.non_retryable) == (BUDGET_RESERVED, False)
        assert failure.next_retry_delay is not None
        delays.append(failure.next_retry_delay.total_seconds())
        progress = [part["data"] for part in stream.parts if part["type"] == "data-progress"][-1]
        assert progress["retrying_in"] == pytest.approx(delays[-1], abs=0.01)
    assert max(delays) < 5
    assert model.requests == []
    assert state is not None
    assert (state.waits, state.failures) == (3, 0)
    await costs.book(paid_call(other, 1), Completion(usage=Usage(cost_microdollars=100)))
    _, failure = await attempt(database, model, stream, state, 4, 600, call)
    assert failure is None
    assert model.requests[0]["max_tokens"] == SETTINGS.budget_answer_tokens
    assert await entries(database) == [(1, "booked"), (4, "booked")]


async def test_waiting_for_others_has_an_end(database: Database) -> None:
    call = limited(50_000)
    other = call.model_copy(update={"turn": TURN.model_copy(update={"turn_id": "other"})})
    await start(database, TURN.turn_id, "other")
    await Costs(database).reserve(paid_call(other, 1), other.scope, request_of(answer_tokens=40_000), 60)
    state = CallState(waits=9, waiting_since=utc_now().timestamp() - SETTINGS.model_max_seconds - 1)
    _, failure = await attempt(database, Model(), Recorder(), state, 9, 600, call)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (BUDGET_REACHED, True)
    assert "have reserved what is left of the budget of this session" in str(failure)


async def test_a_used_up_budget_asks_nothing(database: Database) -> None:
    call = limited(100)
    await start(database, TURN.turn_id)
    earlier = paid_call(call.model_copy(update={"round": 7}), 1)
    await Costs(database).book(earlier, Completion(usage=Usage(cost_microdollars=100)))
    model = Model(("whole", None))
    _, failure = await attempt(database, model, Recorder(), None, 1, 600, call)
    assert failure is not None
    assert (failure.type, failure.non_retryable) == (BUDGET_REACHED, True)
    assert model.requests == []


async def test_without_a_budget_nothing_is_reserved(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise AssertionError("a session without a budget pays for a reservation")

    monkeypatch.setattr(Costs, "reserve", never)
    monkeypatch.setattr(Costs, "book", never)
    model = Model(("whole", None), usage=BILL)
    assert (await attempt(database, model, Recorder(), None, 1, 600, PRICED))[1] is None
    assert not {"max_tokens", "max_completion_tokens"} & model.requests[0].keys()
    assert await entries(database) == [(1, "booked")]
