"""The docs name a test for each promise, and files and symbols for each change; all of them exist."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
PAGE = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("guarantees.md", "security.md"))
PROMISES = re.findall(r"^\| (?!promise |attack |--)(.+) \| (.+) \|$", PAGE, flags=re.MULTILINE)
CONTRIBUTING = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGES = re.findall(r"^\| (?!what |word |--)(.+) \| (.+\.py`.*) \|$", CONTRIBUTING, flags=re.MULTILINE)
NAMES = sorted(set(re.findall(r"`([\w/]*test_\w+\.py(?:::\w+)?)`", PAGE)))


def test_the_page_has_promises() -> None:
    """Else the tests below would check nothing."""
    assert len(PROMISES) > 30
    assert len(NAMES) > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_named_test_exists(name: str) -> None:
    file, _, function = name.partition("::")
    module = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    names = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function in names if function else any(one.startswith("test_") for one in names)


@pytest.mark.parametrize(("promise", "attacked_by"), PROMISES)
def test_a_promise_is_attacked(promise: str, attacked_by: str) -> None:
    """By tests, and by nothing that only looks like one."""
    if promise.startswith("Every stream keeps the AI SDK's grammar"):
        assert "`check_stream`" in attacked_by
        return
    assert all(re.fullmatch(r"`[\w/]*test_\w+\.py(::\w+)?`", one) for one in attacked_by.split(", "))


@pytest.mark.parametrize(("change", "where"), CHANGES)
def test_contributing_names_what_is_there(change: str, where: str) -> None:
    """Each symbol of a line is in one of the line's files."""
    assert len(CHANGES) > 20
    quoted = re.findall(r"`([^`]+)`", where)
    files = [name for name in quoted if name.endswith(".py")]
    text = "".join((DOCS.parent / name).read_text(encoding="utf-8") for name in files)
    symbols = [name.rpartition(".")[2] for name in quoted if re.fullmatch(r"[\w.]+", name) and name not in files]
    missing = [name for name in symbols if not name.startswith("LONGHAUL_") and not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_contributing_names_files_that_exist() -> None:
    paths = set(re.findall(r"`((?:\w+/)+\w+\.py|(?:\w+/)+)`", CONTRIBUTING))
    assert len(paths) > 30
    assert [path for path in sorted(paths) if not (DOCS.parent / path).exists()] == []
