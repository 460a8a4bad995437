"""The API keeps to its OpenAPI document: random requests, right and wrong ones, never get an undocumented answer."""

import asyncio
from collections.abc import Mapping
from typing import Any

import jwt
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from requests import RequestException
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from testkit.pool import MakeProduct
from testkit.product import Backend, Product

EXAMPLES = 25  # of each operation, for each caller
SECRET = "a secret for this test alone, of enough bytes"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
Operation = schemathesis.APIOperation[Any, Any, Any, Any]


async def undocumented(product: Product, headers: Mapping[str, str], ids: Mapping[str, str]) -> list[str]:
    """What the API answers against its document; `ids` are path parameters of things that exist."""
    url = product.url()
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{url}/openapi.json")
    operations = [operation for path in schema.values() for operation in path.values()]
    operations.sort(key=lambda operation: operation.method == "delete")  # last: it takes the session away
    problems = [await asyncio.to_thread(attack, operation, url, headers, ids) for operation in operations]
    assert len(problems) > 10
    return [problem for problem in problems if problem]


def attack(operation: Operation, url: str, headers: Mapping[str, str], ids: Mapping[str, str]) -> str | None:
    existing = {name: value for name, value in ids.items() if f"{{{name}}}" in operation.path}
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    cases = [operation.as_strategy(mode, path_parameters=some) for mode in modes for some in (existing, None)]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategies.one_of(cases))
    def requests(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=url, headers=dict(headers), checks=CHECKS, timeout=20)

    try:
        requests()
    except (FailureGroup, RequestException) as error:
        return f"{operation.method.upper()} {operation.path}\n{error}"
    return None


async def things_of(product: Product, headers: Mapping[str, str]) -> dict[str, str]:
    """A session with a turn that has ended."""
    client = product.client(headers=headers)
    session = await client.create_session()
    turn = await client.start(session, "2*3")
    await client.wait_for_turn(session, turn)
    return {"session_id": session, "turn_id": turn}


async def test_without_authentication(product: Product) -> None:
    problems = await undocumented(product, {}, await things_of(product, {}))
    assert not problems, "\n\n".join(problems)


async def test_with_authentication(make_product: MakeProduct, backend: Backend) -> None:
    product = await make_product(backend=backend, settings={"LONGHAUL_AUTH": "jwt", "LONGHAUL_JWT_SECRET": SECRET})
    token = {"authorization": f"Bearer {jwt.encode({'sub': 'ada', 'exp': 2**31}, SECRET, 'HS256')}"}
    ids = await things_of(product, token)
    problems: list[str] = []
    for headers in ({}, token):
        problems += await undocumented(product, headers, ids)
    assert not problems, "\n\n".join(problems)
