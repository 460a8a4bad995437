"""Files of users: what is uploaded, who may see it, and how messages come with files."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import select

from longhaul.db.models import MessageRow
from tests.api.test_security import SECRET, bearer, send_endless, serving

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
LIMITS = {"file_max_bytes": 100_000, "user_files_max_bytes": 250_000, "workspace_max_bytes": 150_000}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    settings = {**LIMITS, "workspaces": str(tmp_path / "workspaces")}
    async with serving(tmp_path, auth="jwt", jwt_secret=SECRET, **settings) as client:
        client.headers.update(bearer())
        yield client


async def upload(api: httpx2.AsyncClient, name: str, data: bytes, **headers: str) -> Any:
    return await api.post("/v1/files", files={"file": (name, data, "text/html")}, headers=headers)


async def session_of(api: httpx2.AsyncClient) -> str:
    return str((await api.post("/v1/sessions")).json()["id"])


async def files_of_messages(api: Any, session: str) -> list[Any]:
    """What the rows of a session's messages say about files. Temporal is away, so the messages wait."""
    async with api.app.state.dependencies.database.read() as connection:
        contexts = await connection.scalars(
            select(MessageRow.context).where(MessageRow.session_id == session).order_by(MessageRow.created_at)
        )
    return [(context or {}).get("files") for context in contexts]


async def test_a_file_goes_up_and_comes_down(api: httpx2.AsyncClient) -> None:
    made = await upload(api, "../ü 1.png", PNG)
    assert made.status_code == 201
    file = made.json()
    assert (file["name"], file["media_type"], file["size"]) == ("ü 1.png", "image/png", len(PNG))
    assert (await api.get(f"/v1/files/{file['id']}")).json() == file
    content = await api.get(file["url"])
    assert content.content == PNG
    assert content.headers["content-type"] == "image/png"
    assert content.headers["content-disposition"] == "inline; filename*=UTF-8''%C3%BC%201.png"
    assert content.headers["x-content-type-options"] == "nosniff"
    assert (await api.delete(f"/v1/files/{file['id']}")).status_code == 204
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert (await api.request(method, f"/v1/files/{file['id']}{path}")).status_code == 404


