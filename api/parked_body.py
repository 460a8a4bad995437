"""The bodies that answer calls which wait for a person or a client."""

from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from api.client_tools import result_text
from api.problems import ProblemError, invalid
from longhaul.contracts import ParkKind
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer, ParkedRow
from longhaul.tools.workflow_tools import WORKFLOW_TOOLS

REASON_MAX, ANSWER_MAX = 4_000, 32_000
#: Bytes of the body: a client's result, as JSON with its escapes.
DECISION_BODY_MAX = 1024 * 1024


class Decision(BaseModel):
    """What a person says to a call that waits."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"decision": "allow"}]})

    decision: Literal["allow", "deny"] | None = Field(
        None, description="On an approval. To a question and to a client's tool: `deny` only."
    )
    reason: str = Field("", max_length=REASON_MAX, description="Why not; the model is told.")
    scope: Literal["call", "session"] = Field("call", description="`session`: allow this tool in the whole session.")
    arguments: dict[str, Any] | None = Field(None, description="Run the tool with these arguments instead.")
    answer: str | None = Field(None, min_length=1, max_length=ANSWER_MAX, description="To a question.")
    output: Any = Field(None, description="The result of a client's tool: a text, or any JSON.")
    error: str | None = Field(None, min_length=1, max_length=REASON_MAX, description="Why a client's tool failed.")


def answer_of(row: ParkedRow, decision: Decision) -> Answer:
    """The answer that a decision gives to a call.

    Raises:
        ProblemError: 422, it is no answer to a call of this kind.
    """
    if row.kind is ParkKind.CLIENT_TOOL:
        return _result_of(decision)
    if decision.error is not None or "output" in decision.model_fields_set:
        raise _refused("output", "this call waits for a person, not for a client's result")
    if row.kind is ParkKind.CONNECT:
        if decision.decision == "deny":
            return Answer(ParkedStatus.DENIED, decision.reason or None)
        raise _refused("decision", f"deny it, or give what it waits for: PUT /v1/credentials/{row.credential}")
    if row.kind is ParkKind.QUESTION:
        if decision.answer is not None:
            return Answer(ParkedStatus.ANSWERED, decision.answer)
        if decision.decision == "deny":
            return Answer(ParkedStatus.DENIED, decision.reason or None)
        raise _refused("answer", "this call is a question; answer it")
    if decision.answer is not None:
        raise _refused("answer", "this call is no question; decide it")
    if decision.decision is None:
        raise _refused("decision", "should be `allow` or `deny`")
    if decision.decision == "deny":
        if decision.arguments is not None:
            raise _refused("arguments", "a denied call has no arguments; leave them out, or allow it")
        return Answer(ParkedStatus.DENIED, decision.reason or None)
    if decision.arguments is not None and row.tool_name in WORKFLOW_TOOLS:
        raise _refused("arguments", f"those of {row.tool_name} cannot be changed; deny the call and say why")
    arguments = orjson.dumps(decision.arguments).decode() if decision.arguments is not None else None
    return Answer(ParkedStatus.ALLOWED, new_arguments=arguments, for_session=decision.scope == "session")


def _result_of(decision: Decision) -> Answer:
    gives = decision.model_fields_set & {"decision", "answer", "output", "error", "arguments"}
    if gives == {"output"}:
        return Answer(ParkedStatus.ANSWERED, result_text(decision.output))
    if gives == {"error"} and decision.error is not None:
        return Answer(ParkedStatus.ANSWERED, decision.error, is_error=True)
    if gives == {"decision"} and decision.decision == "deny":
        return Answer(ParkedStatus.DENIED, decision.reason or None)
    raise _refused("output", "this call waits for its client: send `output`, or `error`, or the decision `deny`")


def _refused(name: str, why: str) -> ProblemError:
    return invalid([{"loc": ["body", name], "msg": why, "type": "not_taken"}])
