"""The search attributes of our workflows, on a Temporal that somebody else runs.

Ours gets them by flags at its start.
"""

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from copilot.stack.errors import StackError
from copilot.stack.parts import SEARCH_ATTRIBUTES
from copilot.temporal import NOT_NOW

NAMES = SEARCH_ATTRIBUTES


async def register(client: Client) -> None:
    """Make sure that all of them exist in the client's namespace; calling it again changes nothing.

    Raises:
        StackError: one exists with another type, or this client may not add them.
        RPCError: Temporal cannot be reached now.
    """
    try:
        present = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        known = present.custom_attributes
        wrong = [name for name in NAMES if name in known and known[name] != keyword]
        if wrong:
            raise StackError(
                f"search attributes {', '.join(wrong)} of namespace {client.namespace!r} are not of type Keyword; "
                "remove or rename them, or set TEMPORAL_NAMESPACE to another namespace"
            )
        missing = [name for name in NAMES if name not in known]
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace, search_attributes=dict.fromkeys(missing, keyword)
                )
            )
    except RPCError as error:
        if error.status == RPCStatusCode.ALREADY_EXISTS:  # another worker was faster
            return
        if error.status in NOT_NOW:  # `temporal.reachable` gives that its name
            raise
        flags = " ".join(f"--name {name} --type Keyword" for name in NAMES)
        raise StackError(
            f"cannot register search attributes in Temporal namespace {client.namespace!r} ({error.status.name}: "
            f"{error.message}). Let somebody who may create them do it: "
            f"temporal operator search-attribute create --namespace {client.namespace} {flags}"
        ) from error


__all__ = ["NAMES", "register"]
