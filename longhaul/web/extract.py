"""Readable text out of a document. It runs in a process of its own, which has limits and knows nothing.

Standard input: a line of JSON (`media_type`, `charset`, `url`), then the document. Standard output: JSON (`title`,
`text`), or `error`. This file imports nothing of Longhaul and is run by its path: what it reads may be hostile, so the
process has no environment, and limits of time and memory.
"""

import contextlib
import io
import json
import resource
import sys

MEMORY_BYTES = 2_000_000_000
CPU_S = 30
TEXT_MAX_CHARS = 400_000
PAGES_MAX = 500


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    about = json.loads(sys.stdin.buffer.readline())
    body = sys.stdin.buffer.read()
    with contextlib.redirect_stdout(sys.stderr):
        found = extracted(body, about["media_type"], about["charset"], about["url"])
    json.dump({**found, "text": found.get("text", "")[:TEXT_MAX_CHARS]}, sys.stdout)


def extracted(body: bytes, media_type: str, charset: str, url: str) -> dict[str, str]:
    """Title and text, or why there is none."""
    if media_type == "application/pdf" or body.startswith(b"%PDF-"):
        return of_pdf(body)
    if media_type in ("text/html", "application/xhtml+xml", "") and b"\x00" not in body[:1000]:
        return of_html(body, charset, url)
    if media_type.startswith("text/") or media_type.endswith(("json", "xml", "yaml", "javascript")):
        return {"text": decoded(body, charset)}
    return {"error": f"It is of type {media_type[:100]!r}, which has no text to read."}


def of_html(body: bytes, charset: str, url: str) -> dict[str, str]:
    import trafilatura

    html = decoded(body, charset) if charset else body
    metadata = trafilatura.extract_metadata(html, default_url=url)
    text = trafilatura.extract(html, url=url, output_format="markdown", include_links=True, include_tables=True)
    # Pages without an article, such as lists of links.
    return {"title": (metadata.title if metadata else "") or "", "text": text or trafilatura.html2txt(html)}


def of_pdf(body: bytes) -> dict[str, str]:
    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader = pypdf.PdfReader(io.BytesIO(body))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"error": "The PDF has a password."}
        pages, length = [], 0
        for number, page in enumerate(reader.pages[:PAGES_MAX], start=1):
            pages.append(f"[page {number}]\n{page.extract_text()}")
            length += len(pages[-1])
            if length > TEXT_MAX_CHARS:
                break
        return {"title": (reader.metadata.title if reader.metadata else "") or "", "text": "\n\n".join(pages)}
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError):
        return {"error": "The PDF is broken."}


def decoded(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


if __name__ == "__main__":
    main()
