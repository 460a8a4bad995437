"""Models: what may be chosen, for a session and for a message."""

import jwt

from testkit.client import RecordingClient
from testkit.pool import MakeProduct
from testkit.product import Product

SECRET = "a secret of at least 32 bytes, for tests"


async def test_what_is_configured(product: Product) -> None:
    """The stack's own models are offline ones: nothing is known of them."""
    status, listed = await product.api.call("GET", "/models")
    assert (status, listed["object"]) == (200, "list")
    assert {(one["id"], one["model"], one["tier"]) for one in listed["data"]} == {
        ("standard", "offline-standard", "standard"),
        ("advanced", "offline-advanced", "advanced"),
        ("offline-standard", "offline-standard", "standard"),
        ("offline-advanced", "offline-advanced", "advanced"),
    }
    assert all((one["object"], one["prices"], one["abilities"]) == ("model", None, None) for one in listed["data"])
    assert all(one["window"] > 0 for one in listed["data"])


async def test_a_session_and_a_message_choose_a_model(product: Product) -> None:
    session = await product.api.create_session(model="offline-advanced")
    first = await product.api.wait_for_turn(session, await product.api.start(session, "hello"))
    assert (first["status"], first["model"]) == ("completed", "offline-advanced")
    chosen = {"model": "standard", "effort": "high"}
    await product.api.wait_for_turn(session, await product.api.start(session, "hello", **chosen))
    turns = await product.api.turns(session)
    assert [(turn["model"], turn["tier"], turn["mode"]) for turn in turns] == [
        ("offline-standard", "standard", "extended_thinking"),
        ("offline-advanced", "advanced", "fast"),
    ]
    rows = await product.api.messages(session)
    assert [(row["role"], row["model"]) for row in rows] == [
        ("user", None),
        ("assistant", "offline-advanced"),
        ("user", None),
        ("reasoning", "offline-standard"),
        ("assistant", "offline-standard"),
    ]
    status, changed = await product.api.call("PATCH", f"/sessions/{session}", json={"model": None})
    assert (status, changed["model"]) == (200, None)


async def test_other_models_are_refused(product: Product) -> None:
    session = await product.api.create_session()
    for method, path, body in (
        ("POST", "/sessions", {}),
        ("PATCH", f"/sessions/{session}", {}),
        ("POST", f"/sessions/{session}/messages", {"message": "hello"}),
        ("POST", f"/sessions/{session}/stream", {"message": "hello"}),
        ("POST", "/chat", {"messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hello"}]}]}),
    ):
        status, problem = await product.api.call(method, path, json={**body, "model": "gpt-9"})
        assert status == 422, (path, problem)
        assert "'gpt-9' is not a model that you may choose" in problem["detail"]
    assert await product.api.messages(session) == []


async def test_models_for_some(make_product: MakeProduct) -> None:
    """By the role of the token: listed for those who may choose it, and 403 for the others."""
    settings = {
        "LONGHAUL_AUTH": "jwt",
        "LONGHAUL_JWT_SECRET": SECRET,
        "LONGHAUL_MODEL_ACCESS": "offline-advanced=role:lab",
    }
    product = await make_product(settings=settings)

    def client(**claims: object) -> RecordingClient:
        token = jwt.encode({"exp": 2**31, **claims}, SECRET, "HS256")
        return product.client(headers={"authorization": f"Bearer {token}"})

    lab, other = client(sub="ada", roles=["lab"]), client(sub="bob")
    _, listed = await lab.call("GET", "/models")
    assert {one["model"] for one in listed["data"]} == {"offline-standard", "offline-advanced"}
    _, listed = await other.call("GET", "/models")
    assert {one["model"] for one in listed["data"]} == {"offline-standard"}
    session = await other.create_session()
    for method, path, body in (
        ("POST", "/sessions", {"model": "advanced"}),
        ("PATCH", f"/sessions/{session}", {"model": "offline-advanced"}),
        ("POST", f"/sessions/{session}/messages", {"message": "hello", "tier": "advanced"}),
        ("POST", f"/sessions/{session}/stream", {"message": "hello", "model": "offline-advanced"}),
        ("POST", "/chat/completions", {"model": "advanced", "messages": [{"role": "user", "content": "hi"}]}),
    ):
        status, problem = await other.call(method, path, json=body)
        assert (status, problem["code"]) == (403, "model-not-allowed"), path
    assert await other.messages(session) == []
    own = await lab.create_session(model="advanced")
    turn = await lab.wait_for_turn(own, await lab.start(own, "hello"))
    assert (turn["status"], turn["model"]) == ("completed", "offline-advanced")
    demoted = client(sub="ada", roles=[])
    turn = await demoted.wait_for_turn(own, await demoted.start(own, "hello"))
    assert turn["model"] == "offline-standard", "the session's model is another's now"
