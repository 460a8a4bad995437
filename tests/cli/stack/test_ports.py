"""Ports are stepped over when taken, by anyone, and remembered."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.stack.errors import StackError
from cli.stack.plan import choose_ports, make_plan, masked
from cli.stack.ports import PREFERRED, PortClaims, is_free
from cli.stack.progress import Progress
from cli.stack.state import StackState
from longhaul.settings import load_settings
from tests.cli.stack.conftest import Said


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[PortClaims]:
    found = PortClaims(tmp_path / "claims")
    yield found
    found.release()


def test_taken_port_is_stepped_over(listener: int, claims: PortClaims) -> None:
    assert not is_free(listener)
    port = claims.take(listener)
    assert port > listener
    assert is_free(port)


def test_port_claimed_by_another_copy_is_stepped_over(tmp_path: Path, claims: PortClaims, listener: int) -> None:
    """The other has chosen its port but does not listen yet: only the claim tells."""
    other = PortClaims(tmp_path / "claims")
    port = other.take(listener)
    assert claims.take(port) != port
    other.release()
    again = PortClaims(tmp_path / "claims")
    assert again.take(port) == port
    again.release()


def test_stepping_avoids_what_others_prefer(listener: int, claims: PortClaims) -> None:
    assert claims.take(listener, avoid=frozenset({listener, listener + 1})) > listener + 1


def test_no_port_left_says_so(claims: PortClaims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.stack.ports.is_free", lambda _port, _host: False)
    with pytest.raises(StackError, match="no free port from 8700"):
        claims.take(8700)


def test_ports_of_the_last_run_come_first(bare: Path, claims: PortClaims, progress: Progress, said: Said) -> None:
    last = StackState(ports={"redis": 16391})
    ports = choose_ports(load_settings(), ["redis"], last, claims, progress)
    assert ports["redis"] == 16391
    assert set(ports) == {"api", "redis"}


def test_a_step_is_named(
    bare: Path, claims: PortClaims, progress: Progress, said: Said, listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGHAUL_API_PORT", str(listener))
    ports = choose_ports(load_settings(), [], StackState(ports={"api": 1234}), claims, progress)
    assert f"port {listener} is taken: api uses {ports['api']}" in said


def test_plan_with_everything_elsewhere(
    bare: Path, claims: PortClaims, progress: Progress, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal.example:7233")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@redis.example/0")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@db.example/longhaul")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    plan = make_plan(load_settings(), None, claims, progress)
    assert plan.embedded == []
    assert list(plan.ports) == ["api"]
    assert plan.endpoints.temporal_address == "temporal.example:7233"
    assert "secret" not in plan.endpoints.model_dump_json()
    assert "not ours, not started" in said


def test_plan_of_the_embedded_stack(bare: Path, claims: PortClaims, progress: Progress) -> None:
    plan = make_plan(load_settings(), None, claims, progress)
    assert plan.embedded == ["temporal", "redis", "database", "model"]
    assert set(plan.ports) == set(PREFERRED)
    assert plan.endpoints.database_url == f"sqlite:///{bare / 'longhaul.db'}"
    assert plan.endpoints.model_base_url == f"http://127.0.0.1:{plan.ports['model']}/v1"


def test_masked() -> None:
    assert masked("redis://h/0") == "redis://h/0"
    assert masked("postgresql://u:p@h:5/d?x=1") == "postgresql://u:***@h:5/d?x=1"
    assert masked("") == ""
