"""The import arrows of the design, drawn from the source; what no file may name."""

import ast
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {
    *("activities", "api", "bench", "cli", "examples", "longhaul", "longhaul_client", "offline_model"),
    *("scripts", "testkit", "tests", "worker", "workflows"),
}
#: What each part may import, besides itself.
ARROWS = {
    "worker": {"workflows", "activities", "longhaul"},
    "workflows": {"activities", "longhaul"},
    "activities": {"longhaul"},
    "api": {"longhaul"},
    "cli": {"longhaul", "longhaul_client"},
    "longhaul": set(),
    "longhaul_client": set(),
    "examples": {"longhaul_client"},
    "offline_model": set(),
    "testkit": OURS - {"tests", "bench", "examples"},
    "tests": OURS - {"bench", "examples"},
    "bench": OURS - {"tests"},
    "scripts": OURS - {"tests"},
}
INSTALLED = {"worker", "workflows", "activities", "api", "cli", "longhaul", "longhaul_client", "offline_model"}
SKIPPED = {".venv", ".git", ".longhaul", ".hypothesis", "node_modules", "dist", "build", "__pycache__"}
#: Put together here, so that this file does not name them.
UNNAMED = [
    "/".join(("", "work", "")),
    "/".join(("", "root", "")),
    *(".".join(parts) for parts in (("pypi", "org"), ("files", "pythonhosted", "org"), ("registry", "npmjs", "org"))),
    *(".".join(parts) for parts in (("registry", "yarnpkg", "com"), ("proxy", "golang", "org"), ("index", "crates"))),
    ".".join(("repo", "maven", "apache", "org")),
]
BINARY = {".png", ".jpg", ".gif", ".ico", ".woff2", ".gz", ".pyc", ".db", ".pdf"}


def files(suffix: str = "") -> Iterator[Path]:
    """All files of the checkout that are ours."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.endswith("_cache")]
        yield from (Path(folder, name) for name in names if name.endswith(suffix) and name not in SKIPPED)


def part_of(path: Path) -> str:
    """The part of the product that a file belongs to."""
    relative = path.relative_to(ROOT).with_suffix("")
    dotted = ".".join(relative.parts[:2])
    return dotted if dotted in ARROWS else relative.parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module of ours that a file imports anywhere in it, with the line."""
    yield from ((line, name) for line, name in imports(path) if name.split(".")[0] in OURS)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names = [".".join(path.relative_to(ROOT).parts[: -node.level])]
            elif node.module:
                names = [node.module]
        yield from ((node.lineno, name) for name in names)  # type: ignore[attr-defined]


def wrong_arrows() -> Iterator[str]:
    for path in files(".py"):
        part = part_of(path)
        if part not in ARROWS:
            continue
        allowed = ARROWS[part] | {part, part.split(".")[0]}
        for line, module in imported(path):
            if module.split(".")[0] not in allowed:
                yield f"{path.relative_to(ROOT)}:{line} imports {module}"


def test_imports_point_one_way() -> None:
    assert list(wrong_arrows()) == []


def test_the_product_imports_only_what_it_installs() -> None:
    """An image for production has `requirements.lock`, and nothing of the `dev` extra."""
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE))
    distributions = packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files(".py")
        if part_of(path) in INSTALLED
        for line, module in imports(path)
        if (top := module.split(".")[0]) not in OURS | sys.stdlib_module_names
        and locked.isdisjoint(re.sub(r"[-_.]+", "-", name).lower() for name in distributions.get(top, ()))
    }
    assert missing == set()


def test_the_check_sees_imports() -> None:
    """A check that sees none would always pass."""
    drawn = {(part_of(path), module.split(".")[0]) for path in files(".py") for _, module in imported(path)}
    assert {
        ("activities", "longhaul"),
        ("workflows", "longhaul"),
        ("tests", "longhaul"),
        ("worker", "workflows"),
    } <= drawn


@pytest.mark.parametrize("name", UNNAMED)
def test_no_file_names_a_registry_or_a_machine(name: str) -> None:
    texts = (path for path in files() if path.suffix not in BINARY and path.stat().st_size < 3_000_000)
    found = [
        str(path.relative_to(ROOT)) for path in texts if name in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []


def test_every_tests_folder_is_a_package() -> None:
    """Else `tests/workflows` would shadow our `workflows`."""
    folders = {path.parent for path in files(".py") if path.is_relative_to(ROOT / "tests")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
