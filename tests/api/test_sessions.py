"""Sessions as a resource; errors as problems; what operators ask."""

from uuid import uuid4

from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until


async def test_make_list_name_delete(make_product: MakeProduct) -> None:
    product = await make_product()
    made = [await product.api.create_session(title=f"No. {number}") for number in range(5)]
    found: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = (
            await product.api.call("GET", "/sessions", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        ).body
        found += [session["id"] for session in page["sessions"]]
        cursor = page["next_cursor"]
    assert (found, cursor) == (made[::-1], None)
    assert (await product.api.call("GET", "/sessions", params={"cursor": "x"})).status == 422
    status, named = await product.api.call("PATCH", f"/sessions/{made[0]}", json={"title": "Fürst"})
    assert (status, named["title"]) == (200, "Fürst")
    for title, ids in (("ÜRS", [made[0]]), ("o. 3", [made[3]]), ("%", []), ("no.", made[:0:-1])):
        page = (await product.api.call("GET", "/sessions", params={"title": title})).body
        assert [session["id"] for session in page["sessions"]] == ids
    for bad in ({}, {"title": ""}, {"title": "x" * 301}, {"title": 3}):
        assert (await product.api.call("PATCH", f"/sessions/{made[0]}", json=bad)).status == 422
    turn = await product.api.start(made[0], "wait 30 s")
    assert (await product.api.call("DELETE", f"/sessions/{made[0]}")).status == 204
    assert (await product.api.call("GET", f"/sessions/{made[0]}/turns/{turn}")).status == 404
    assert (await product.api.call("DELETE", f"/sessions/{made[0]}")).status == 404


async def test_an_id_of_ones_own_and_metadata(product: Product) -> None:
    api, own, key = product.api, f"mine-{uuid4().hex}", {"Idempotency-Key": str(uuid4())}
    wanted = {"id": own, "title": "First", "metadata": {"customer": own}}
    made = await api.call("POST", "/sessions", json=wanted)
    assert (made.status, made.body["id"], made.body["metadata"]) == (201, own, {"customer": own})
    again = await api.call("POST", "/sessions", json={**wanted, "title": "Second"})
    assert again == (200, made.body), "it is there already, and stays as it is"
    first, second = [await api.call("POST", "/sessions", headers=key) for _ in range(2)]
    assert (first.status, second) == (201, first), "the same request gets the same answer"
    await api.wait_for_turn(own, await api.start(own, "hello"))
    await api.until_idle(own)
    found = (await api.call("GET", "/sessions", params={"metadata": f"customer:{own}", "q": "HELLO"})).body
    assert found["data"] == found["sessions"]
    assert [(one["id"], one["running"], found["has_more"]) for one in found["data"]] == [(own, False, False)]
    assert found["data"][0]["last_message_at"] is not None
    assert (await api.call("GET", "/sessions", params={"metadata": f"customer:{own}", "running": True})).body[
        "data"
    ] == []
    status, changed = await api.call("PATCH", f"/sessions/{own}", json={"metadata": {}})
    assert (status, changed["metadata"], changed["title"]) == (200, {}, "First")
    for bad in ({"metadata": {"a b": "x"}}, {"metadata": {"a": "x" * 513}}, {"metadata": {"a": 1}}, {"id": "a b"}):
        assert (await api.call("POST", "/sessions", json=bad)).status == 422
    assert (await api.call("GET", "/sessions", params={"metadata": "no colon"})).status == 422


async def test_limits_of_a_session_are_kept(product: Product) -> None:
    wanted = {"max_cost_microdollars": 5000, "max_seconds": 60, "allow_tools": ["calculator"], "dry_run": True}
    session = await product.api.create_session(**wanted)
    found = await product.api.session(session)
    assert {name: found[name] for name in wanted} == wanted
    assert found["deny_tools"] == []
    for bad in ({"max_cost_microdollars": 0}, {"max_seconds": -1}, {"allow_tools": "all"}, {"dry_run": "perhaps"}):
        assert (await product.api.call("POST", "/sessions", json=bad)).status == 422


async def test_pages_of_messages(product: Product) -> None:
    session = await product.api.create_session()
    for text in ("hello", "What is 6 * 7?", "hello again"):
        await product.api.wait_for_turn(session, await product.api.start(session, text))
    everything = await product.api.messages(session)
    assert [row["sequence"] for row in everything] == list(range(len(everything)))
    page = await product.api.session(session, limit=2)
    assert page["has_more_messages"]
    assert [row["sequence"] for row in page["messages"]] == [row["sequence"] for row in everything[-2:]]
    assert page["oldest_sequence"] == page["messages"][0]["sequence"]
    for bad in ({"limit": 0}, {"limit": 201}, {"before_sequence": -1}, {"before_sequence": "x"}):
        assert (await product.api.call("GET", f"/sessions/{session}", params=bad)).status == 422


async def test_errors_are_problems(product: Product) -> None:
    for method, path, status in (
        ("GET", "/nothing/here", 404),
        ("PUT", "/v1/sessions", 405),
        ("GET", "/v1/sessions/none", 404),
        ("GET", "/v1/sessions/a%00b", 404),
        ("GET", "/v1/sessions/none/turns/%00", 404),
        ("GET", "/v1/sessions?parent=a%00b", 422),
        ("GET", "/v1/sessions/", 404),
        ("GET", "/v1/sessions?limit=0", 422),
    ):
        response = await product.api.http.request(method, path)
        problem = response.json()
        assert response.status_code == problem["status"] == status
        assert response.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "detail", "instance"} <= set(problem)
        assert ("errors" in problem) == (status == 422)


async def test_a_page_of_another_site_is_not_answered(product: Product) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert (await product.api.http.get("/v1/sessions", headers=headers)).status_code == 403
    assert (await product.api.http.get("/v1/sessions", headers={"Origin": "http://localhost:3000"})).status_code == 200


async def test_ready_degraded_and_not(make_product: MakeProduct) -> None:
    product = await make_product(workers=0, own_redis=True, own_temporal=True)
    ready = await product.api.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    product.servers.redis.kill()
    degraded = await product.api.http.get("/readyz")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    product.servers.temporal.pause()

    async def unready() -> bool:
        answer = await product.api.http.get("/readyz")
        return (answer.status_code, answer.json()["temporal"]) == (503, False)

    await until(unready, what="the API notices that Temporal hangs")  # an answer may be on its way when it is paused
    assert (await product.api.http.get("/healthz")).status_code == 200


async def test_metrics(product: Product) -> None:
    session = await product.api.create_session()
    await product.api.stream(session, "hello")
    told = (await product.api.http.get("/metrics")).text
    assert 'longhaul_messages_accepted_total{disposition="started"}' in told
    assert (
        'longhaul_http_request_seconds_count{method="POST",route="/v1/sessions/{session_id}/stream",status="200"}'
        in told
    )
    assert "longhaul_streams_open" in told


async def test_the_document_describes_bodies_and_problems(product: Product) -> None:
    document = (await product.api.http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert {"PostMessage", "UiMessages", "Problem", "Progress", "SessionPage"} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    post = document["paths"]["/v1/sessions/{session_id}/stream"]["post"]
    assert "examples" in post["requestBody"]["content"]["application/json"]
    assert {"200", "202", "401", "404", "422", "429", "503"} <= set(post["responses"])
    assert set(_references(document)) <= {f"#/components/schemas/{name}" for name in schemas}


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return here + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []
