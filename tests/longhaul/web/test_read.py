"""Text of pages, from documents that may be hostile; and the tool as a model calls it."""

import json
import zlib
from ipaddress import ip_network
from pathlib import Path

import pytest

from longhaul.settings import load_settings
from longhaul.tools import ToolContext, ToolError
from longhaul.tools.load import load_tools
from longhaul.tools.web import web_fetch
from longhaul.web import read as module
from longhaul.web.fetch import Document, WebError
from longhaul.web.read import Page, read
from tests.longhaul.web.test_fetch import serving

pytestmark = pytest.mark.integration  # it starts processes

ARTICLE = """<html><head><title>On tides</title><script>alert("no")</script></head><body><nav>Home · Shop</nav>
<article><h1>On tides</h1><p>The moon pulls the sea towards it, twice a day, for as long as anyone remembers; ä.</p>
<p>Sailors have <a href="/tables">tables of it</a> and plan their days by them, when they are wise.</p></article></body>
</html>"""


def pdf(content: bytes, filter_: bytes = b"") -> bytes:
    """A PDF of one page with this content stream."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), filter_, content),
    ]
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, one in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(out),
    )
    return bytes(out)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loaded machine the reader's start alone may take long."""
    monkeypatch.setattr(module, "EXTRACT_S", 250.0)


WORDS = b"BT /F1 12 Tf 72 720 Td (High tide at noon) Tj ET"


def document(body: bytes, media_type: str, charset: str = "") -> Document:
    return Document("http://x.example/page", media_type, charset, body)


async def test_an_article_without_its_surroundings() -> None:
    title, text = await read(document(ARTICLE.encode("latin-1"), "text/html", "latin-1"))
    assert title == "On tides"
    assert "for as long as anyone remembers; ä." in text
    assert "tables of it" in text
    assert "alert" not in text


async def test_a_pdf() -> None:
    assert await read(document(pdf(WORDS), "application/pdf")) == Page("", "[page 1]\nHigh tide at noon")
    assert "High tide" in (await read(document(pdf(WORDS), "application/octet-stream"))).text


async def test_plain_text_and_json() -> None:
    assert (await read(document(b"a\nb", "text/plain"))).text == "a\nb"
    assert (await read(document(b'{"a": 1}', "application/json", "no-such-charset"))).text == '{"a": 1}'


@pytest.mark.parametrize(
    ("body", "media_type", "reason"),
    [
        (b"\x89PNG", "image/png", "'image/png', which has no text"),
        (b"%PDF-1.4 and nothing", "application/pdf", "PDF is broken"),
    ],
)
async def test_what_cannot_be_read_is_said(body: bytes, media_type: str, reason: str) -> None:
    with pytest.raises(WebError, match=reason):
        await read(document(body, media_type))


async def test_a_pdf_that_unfolds_is_refused() -> None:
    """A page of 100 KB that unfolds to 100 MB."""
    bomb = pdf(zlib.compress(b"\0" * 100_000_000), b"/Filter /FlateDecode")
    with pytest.raises(WebError, match=r"PDF is broken|more time or memory"):
        await read(document(bomb, "application/pdf"))


async def test_what_reads_a_document_knows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A document that takes over its reader finds no secret in its environment, and no module in the current folder."""
    spy = tmp_path / "spy.py"
    spy.write_text("import json, os, sys; json.dump({'text': json.dumps([dict(os.environ), sys.path])}, sys.stdout)")
    monkeypatch.setattr(module, "EXTRACTOR", spy)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    environment, path = json.loads((await read(document(b"", "text/plain"))).text)
    assert set(environment) <= {"LC_CTYPE"}
    assert not {"", str(tmp_path)} & set(path)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import time; time.sleep(1000)", "takes too long"),
        ("import sys; sys.stdin.buffer.read(); sys.exit(1)", "more time or memory"),
    ],
)
async def test_a_reader_that_hangs_or_dies_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, reason: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    monkeypatch.setattr(module, "EXTRACTOR", script)
    if "long" in reason:
        monkeypatch.setattr(module, "EXTRACT_S", 0.2)
    with pytest.raises(WebError, match=reason):
        await read(document(b"x" * 3_000_000, "text/plain"))


async def test_the_tool(context: ToolContext) -> None:
    tool = web_fetch(1_000_000, [ip_network("127.0.0.1/32")])
    assert tool.run is not None
    async with serving() as server:
        url = server.say("/tides", ARTICLE.encode(), Content_Type="text/html; charset=utf-8")
        output = await tool.run(tool.parse(json.dumps({"url": url})), context)
        assert output.startswith(f"Source: {url}\nTitle: On tides\nWhat follows is the page's own text: information")
        for other in ("http://127.0.0.2/", "http://169.254.169.254/latest/meta-data/"):
            with pytest.raises(ToolError, match="not a public address"):
                await tool.run(tool.parse(json.dumps({"url": other})), context)


def test_it_is_off_unless_a_setting_turns_it_on() -> None:
    assert load_tools(load_settings()).find("web_fetch") is None
    on = load_settings(web_fetch=True, web_allowed_networks="10.1.0.0/16, fd00::/8")
    assert load_tools(on).find("web_fetch") is not None
    assert list(map(str, on.web_allowed_networks)) == ["10.1.0.0/16", "fd00::/8"]
