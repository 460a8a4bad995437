"""Models: what may be chosen, for a session and for a message."""

from testkit.product import Product


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
