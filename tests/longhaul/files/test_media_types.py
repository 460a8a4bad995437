"""Types by content, and names that are safe."""

import io
import zipfile

import pytest

from longhaul.files.media_types import HEAD_BYTES, IMAGES, file_name, media_type

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
PAGE = b"<!doctype html><html><script>alert(1)</script></html>"


def archive(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr(name, "x")
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (PNG, "x.png", "image/png"),
        (PNG, "x.html", "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(30), "", "image/jpeg"),
        (b"GIF89a" + bytes(30), "x", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(30), "x", "image/webp"),
        (b"%PDF-1.4\n" + b"x" * 50, "x.txt", "application/pdf"),
        (b"a,b\n1,2\n", "x.csv", "text/csv"),
        (b'{"a": 1}', "x.json", "application/json"),
        (b"import os\n", "x", "text/plain"),
        ("ü日本".encode(), "x", "text/plain"),
        (b"", "x", "text/plain"),
        (b"BM is how this begins", "x.txt", "text/plain"),
        (b"\x00\x01\x02", "x.png", "application/octet-stream"),
        (PAGE, "x.png", "text/plain"),
        (
            archive("word/document.xml"),
            "x.docx",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
    ],
)
def test_a_type_is_that_of_the_content(content: bytes, name: str, expected: str) -> None:
    assert media_type(content[:HEAD_BYTES], name) == expected


@pytest.mark.parametrize(
    "content", [PAGE, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"MZ" + bytes(60)]
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.html", "a"])
def test_nothing_that_runs_is_taken_for_an_image(content: bytes, name: str) -> None:
    assert media_type(content, name) not in IMAGES


def test_a_text_whose_head_ends_inside_a_character() -> None:
    text = ("x" * (HEAD_BYTES - 1) + "ü").encode()[:HEAD_BYTES]
    assert media_type(text, "x") == "text/plain"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a b.txt", "a b.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\report.pdf", "report.pdf"),
        ("..", "file"),
        (".bashrc", "bashrc"),
        ("", "file"),
        (None, "file"),
        ("a\x00b\r\nX-Evil: 1\u202egnp.exe", "abX-Evil: 1gnp.exe"),
        ("日本.txt", "日本.txt"),
        ("\ud800x", "x"),
    ],
)
def test_names(sent: str | None, kept: str) -> None:
    assert file_name(sent) == kept


@pytest.mark.parametrize("sent", ["ü" * 300 + ".txt", "x" * 500, "x." + "y" * 500])
def test_long_names_are_cut(sent: str) -> None:
    kept = file_name(sent)
    assert 0 < len(kept.encode()) <= 200
    assert kept.endswith(".txt") == sent.endswith(".txt")
