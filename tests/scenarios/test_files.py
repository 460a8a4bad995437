"""A file goes from a person to the copilot's tools and back."""

import pytest

from testkit.grammar import check_stream
from testkit.product import Product
from testkit.servers import calling


@pytest.mark.backends("sqlite")
async def test_there_and_back(product: Product) -> None:
    api = product.api
    upload = (await api.http.post("/v1/files", files={"file": ("orders.csv", b"id,price\n1,20\n")})).json()
    session = await api.create_session()
    found = calling("read_file", path="uploads/orders.csv", grep="20")
    turn = await api.start(session, found, file_ids=[upload["id"]])
    await api.wait_for_turn(session, turn)
    assert [row["content"] for row in await api.messages(session) if row["role"] == "tool"] == ["2: 1,20"]
    log = check_stream(await api.stream(session, calling("share_file", path="uploads/orders.csv")))
    [shown] = [event.part for event in log.valid if event.type == "file"]
    assert shown is not None
    assert (await api.http.get(shown["url"])).content == b"id,price\n1,20\n"
    history = (await api.http.get(f"/v1/sessions/{session}/ui-messages")).json()
    files = [part for message in history for part in message["parts"] if part["type"] == "file"]
    sent = {"type": "file", "mediaType": "text/csv", "filename": "orders.csv", "url": upload["url"]}
    assert files == [sent, shown]
    assert (await api.call("DELETE", f"/sessions/{session}")).status == 204
    assert (await api.http.get(shown["url"])).status_code == 404, "what its tools have made goes with a session"
    assert (await api.http.get(upload["url"])).status_code == 200, "what a person has uploaded stays"
