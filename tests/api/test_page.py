"""How the API serves the page's files; `tests/page` looks at the page itself."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api import page
from scripts.build_page import compress


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "index-1.js").write_text("1", encoding="utf-8")
    (tmp_path / "index.html").write_text("<title>Longhaul</title>", encoding="utf-8")
    return tmp_path


def client_of(dist: Path) -> TestClient:
    app = FastAPI()
    page.install(app, dist)
    return TestClient(app)


def test_the_page_may_load_and_run_nothing_of_others(dist: Path) -> None:
    answer = client_of(dist).get("/")
    assert (answer.status_code, answer.text) == (200, "<title>Longhaul</title>")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe-eval" not in policy
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-cache", "nosniff")


def test_files_with_a_digest_in_their_name_are_kept_by_browsers(dist: Path) -> None:
    client = client_of(dist)
    assert "immutable" in client.get("/assets/index-1.js").headers["cache-control"]
    assert client.get("/assets/../index.html").status_code == 404
    assert client.get("/assets/%2e%2e/index.html").status_code == 404


def test_scripts_are_sent_compressed_to_those_who_take_that(dist: Path) -> None:
    compress(dist / "assets")
    client = client_of(dist)
    for encoding, sent in (("gzip, br", "gzip"), ("identity", None)):
        answer = client.get("/assets/index-1.js", headers={"accept-encoding": encoding})
        assert (answer.status_code, answer.text, answer.headers.get("content-encoding")) == (200, "1", sent)
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["vary"] == "accept-encoding"


def test_a_page_that_is_not_built_says_how(tmp_path: Path) -> None:
    answer = client_of(tmp_path).get("/")
    assert answer.status_code == 503
    assert "make page" in answer.text


def test_a_page_that_is_built_later_is_served(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    assert client.get("/").status_code == 503
    (tmp_path / "index.html").write_text("<title>Longhaul</title>", encoding="utf-8")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "index-1.js").write_text("1", encoding="utf-8")
    assert client.get("/").status_code == 200
    assert client.get("/assets/index-1.js").status_code == 200
