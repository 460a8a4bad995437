"""What a decision answers to a call of each kind, and what is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from api.client_tools import RESULT_MAX
from api.parked_body import Decision, answer_of
from api.problems import ProblemError
from longhaul.contracts import ParkKind
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer, ParkedRow

ALLOWED, DENIED, ANSWERED = ParkedStatus.ALLOWED, ParkedStatus.DENIED, ParkedStatus.ANSWERED


def row(kind: ParkKind, tool: str) -> ParkedRow:
    now, waiting = datetime.now(UTC), ParkedStatus.WAITING
    return ParkedRow(
        "id", "s", "u", "t", 1, "c", tool, kind, waiting, "{}", None, None, False, False, now, None, None, None
    )


APPROVAL, QUESTION = row(ParkKind.APPROVAL, "write_file"), row(ParkKind.QUESTION, "ask_user")
DELEGATION = row(ParkKind.APPROVAL, "run_sub_session")
CLIENTS = row(ParkKind.CLIENT_TOOL, "weather")
CONNECTION = row(ParkKind.CONNECT, "issues")._replace(credential="github")


@pytest.mark.parametrize(
    ("call", "said", "answer"),
    [
        (APPROVAL, {"decision": "allow"}, Answer(ALLOWED)),
        (APPROVAL, {"decision": "allow", "scope": "session"}, Answer(ALLOWED, for_session=True)),
        (APPROVAL, {"decision": "allow", "arguments": {"a": 1}}, Answer(ALLOWED, new_arguments='{"a":1}')),
        (APPROVAL, {"decision": "deny", "reason": "no"}, Answer(DENIED, "no")),
        (APPROVAL, {"decision": "deny"}, Answer(DENIED)),
        (DELEGATION, {"decision": "allow"}, Answer(ALLOWED)),
        (QUESTION, {"answer": "blue"}, Answer(ANSWERED, "blue")),
        (QUESTION, {"decision": "deny", "reason": "no"}, Answer(DENIED, "no")),
        (CLIENTS, {"output": "sunny"}, Answer(ANSWERED, "sunny")),
        (CLIENTS, {"output": {"sun": [True]}}, Answer(ANSWERED, '{"sun":[true]}')),
        (CLIENTS, {"output": None}, Answer(ANSWERED, "null")),
        (CLIENTS, {"error": "no network"}, Answer(ANSWERED, "no network", is_error=True)),
        (CLIENTS, {"decision": "deny", "reason": "no"}, Answer(DENIED, "no")),
        (CONNECTION, {"decision": "deny", "reason": "no"}, Answer(DENIED, "no")),
    ],
)
def test_an_answer(call: ParkedRow, said: dict[str, Any], answer: Answer) -> None:
    assert answer_of(call, Decision.model_validate(said)) == answer


@pytest.mark.parametrize(
    ("call", "said", "where"),
    [
        (APPROVAL, {}, "body.decision"),
        (APPROVAL, {"answer": "yes"}, "body.answer"),
        (APPROVAL, {"decision": "deny", "arguments": {}}, "body.arguments"),
        (DELEGATION, {"decision": "allow", "arguments": {}}, "body.arguments"),
        (QUESTION, {}, "body.answer"),
        (QUESTION, {"decision": "allow"}, "body.answer"),
        (QUESTION, {"answer": "blue", "output": "blue"}, "body.output"),
        (APPROVAL, {"decision": "allow", "error": "none"}, "body.output"),
        (CLIENTS, {}, "body.output"),
        (CLIENTS, {"decision": "allow"}, "body.output"),
        (CLIENTS, {"answer": "sunny"}, "body.output"),
        (CLIENTS, {"output": "sunny", "error": "none"}, "body.output"),
        (CONNECTION, {"decision": "allow"}, "body.decision"),
        (CONNECTION, {"answer": "a token"}, "body.decision"),
    ],
)
def test_no_answer(call: ParkedRow, said: dict[str, Any], where: str) -> None:
    with pytest.raises(ProblemError) as refused:
        answer_of(call, Decision.model_validate(said))
    assert refused.value.status == 422
    assert refused.value.detail.startswith(f"{where}: ")


def test_a_result_that_is_too_large() -> None:
    whole = {"output": "x" * RESULT_MAX}
    assert answer_of(CLIENTS, Decision.model_validate(whole)).text == whole["output"]
    with pytest.raises(ProblemError) as refused:
        answer_of(CLIENTS, Decision.model_validate({"output": ["x" * RESULT_MAX]}))
    assert refused.value.status == 413
