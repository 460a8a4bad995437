"""Problems say whether the same request may succeed later; every answer has a name. No server is needed."""

import httpx2
import orjson
import pytest

from api import problems
from api.app import create_app
from longhaul.errors import (
    InboxFullError,
    LonghaulError,
    MessageIdUsedError,
    NotFoundError,
    NotRetriedError,
    TurnRunsError,
    UnavailableError,
)
from longhaul.settings import load_settings


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (InboxFullError(10, 10), "inbox-full", True),
        (TurnRunsError("t"), "turn-runs", True),
        (UnavailableError("Temporal"), "unavailable", True),
        (MessageIdUsedError("m"), "message-id-used", False),
        (NotRetriedError("t", "it is completed, not failed"), "not-retried", False),
        (NotFoundError("There is no session s."), "not-found", False),
    ],
)
def test_a_problem_says_whether_a_retry_helps(error: LonghaulError, code: str, retryable: bool) -> None:
    answer = problems.response("/v1/sessions", problems.problem_of(error))
    body = orjson.loads(answer.body)
    assert (body["code"], body["retryable"]) == (code, retryable)
    assert body["type"] == f"urn:longhaul:problem:{code}"
    assert ("retry-after" in answer.headers) == retryable
    problems.Problem.model_validate(body)


async def test_every_answer_has_a_name() -> None:
    app = create_app(load_settings(auth="off"))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
        named = await client.get("/nothing", headers={"x-request-id": "mine-1"})
        made = [(await client.get("/nothing")).headers["x-request-id"] for _ in range(2)]
        odd = await client.get("/nothing", headers={"x-request-id": "a b"})
    assert named.status_code == 404
    assert named.headers["x-request-id"] == "mine-1"
    assert len({*made, odd.headers["x-request-id"], "a b"}) == 4
