"""Search attributes: how turns are found in the Web UI."""

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from copilot.contracts import TurnInput, TurnStatus

USER = SearchAttributeKey.for_keyword("LonghaulUser")
SESSION = SearchAttributeKey.for_keyword("LonghaulSession")
STATUS = SearchAttributeKey.for_keyword("LonghaulStatus")
MODEL = SearchAttributeKey.for_keyword("LonghaulModel")


def running(request: TurnInput) -> TypedSearchAttributes:
    """The search attributes that a turn starts with."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(USER, request.user_id),
            SearchAttributePair(SESSION, request.session_id),
            SearchAttributePair(STATUS, TurnStatus.RUNNING),
            SearchAttributePair(MODEL, request.model),
        ]
    )
