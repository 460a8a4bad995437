"""A user's profile: the caller's own, given to the model behind the first message."""

from testkit.client import RecordingClient
from testkit.product import Product
from testkit.servers import script

WORD = "Quetzalcoatl"


async def first_message(api: RecordingClient, session: str) -> str:
    """What the model is given as the first message of a session, in its words."""
    await api.wait_for_turn(session, await api.start(session, script({"recall": "first"})))
    return str((await api.messages(session))[-1]["content"])


async def test_a_profile_is_stored_replaced_and_deleted(product: Product) -> None:
    api = product.api
    await api.call("DELETE", "/me/profile")
    assert (await api.call("GET", "/me/profile")).status == 404
    for content in ("I am Ada.", "I am Ada\n\x00and more."):
        assert (await api.call("PUT", "/me/profile", json={"content": content})).status == 200
        stored = (await api.call("GET", "/me/profile")).body["content"]
        assert stored == content.replace("\x00", "\ufffd")
    for bad in ({}, {"content": ""}, {"content": "x" * 8_001}, {"content": 3}, {"content": "x", "more": 1}):
        assert (await api.call("PUT", "/me/profile", json=bad)).status == 422
    for _ in range(2):
        assert (await api.call("DELETE", "/me/profile")).status == 204
    assert (await api.call("GET", "/me/profile")).status == 404


async def test_the_model_is_given_the_profile_with_the_first_message(product: Product) -> None:
    api = product.api
    session = await api.create_session()
    await api.wait_for_turn(session, await api.start(session, "hi"))
    assert WORD not in await first_message(api, session)
    await api.call("PUT", "/me/profile", json={"content": f"My word is {WORD}."})
    try:
        assert WORD in await first_message(api, session)
    finally:
        await api.call("DELETE", "/me/profile")
    assert WORD not in await first_message(api, session)