async def test_a_page_is_never_shown_as_one(api: httpx2.AsyncClient) -> None:
    """Its sender says that it is a page or an image, and its name says so too."""
    for name in ("x.html", "x.png", "x.svg"):
        file = (await upload(api, name, b"<html><script>alert(1)</script></html>")).json()
        content = await api.get(file["url"])
        assert content.headers["content-disposition"].startswith("attachment;")
        assert content.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_files_are_listed_newest_first(api: httpx2.AsyncClient) -> None:
    ids = [(await upload(api, f"{n}", b"x")).json()["id"] for n in range(5)]
    first = (await api.get("/v1/files", params={"limit": 3})).json()
    second = (await api.get("/v1/files", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [file["id"] for file in (*first["files"], *second["files"])] == ids[::-1]
    assert second["next_cursor"] is None
    assert (await api.get("/v1/files", params={"cursor": f"{10**19}.x"})).status_code == 422


async def test_files_of_others_are_not_there(api: httpx2.AsyncClient) -> None:
    file = (await upload(api, "x", b"secret")).json()
    bob = bearer("bob")
    missing = str(uuid4())
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        foreign = await api.request(method, f"/v1/files/{file['id']}{path}", headers=bob)
        absent = await api.request(method, f"/v1/files/{missing}{path}", headers=bob)
        assert foreign.status_code == absent.status_code == 404
        assert foreign.text.replace(file["id"], "F") == absent.text.replace(missing, "F")
    assert (await api.get("/v1/files", headers=bob)).json()["files"] == []
    assert (await api.get(file["url"])).content == b"secret"


async def test_forms_that_are_none(api: httpx2.AsyncClient) -> None:
    for options in (
        {"json": {"file": "x"}},
        {"data": {"file": "no file"}},
        {"files": {"other": ("x", b"x")}},
        {"files": [("file", ("a", b"1")), ("file", ("b", b"2"))]},
        {"content": b"--x\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    ):
        refused = await api.post("/v1/files", **options)
        assert refused.status_code == 422, options
    assert (await api.get("/v1/files")).json()["files"] == []


async def test_sizes_are_limited(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    assert (await upload(api, "x", b"x" * 100_001)).status_code == 413
    for _ in range(2):
        assert (await upload(api, "x", b"x" * 100_000)).status_code == 201
    full = await upload(api, "x", b"x" * 100_000)
    assert full.status_code == 413
    assert "Your files take 200000 bytes and this one 100000" in full.json()["detail"]
    assert (await upload(api, "x", b"x" * 100_000, **bearer("bob"))).status_code == 201, "another user's count apart"
    kept = [one.stat().st_size for one in (tmp_path / "workspaces").rglob("*") if one.is_file()]
    assert kept == [100_000] * 3, "what is refused is not kept"


async def test_an_endless_upload_is_cut_off(api: httpx2.AsyncClient) -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    status, taken, headers = await send_endless(api, "POST", "/v1/files", form)
    assert (status, taken) == (401, 0)
    status, taken, headers = await send_endless(api, "POST", "/v1/files", bearer() | form)
    assert status in (413, 422)
    assert taken < 400_000
    assert headers["connection"] == "close"


async def test_files_of_a_message_are_in_its_row_and_in_the_workspace(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    session = await session_of(api)
    ids = [(await upload(api, "a.txt", text)).json()["id"] for text in (b"one", b"two")]
    foreign = (await upload(api, "b.txt", b"bob's", **bearer("bob"))).json()["id"]
    message = {"message": "hi", "message_id": str(uuid4()), "file_ids": [ids[0], foreign, str(uuid4()), *ids]}
    for _ in range(2):  # a repeated POST is the same message, with the same files
        assert (await api.post(f"/v1/sessions/{session}/messages", json=message)).status_code == 503
    ((one, two),) = await files_of_messages(api, session)
    assert one == {"id": ids[0], "name": "a.txt", "media_type": "text/plain", "size": 3, "path": "uploads/a.txt"}
    assert two["path"] == f"uploads/a-{ids[1][:8]}.txt"
    workspace = tmp_path / "workspaces" / session
    found = {str(one.relative_to(workspace)): one.read_bytes() for one in workspace.rglob("*") if one.is_file()}
    assert found == {"uploads/a.txt": b"one", two["path"]: b"two"}


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/sessions/{}/messages"])
async def test_the_ai_sdk_sends_files_inside_of_messages(api: httpx2.AsyncClient, tmp_path: Path, path: str) -> None:
    session = await session_of(api)
    known = (await upload(api, "known.txt", b"known")).json()
    data = f"data:image/gif;base64,{base64.b64encode(PNG).decode()}"
    parts = [
        {"type": "file", "mediaType": "image/gif", "filename": "../../a.png", "url": data},
        {"type": "file", "mediaType": "text/plain", "url": "data:,some%20text"},
        {"type": "file", "url": "http://localhost" + known["url"]},
        {"type": "file", "url": f"/v1/files/{uuid4()}/content"},
    ]
    body = {"id": session, "messages": [{"id": "m1", "role": "user", "parts": parts}]}
    for _ in range(2):
        assert (await api.post(path.format(session), json=body)).status_code == 503
    (files,) = await files_of_messages(api, session)
    assert [(file["path"], file["media_type"]) for file in files] == [
        ("uploads/a.png", "image/png"),
        ("uploads/file", "text/plain"),
        ("uploads/known.txt", "text/plain"),
    ]
    assert (tmp_path / "workspaces" / session / "uploads" / "a.png").read_bytes() == PNG
    assert len((await api.get("/v1/files")).json()["files"]) == 3, "one for each content"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "data:image/png;base64,***",
        "data:image/png",
        "/v1/files/../../etc/passwd/content",
        "",
        None,
        7,
    ],
)
async def test_other_addresses_are_not_fetched(api: httpx2.AsyncClient, url: Any) -> None:
    parts = [{"type": "text", "text": "hi"}, {"type": "file", "mediaType": "image/png", "url": url}]
    refused = await api.post("/v1/chat", json={"messages": [{"id": "m", "role": "user", "parts": parts}]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["loc"] == ["body", "parts", 1, "url"]


async def test_too_many_files_in_a_message(api: httpx2.AsyncClient) -> None:
    parts = [{"type": "file", "url": "data:,x"}] * 21
    refused = await api.post("/v1/chat", json={"messages": [{"id": "m", "role": "user", "parts": parts}]})
    assert refused.status_code == 422
    assert "at most 20 files" in refused.json()["detail"]


async def test_a_full_workspace_refuses_the_message(api: httpx2.AsyncClient) -> None:
    session = await session_of(api)
    ids = [(await upload(api, f"{n}", f"{n}".encode() * 80_000)).json()["id"] for n in range(2)]
    refused = await api.post(f"/v1/sessions/{session}/messages", json={"message": "hi", "file_ids": ids})
    assert refused.status_code == 413
    assert "the workspace may hold 150000 bytes" in refused.json()["detail"]
    assert await files_of_messages(api, session) == []


async def test_a_link_for_the_folder_of_uploads_leads_nowhere(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    """A shell of the session has put it there."""
    session = await session_of(api)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "workspaces" / session).mkdir(parents=True)
    (tmp_path / "workspaces" / session / "uploads").symlink_to(outside)
    file = (await upload(api, "x", b"x")).json()["id"]
    refused = await api.post(f"/v1/sessions/{session}/messages", json={"message": "hi", "file_ids": [file]})
    assert refused.status_code == 413
    assert "leads out of the workspace" in refused.json()["detail"]
    assert list(outside.iterdir()) == []


async def test_a_page_cannot_forge_what_a_row_says_about_files(api: httpx2.AsyncClient) -> None:
    session = await session_of(api)
    forged = {"url": "https://example.com", "files": [{"id": "x", "path": "/etc/passwd"}]}
    await api.post(f"/v1/sessions/{session}/messages", content=json.dumps({"message": "hi", "context": forged}))
    assert await files_of_messages(api, session) == [None]
